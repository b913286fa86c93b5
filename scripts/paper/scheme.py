"""What a model is made of, in numbers: what Figure 3 draws."""

from __future__ import annotations

from typing import Any

from fedd_hf.configuration_fedd import FEDDConfig


def describe_scheme(config: FEDDConfig) -> dict[str, Any]:
    """Describe the path from photo to segmentation map and malignancy score.

    Args:
        config ([`FEDDConfig`]):
            Configuration of the segmentation model.

    Returns:
        `dict`: `image_size`, `timesteps` and `alphas_cumprod` at each of them; `encoder` (channels and size in pixels
        of each level); `blocks` (number, channels and size of each decoder block, and whether it is read); the widths
        of both heads.
    """
    channels = config.backbone_config["block_out_channels"]
    levels = [{"channels": width, "size": config.image_size >> level} for level, width in enumerate(channels)]
    blocks = [
        {
            "block": block,
            "channels": config.block_channels(block),
            "size": config.block_size(block),
            "is_read": block in config.blocks,
        }
        for block in range(config.num_blocks)
    ]
    return {
        "image_size": config.image_size,
        "timesteps": list(config.timesteps),
        "alphas_cumprod": config.alphas_cumprod()[config.timesteps].tolist(),
        "encoder": levels,
        "blocks": blocks,
        "ensemble_size": config.ensemble_size,
        "hidden_sizes": list(config.hidden_sizes),
        "num_labels": config.num_labels,
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "pooled_size": config.pooled_size,
        "classifier_sizes": [*config.classifier_hidden_sizes, 1],
    }
