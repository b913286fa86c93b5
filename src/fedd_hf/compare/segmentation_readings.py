"""Which sets of blocks, at which timestep, pixel classifiers are to read: compared on validation photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.segmentation import COUNTS, iou
from fedd_hf.features import FeatureStore
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForSegmentation, count_votes
from fedd_hf.prediction import count_pixels
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import PixelDraws, StoredFeatures

PIXELS_PER_IMAGE = 1500
SEEDS = (0, 1)


def compare_segmentation_readings(
    backbone: str,
    readings: list[list[int]],
    timesteps: list[int],
    image_size: int,
    train: Dataset,
    validation: Dataset,
    arguments: SegmentationArguments,
    features: Path,
    accelerator: Accelerator,
) -> Iterator[dict[str, Any]]:
    """Train pixel classifiers on each set of blocks at each timestep and score them on validation photos.

    Yields:
        `dict`: `blocks`, `timestep`, `mean_iou` and `lesion_iou`, pooled over 1,500 random pixels of each photo,
        averaged over two seeds of the heads.
    """
    processor = FEDDImageProcessor(size=image_size)
    all_blocks = sorted({block for blocks in readings for block in blocks})
    for timestep in tqdm(timesteps, desc="Segmentation", unit="timestep"):
        reading: dict[str, Any] = {"timesteps": [timestep], "image_size": image_size}
        model = FEDDForSegmentation.from_backbone(backbone, blocks=all_blocks, **reading)
        store = FeatureStore(features, model, processor, dtype="float32")
        sets = [StoredFeatures(store.extract(rows, accelerator), rows, processor) for rows in (train, validation)]
        for blocks in readings:
            model = FEDDForSegmentation.from_backbone(backbone, blocks=blocks, **reading)
            indices = [all_blocks.index(block) for block in blocks]
            seen, unseen = (labelled.select_maps(indices) for labelled in sets)
            scores = []
            for seed in SEEDS:
                train_pixel_classifiers(model, seen, replace(arguments, seed=seed), accelerator)
                scores.append(_iou_of_sampled_pixels(model, unseen))
            mean_iou, lesion_iou = np.mean([(np.nanmean(score), score[1]) for score in scores], axis=0)
            yield {"blocks": blocks, "timestep": timestep, "mean_iou": mean_iou, "lesion_iou": lesion_iou}


def paint_selection_photos(size: int) -> tuple[Dataset, Dataset]:
    """Paint the photos on which readings are compared: seeds that no other experiment uses."""
    return paint_dataset(10, seed=100, size=size), paint_dataset(20, seed=101, size=size)


@torch.no_grad()
def _iou_of_sampled_pixels(model: FEDDForSegmentation, features: StoredFeatures) -> np.ndarray:
    """Return the IoU of each class over random pixels of every photo; NaN for a class that no photo has."""
    draws = PixelDraws(features, len(features), PIXELS_PER_IMAGE, seed=0)
    totals = np.zeros((model.config.num_labels, len(COUNTS)), dtype=np.int64)
    for batch in DataLoader(draws, batch_size=10):
        maps = batch["features"].transpose(1, 2)[:, :, None].to(model.device)  # (batch_size, channels, 1, num_pixels)
        labels = batch["labels"][:, None]
        member_logits = model.decode_head(maps.split(model.config.feature_channels, dim=1), labels.shape[-2:])
        choices = count_votes(member_logits).argmax(dim=1)
        counts = count_pixels(labels.numpy(), choices.cpu().numpy(), model.config.num_labels)
        totals += np.array([[of_class[name] for name in COUNTS] for of_class in counts])
    true_pixels = totals[:, COUNTS.index("tp")] + totals[:, COUNTS.index("fn")]
    return np.where(true_pixels > 0, iou(totals), np.nan)
