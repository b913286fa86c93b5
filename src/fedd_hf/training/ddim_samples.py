"""Pictures that a backbone dreams up, to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.utils import make_image_grid
from PIL import Image

COLUMNS = 4


def draw_samples(
    backbone: Path, image_size: int, num_samples: int = 16, num_steps: int = 50, seed: int = 0
) -> Image.Image:
    """Sample pictures by DDIM and lay them out in a grid.

    Args:
        backbone (`Path`):
            A diffusers folder.
        image_size (`int`):
            Side of a picture, in pixels.
        num_samples (`int`, *optional*, defaults to 16):
            Number of pictures, a multiple of four.
        num_steps (`int`, *optional*, defaults to 50):
            Denoising steps.
        seed (`int`, *optional*, defaults to 0):
            Seed of the noise: the same pictures grow better as training goes on.

    Source: Song et al., "Denoising Diffusion Implicit Models" (2010.02502).
    """
    unet = UNet2DModel.from_pretrained(backbone, subfolder="unet")
    unet.register_to_config(sample_size=image_size)
    scheduler = DDIMScheduler.from_config(DDPMScheduler.load_config(backbone, subfolder="scheduler"))
    pipeline = DDIMPipeline(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    pictures = pipeline(batch_size=num_samples, generator=generator, num_inference_steps=num_steps).images
    return make_image_grid(pictures, rows=num_samples // COLUMNS, cols=COLUMNS)
