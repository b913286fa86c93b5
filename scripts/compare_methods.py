"""Compare FEDD with baselines on one dataset, with few labelled photos and with more.

Usage:
    python scripts/compare_methods.py --dataset pad-ufes-20 --root pad --output-dir runs/pad
    python scripts/compare_methods.py --dataset pad-ufes-20 --root pad --task classification --output-dir runs/scores
    python scripts/compare_methods.py --methods FEDD "FEDD on my-backbone" --output-dir runs/backbones
    python scripts/compare_methods.py --dataset rows --root composite --methods FEDD VGG16 --output-dir runs/composite

Type the same command again to resume a comparison that was interrupted. Leaves `report.json`, a figure and
`report.md`, and `shown.json`, the rows that these two show.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf.baselines.recipes import DEEPDERM_RECIPE, UNET_RECIPE
from fedd_hf.compare.label_efficiency import run_label_efficiency
from fedd_hf.compare.method_table import choose_shown, describe_methods
from fedd_hf.compare.methods import DEEPDERM, FEDD, METHODS, make_method
from fedd_hf.compare.photo_sets import TEST, load_numbered_sets
from fedd_hf.compare.run import MethodSettings
from fedd_hf.data.loading import DataArguments
from fedd_hf.evaluation.report import write_report
from fedd_hf.evaluation.titles import TITLES
from fedd_hf.figures.label_curves import draw_label_efficiency
from fedd_hf.figures.style import save_figure
from fedd_hf.training.arguments import ReadingArguments, SegmentationArguments
from fedd_hf.training.run import open_accelerator
from fedd_hf.unet_files_fedd import locate_backbone, read_backbone_defaults

METRICS = {"segmentation": ("lesion_iou", "lesion_dice"), "classification": ("auroc", "balanced_accuracy")}
TONES = ("all", "I-II", "III-IV")


@dataclass(frozen=True, kw_only=True)
class ComparisonArguments:
    """What is compared, and at what cost.

    Args:
        output_dir (`str`): Folder for everything; give it again to resume.
        task (`str`): `segmentation` or `classification`.
        methods (`list[str]`): The first is compared with the others. `FEDD on FOLDER` is FEDD on another backbone.
        full (`bool`): Compare all methods; how long it takes is said when each was trained once.
        labelled (`list[int]`): Numbers of labelled photos.
        num_seeds (`int`): Trainings of each method at each number.
        save_models (`bool`): Keep the trained models, each in the folder of its predictions.
        max_scored (`int`, *optional*): Photos of validation, and of the test, at most.
        weights (`str`): Of baselines: `imagenet`, or `random`, which is no comparison.
        ham10000 (`str`, *optional*): Folder of HAM10000, for DeepDerm.
        malignancy_blocks (`list[int]`, *optional*):
            Block that FEDD reads for malignancy, one for all or one for each of `labelled`; by default the backbone's
            own.
        malignancy_timesteps (`list[int]`, *optional*): Timestep at which it does, in the same way.
        num_steps (`int`): Training steps of pixel classifiers.
        metrics (`list[str]`, *optional*): Metrics that figure and tables show; `report.json` has all of them.
        unet_learning_rate (`float`): Of U-Nets; that of the authors by default.
        unet_batch_size (`int`): Photos of a step of U-Nets; that of the authors by default.
        unet_epochs (`int`): Epochs of U-Nets at most; that of the authors by default.
        unet_patience (`int`): Epochs without a better score after which U-Nets stop.
        deepderm_epochs (`int`): Epochs of DeepDerm at most, of diagnoses and of malignancy; the authors' by default.
    """

    output_dir: str = field(metadata={"help": "folder for everything; give it again to resume"})
    task: str = field(default="segmentation", metadata={"help": "segmentation or classification"})
    methods: list[str] = field(
        default_factory=lambda: [FEDD], metadata={"help": f"of {', '.join(METHODS)}, and FEDD on BACKBONE"}
    )
    full: bool = field(default=False, metadata={"help": "compare all methods"})
    labelled: list[int] = field(default_factory=lambda: [30, 60, 90, 120], metadata={"help": "labelled photos"})
    num_seeds: int = field(default=5, metadata={"help": "trainings of each method at each number"})
    save_models: bool = field(default=False, metadata={"help": "keep the trained models"})
    max_scored: int | None = field(default=None, metadata={"help": "photos of validation, and of the test, at most"})
    weights: str = field(default="imagenet", metadata={"help": "of baselines: imagenet, or random"})
    ham10000: str | None = field(default=None, metadata={"help": "folder of HAM10000, for DeepDerm"})
    malignancy_blocks: list[int] | None = field(
        default=None, metadata={"help": "block that FEDD reads for malignancy, or one for each of labelled"}
    )
    malignancy_timesteps: list[int] | None = field(
        default=None, metadata={"help": "timestep at which it does, or one for each of labelled"}
    )
    num_steps: int = field(default=SegmentationArguments.num_steps, metadata={"help": "steps of pixel classifiers"})
    metrics: list[str] | None = field(default=None, metadata={"help": "metrics to show"})
    unet_learning_rate: float = UNET_RECIPE.learning_rate
    unet_batch_size: int = UNET_RECIPE.batch_size
    unet_epochs: int = UNET_RECIPE.max_epochs
    unet_patience: int = UNET_RECIPE.patience
    deepderm_epochs: int = DEEPDERM_RECIPE.max_epochs

    def __post_init__(self) -> None:
        for name in ("malignancy_blocks", "malignancy_timesteps"):
            if len(getattr(self, name) or [0]) not in {1, len(self.labelled)}:
                raise ValueError(f"Give one of `{name}`, or one for each of `labelled`, got {getattr(self, name)}.")
        is_deepderm = self.task == "classification" and (self.full or DEEPDERM in self.methods)
        if is_deepderm and self.ham10000 is None:
            raise ValueError("DeepDerm learns HAM10000 first: give `ham10000`, its folder.")
        if unknown := sorted(set(self.metrics or []) - TITLES.keys()):
            raise ValueError(f"`metrics` must be of {sorted(TITLES)}, got {unknown}.")


def open_settings(
    comparison: ComparisonArguments, reading: ReadingArguments, fractions: list[float]
) -> MethodSettings:
    unet = replace(
        UNET_RECIPE,
        learning_rate=comparison.unet_learning_rate,
        batch_size=comparison.unet_batch_size,
        max_epochs=comparison.unet_epochs,
        patience=comparison.unet_patience,
    )
    is_classification = comparison.task == "classification"
    read = choose_malignancy_features(comparison, reading.backbone) if is_classification else [(0, 0)] * len(fractions)
    return MethodSettings(
        folder=Path(comparison.output_dir),
        accelerator=open_accelerator(),
        reading=reading,
        malignancy_readings=dict(zip(fractions, read, strict=True)),
        segmentation=SegmentationArguments(num_steps=comparison.num_steps),
        weights=comparison.weights,
        unet=unet,
        deepderm=replace(DEEPDERM_RECIPE, max_epochs=comparison.deepderm_epochs),
        ham10000=comparison.ham10000,
    )


def choose_malignancy_features(comparison: ComparisonArguments, backbone: str) -> list[tuple[int, int]]:
    """Return block and timestep at each number of labelled photos, from few to many."""
    defaults = read_backbone_defaults(locate_backbone(backbone), "classification")
    blocks = comparison.malignancy_blocks or defaults.get("blocks")
    timesteps = comparison.malignancy_timesteps or defaults.get("timesteps")
    if blocks is None or timesteps is None:
        raise ValueError(
            f"Nothing says which block of {backbone!r} to read at which timestep. Give `malignancy_blocks` and "
            "`malignancy_timesteps`."
        )
    number = len(comparison.labelled)
    each_block, each_timestep = (given * number if len(given) == 1 else given for given in (blocks, timesteps))
    readings = sorted(zip(comparison.labelled, each_block, each_timestep, strict=True))
    return [(block, timestep) for _, block, timestep in readings]


def compare(comparison: ComparisonArguments, data: DataArguments, reading: ReadingArguments) -> None:
    folder = Path(comparison.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    photos = load_numbered_sets(data, comparison.task, comparison.labelled, comparison.max_scored)
    settings = open_settings(comparison, reading, list(photos.train))
    methods = [make_method(name, settings) for name in (METHODS if comparison.full else comparison.methods)]
    if comparison.full:
        methods = [method for method in methods if comparison.task in method.tasks]
    report = run_label_efficiency(
        comparison.task,
        methods,
        photos,
        folder,
        settings.accelerator,
        num_seeds=comparison.num_seeds,
        save_models=comparison.save_models,
    )
    if settings.accelerator.is_main_process:
        show(report, comparison.metrics or METRICS[comparison.task], folder)


def show(report: dict[str, Any], metrics: Sequence[str], folder: Path) -> None:
    """Draw curves with intervals, write the tables beside them, and what both show."""
    shown = choose_shown(report, TEST, metrics, TONES)
    save_figure(draw_label_efficiency(shown["curves"], TEST, metrics, shown["shown"]["tones"]), folder / "curves")
    (folder / "report.md").write_text(describe_methods(shown))
    write_report(shown, folder / "shown.json")
    print(f"Open {folder / 'curves.png'} and {folder / 'report.md'}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser([ComparisonArguments, DataArguments, ReadingArguments], description=__doc__)
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        compare(*parser.parse_args_into_dataclasses(arguments))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"compare_methods: {error}")


if __name__ == "__main__":
    main()
