"""One training of a method: its predictions, computed once and kept."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from fedd_hf.evaluation.report import read_report, write_report

from .kept_results import is_kept
from .trial import SEGMENTATION, Method, Trial

PREDICTIONS, SETTINGS, MAPS, MODEL = "predictions.parquet", "unit.json", "maps", "model"


@dataclass(frozen=True)
class Unit:
    """What one training left in its folder: predictions, settings, and the maps of examples."""

    folder: Path

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of all photos of the trial."""
        return pd.read_parquet(self.folder / PREDICTIONS)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(read_report(self.folder / SETTINGS)["seconds"])

    def map_of(self, image_id: str) -> Path:
        """Return where the segmentation map of an example lies."""
        return self.folder / MAPS / f"{image_id}.png"


def run_unit(
    task: str, method: Method, trial: Trial, root: Path, accelerator: Accelerator, save_model: bool = False
) -> Unit:
    """Train a method and predict, unless that is done; what is kept is kept whole or not at all.

    Args:
        task (`str`):
            `"segmentation"` or `"classification"`.
        method ([`Method`]):
            What is trained.
        trial ([`Trial`]):
            Photos, label fraction and seed.
        root (`Path`):
            Folder of all units.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.
        save_model (`bool`, *optional*, defaults to `False`):
            Whether the trained model is kept too, in `model/`; a unit that is done stays as it is.

    Raises:
        ValueError: If the folder of the unit holds one of other photos or arguments.
    """
    settings = _identify(task, method, trial)
    unit = unit_of(root, method.name, trial.label_fraction, trial.seed)
    folder = unit.folder
    if not is_kept(folder / SETTINGS, settings):
        partial = folder.with_name(f".{folder.name}.partial")
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / MAPS).mkdir(parents=True)
            trial = replace(trial, model_dir=partial / MODEL if save_model else None)
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        predictions = _predict(task, method, trial, partial / MAPS)
        if accelerator.is_main_process:
            predictions.to_parquet(partial / PREDICTIONS)
            seconds = round(time.perf_counter() - start, 2)
            write_report({"settings": settings, "seconds": seconds}, partial / SETTINGS)
            partial.rename(folder)
        accelerator.wait_for_everyone()
    return unit


def unit_of(root: Path, method: str, label_fraction: float, seed: int) -> Unit:
    """Return the unit of a training, which may not be there yet."""
    return Unit(root / _slug(method) / f"{100 * label_fraction:g}-percent-seed-{seed}")


def _predict(task: str, method: Method, trial: Trial, maps_dir: Path) -> pd.DataFrame:
    return method.segment(trial, maps_dir) if task == SEGMENTATION else method.classify(trial)


def _identify(task: str, method: Method, trial: Trial) -> dict[str, Any]:
    """Return what makes a unit this unit, as JSON."""
    sets = {"train": trial.train, "validation": trial.validation, "photos": trial.photos, "examples": trial.examples}
    return {
        "task": task,
        "method": {"name": method.name} | method.describe(task, trial.label_fraction),
        "label_fraction": trial.label_fraction,
        "seed": trial.seed,
        "photos": {name: list(rows["image_id"]) for name, rows in sets.items()},
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
