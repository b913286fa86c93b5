"""Training of the pixel classifiers: all members at once, or as the original does it, one after another."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from fedd_hf.modeling_fedd import FEDDForSegmentation

from .arguments import SegmentationArguments
from .original_recipe import train_as_original
from .pixels import LabelledFeatures, PixelDraws, balanced_weights, measure_channels, order_photos, pass_on
from .run import RunState

STANDARDISATION_PHOTOS = 64  # the first that are drawn give the scale of every channel


def train_pixel_classifiers(
    model: FEDDForSegmentation,
    features: LabelledFeatures,
    arguments: SegmentationArguments,
    accelerator: Accelerator,
    state: RunState | None = None,
) -> list[float]:
    """Train new pixel classifiers in place and return the loss of each batch.

    Args:
        model ([`FEDDForSegmentation`]):
            Model whose decode head is drawn anew and trained.
        features ([`StoredFeatures`] or [`StreamedFeatures`]):
            Features and labels of the labelled photos.
        arguments ([`SegmentationArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, in which precision and in how many processes; these share each batch.
        state ([`RunState`], *optional*):
            Checkpoints to go on from and to write.

    Raises:
        ValueError: If a batch cannot be shared equally, or a checkpoint is of another run.
    """
    if arguments.recipe == "original":
        return train_as_original(model, features, arguments.seed, accelerator, state)
    set_seed(arguments.seed)
    model.decode_head.apply(_draw_weights)
    measured = order_photos(len(features), min(STANDARDISATION_PHOTOS, len(features)), arguments.seed)
    mean, std = (statistic.to(accelerator.device) for statistic in measure_channels(features, measured))
    weights = _class_weights(model, features, arguments, accelerator)
    head, optimizer, loader, scheduler = _prepare(model, features, arguments, accelerator)
    losses: list[float] = [] if state is None else state.resume().get("losses", [])
    batches = skip_first_batches(loader, len(losses))
    progress = {"initial": len(losses), "total": len(loader), "disable": not accelerator.is_main_process}
    for batch in tqdm(batches, desc="Pixel classifiers", unit="batch", leave=False, **progress):
        with accelerator.accumulate(head):
            pixel_maps, labels = _as_maps(model, batch, mean, std)
            loss = model.loss(head(pixel_maps, labels.shape[-2:]), labels, weights)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(float(accelerator.reduce(loss.detach(), "mean")))
        accelerator.log({"loss": losses[-1], "learning_rate": scheduler.get_last_lr()[0]}, step=len(losses))
        step = len(losses) // accelerator.gradient_accumulation_steps
        if state is not None and accelerator.sync_gradients and state.is_due(step):
            state.save(step, {"losses": losses})
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
    loader = DataLoader(draws, batch_size=batch_size, collate_fn=pass_on)
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
    """Give every process what batch normalization has seen in the first, as checkpoints hold it."""
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
