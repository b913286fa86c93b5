"""What methods are asked to do: learn from labelled photos, then segment or score others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from datasets import Dataset

SEGMENTATION, CLASSIFICATION = TASKS = ("segmentation", "classification")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a method, and the photos on which it is tried.

    Args:
        train (`datasets.Dataset`):
            Labelled photos to learn from: rows of [`~fedd_hf.data.schema.FEATURES`].
        validation (`datasets.Dataset`):
            Labelled photos that a method may use for its choices, such as when to stop.
        photos (`datasets.Dataset`):
            All photos to predict, those of validation and of every test, each once.
        examples (`datasets.Dataset`):
            Some of them, whose segmentation maps are kept; it may be empty.
        label_fraction (`float`):
            Share of the data that is labelled, by which the paper chooses what to read.
        seed (`int`):
            Seed of all that is random.
        model_dir (`Path`, *optional*):
            Where the trained model is kept; by default it is not.
    """

    train: Dataset
    validation: Dataset
    photos: Dataset
    examples: Dataset
    label_fraction: float
    seed: int
    model_dir: Path | None = None

    def keep(self, model: Any, processor: Any) -> None:
        """Write a trained model and its image processor, if they are to be kept."""
        if self.model_dir is not None:
            model.save_pretrained(self.model_dir)
            processor.save_pretrained(self.model_dir)


class Method(Protocol):
    """A method that experiments can compare. It sees photos and returns tables; how it works is its own affair."""

    name: str
    tasks: tuple[str, ...]
    """What it can be asked to do."""

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return, as JSON, all that predictions depend on besides the trial: backbone, blocks, arguments."""

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Train, segment `trial.photos`, and write the map of each example to `maps_dir/<image_id>.png`.

        Returns:
            `pd.DataFrame`: as [`~fedd_hf.prediction.predict_segmentation`] returns it.
        """

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Train and score `trial.photos`.

        Returns:
            `pd.DataFrame`: as [`~fedd_hf.prediction.predict_classification`] returns it.
        """
