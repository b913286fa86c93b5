"""The training of ddpm-segmentation: single pixels in small batches, one pixel classifier after another.

Source: ddpm-segmentation (2112.03126), `train_interpreter.py`, `prepare_data` and `train`; `pixel_classifier.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedd_hf.image_processing_fedd import IGNORE_INDEX
from fedd_hf.modeling_fedd import FEDDForSegmentation
from fedd_hf.training.pixels import LabelledFeatures, sample_maps

HIDDEN_SIZES = (128, 32)
BATCH_SIZE, LEARNING_RATE = 64, 1e-3
BATCHES_READ_AT_ONCE = 64
MAX_EPOCHS = 100
WATCHED_FROM = 4  # epoch, from 0, at which the best loss of a batch begins to be watched
PATIENCE = 50  # batches without a better loss that are forgiven
FEWEST_PIXELS = 20  # a class with fewer pixels in a photo does not count there

Batches = Iterable[tuple[Tensor, Tensor]]


class AllPixels:
    """Every pixel of all photos that counts, with its features read from maps in memory."""

    def __init__(self, features: LabelledFeatures) -> None:
        photos = range(len(features))
        maps = [features.read(photo) for photo in photos]
        self.maps = [torch.stack(of_block) for of_block in zip(*maps, strict=True)]
        self.labels = torch.stack([_without_specks(features.labels(photo)) for photo in photos])
        self.counted = (self.labels != IGNORE_INDEX).flatten().nonzero().flatten()
        if len(self.counted) < BATCH_SIZE:
            raise ValueError(f"{len(self.counted)} pixels count in these photos; a batch needs {BATCH_SIZE}.")

    def batches(self, seed: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and labels in random order; a last, partial batch is dropped."""
        order = self.counted[np.random.default_rng(seed).permutation(len(self.counted))]
        whole = order[: len(order) // BATCH_SIZE * BATCH_SIZE]
        for pixels in whole.split(BATCHES_READ_AT_ONCE * BATCH_SIZE):
            features = sample_maps(self.maps, pixels, self.labels.shape[1:])
            labels = self.labels.flatten()[pixels].long()
            yield from zip(features.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)


class StopRule:
    """Say when a classifier is trained: its loss of a batch has not been better for 51 batches, after four epochs."""

    def __init__(self) -> None:
        self.best_loss, self.misses = math.inf, 0

    def __call__(self, epoch: int, loss: float) -> bool:
        """Take in the loss of a batch and return whether the classifier is trained."""
        if epoch >= WATCHED_FROM:
            self.best_loss, self.misses = (loss, 0) if loss < self.best_loss else (self.best_loss, self.misses + 1)
        return self.misses > PATIENCE


def make_classifier(channels: int, num_labels: int, hidden_sizes: Sequence[int] = HIDDEN_SIZES) -> nn.Sequential:
    """Make one pixel classifier, with weights from N(0, 0.02) and zero bias."""
    widths = [channels, *hidden_sizes]
    layers: list[nn.Module] = []
    for width, next_width in itertools.pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU(), nn.BatchNorm1d(next_width)]
    classifier = nn.Sequential(*layers, nn.Linear(widths[-1], num_labels))
    for layer in classifier:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return classifier


def train_classifier(
    classifier: nn.Module, epochs: Iterable[Batches], is_trained: Callable[[int, float], bool]
) -> tuple[int, float]:
    """Train a classifier until a rule says stop, and return how many pixels it saw and its last loss.

    Args:
        classifier (`torch.nn.Module`):
            Network that is trained in place.
        epochs (`Iterable`):
            Batches of features and labels of each epoch.
        is_trained (`Callable`):
            What is asked after each batch, with the number of the epoch and the loss of the batch.
    """
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE)
    num_pixels, last_loss = 0, math.nan
    for epoch, batches in enumerate(epochs):
        for features, labels in batches:
            optimizer.zero_grad()
            loss = cross_entropy(classifier(features), labels)
            loss.backward()
            optimizer.step()
            num_pixels, last_loss = num_pixels + len(labels), loss.item()
            if is_trained(epoch, last_loss):
                return num_pixels, last_loss
    return num_pixels, last_loss


def train_as_original(model: FEDDForSegmentation, features: LabelledFeatures, seed: int) -> list[float]:
    """Train new pixel classifiers in place, on the CPU, and return the last loss of each.

    The feature maps of all photos are held in memory, at block resolution.
    """
    pixels, config = AllPixels(features), model.config
    losses = []
    for index, member in enumerate(model.decode_head.members):
        torch.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
        classifier = make_classifier(sum(config.feature_channels), config.num_labels, config.hidden_sizes)
        epochs = (pixels.batches([seed, index, epoch]) for epoch in range(MAX_EPOCHS))
        losses.append(train_classifier(classifier, epochs, StopRule())[1])
        insert_classifier(classifier, member)
    model.decode_head.eval()
    return losses


@torch.no_grad()
def insert_classifier(classifier: Any, member: Any) -> None:
    """Copy a classifier into a member of the ensemble, whose first layer is one for each block."""
    first, *others = classifier
    sizes = [projection.in_features for projection in member.projections]
    for projection, weight in zip(member.projections, first.weight.split(sizes, dim=1), strict=True):
        projection.weight.copy_(weight)
    member.projections[0].bias.copy_(first.bias)
    member.layers.load_state_dict(nn.Sequential(*others).state_dict())


def _without_specks(labels: Tensor) -> Tensor:
    """Let classes of fewer than 20 pixels in a photo not count."""
    classes, counts = labels.unique(return_counts=True)
    specks = torch.isin(labels, classes[counts < FEWEST_PIXELS])
    return torch.where(specks, torch.full_like(labels, IGNORE_INDEX), labels)


def fewest_pixels(num_photos: int, image_size: int) -> int:
    """Return how many pixels a classifier sees before the stop rule can end its training.

    Losses are watched from the fifth epoch on. Its first batch sets the best loss; 51 batches in a row must miss it.
    """
    batches_per_epoch = num_photos * image_size**2 // BATCH_SIZE
    return (WATCHED_FROM * batches_per_epoch + 1 + PATIENCE + 1) * BATCH_SIZE
