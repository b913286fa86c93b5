"""Labelled pixels: which ones a training step draws, and what their features are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from fedd_hf.features import read_maps
from fedd_hf.image_processing_fedd import IGNORE_INDEX, FEDDImageProcessor

LABELS_KEPT = 1024  # label maps held in memory, of 65 kB each at 256 px
ORDER, PIXELS = 0, 1  # streams of random numbers of one seed


class LabelledFeatures(Protocol):
    """Photos whose features and labels can be read."""

    def __len__(self) -> int:
        """Return the number of photos."""

    def labels(self, photo: int) -> Tensor:
        """Return the class of each pixel, uint8 of shape `(image_size, image_size)`, 255 where it does not count."""

    def read(self, photo: int) -> tuple[Tensor, ...]:
        """Return the maps of a photo, `(height, width, channels)` per block."""


class LabelMaps:
    """Label maps of a dataset at the size of the model; those read last stay in memory.

    Args:
        dataset (`datasets.Dataset`):
            Rows with an `image_id` and a `mask`.
        processor ([`FEDDImageProcessor`]):
            Brings masks to the size of the model.
    """

    def __init__(self, dataset: Dataset, processor: FEDDImageProcessor) -> None:
        self.masks = dataset.select_columns(["image_id", "mask"])
        self.processor = processor
        self.read = lru_cache(maxsize=LABELS_KEPT)(self._read)

    def _read(self, photo: int) -> Tensor:
        row = self.masks[photo]
        try:
            blank = np.zeros((*np.shape(row["mask"]), 3), np.uint8)
            inputs = self.processor(blank, segmentation_maps=row["mask"], return_tensors="pt")
        except (OSError, SyntaxError, ValueError, TypeError) as error:
            raise ValueError(f"The mask of photo {row['image_id']!r} cannot be read: {error}") from error
        return inputs["labels"][0].to(torch.uint8)


class StoredFeatures:
    """Photos whose feature maps lie in a [`FeatureStore`], mapped into memory and read where a pixel is drawn.

    Args:
        files (`list[Path]`):
            File of each photo, as [`FeatureStore.extract`] returns them.
        dataset (`datasets.Dataset`):
            The rows that were extracted.
        processor ([`FEDDImageProcessor`]):
            Brings masks to the size of the model.
    """

    def __init__(self, files: list[Path], dataset: Dataset, processor: FEDDImageProcessor) -> None:
        self.files = files
        self.labels = LabelMaps(dataset, processor).read
        self.chosen: list[int] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, photo: int) -> tuple[Tensor, ...]:
        """Open the maps of a photo, those that were selected."""
        maps = read_maps(self.files[photo])
        return maps if self.chosen is None else tuple(maps[index] for index in self.chosen)

    def select_maps(self, indices: list[int]) -> StoredFeatures:
        """Return the same photos with some of their maps only."""
        selected = copy.copy(self)
        selected.chosen = indices
        return selected


class PixelDraws(torch.utils.data.Dataset[dict[str, Tensor]]):
    """What a training sees, visit by visit: item `k` is some pixels of one photo, whatever was drawn before it.

    Photos come in random order, each once before any comes again.

    Args:
        features ([`LabelledFeatures`]):
            Photos with their features and labels.
        num_draws (`int`):
            Number of visits.
        pixels_per_draw (`int`):
            Pixels drawn from a photo, uniformly and with replacement.
        seed (`int`):
            Seed of the order and of the pixels.
    """

    def __init__(self, features: LabelledFeatures, num_draws: int, pixels_per_draw: int, seed: int) -> None:
        self.features, self.pixels_per_draw, self.seed = features, pixels_per_draw, seed
        self.photos = order_photos(len(features), num_draws, seed)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        """Return `features`, float32 of shape `(pixels_per_draw, channels)`, and `labels` of the pixels."""
        photo, generator = self.photos[draw], np.random.default_rng([self.seed, PIXELS, draw])
        labels = self.features.labels(photo)
        pixels = torch.from_numpy(generator.integers(labels.numel(), size=self.pixels_per_draw))
        features = sample_maps(self.features.read(photo), pixels, tuple(labels.shape))
        return {"features": features, "labels": labels.flatten()[pixels].long()}


def order_photos(num_photos: int, num_draws: int, seed: int) -> list[int]:
    """Return the photo of each visit, one random order of all photos after another."""
    rounds = range(-(-num_draws // num_photos))
    orders = [np.random.default_rng([seed, ORDER, number]).permutation(num_photos) for number in rounds]
    return np.concatenate(orders)[:num_draws].tolist()


def sample_maps(feature_maps: Sequence[Tensor], pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Read the features of some pixels, exactly as bilinear upsampling of all maps to `size` would give them.

    Args:
        feature_maps (`tuple[torch.Tensor]`):
            Maps of shape `(height, width, channels)` or, of several images, `(num_images, height, width, channels)`,
            of any size and floating dtype.
        pixels (`torch.LongTensor` of shape `(num_pixels,)`):
            Positions in the flattened image or images.
        size (`tuple[int, int]`):
            Height and width of an image.

    Returns:
        `torch.Tensor`: float32 of shape `(num_pixels, sum of channels)`.

    Source: PyTorch, `interpolate(mode="bilinear", align_corners=False)`.
    """
    return torch.cat([_sample_map(feature_map, pixels, size) for feature_map in feature_maps], dim=1)


def _sample_map(feature_map: Tensor, pixels: Tensor, size: Sequence[int]) -> Tensor:
    height, width, channels = feature_map.shape[-3:]
    image, row, column = pixels // (size[0] * size[1]), pixels // size[1] % size[0], pixels % size[1]
    rows, row_weights = _neighbours(row, height, size[0])
    columns, column_weights = _neighbours(column, width, size[1])
    corners = (image[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]  # (num_pixels, 2, 2)
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    values = feature_map.reshape(-1, channels)[corners.flatten(1)].float()
    return torch.einsum("pk,pkc->pc", weights.flatten(1), values)


def _neighbours(positions: Tensor, block_size: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the two nearest positions on the coarse axis and their weights, both of shape `(num_pixels, 2)`."""
    source = ((positions.double() + 0.5) * block_size / size - 0.5).clamp_min(0)
    low = source.long()
    share = (source - low).float()
    return torch.stack([low, (low + 1).clamp_max(block_size - 1)], dim=1), torch.stack([1 - share, share], dim=1)


def measure_channels(features: LabelledFeatures, photos: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over all positions of some photos, float32."""
    totals = None
    for photo in photos:
        wide = [feature_map.double().flatten(0, 1) for feature_map in features.read(photo)]
        moments = torch.cat([torch.stack([values.mean(0), values.square().mean(0)]) for values in wide], dim=1)
        totals = moments if totals is None else totals + moments
    assert totals is not None
    mean, mean_of_squares = totals / len(photos)
    return mean.float(), (mean_of_squares - mean.square()).clamp_min(0).sqrt().clamp_min(1e-3).float()


def balanced_weights(features: LabelledFeatures, num_labels: int) -> Tensor:
    """Return num_pixels / (num_labels * pixels of the class) for each class; 1 for a class that no photo shows.

    Source: scikit-learn, `compute_class_weight("balanced")`.
    """
    counts = torch.zeros(num_labels, dtype=torch.long)
    for photo in range(len(features)):
        labels = features.labels(photo)
        counts += torch.bincount(labels[labels != IGNORE_INDEX].long(), minlength=num_labels)
    weights = counts.sum() / (num_labels * counts.clamp_min(1))
    return torch.where(counts > 0, weights, 1.0)
