"""The network of a backbone with random weights: the floor that pre-training is compared with."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel

from fedd_hf.unet_files_fedd import DEFAULTS_NAME, locate_backbone, read_backbone_config

SCHEDULE_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")


def write_random_backbone(backbone: str, folder: Path, accelerator: Accelerator, seed: int = 0) -> Path:
    """Write a backbone like another one, but with the weights that torch draws, unless it is there already.

    Args:
        backbone (`str`):
            `"embedded"`, a folder or a repository id: the network, the noise schedule, and what to read by default.
        folder (`Path`):
            Folder to write, whole or not at all.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.
        seed (`int`, *optional*, defaults to 0):
            Seed of the weights.

    Returns:
        `Path`: the folder.
    """
    if accelerator.is_main_process and not folder.exists():
        source = locate_backbone(backbone)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fields = read_backbone_config(source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            UNet2DModel(**fields["backbone_config"]).save_pretrained(partial / "unet")
        schedule = {name: fields[name] for name in SCHEDULE_FIELDS if name in fields}
        DDPMScheduler(**schedule).save_pretrained(partial / "scheduler")
        if (source / DEFAULTS_NAME).is_file():
            shutil.copy(source / DEFAULTS_NAME, partial)
        partial.rename(folder)
    accelerator.wait_for_everyone()
    return folder
