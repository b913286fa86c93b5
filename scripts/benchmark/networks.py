"""The two networks that are compared, with random weights, which take as long as trained ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from benchmark_size import BenchmarkSize
from fedd_hf.configuration_fedd import PAPER_UNET, FEDDConfig
from fedd_hf.modeling_fedd import FEDDDecodeHead, FEDDForSegmentation

WIDTH_FACTORS = (1, 1, 2, 2, 4, 4)  # of the paper's network, level by level
ATTENTION_AT = (8, 16, 32)  # factors of downsampling


def paper_config(size: BenchmarkSize) -> FEDDConfig:
    """Describe the paper's segmentation model, or the same one narrower and at another image size."""
    unet = PAPER_UNET | {
        "sample_size": size.image_size,
        "block_out_channels": [factor * size.network_width for factor in WIDTH_FACTORS],
        "attention_head_dim": size.network_width // 4,
    }
    return FEDDConfig(backbone_config=unet, image_size=size.image_size)


def make_original_network(size: BenchmarkSize) -> nn.Module:
    """Build the same network as guided-diffusion has it.

    Raises:
        ValueError: If guided-diffusion is not installed.

    Source: guided-diffusion, README, flags of the 256x256 unconditional model.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # it uses names that torch has renamed
            from guided_diffusion.script_util import create_model
    except ImportError as error:
        raise ValueError(
            "The original network is that of guided-diffusion-sdk, which is not installed. Type "
            "`pip install guided-diffusion-sdk`, or leave `extraction` out of --sections."
        ) from error
    return create_model(
        image_size=size.image_size,
        num_channels=size.network_width,
        num_res_blocks=2,
        channel_mult=",".join(map(str, WIDTH_FACTORS)),
        learn_sigma=True,
        attention_resolutions=",".join(str(size.image_size // factor) for factor in ATTENTION_AT),
        num_head_channels=size.network_width // 4,
        use_scale_shift_norm=True,
        resblock_updown=True,
    ).eval()


def make_heads(config: FEDDConfig) -> FEDDForSegmentation:
    """Build a model whose backbone takes no memory: heads that learn from stored features do not need it."""
    with torch.device("meta"):
        model = FEDDForSegmentation(config)
    model.decode_head = FEDDDecodeHead(config)
    return model.eval()


def write_random_features(folder: Path, config: FEDDConfig, num_photos: int) -> list[Path]:
    """Write random features as a feature store holds them, float16, one file per photo.

    Source: [`~fedd_hf.features.FeatureStore`].
    """
    generator = torch.Generator().manual_seed(0)
    files = [folder / f"{photo:04d}.safetensors" for photo in range(num_photos)]
    for file in files:
        maps = {}
        for block, channels in zip(config.blocks, config.feature_channels, strict=True):
            side = config.block_size(block)
            maps[f"block{block:02d}"] = torch.randn(side, side, channels, generator=generator).half()
        save_file(maps, file)
    return files
