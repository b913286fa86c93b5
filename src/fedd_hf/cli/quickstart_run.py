"""The whole sentence of the package on painted photos: train both heads, evaluate by skin tone, save."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor

from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.by_tone import classification_by_tone, segmentation_by_tone
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.features import FeatureStore, pool_labelled
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation
from fedd_hf.prediction import predict_classification, predict_segmentation
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from fedd_hf.training.malignancy_heads import train_malignancy_classifier
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures

TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2
ANSWERED = 0.8  # share of held-out photos on which a model does not abstain


@dataclass(frozen=True)
class QuickstartSize:
    """How many photos are painted of each skin tone, and how large they are in pixels."""

    train_per_tone: int = 10
    validation_per_tone: int = 10
    test_per_tone: int = 20
    photo_size: int = 256


def run_quickstart(
    output_dir: Path,
    size: QuickstartSize = QuickstartSize(),
    segmentation_arguments: SegmentationArguments = SegmentationArguments(),
    classification_arguments: ClassificationArguments = ClassificationArguments(),
) -> dict[str, Any]:
    """Train, evaluate and save both models.

    Args:
        output_dir (`Path`):
            Existing folder, which gets `photos/` and `masks/` (the held-out photos), `maps/` (what was predicted),
            `segmentation/` and `classification/` (models), `*_predictions.parquet` and `report.json`.
        size ([`QuickstartSize`]):
            Number and size of the painted photos.
        segmentation_arguments ([`SegmentationArguments`]):
            How the pixel classifiers are trained.
        classification_arguments ([`ClassificationArguments`]):
            How the malignancy classifier is trained.

    Returns:
        `dict`: the report, as it was written.
    """
    accelerator = Accelerator()
    seconds: dict[str, float] = {}
    with _timed(seconds, "painting"):
        train = paint_dataset(size.train_per_tone, TRAIN_SEED, size.photo_size)
        validation = paint_dataset(size.validation_per_tone, VALIDATION_SEED, size.photo_size)
        test = paint_dataset(size.test_per_tone, TEST_SEED, size.photo_size)
    with _timed(seconds, "segmentation"):
        segmentation = _run_segmentation(output_dir, train, test, segmentation_arguments, accelerator)
    with _timed(seconds, "classification"):
        classification = _run_classification(
            output_dir, train, validation, test, classification_arguments, accelerator
        )
    report = {
        "experiment": "quickstart",
        "data": {"name": "painted photos", **asdict(size)},
        "segmentation": segmentation | {"arguments": asdict(segmentation_arguments)},
        "classification": classification | {"arguments": asdict(classification_arguments)},
        "seconds": seconds,
        "machine": describe_machine(),
    }
    write_report(report, output_dir / "report.json")
    return read_report(output_dir / "report.json")


def _run_segmentation(
    output_dir: Path, train: Dataset, test: Dataset, arguments: SegmentationArguments, accelerator: Accelerator
) -> dict[str, Any]:
    model = FEDDForSegmentation.from_backbone("embedded")
    processor = FEDDImageProcessor(size=model.config.image_size)
    with TemporaryDirectory() as root:
        files = FeatureStore(Path(root), model, processor).extract(train, accelerator)
        features = StoredFeatures(files, train, processor)
        losses = train_pixel_classifiers(model, features, arguments, accelerator)
    _save_model(model, processor, output_dir / "segmentation")
    predictions = predict_segmentation(model, processor, test, output_dir)
    predictions.to_parquet(output_dir / "segmentation_predictions.parquet")
    rows = segmentation_by_tone(predictions).to_dict("records")
    return {"by_tone": rows, "final_loss": losses[-1], **_limit(predictions), **_reading(model)}


def _run_classification(
    output_dir: Path,
    train: Dataset,
    validation: Dataset,
    test: Dataset,
    arguments: ClassificationArguments,
    accelerator: Accelerator,
) -> dict[str, Any]:
    model = FEDDForImageClassification.from_backbone("embedded")
    processor = FEDDImageProcessor(size=model.config.image_size)
    seen, unseen = (_pool(model, processor, part, accelerator) for part in (train, validation))
    losses = train_malignancy_classifier(model, seen, unseen, arguments, accelerator)
    _save_model(model, processor, output_dir / "classification")
    predictions = predict_classification(model, processor, test, output_dir)
    predictions.to_parquet(output_dir / "classification_predictions.parquet")
    rows = classification_by_tone(predictions).to_dict("records")
    fitted = {"best_validation_loss": min(losses), "epochs": len(losses)}
    return {"by_tone": rows, **fitted, **_limit(predictions), **_reading(model)}


def _pool(
    model: FEDDForImageClassification, processor: FEDDImageProcessor, photos: Dataset, accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    with TemporaryDirectory() as root:
        store = FeatureStore(Path(root), model, processor, pooled_size=model.config.pooled_size)
        features, labels = pool_labelled(store, photos, accelerator)
    return features[:, 0], labels


def _limit(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the uncertainty that four in five held-out photos do not exceed: above it, a model abstains."""
    return {"abstain_above": float(predictions.groupby("image_id")["uncertainty"].first().quantile(ANSWERED))}


def _reading(model: FEDDForSegmentation | FEDDForImageClassification) -> dict[str, Any]:
    names = ("backbone", "backbone_sha256", "blocks", "timesteps", "image_size")
    return {name: getattr(model.config, name) for name in names}


def _save_model(
    model: FEDDForSegmentation | FEDDForImageClassification, processor: FEDDImageProcessor, folder: Path
) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)
