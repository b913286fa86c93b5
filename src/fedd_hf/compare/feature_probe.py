"""What the features of a backbone are worth: a small pixel head, scored on photos that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset

from fedd_hf.evaluation.by_tone import photos_of, sample_of
from fedd_hf.evaluation.intervals import interval, value_of
from fedd_hf.evaluation.segmentation import segmentation_metrics
from fedd_hf.features import FeatureStore
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForSegmentation
from fedd_hf.prediction import predict_segmentation
from fedd_hf.training.arguments import ReadingArguments, SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from fedd_hf.training.run import open_accelerator


@dataclass(frozen=True)
class FeatureProbe:
    """A pixel head of always the same size, photos and seed, so that backbones can be compared.

    Args:
        labelled (`datasets.Dataset`):
            Rows with masks, on which the head is trained.
        held_out (`datasets.Dataset`):
            Rows with masks, on which it is scored; their patients must be others.
        reading ([`ReadingArguments`]):
            Blocks, timesteps and image size; the backbone is that which is probed.
        training ([`SegmentationArguments`]):
            How the head is trained.
    """

    labelled: Dataset
    held_out: Dataset
    reading: ReadingArguments
    training: SegmentationArguments = field(default_factory=lambda: SegmentationArguments(num_steps=300))

    def __call__(self, backbone: Path) -> dict[str, Any]:
        """Return `lesion_iou`, pooled over pixels, with `low` and `high` of its interval; all processes call it."""
        accelerator = open_accelerator()
        model = FEDDForSegmentation.from_backbone(str(backbone), **self.reading.given()).to(accelerator.device)
        processor = FEDDImageProcessor(size=model.config.image_size)
        with TemporaryDirectory() as folder:
            (shared,) = broadcast_object_list([folder])  # that of the first process
            store = FeatureStore(Path(shared), model, processor)
            files = store.extract(self.labelled, accelerator)
            features = StoredFeatures(files, self.labelled, processor)
            train_pixel_classifiers(model, features, self.training, accelerator)
            accelerator.wait_for_everyone()
        predictions = predict_segmentation(model, processor, self.held_out)
        metric, sample = segmentation_metrics(predictions)["lesion_iou"], sample_of(photos_of(predictions))
        low, high = interval(metric, sample)
        return {"lesion_iou": value_of(metric, sample), "low": low, "high": high}
