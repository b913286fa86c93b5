"""The loop of ddpm-segmentation: single pixels in small batches, one pixel classifier after another.

It is here to be compared with. Source: ddpm-segmentation, `train_interpreter.py`, `prepare_data` and `train`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.image_processing_fedd import IGNORE_INDEX
from fedd_hf.modeling_fedd import FEDDForSegmentation

from .pixels import LabelledFeatures, sample_maps
from .run import RunState

BATCH_SIZE, LEARNING_RATE = 64, 1e-3
BATCHES_READ_AT_ONCE = 64
MAX_EPOCHS = 100
WATCHED_FROM = 4  # epoch, from 0, at which the best loss of a batch begins to be watched
PATIENCE = 50  # batches without a better loss that are forgiven
FEWEST_PIXELS = 20  # a class with fewer pixels in a photo does not count there


class AllPixels:
    """Every pixel of all photos that counts, with its features read from maps in memory."""

    def __init__(self, features: LabelledFeatures) -> None:
        photos = range(len(features))
        maps = [features.read([photo], [()])[0] for photo in photos]
        self.maps = [torch.stack(of_block) for of_block in zip(*maps, strict=True)]
        self.labels = torch.stack([_without_specks(features.labels(photo)) for photo in photos])
        self.counted = (self.labels != IGNORE_INDEX).flatten().nonzero().flatten()
        if len(self.counted) < BATCH_SIZE:
            raise ValueError(f"{len(self.counted)} pixels count in these photos; a batch needs {BATCH_SIZE}.")

    def batches(self, seed: list[int], first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and labels in random order, from the batch `first` on; a last, partial batch is dropped."""
        order = self.counted[np.random.default_rng(seed).permutation(len(self.counted))]
        end = len(order) // BATCH_SIZE * BATCH_SIZE
        for start in range(first * BATCH_SIZE, end, BATCHES_READ_AT_ONCE * BATCH_SIZE):
            pixels = order[start : min(start + BATCHES_READ_AT_ONCE * BATCH_SIZE, end)]
            features = sample_maps(self.maps, pixels, self.labels.shape[1:])
            labels = self.labels.flatten()[pixels].long()
            yield from zip(features.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)


@dataclass
class Progress:
    """How far the training has come, and what the stop rule of the present member remembers."""

    member: int = 0
    epoch: int = 0
    batch: int = 0
    batches_of_all: int = 0
    best_loss: float = math.inf
    misses: int = 0
    loss: float = math.nan
    last_losses: list[float] = field(default_factory=list)

    def watch(self, loss: float) -> bool:
        """Take in the loss of a batch and return whether the member is trained."""
        self.loss, self.batch, self.batches_of_all = loss, self.batch + 1, self.batches_of_all + 1
        if self.epoch >= WATCHED_FROM:
            self.best_loss, self.misses = (loss, 0) if loss < self.best_loss else (self.best_loss, self.misses + 1)
        return self.misses > PATIENCE

    def next_member(self) -> Progress:
        """Return where the next member begins."""
        losses = [*self.last_losses, self.loss]
        return Progress(member=self.member + 1, batches_of_all=self.batches_of_all, last_losses=losses)


def train_as_original(
    model: FEDDForSegmentation,
    features: LabelledFeatures,
    seed: int,
    accelerator: Accelerator,
    state: RunState | None = None,
) -> list[float]:
    """Train new pixel classifiers in place and return the last loss of each; every process does the same.

    The feature maps of all photos are held in memory, at block resolution.
    """
    pixels = AllPixels(features)
    member = accelerator.prepare_model(make_member(model.config), evaluation_mode=True)  # not distributed
    head = accelerator.prepare_model(model.decode_head, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.Adam(member.parameters(), lr=LEARNING_RATE, fused=True))
    progress = Progress(**({} if state is None else state.resume()))
    for index in tqdm(range(progress.member, model.config.ensemble_size), desc="Pixel classifiers", unit="member"):
        if progress.batch == progress.epoch == 0:
            set_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
            member.apply(draw_weights)
            optimizer.optimizer.state.clear()
        _train_member(member, optimizer, pixels, progress, seed, accelerator, state)
        _insert(head, member, index)
        progress = progress.next_member()
    model.decode_head = accelerator.unwrap_model(head, keep_fp32_wrapper=False).eval()
    accelerator.free_memory()
    return progress.last_losses


def make_member(config: FEDDConfig) -> nn.Sequential:
    """Make one pixel classifier. Source: ddpm-segmentation, `pixel_classifier.py`."""
    widths = [sum(config.feature_channels), *config.hidden_sizes]
    layers: list[nn.Module] = []
    for width, next_width in itertools.pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU(), nn.BatchNorm1d(next_width)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], config.num_labels))


def draw_weights(layer: nn.Module) -> None:
    """Draw weights from N(0, 0.02), with zero bias."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm1d):
        layer.reset_parameters()


def _train_member(
    member: nn.Module,
    optimizer: Any,
    pixels: AllPixels,
    progress: Progress,
    seed: int,
    accelerator: Accelerator,
    state: RunState | None,
) -> None:
    while progress.epoch < MAX_EPOCHS:
        for features, labels in pixels.batches([seed, progress.member, progress.epoch], progress.batch):
            loss = _step(
                member, optimizer, features.to(accelerator.device), labels.to(accelerator.device), accelerator
            )
            if progress.watch(loss):
                return
            if state is not None and state.is_due(progress.batches_of_all):
                state.save(progress.batches_of_all, asdict(progress))
        progress.epoch, progress.batch = progress.epoch + 1, 0


def _step(member: Any, optimizer: Any, features: Tensor, labels: Tensor, accelerator: Accelerator) -> float:
    loss = cross_entropy(member(features), labels)
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@torch.no_grad()
def _insert(head: Any, member: Any, index: int) -> None:
    """Put a trained member into its place of the ensemble, whose first layer is one for each block."""
    first, *others = member
    place = head.members[index]
    sizes = [projection.in_features for projection in place.projections]
    for projection, weight in zip(place.projections, first.weight.split(sizes, dim=1), strict=True):
        projection.weight.copy_(weight)
    place.projections[0].bias.copy_(first.bias)
    place.layers.load_state_dict(nn.Sequential(*others).state_dict())


def _without_specks(labels: Tensor) -> Tensor:
    """Let classes of fewer than 20 pixels in a photo not count."""
    classes, counts = labels.unique(return_counts=True)
    specks = torch.isin(labels, classes[counts < FEWEST_PIXELS])
    return torch.where(specks, torch.full_like(labels, IGNORE_INDEX), labels)
