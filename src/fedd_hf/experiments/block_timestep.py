"""Which blocks and timesteps to read: heads trained on each choice, compared on validation photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm

from fedd_hf.data.synthetic import paint_dataset
from fedd_hf.evaluation.classification import auroc
from fedd_hf.evaluation.segmentation import COUNTS, iou
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.inference import count_pixels
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation, vote
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from fedd_hf.training.feature_store import FeatureMaps, extract_feature_maps, extract_pooled_features
from fedd_hf.training.heads import sample_pixels, train_malignancy_classifier, train_pixel_classifiers

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
) -> Iterator[dict[str, Any]]:
    """Train pixel classifiers on each set of blocks at each timestep and score them on validation photos.

    Yields:
        `dict`: `blocks`, `timestep`, `mean_iou` and `lesion_iou`, pooled over 1,500 random pixels of each photo,
        averaged over two seeds of the heads.
    """
    accelerator, processor = Accelerator(), FEDDImageProcessor(size=image_size)
    all_blocks = sorted({block for blocks in readings for block in blocks})
    for timestep in tqdm(timesteps, desc="Segmentation", unit="timestep"):
        reading: dict[str, Any] = {"timesteps": [timestep], "image_size": image_size}
        model = FEDDForSegmentation.from_backbone(backbone, blocks=all_blocks, **reading)
        sets = [extract_feature_maps(model, processor, dataset, accelerator) for dataset in (train, validation)]
        for blocks in readings:
            model = FEDDForSegmentation.from_backbone(backbone, blocks=blocks, **reading)
            seen, unseen = (_choose(features, [all_blocks.index(block) for block in blocks]) for features in sets)
            scores = []
            for seed in SEEDS:
                train_pixel_classifiers(model, seen, replace(arguments, seed=seed), accelerator)
                scores.append(_iou_of_sampled_pixels(model, unseen))
            mean_iou, lesion_iou = np.mean([(np.nanmean(score), score[1]) for score in scores], axis=0)
            yield {"blocks": blocks, "timestep": timestep, "mean_iou": mean_iou, "lesion_iou": lesion_iou}


def compare_classification_readings(
    backbone: str, blocks: list[int], timesteps: list[int], image_size: int, train: Dataset, validation: Dataset
) -> Iterator[dict[str, Any]]:
    """Train malignancy classifiers on each block at each timestep and score them on validation photos.

    One half of `validation` says when training stops, the other half scores, and then the other way round.

    Yields:
        `dict`: `blocks`, `timestep` and `auroc`, averaged over both halves and two seeds of the head.
    """
    accelerator, processor = Accelerator(), FEDDImageProcessor(size=image_size)
    for timestep in tqdm(timesteps, desc="Classification", unit="timestep"):
        for block in blocks:
            model = FEDDForImageClassification.from_backbone(
                backbone, blocks=[block], timesteps=[timestep], image_size=image_size
            )
            seen = extract_pooled_features(model, processor, train, accelerator)
            pooled, labels = extract_pooled_features(model, processor, validation, accelerator)
            halves = [(pooled[start::2], labels[start::2]) for start in (0, 1)]
            scores = []
            for seed in SEEDS:
                for stop, score in (halves, halves[::-1]):
                    arguments = ClassificationArguments(seed=seed)
                    train_malignancy_classifier(model, seen, stop, arguments, accelerator)
                    scores.append(_auroc(model, *score))
            yield {"blocks": [block], "timestep": timestep, "auroc": float(np.mean(scores))}


def paint_selection_photos(size: int) -> tuple[Dataset, Dataset]:
    """Paint the photos on which readings are compared: seeds that no other experiment uses."""
    return paint_dataset(10, seed=100, size=size), paint_dataset(20, seed=101, size=size)


def _choose(features: FeatureMaps, indices: list[int]) -> FeatureMaps:
    return FeatureMaps(tuple(features.feature_maps[index] for index in indices), features.labels)


@torch.no_grad()
def _iou_of_sampled_pixels(model: FEDDForSegmentation, features: FeatureMaps) -> np.ndarray:
    torch.manual_seed(0)
    maps, labels = sample_pixels(list(features.feature_maps), features.labels, PIXELS_PER_IMAGE)
    choices = vote(model.decode_head(maps, labels.shape[-2:]), model.config.voting).argmax(dim=1)
    counts = count_pixels(labels.cpu().numpy(), choices.cpu().numpy(), model.config.num_labels)
    return iou(np.array([[of_class[name] for name in COUNTS] for of_class in counts]))


@torch.no_grad()
def _auroc(model: FEDDForImageClassification, pooled: torch.Tensor, labels: torch.Tensor) -> float:
    scores = model.classify(pooled)[:, 1].cpu().numpy()
    is_malignant = labels.cpu().numpy() == 1
    return auroc(scores[~is_malignant], scores[is_malignant])
