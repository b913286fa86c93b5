"""Training of pixel and image heads on features, through Accelerate."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation

from .arguments import ClassificationArguments, SegmentationArguments
from .feature_store import FeatureMaps

LabelledFeatures = tuple[Tensor, Tensor]


def train_pixel_classifiers(
    model: FEDDForSegmentation, features: FeatureMaps, arguments: SegmentationArguments, accelerator: Accelerator
) -> list[float]:
    """Train new pixel classifiers in place and return the loss at each step.

    Args:
        model ([`FEDDForSegmentation`]):
            Model whose decode head is drawn anew and trained.
        features ([`FeatureMaps`]):
            Features and labels of the labelled photos.
        arguments ([`SegmentationArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, and in which precision.
    """
    set_seed(arguments.seed)
    model.decode_head.apply(model._init_weights)
    standardised, mean, std = standardise_maps(features)
    order = RandomSampler(standardised, num_samples=arguments.num_steps * arguments.images_per_step)
    loader = DataLoader(standardised, arguments.images_per_step, sampler=order, collate_fn=FeatureMaps.collate)
    optimizer = torch.optim.Adam(model.decode_head.parameters(), lr=arguments.learning_rate)
    scheduler = get_cosine_schedule_with_warmup(optimizer, arguments.num_steps // 20, arguments.num_steps)
    head, optimizer, loader, scheduler = accelerator.prepare(model.decode_head.train(), optimizer, loader, scheduler)
    losses: list[float] = []
    for feature_maps, labels in tqdm(loader, desc="Pixel classifiers", unit="step", leave=False):
        pixel_maps, pixel_labels = sample_pixels(feature_maps, labels, arguments.pixels_per_image)
        with accelerator.autocast():
            loss = model.loss(head(pixel_maps, pixel_labels.shape[-2:]), pixel_labels)
        _step(accelerator, loss, optimizer)
        scheduler.step()
        losses.append(loss.item())
    model.decode_head = accelerator.unwrap_model(head, keep_fp32_wrapper=False).eval()
    absorb_standardisation(model.decode_head.projection, mean, std)
    return losses


def train_malignancy_classifier(
    model: FEDDForImageClassification,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    arguments: ClassificationArguments,
    accelerator: Accelerator,
) -> list[float]:
    """Train a new malignancy classifier in place and return the validation loss at each epoch.

    Args:
        model ([`FEDDForImageClassification`]):
            Model whose classifier is drawn anew, trained, and set back to its best epoch.
        train (`tuple[torch.Tensor, torch.Tensor]`):
            Pooled features of shape `(num_images, pooled_size)` and labels, 0 benign or 1 malignant.
        validation (`tuple[torch.Tensor, torch.Tensor]`):
            The same of the photos that say when to stop.
        arguments ([`ClassificationArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, and in which precision.
    """
    set_seed(arguments.seed)
    model.classifier.apply(model._init_weights)
    mean, std = _mean_and_std(train[0], dim=0)
    train, validation = (((pooled - mean) / std, labels) for pooled, labels in (train, validation))
    optimizer = torch.optim.Adam(
        model.classifier.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    model.classifier.to(accelerator.device)  # not distributed: the batch is whole and small on every process
    optimizer = accelerator.prepare(optimizer)
    losses: list[float] = []
    best = copy.deepcopy(model.classifier.state_dict())
    for _ in tqdm(range(arguments.max_epochs), desc="Malignancy classifier", unit="epoch", leave=False):
        model.classifier.train()
        with accelerator.autocast():
            loss = F.cross_entropy(model.classify(train[0]), train[1])
        _step(accelerator, loss, optimizer)
        losses.append(_validation_loss(model, validation))
        if losses[-1] == min(losses):
            best = copy.deepcopy(model.classifier.state_dict())
        elif len(losses) - losses.index(min(losses)) > arguments.patience:
            break
    model.classifier.load_state_dict(best)
    model.classifier.eval()
    absorb_standardisation(model.classifier[0], mean, std)
    return losses


def standardise_maps(features: FeatureMaps) -> tuple[FeatureMaps, Tensor, Tensor]:
    """Bring each channel to mean 0 and deviation 1; return also both, of shape `(sum of channels,)`."""
    statistics = [_mean_and_std(feature_map, dim=(0, 2, 3)) for feature_map in features.feature_maps]
    maps = [
        (feature_map - mean[:, None, None]) / std[:, None, None]
        for feature_map, (mean, std) in zip(features.feature_maps, statistics, strict=True)
    ]
    means, stds = zip(*statistics, strict=True)
    return FeatureMaps(tuple(maps), features.labels), torch.cat(means), torch.cat(stds)


def sample_pixels(feature_maps: list[Tensor], labels: Tensor, pixels_per_image: int) -> tuple[list[Tensor], Tensor]:
    """Draw pixels uniformly and read their features, exactly as bilinear upsampling would give them.

    Args:
        feature_maps (`list[torch.Tensor]`):
            Maps of shape `(batch_size, channels, block_height, block_width)`.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`):
            Class of each pixel.
        pixels_per_image (`int`):
            Number of pixels to draw from each image.

    Returns:
        `tuple[list[torch.Tensor], torch.Tensor]`: features of shape `(batch_size, channels, 1, pixels_per_image)` and
        labels of shape `(batch_size, 1, pixels_per_image)`.
    """
    batch_size, height, width = labels.shape
    pixels = torch.randint(height * width, (batch_size, 1, pixels_per_image), device=labels.device)
    rows, columns = pixels // width, pixels % width
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    sampled = [
        F.grid_sample(feature_map.float(), grid, padding_mode="border", align_corners=False)
        for feature_map in feature_maps
    ]
    return sampled, labels.flatten(1).gather(1, pixels.flatten(1))[:, None]


@torch.no_grad()
def absorb_standardisation(layer: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Let a layer that was trained on (x - mean) / std take x itself, in place."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    absorbed = weight.flatten(1) / std
    bias.sub_(absorbed @ mean)
    weight.copy_(absorbed.view_as(weight))


def _mean_and_std(features: Tensor, dim: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(features, dim=dim, correction=0)
    return mean, std.clamp_min(1e-3)


def _step(accelerator: Accelerator, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def _validation_loss(model: FEDDForImageClassification, validation: LabelledFeatures) -> float:
    model.classifier.eval()
    return F.cross_entropy(model.classify(validation[0]), validation[1]).item()
