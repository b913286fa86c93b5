"""Training of the pixel classifiers, all members at once."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from fedd_hf.modeling_fedd import FEDDForSegmentation

from .arguments import SegmentationArguments
from .pixels import LabelledFeatures, PixelDraws, balanced_weights, measure_channels, order_photos

STANDARDISATION_PHOTOS = 64  # the first that are drawn give the scale of every channel


def train_pixel_classifiers(
    model: FEDDForSegmentation,
    features: LabelledFeatures,
    arguments: SegmentationArguments,
    accelerator: Accelerator,
) -> list[float]:
    """Train new pixel classifiers in place and return the loss of each batch.

    Args:
        model ([`FEDDForSegmentation`]):
            Model whose decode head is drawn anew and trained.
        features ([`LabelledFeatures`]):
            Features and labels of the labelled photos.
        arguments ([`SegmentationArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, in which precision and in how many processes; these share each batch.

    Raises:
        ValueError: If a batch cannot be shared equally.
    """
    set_seed(arguments.seed)
    model.decode_head.apply(_draw_weights)
    measured = order_photos(len(features), min(STANDARDISATION_PHOTOS, len(features)), arguments.seed)
    mean, std = (statistic.to(accelerator.device) for statistic in measure_channels(features, measured))
    weights = _class_weights(model, features, arguments, accelerator)
    head, optimizer, loader, scheduler = _prepare(model, features, arguments, accelerator)
    losses: list[float] = []
    hidden = not accelerator.is_main_process
    for batch in tqdm(loader, desc="Pixel classifiers", unit="batch", leave=False, disable=hidden):
        with accelerator.accumulate(head):
            pixel_maps, labels = _as_maps(model, batch, mean, std)
            loss = model.loss(head(pixel_maps, labels.shape[-2:]), labels, weights)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(float(accelerator.reduce(loss.detach(), "mean")))
        accelerator.log({"loss": losses[-1], "learning_rate": scheduler.get_last_lr()[0]}, step=len(losses))
    _share_statistics(head)
    model.decode_head = accelerator.unwrap_model(head, keep_fp32_wrapper=False).eval()
    for member in model.decode_head.members:
        absorb_standardisation(member.projections, mean, std)
    accelerator.free_memory()
    return losses


def _draw_weights(layer: nn.Module) -> None:
    """Draw weights and forget statistics, also of a head that was trained before."""
    if isinstance(layer, nn.Linear | nn.BatchNorm1d):
        layer.reset_parameters()


def _prepare(
    model: FEDDForSegmentation, features: LabelledFeatures, arguments: SegmentationArguments, accelerator: Accelerator
) -> Any:
    """Hand the head, its optimizer, its batches and its schedule to Accelerate."""
    parts = accelerator.gradient_accumulation_steps
    batch_size = arguments.images_per_step // parts
    if arguments.images_per_step % (parts * accelerator.num_processes):
        raise ValueError(
            f"`images_per_step` {arguments.images_per_step} cannot be cut into {parts} equal parts for each of "
            f"{accelerator.num_processes} processes. Choose a multiple of {parts * accelerator.num_processes}."
        )
    num_draws = arguments.num_steps * arguments.images_per_step
    draws = PixelDraws(features, num_draws, arguments.pixels_per_image, arguments.seed)
    loader = DataLoader(draws, batch_size=batch_size)
    optimizer = torch.optim.Adam(model.decode_head.parameters(), lr=arguments.learning_rate)
    scheduler = get_cosine_schedule_with_warmup(optimizer, arguments.num_steps // 20, arguments.num_steps)
    return accelerator.prepare(model.decode_head.train(), optimizer, loader, scheduler)


def _class_weights(
    model: FEDDForSegmentation, features: LabelledFeatures, arguments: SegmentationArguments, accelerator: Accelerator
) -> Tensor | None:
    if arguments.class_weights is None:
        return None
    return balanced_weights(features, model.config.num_labels).to(accelerator.device)


def _as_maps(
    model: FEDDForSegmentation, batch: dict[str, Tensor], mean: Tensor, std: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Bring channels to mean 0 and deviation 1, and pixels into maps of one row, as the decode head takes them."""
    standardised = (batch["features"] - mean) / std
    maps = standardised.transpose(1, 2)[:, :, None]  # (batch_size, channels, 1, num_pixels)
    return maps.split(model.config.feature_channels, dim=1), batch["labels"][:, None]


@torch.no_grad()
def _share_statistics(head: nn.Module) -> None:
    """Give every process what batch normalization has seen in the first."""
    for statistic in head.buffers():
        statistic.copy_(broadcast(statistic))


@torch.no_grad()
def absorb_standardisation(projections: Any, mean: Tensor, std: Tensor) -> None:
    """Let layers that were trained on (x - mean) / std take x itself, in place; the first has the bias of all."""
    first, *_ = projections
    sizes = [projection.in_features for projection in projections]
    for projection, part_mean, part_std in zip(projections, mean.split(sizes), std.split(sizes), strict=True):
        projection.weight.div_(part_std)
        first.bias.sub_(projection.weight @ part_mean)
