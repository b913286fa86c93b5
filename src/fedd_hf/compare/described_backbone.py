"""A backbone as its files describe it, before its weights are loaded."""

from __future__ import annotations

from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.training.arguments import ReadingArguments
from fedd_hf.unet_files_fedd import locate_backbone, read_backbone_config, read_backbone_defaults


def describe_backbone(reading: ReadingArguments, task: str) -> FEDDConfig:
    """Describe a backbone at the image size of a task; its blocks and timesteps are still to be chosen.

    Args:
        reading ([`ReadingArguments`]):
            Which backbone; its blocks and timesteps are not used.
        task (`str`):
            `"segmentation"` or `"classification"`, whose image size is stored beside the backbone, if one is.

    Raises:
        FileNotFoundError: If the backbone is not there.
        ValueError: If it cannot be read at this image size.
    """
    folder = locate_backbone(reading.backbone)
    fields = read_backbone_config(folder) | read_backbone_defaults(folder, task)
    size = {} if reading.image_size is None else {"image_size": reading.image_size}
    return FEDDConfig(**(fields | size | {"blocks": [0], "timesteps": [0]}))
