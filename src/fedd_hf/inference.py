"""Predictions of a model: maps and scores of photos, and one table row per labelled image and class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from fedd_hf.data.schema import tone_labels
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation


@dataclass(frozen=True)
class SegmentedPhoto:
    """What the segmentation model says of one photo.

    Args:
        segmentation_map (`np.ndarray` of shape `(height, width)`, uint8):
            Class id of each pixel, at the photo's own size.
        uncertainty (`float`):
            Mean Jensen-Shannon divergence in nats over the most uncertain tenth of the pixels.
    """

    segmentation_map: np.ndarray
    uncertainty: float


@torch.inference_mode()
def segment_photos(
    model: FEDDForSegmentation, processor: FEDDImageProcessor, photos: list[Image.Image]
) -> list[SegmentedPhoto]:
    """Segment photos of any size in one batch; each map is of the size of the upright photo."""
    outputs = model.eval()(**_inputs(model, processor, photos), output_uncertainty=True)
    sizes = [processor.process_image(photo).shape[1:] for photo in photos]
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    return [
        SegmentedPhoto(segmentation_map.to(torch.uint8).numpy(), _image_uncertainty(uncertainty))
        for segmentation_map, uncertainty in zip(maps, outputs.uncertainty, strict=True)
    ]


@torch.inference_mode()
def score_photos(
    model: FEDDForImageClassification, processor: FEDDImageProcessor, photos: list[Image.Image]
) -> list[float]:
    """Return the malignancy score of each photo, in [0, 1]."""
    logits = model.eval()(**_inputs(model, processor, photos)).logits
    return logits.float().softmax(dim=-1)[:, 1].tolist()


def predict_segmentation(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    dataset: Dataset,
    maps_dir: Path | None = None,
    batch_size: int = 2,
) -> pd.DataFrame:
    """Segment a labelled dataset and count pixels.

    Args:
        model ([`FEDDForSegmentation`]):
            The model.
        processor ([`FEDDImageProcessor`]):
            Its image processor.
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        maps_dir (`Path`, *optional*):
            Folder to write each map to, as PNG of class ids.
        batch_size (`int`, *optional*, defaults to 2):
            Photos per forward pass; the pixel classifiers need about 300 MB for each at 128 px, four times as much
            at 256 px.

    Returns:
        `pd.DataFrame`: one row per image and class: `image_id`, `skin_tone`, `label`, the pixel counts `tp`, `fp`,
        `fn`, `tn` at the mask's own size, and `uncertainty`.
    """
    rows: list[dict[str, Any]] = []
    for batch in _batches(dataset, batch_size, "Segmenting"):
        segmented = segment_photos(model, processor, [row["image"] for row in batch])
        for row, photo in zip(batch, segmented, strict=True):
            if maps_dir is not None:
                Image.fromarray(photo.segmentation_map).save(maps_dir / f"{row['image_id']}.png")
            try:
                counts = count_pixels(np.asarray(row["mask"]), photo.segmentation_map, model.config.num_labels)
            except ValueError as error:
                raise ValueError(f"Photo {row['image_id']!r}: {error}") from error
            rows += [
                {"image_id": row["image_id"], "label": label, **counts[index], "uncertainty": photo.uncertainty}
                for index, label in model.config.id2label.items()
            ]
    return _with_tones(pd.DataFrame(rows), dataset)


def predict_classification(
    model: FEDDForImageClassification, processor: FEDDImageProcessor, dataset: Dataset, batch_size: int = 8
) -> pd.DataFrame:
    """Score a labelled dataset.

    Returns:
        `pd.DataFrame`: one row per image: `image_id`, `skin_tone`, `y_true` (1 malignant), `y_score` in [0, 1].
    """
    rows: list[dict[str, Any]] = []
    for batch in _batches(dataset, batch_size, "Scoring"):
        scores = score_photos(model, processor, [row["image"] for row in batch])
        rows += [
            {"image_id": row["image_id"], "y_true": int(row["malignant"]), "y_score": score}
            for row, score in zip(batch, scores, strict=True)
        ]
    return _with_tones(pd.DataFrame(rows), dataset)


def count_pixels(mask: np.ndarray, segmentation_map: np.ndarray, num_labels: int) -> list[dict[str, int]]:
    """Count true and false positives and negatives of each class; pixels of 255 in `mask` do not count.

    Raises:
        ValueError: If map and mask are not of one size, or the mask holds a class that the model does not know.
    """
    if mask.shape != segmentation_map.shape:
        raise ValueError(f"Mask and photo must be of one size, got {mask.shape} and {segmentation_map.shape}.")
    counted = mask != 255
    foreign = np.unique(mask[counted & (mask >= num_labels)])
    if foreign.size:
        raise ValueError(f"A mask may hold the class ids 0..{num_labels - 1} and 255, found also {foreign.tolist()}.")
    pairs = mask[counted].astype(np.int64) * num_labels + segmentation_map[counted]
    confusion = np.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels)
    tp, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {"tp": int(t), "fp": int(p - t), "fn": int(n - t), "tn": int(confusion.sum() - p - n + t)}
        for t, n, p in zip(tp, true, predicted, strict=True)
    ]


def _inputs(model: Any, processor: FEDDImageProcessor, photos: list[Image.Image]) -> dict[str, Tensor]:
    return processor(images=photos, return_tensors="pt").to(model.device)


def _image_uncertainty(uncertainty: Tensor) -> float:
    """Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`."""
    pixels = uncertainty.flatten()
    return pixels.topk(max(1, len(pixels) // 10)).values.mean().item()


def _batches(dataset: Dataset, batch_size: int, description: str) -> Iterator[list[dict[str, Any]]]:
    for start in tqdm(range(0, len(dataset), batch_size), desc=description, unit="batch", leave=False):
        yield [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]


def _with_tones(predictions: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    tones = dict(zip(dataset["image_id"], tone_labels(dataset), strict=True))
    predictions.insert(1, "skin_tone", predictions["image_id"].map(tones))
    return predictions
