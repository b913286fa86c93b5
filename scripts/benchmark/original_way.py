"""The original way, written anew from its description, as far as it costs time and memory.

A network that runs to its end, a matrix of the features of every pixel, and votes of one classifier after another;
their training is in `original_recipe.py`. Steps that cost little are left out, in favour of the original.

Source: ddpm-segmentation (2112.03126), `feature_extractors.py`, `train_interpreter.py`, `pixel_classifier.py`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from fedd_hf.image_processing_fedd import IGNORE_INDEX
from original_recipe import BATCH_SIZE, train_classifier


@torch.no_grad()
def extract_features(network: nn.Module, sample: Tensor, timestep: int, blocks: Sequence[int]) -> list[Tensor]:
    """Run the whole network of guided-diffusion and keep what some of its decoder blocks put out."""
    kept: list[Tensor] = []
    modules = [network.get_submodule(f"output_blocks.{block}") for block in blocks]
    hooks = [module.register_forward_hook(lambda *call: kept.append(call[-1].float())) for module in modules]
    try:
        network(sample, torch.tensor([timestep]))
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def upsample(feature_maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Bring maps of shape `(channels, height, width)` to the size of the photo and join their channels."""
    how: dict[str, Any] = {"size": tuple(size), "mode": "bilinear", "align_corners": False}
    return torch.cat([interpolate(feature_map[None].float(), **how)[0] for feature_map in feature_maps])


def build_matrix(feature_maps: Sequence[Sequence[Tensor]], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Write the features of every pixel of all photos out.

    Args:
        feature_maps (`list[list[torch.Tensor]]`):
            Maps of each photo, of shape `(channels, height, width)`.
        labels (`torch.Tensor` of shape `(num_photos, image_size, image_size)`):
            Classes, 255 where a pixel does not count.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: float32 features of shape `(num_pixels, channels)`, and the pixels'
        labels. On the way there are two such matrices in memory.
    """
    channels = sum(len(feature_map) for feature_map in feature_maps[0])
    matrix = torch.zeros(len(labels), channels, *labels.shape[1:])
    for photo, maps in enumerate(feature_maps):
        matrix[photo] = upsample(maps, labels.shape[1:])
    matrix = matrix.permute(1, 0, 2, 3).reshape(channels, -1).permute(1, 0)
    counted = labels.flatten() != IGNORE_INDEX
    return matrix[counted], labels.flatten()[counted].long()


class PixelDataset(Dataset):
    """Rows of the matrix, one by one."""

    def __init__(self, matrix: Tensor, labels: Tensor) -> None:
        self.matrix, self.labels = matrix, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, pixel: int) -> tuple[Tensor, Tensor]:
        """Return features and label of a pixel."""
        return self.matrix[pixel], self.labels[pixel]


def train_for(seconds: float, classifier: nn.Module, pixels: PixelDataset) -> tuple[int, float]:
    """Train a classifier for a while and return how many pixels it saw in how many seconds."""
    loader = DataLoader(pixels, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    start = time.perf_counter()
    num_pixels, _ = train_classifier(
        classifier, itertools.repeat(loader), lambda _epoch, _loss: time.perf_counter() - start >= seconds
    )
    return num_pixels, time.perf_counter() - start


@torch.no_grad()
def predict_labels(
    classifiers: Sequence[nn.Module], feature_maps: Sequence[Tensor], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Let trained classifiers vote on each pixel of a photo, one classifier after another.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: classes and the classifiers' Jensen-Shannon divergence in nats, both of
        shape `(height, width)`.
    """
    features = upsample(feature_maps, size)
    pixels = features.reshape(len(features), -1).permute(1, 0)
    logits = [classifier(pixels) for classifier in classifiers]
    votes = torch.stack([of_one.argmax(dim=1) for of_one in logits])
    probabilities = torch.stack([of_one.softmax(dim=1) for of_one in logits])
    entropies = torch.special.entr(probabilities).sum(dim=2)
    entropy_of_mean = torch.special.entr(probabilities.mean(dim=0)).sum(dim=1)
    divergence = entropy_of_mean - entropies.mean(dim=0)
    return votes.mode(dim=0).values.reshape(*size), divergence.reshape(*size)
