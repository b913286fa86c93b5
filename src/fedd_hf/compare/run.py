"""A run: a method learns from labelled photos, then segments or scores others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image

from fedd_hf.baselines.recipes import CLASSIFIER_RECIPE, DEEPDERM_RECIPE, UNET_RECIPE, FittingArguments
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.prediction import (
    PhotoFeatures,
    predict_classification,
    predict_segmentation,
    stream_segmentations,
)
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.unet_files_fedd import describe_model, locate_backbone

from .results_cache import cache_folder

SEGMENTATION, CLASSIFICATION = TASKS = ("segmentation", "classification")
PREDICTIONS, MAPS, MODEL = "predictions.parquet", "maps", "model"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a method, and the photos that it predicts.

    Args:
        task (`str`):
            `"segmentation"` or `"classification"`.
        train (`datasets.Dataset`):
            Labelled photos to learn from: rows of [`~fedd_hf.data.schema.FEATURES`].
        validation (`datasets.Dataset`):
            Labelled photos that a method may use for its choices, such as when to stop.
        photos (`datasets.Dataset`):
            All photos to predict, those of validation and of every test, each once.
        examples (`datasets.Dataset`):
            Some of them, whose segmentation maps are stored; it may be empty.
        label_fraction (`float`):
            Share of the data that is labelled, by which the paper chooses blocks and timesteps.
        seed (`int`):
            Seed of all that is random.
    """

    task: str
    train: Dataset
    validation: Dataset
    photos: Dataset
    examples: Dataset
    label_fraction: float
    seed: int

    def describe(self) -> dict[str, Any]:
        """Return, as JSON, all that predictions depend on besides the method."""
        sets = {name: getattr(self, name) for name in ("train", "validation", "photos", "examples")}
        photos = {name: list(rows["image_id"]) for name, rows in sets.items()}
        return {"task": self.task, "label_fraction": self.label_fraction, "seed": self.seed, "photos": photos}


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Settings that all methods of a comparison share.

    Args:
        folder (`Path`):
            Existing folder for what methods compute once, such as features.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes.
        reading ([`ReadingArguments`]):
            Backbone, and the blocks and timesteps that pixel classifiers read; by default the backbone's own.
        malignancy_readings (`dict[float, tuple[int, int]]`, *optional*):
            Block and timestep of the malignancy classifier by label fraction; by default those of the paper.
        segmentation ([`SegmentationArguments`]):
            How pixel classifiers are trained; a run brings the seed.
        classification ([`ClassificationArguments`]):
            How malignancy classifiers are trained; a run brings the seed.
        weights (`str`):
            Of baselines: `"imagenet"`, or `"random"`, which is no comparison.
        unet ([`FittingArguments`]):
            How U-Nets are trained; a run brings the seed.
        classifier ([`FittingArguments`]):
            How classifiers on frozen CNNs are trained; a run brings the seed.
        deepderm ([`FittingArguments`]):
            How DeepDerm is trained, twice; a run brings the seed.
        ham10000 (`str`, *optional*):
            Folder of HAM10000, from which DeepDerm learns first.
    """

    folder: Path
    accelerator: Accelerator
    reading: ReadingArguments = field(default_factory=ReadingArguments)
    malignancy_readings: dict[float, tuple[int, int]] | None = None
    segmentation: SegmentationArguments = field(default_factory=SegmentationArguments)
    classification: ClassificationArguments = field(default_factory=ClassificationArguments)
    weights: str = "imagenet"
    unet: FittingArguments = UNET_RECIPE
    classifier: FittingArguments = CLASSIFIER_RECIPE
    deepderm: FittingArguments = DEEPDERM_RECIPE
    ham10000: str | None = None

    @cached_property
    def image_size(self) -> int:
        """Side in pixels of the square that all methods see: what was given, else the backbone's own."""
        return describe_backbone(self.reading, "segmentation").image_size

    @property
    def processor(self) -> FEDDImageProcessor:
        """Image processor of all methods."""
        return FEDDImageProcessor(size=self.image_size)


def describe_backbone(reading: ReadingArguments, task: str) -> FEDDConfig:
    """Describe a backbone at the image size of a task; its blocks and timesteps are still to be chosen.

    Raises:
        FileNotFoundError: If the backbone is not there.
        ValueError: If it cannot be read at this image size.
    """
    size = {} if reading.image_size is None else {"image_size": reading.image_size}
    return describe_model(locate_backbone(reading.backbone), task, blocks=[0], timesteps=[0], **size)


class Method(Protocol):
    """A method that can be compared: it is trained, and its model predicts."""

    name: str
    tasks: tuple[str, ...]
    """Tasks that the method can be run on."""

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return, as JSON, all that predictions depend on besides the run: backbone, blocks, arguments."""

    def train(self, run: Run) -> tuple[Any, FEDDImageProcessor]:
        """Train a model on the photos of a run; return it, a `PhotoModel`, with its image processor."""

    def read_features(self, run: Run, photos: Dataset) -> Iterable[PhotoFeatures] | None:
        """Return stored features of photos, from which the model predicts; `None` if it reads the photos."""


def predict_run(method: Method, run: Run, root: Path, accelerator: Accelerator, save_model: bool = False) -> Path:
    """Train a method and predict, unless that is done.

    Args:
        method ([`Method`]):
            What is trained.
        run ([`Run`]):
            Task, photos, label fraction and seed.
        root (`Path`):
            Folder of all runs.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.
        save_model (`bool`, *optional*, defaults to `False`):
            Whether the trained model is stored too, in `model/`; a run that is done stays as it is.

    Returns:
        `Path`: the run folder, with `predictions.parquet` and of each example `maps/<image_id>.png`.
    """
    name = f"{method.name}-{100 * run.label_fraction:g}-percent-seed-{run.seed}"
    told = {"method": {"name": method.name} | method.describe(run.task, run.label_fraction)} | run.describe()
    fill = partial(_train_and_predict, method, run, save_model, accelerator.is_main_process)
    return cache_folder(root, name, told, fill, accelerator)


def read_predictions(folder: Path) -> pd.DataFrame:
    """Return the predictions of all photos of a run."""
    return pd.read_parquet(folder / PREDICTIONS)


def _train_and_predict(method: Method, run: Run, save_model: bool, is_main_process: bool, folder: Path) -> None:
    model, processor = method.train(run)
    if save_model and is_main_process:
        _save(model, folder / MODEL)
        _save(processor, folder / MODEL)
    if run.task == CLASSIFICATION:
        features = method.read_features(run, run.photos)
        predictions = predict_classification(model, processor, run.photos, features=features)
    else:
        (folder / MAPS).mkdir(exist_ok=True)
        features = method.read_features(run, run.examples)
        pictures = (row["image"] for row in run.examples)
        segmented = stream_segmentations(model, processor, pictures, features=features)
        for name, example in zip(run.examples["image_id"], segmented, strict=True):
            Image.fromarray(example.segmentation_map).save(folder / MAPS / f"{name}.png")
        features = method.read_features(run, run.photos)
        predictions = predict_segmentation(model, processor, run.photos, features=features)
    if is_main_process:
        predictions.to_parquet(folder / PREDICTIONS)


def _save(saved: Any, folder: Path) -> None:
    saved.save_pretrained(folder)
