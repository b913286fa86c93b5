"""Pre-training of a DDPM backbone on photos without labels, at growing resolution."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fedd_hf.features import hash_json, write_json

from .arguments import PretrainingArguments
from .exposures import Exposures

ATTENTION_LEVELS = 2  # the smallest, as in ADM
HEAD_CHANNELS = 16
MAX_GRADIENT_NORM = 1.0
HISTORY = "history.json"

Look = Callable[[Path, int], dict[str, Any]]
"""What is measured now and then: from a diffusers folder and the number of exposures to facts, as JSON."""


def make_unet(block_out_channels: list[int], image_size: int) -> UNet2DModel:
    """Make a UNet of ADM style with two layers per block and random weights.

    Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2105.05233), section 3.
    """
    levels = len(block_out_channels)
    attends = [level >= levels - ATTENTION_LEVELS for level in range(levels)]
    groups = math.gcd(8, *block_out_channels)
    return UNet2DModel(
        sample_size=image_size,
        block_out_channels=tuple(block_out_channels),
        down_block_types=tuple("AttnDownBlock2D" if attend else "ResnetDownsampleBlock2D" for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else "ResnetUpsampleBlock2D" for attend in attends[::-1]),
        layers_per_block=2,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=min(HEAD_CHANNELS, *block_out_channels[-ATTENTION_LEVELS:]),
        norm_num_groups=groups,
        attn_norm_num_groups=groups,
    )


class Checkpoints:
    """Weights, moving average, optimizer, random numbers and losses, from which an interrupted run resumes exactly.

    They hold pickles, as Accelerate writes them: they stay in the run's folder, are never pushed, and are removed when
    the run ends.

    Args:
        output_dir (`Path`):
            Folder of the run.
        accelerator (`accelerate.Accelerator`):
            What has prepared the objects to be stored.
        identity (`dict`):
            What else makes this run this run, as JSON; a checkpoint of another one is refused.
    """

    def __init__(self, output_dir: Path, accelerator: Accelerator, identity: dict[str, Any]) -> None:
        self.folder, self.accelerator = output_dir / "checkpoints", accelerator
        machine = {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
        self.identity = hash_json(identity | machine)

    def resume(self) -> dict[str, Any]:
        """Load the newest checkpoint and return its history; `{}` if there is none.

        Raises:
            ValueError: If it belongs to another run.
        """
        checkpoints = sorted(self.folder.glob("step-*"))
        self.accelerator.wait_for_everyone()
        if not checkpoints:
            return {}
        history = json.loads((checkpoints[-1] / HISTORY).read_text())
        if history.pop("identity") != self.identity:
            raise ValueError(
                f"{self.folder} was left by a run with other arguments, photos or processes. Give the same ones to "
                "resume, or delete it to start anew."
            )
        self.accelerator.load_state(str(checkpoints[-1]))
        return history

    def save(self, step: int, history: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, then remove the one before it. All processes call it."""
        partial, checkpoint = self.folder / "partial", self.folder / f"step-{step:09d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_json(history | {"identity": self.identity}, partial / HISTORY)
            older = sorted(self.folder.glob("step-*"))
            partial.rename(checkpoint)
            for folder in older:
                shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """End the run and remove its checkpoints, first by name, so that an interrupt leaves no half of one."""
        if self.accelerator.is_main_process and self.folder.exists():
            removed = self.folder.with_name(".checkpoints")
            shutil.rmtree(removed, ignore_errors=True)
            shutil.rmtree(self.folder.rename(removed))
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def pretrain_backbone(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    photos: Dataset,
    arguments: PretrainingArguments,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
    folder: Path | None = None,
    look: Look | None = None,
) -> dict[str, list[Any]]:
    """Train a UNet to tell the noise in photos, and leave the moving average of its weights in it.

    Args:
        unet (`UNet2DModel`):
            Network, which is trained in place.
        scheduler (`DDPMScheduler`):
            Noise schedule.
        photos (`datasets.Dataset`):
            Rows with an `image`.
        arguments ([`PretrainingArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, in which precision and in how many processes; these share each batch.
        checkpoints ([`Checkpoints`], *optional*):
            Where to resume from, and what is written every `look_every` steps.
        folder (`Path`, *optional*):
            Where the moving average is written every `look_every` steps and at the end, as a diffusers folder.
        look (`Callable`, *optional*):
            What all processes call then, with the folder and the number of exposures.

    Returns:
        `dict`: `losses` of each step, and `looks`: `exposures` and what `look` said.

    Raises:
        ValueError: If a batch cannot be shared equally or is to be cut, or a checkpoint belongs to another run.

    Source: DDPM (2006.11239), algorithm 1.
    """
    _check(arguments, accelerator)
    average = EMAModel(unet.parameters(), decay=arguments.ema_decay)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
    network, optimizer = accelerator.prepare(unet.train(), optimizer)
    average.to(accelerator.device)
    accelerator.register_for_checkpointing(average)
    history: dict[str, list[Any]] = {"losses": [], "looks": []} | (checkpoints.resume() if checkpoints else {})
    num_steps, done = sum(stage.num_steps for stage in arguments.stages()), len(history["losses"])
    batches = _read_batches(photos, scheduler, arguments, accelerator, done)
    progress = {"initial": done, "total": num_steps, "disable": not accelerator.is_main_process}
    for exposures, batch in tqdm(batches, desc="Pre-training", unit="step", **progress):
        loss = _measure_loss(network, scheduler, batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        average.step(unet.parameters())
        history["losses"].append(float(accelerator.reduce(loss.detach(), "mean")))
        step = len(history["losses"])
        accelerator.log({"loss": history["losses"][-1]}, step=step)
        if folder is not None and (step % arguments.look_every == 0 or step == num_steps):
            _write_average(average, unet, scheduler, folder, accelerator)
            history["looks"].append({"exposures": exposures} | (look(folder, exposures) if look is not None else {}))
        if checkpoints is not None and step % arguments.look_every == 0:
            checkpoints.save(step, history)
    average.copy_to(unet.parameters())
    unet.eval()
    return history


def _check(arguments: PretrainingArguments, accelerator: Accelerator) -> None:
    if any(batch_size % accelerator.num_processes for batch_size in arguments.batch_sizes):
        raise ValueError(
            f"`batch_sizes` {arguments.batch_sizes} cannot be shared equally by {accelerator.num_processes} "
            f"processes. Choose multiples of {accelerator.num_processes}."
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError("`gradient_accumulation_steps` must be 1 in pre-training: choose smaller `batch_sizes`.")


def _read_batches(
    photos: Dataset, scheduler: DDPMScheduler, arguments: PretrainingArguments, accelerator: Accelerator, done: int
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the batches of each stage after `done` steps, each with the number of exposures that it ends."""
    for stage in arguments.stages():
        skipped = min(done, stage.num_steps)
        done -= skipped
        numbers = stage.numbers[skipped * stage.batch_size :]
        exposures = Exposures(
            photos,
            numbers,
            stage.image_size,
            scheduler.config.num_train_timesteps,
            arguments.least_crop,
            arguments.seed,
        )
        if numbers:
            loader = accelerator.prepare(DataLoader(exposures, stage.batch_size))
            yield from zip(
                range(numbers.start + stage.batch_size, numbers.stop + 1, stage.batch_size), loader, strict=True
            )


def _measure_loss(network: Any, scheduler: DDPMScheduler, batch: dict[str, Tensor]) -> Tensor:
    noised = scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timestep"])
    return F.mse_loss(network(noised, batch["timestep"]).sample.float(), batch["noise"])


def _write_average(
    average: EMAModel, unet: UNet2DModel, scheduler: DDPMScheduler, folder: Path, accelerator: Accelerator
) -> None:
    if accelerator.is_main_process:
        averaged = copy.deepcopy(unet).eval()
        average.copy_to(averaged.parameters())
        save_backbone(averaged, scheduler, folder)
    accelerator.wait_for_everyone()


def save_backbone(unet: UNet2DModel, scheduler: DDPMScheduler, folder: Path) -> None:
    """Write a diffusers folder, weights in half precision, whole or not at all; one that is there is replaced."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    DDPMPipeline(_forget_origin(unet).half(), scheduler).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _forget_origin(unet: UNet2DModel) -> UNet2DModel:
    """Return a copy whose configuration does not name the folder that the weights came from."""
    copied = UNet2DModel.from_config({name: value for name, value in unet.config.items() if name[0] != "_"})
    copied.load_state_dict(unet.state_dict())
    return copied
