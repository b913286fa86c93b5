"""The methods that can be compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fedd_hf.unet_files_fedd import locate_backbone

from .fedd_method import FEDDMethod, draw_random_backbone
from .run import SEGMENTATION, TASKS, Method, MethodSettings

FEDD = "FEDD"
FEDD_ON = "FEDD on "  # a backbone follows
RANDOM_UNET = "random UNet"
COLOUR, COLOUR_AND_POSITION = "raw colour", "colour and position"
LITE0, FROZEN_LITE0 = "EfficientNetLite0", "frozen EfficientNetLite0"
DINOV2 = "DINOv2"
DEEPDERM, ALWAYS_BENIGN = "DeepDerm", "always benign"
PAPER_CNNS = ("DenseNet121", "VGG16", "ResNet50", "EfficientNetB0", "MobileNetV2")
PAPER_BASELINES = (*PAPER_CNNS, DEEPDERM)


def make_method(name: str, settings: MethodSettings) -> Method:
    """Make a method by its name.

    Args:
        name (`str`):
            Key of `METHODS`, or `FEDD on BACKBONE`, with a folder or a repository id: FEDD on that backbone.
        settings ([`MethodSettings`]):
            What all methods of the comparison have in common.

    Raises:
        ImportError: If it is a baseline, and `fedd-hf[baselines]` is not installed.
        OSError: If there is no such backbone.
        ValueError: If there is none of this name.

    Example:
        >>> fedd = make_method("FEDD", settings)  # doctest: +SKIP
    """
    check_method(name)
    if name.startswith(FEDD_ON):
        backbone = name.removeprefix(FEDD_ON)
        return FEDDMethod(FEDD_ON + Path(backbone).name, str(locate_backbone(backbone)), settings)
    return METHODS[name](settings)


def check_method(name: str) -> None:
    """Make sure that there is a method of this name.

    Raises:
        ValueError: If there is none.
    """
    if name not in METHODS and not name.startswith(FEDD_ON):
        raise ValueError(f"A method must be one of {list(METHODS)} or 'FEDD on BACKBONE', got {name!r}.")


def make_fedd(settings: MethodSettings) -> FEDDMethod:
    """Make FEDD on the backbone of the settings."""
    return FEDDMethod(FEDD, settings.reading.backbone, settings)


def make_random_unet(settings: MethodSettings) -> FEDDMethod:
    """Make what pretraining is compared with: FEDD on the same UNet with random weights, which are drawn once."""
    backbone = draw_random_backbone(settings.reading.backbone, settings.folder, settings.accelerator)
    return FEDDMethod(RANDOM_UNET, str(backbone), settings)


def make_baseline(settings: MethodSettings, kind: str, **arguments: Any) -> Method:
    """Make a method of [`~fedd_hf.compare.baseline_methods`], whose libraries FEDD itself does not need.

    Raises:
        ImportError: If they are not installed.
    """
    try:
        baselines = import_module("fedd_hf.compare.baseline_methods")
    except ImportError as error:
        advice = 'Type `pip install "fedd-hf[baselines]"`.'
        raise ImportError(f"Baselines need more libraries: {error}. {advice}") from error
    return getattr(baselines, kind)(settings=settings, **arguments)


def _frozen(network: str, tasks: tuple[str, ...], name: str) -> Callable[[MethodSettings], Method]:
    return partial(make_baseline, kind="FrozenMethod", name=name, network=network, tasks=tasks)


METHODS: dict[str, Callable[[MethodSettings], Method]] = {
    FEDD: make_fedd,
    RANDOM_UNET: make_random_unet,
    COLOUR: _frozen("colour", (SEGMENTATION,), COLOUR),
    COLOUR_AND_POSITION: _frozen("colour and position", (SEGMENTATION,), COLOUR_AND_POSITION),
    FROZEN_LITE0: _frozen(LITE0, (SEGMENTATION,), FROZEN_LITE0),
    DINOV2: _frozen("DINOv2", TASKS, DINOV2),
    **{encoder: partial(make_baseline, kind="CNNMethod", encoder=encoder) for encoder in (LITE0, *PAPER_CNNS)},
    DEEPDERM: partial(make_baseline, kind="DeepDermMethod"),
    ALWAYS_BENIGN: partial(make_baseline, kind="AlwaysBenign"),
}
