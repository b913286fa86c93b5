"""Predictions of a model: maps and scores of photos, and one table row per labelled image and class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers.modeling_outputs import SemanticSegmenterOutput

from fedd_hf.data.schema import tone_labels
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation, default_batch_size


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


def segment_photos(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> list[SegmentedPhoto]:
    """Segment photos of any number and size; each map is of the size of the upright photo.

    Args:
        model ([`FEDDForSegmentation`]):
            The model.
        processor ([`FEDDImageProcessor`]):
            Its image processor.
        photos (`Iterable[PIL.Image.Image]`):
            The photos.
        batch_size (`int`, *optional*):
            Photos per forward pass; by default as many as have 131,072 pixels at the model's image size.
    """
    return list(stream_segmentations(model, processor, photos, batch_size))


def score_photos(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> list[float]:
    """Return the malignancy score of each photo, in [0, 1]. Arguments are those of [`segment_photos`]."""
    return list(stream_scores(model, processor, photos, batch_size))


def stream_segmentations(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> Iterator[SegmentedPhoto]:
    """Segment photos as [`segment_photos`] does, but read them batch by batch and keep no photo and no map."""
    for outputs, sizes in _stream_outputs(model, processor, photos, batch_size, output_uncertainty=True):
        for logits, uncertainty, size in zip(outputs.logits, outputs.uncertainty, sizes, strict=True):
            output = SemanticSegmenterOutput(logits=logits[None])
            (segmentation_map,) = processor.post_process_semantic_segmentation(output, target_sizes=[size])
            yield SegmentedPhoto(segmentation_map.to(torch.uint8).numpy(), _image_uncertainty(uncertainty))


def stream_scores(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> Iterator[float]:
    """Score photos as [`score_photos`] does, but read them batch by batch and keep none."""
    for outputs, _ in _stream_outputs(model, processor, photos, batch_size):
        yield from outputs.logits.float().softmax(dim=-1)[:, 1].tolist()


def predict_segmentation(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    dataset: Dataset,
    maps_dir: Path | None = None,
    batch_size: int | None = None,
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
        batch_size (`int`, *optional*):
            Photos per forward pass, as in [`segment_photos`]. Memory depends on it, and not on the number of photos.

    Returns:
        `pd.DataFrame`: one row per image and class: `image_id`, `skin_tone`, `label`, the pixel counts `tp`, `fp`,
        `fn`, `tn` at the mask's own size, and `uncertainty`.
    """
    rows: list[dict[str, Any]] = []
    segmented = stream_segmentations(model, processor, _photos(dataset), batch_size)
    truths = dataset.select_columns(["image_id", "mask"])
    for photo, truth in zip(_counted(segmented, dataset, "Segmenting"), truths, strict=True):
        if maps_dir is not None:
            Image.fromarray(photo.segmentation_map).save(maps_dir / f"{truth['image_id']}.png")
        try:
            counts = count_pixels(np.asarray(truth["mask"]), photo.segmentation_map, model.config.num_labels)
        except ValueError as error:
            raise ValueError(f"Photo {truth['image_id']!r}: {error}") from error
        rows += [
            {"image_id": truth["image_id"], "label": label, **counts[index], "uncertainty": photo.uncertainty}
            for index, label in model.config.id2label.items()
        ]
    return _with_tones(pd.DataFrame(rows), dataset)


def predict_classification(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    dataset: Dataset,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Score a labelled dataset. Arguments are those of [`predict_segmentation`].

    Returns:
        `pd.DataFrame`: one row per image: `image_id`, `skin_tone`, `y_true` (1 malignant), `y_score` in [0, 1].
    """
    scores = stream_scores(model, processor, _photos(dataset), batch_size)
    truths = dataset.select_columns(["image_id", "malignant"])
    rows = [
        {"image_id": truth["image_id"], "y_true": int(truth["malignant"]), "y_score": score}
        for score, truth in zip(_counted(scores, dataset, "Scoring"), truths, strict=True)
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


def _stream_outputs(
    model: Any,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None,
    **options: bool,
) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """Yield the outputs of each batch, with (height, width) of its upright photos; photos themselves are let go."""
    prepared = (_prepare(processor, photo) for photo in photos)
    while batch := list(islice(prepared, batch_size or default_batch_size(model.config.image_size))):
        pixel_values = torch.cat([values for values, _ in batch]).to(model.device)
        with torch.inference_mode():
            outputs = model.eval()(pixel_values, **options)
        yield outputs, [size for _, size in batch]


def _prepare(processor: FEDDImageProcessor, photo: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    _, height, width = processor.process_image(photo).shape
    return processor(images=photo, return_tensors="pt")["pixel_values"], (height, width)


def _photos(dataset: Dataset) -> Iterator[Image.Image]:
    return (row["image"] for row in dataset.select_columns(["image"]))


def _image_uncertainty(uncertainty: Tensor) -> float:
    """Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`."""
    pixels = uncertainty.flatten()
    return pixels.topk(max(1, len(pixels) // 10)).values.mean().item()


def _counted(predictions: Iterator[Any], dataset: Dataset, description: str) -> Iterator[Any]:
    """Show progress in photos."""
    return iter(tqdm(predictions, desc=description, total=len(dataset), unit="photo", leave=False))


def _with_tones(predictions: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    tones = dict(zip(dataset["image_id"], tone_labels(dataset), strict=True))
    predictions.insert(1, "skin_tone", predictions["image_id"].map(tones))
    return predictions
