"""Compare blocks and timesteps of a backbone on validation photos, and write what to read by default.

Usage:
    python scripts/run_ablation.py --output-dir runs/grid
    python scripts/run_ablation.py --dataset ddi --root ddi --masks ddi-seg --output-dir runs/grid-ddi
    python scripts/run_ablation.py --dataset pad-ufes-20 --root pad --output-dir runs/grid-pad
    python scripts/run_ablation.py --task segmentation --output-dir runs/readings
    python scripts/run_ablation.py --task segmentation --dataset pad-ufes-20 --root pad --output-dir runs/readings-pad

The task `classification` is the grid of the paper, 7 blocks, 21 timesteps and 4 label fractions, tested on test photos
and chosen on validation photos; give the same folder again to resume a grid that was interrupted. The task
`segmentation` compares sets of blocks on validation photos; of painted ones, on such that no other experiment uses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf.compare.blocks_and_timesteps import (
    compare_pixel_features,
    paint_selection_photos,
    run_grid,
    tabulate_accuracies,
    tabulate_choices,
)
from fedd_hf.compare.photo_sets import LABELLED_PHOTOS, PhotoSets, load_numbered_sets, load_photo_sets
from fedd_hf.compare.run import TASKS
from fedd_hf.data.loading import DataArguments
from fedd_hf.evaluation.report import write_report
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.training.run import open_accelerator
from fedd_hf.unet_files_fedd import DEFAULTS_NAME

BLOCK_SETS = [[6, 8], [5, 8], [6, 8, 10], [6, 8, 10, 12], [5, 8, 11], [8, 10, 12], [5, 7, 9, 11, 13]]
TIMESTEPS = [0, 50, 100, 200]
IMAGE_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class AblationArguments:
    """What is compared, and where the result goes.

    Args:
        output_dir (`str`): Folder for the results; give it again to resume.
        task (`str`): `classification` or `segmentation`.
        features (`str`, *optional*): Folder of the feature stores; `features` in `output_dir` by default.
        num_steps (`int`): Training steps of each pixel head.
        labelled (`int`): Photos that pixel heads learn from, unless they are painted.
        label_fractions (`list[float]`): 0.05, 0.10, 0.15 and 0.20 of DDI: 30, 60, 90 and 120 training photos.
        num_seeds (`int`): Classifiers that are trained on each block and timestep.

    Raises:
        ValueError: If the task is unknown, or the paper has no such fraction.
    """

    output_dir: str = field(metadata={"help": "folder for the results; give it again to resume"})
    task: str = field(default="classification", metadata={"help": "classification or segmentation"})
    features: str | None = field(default=None, metadata={"help": "folder of the feature stores"})
    num_steps: int = field(default=200, metadata={"help": "training steps of each pixel head"})
    labelled: int = field(default=60, metadata={"help": "photos that pixel heads learn from, unless painted"})
    label_fractions: list[float] = field(
        default_factory=lambda: list(LABELLED_PHOTOS),
        metadata={"help": "as many training photos as these shares of DDI: 0.05, 0.10, 0.15, 0.20"},
    )
    num_seeds: int = field(default=3, metadata={"help": "classifiers on each block and timestep"})

    def __post_init__(self) -> None:
        if not set(self.label_fractions) <= set(LABELLED_PHOTOS):
            raise ValueError(f"`label_fractions` must be of {list(LABELLED_PHOTOS)}, got {self.label_fractions}.")
        if self.task not in TASKS:
            raise ValueError(f"`task` must be one of {list(TASKS)}, got {self.task!r}.")

    @property
    def folder(self) -> Path:
        """Folder for the results."""
        return Path(self.output_dir)

    @property
    def store(self) -> Path:
        """Folder of the feature stores."""
        return Path(self.features) if self.features else self.folder / "features"


def classify(
    data: DataArguments,
    reading: ReadingArguments,
    training: ClassificationArguments,
    ablation: AblationArguments,
    accelerator: Accelerator,
) -> None:
    photos = load_malignancy_photos(data, ablation.label_fractions)
    report = run_grid(photos, reading, training, ablation.num_seeds, ablation.folder, ablation.store, accelerator)
    table = tabulate_choices(report)
    if accelerator.is_main_process:
        (ablation.folder / "grid.md").write_text(f"{table}\n{tabulate_accuracies(report)}")
        best = max(report["best"], key=lambda row: row["label_fraction"])
        write_default("classification", [best["block"]], best["timestep"], report["reading"]["image_size"], ablation)
    accelerator.print(f"{table}\nTest accuracy at each block and timestep: {ablation.folder / 'grid.md'}")


def load_malignancy_photos(data: DataArguments, label_fractions: list[float]) -> PhotoSets:
    """Return as many labelled photos as the paper has at each label fraction, and those that choose and test."""
    if data.dataset == "ddi":
        return load_photo_sets(data, "classification", label_fractions)
    fractions = sorted(label_fractions)
    photos = load_numbered_sets(data, "classification", [LABELLED_PHOTOS[fraction] for fraction in fractions])
    return replace(photos, train=dict(zip(fractions, photos.train.values(), strict=True)))


def segment(
    data: DataArguments, reading: ReadingArguments, ablation: AblationArguments, accelerator: Accelerator
) -> None:
    if reading.blocks is not None:
        raise ValueError("Pixel heads are compared on fixed sets of blocks; do not give `blocks`.")
    size = reading.image_size or IMAGE_SIZE
    arguments = SegmentationArguments(num_steps=ablation.num_steps, learning_rate=5e-3, pixels_per_image=200)
    photos = load_selection_photos(data, size, ablation.labelled)
    common = (reading.backbone, BLOCK_SETS, reading.timesteps or TIMESTEPS, size, *photos, arguments)
    rows: list[dict[str, Any]] = []
    for row in compare_pixel_features(*common, ablation.store, accelerator):
        rows.append(row)
        accelerator.print(json.dumps(row))
        write_report({"segmentation": rows}, ablation.folder / "segmentation.json")
    best = max(rows, key=lambda row: row["mean_iou"])
    write_default("segmentation", best["blocks"], best["timestep"], size, ablation)


def load_selection_photos(data: DataArguments, size: int, labelled: int) -> tuple[Dataset, Dataset]:
    """Return photos that pixel heads learn from, and those by which blocks and timestep are chosen."""
    if data.dataset == "painted":
        return paint_selection_photos(size)
    photos = load_numbered_sets(data, "segmentation", [labelled])
    return next(iter(photos.train.values())), photos.validation


def write_default(task: str, blocks: list[int], timestep: int, image_size: int, ablation: AblationArguments) -> None:
    """Write what to read for a task beside what was found for the other."""
    path = ablation.folder / DEFAULTS_NAME
    defaults = json.loads(path.read_text()) if path.is_file() else {}
    defaults[task] = {"blocks": blocks, "timesteps": [min(timestep, 999)], "image_size": image_size}
    write_report(defaults, path)
    print(f"Best on validation, to be put beside the backbone: {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(
        [DataArguments, ReadingArguments, ClassificationArguments, AblationArguments],
        description=__doc__,
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        data, reading, training, ablation = parser.parse_args_into_dataclasses(arguments)
        accelerator = open_accelerator()
        ablation.folder.mkdir(parents=True, exist_ok=True)
        if ablation.task == "segmentation":
            segment(data, reading, ablation, accelerator)
        else:
            classify(data, reading, training, ablation, accelerator)
    except (OSError, ValueError) as error:
        sys.exit(f"run_ablation: {error}")


if __name__ == "__main__":
    main()
