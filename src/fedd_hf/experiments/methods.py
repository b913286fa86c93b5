"""The methods that experiments compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments

from .feature_method import FeatureMethod
from .random_backbone import write_random_backbone
from .trial import Method

FEDD = "FEDD"
RANDOM = "random UNet"
RANDOM_SEED = 1  # of the weights of the floor


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What all methods of an experiment have in common.

    Args:
        folder (`Path`):
            Existing folder for what methods compute once, such as features.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes.
        reading ([`ReadingArguments`]):
            Backbone, and the blocks and timesteps that pixel classifiers read; by default the backbone's own.
        malignancy_readings (`dict[float, tuple[int, int]]`, *optional*):
            Block and timestep of the malignancy classifier by label fraction; by default those of the paper.
        segmentation ([`SegmentationArguments`]):
            How pixel classifiers are trained; a trial brings the seed.
        classification ([`ClassificationArguments`]):
            How malignancy classifiers are trained; a trial brings the seed.
    """

    folder: Path
    accelerator: Accelerator
    reading: ReadingArguments = field(default_factory=ReadingArguments)
    malignancy_readings: dict[float, tuple[int, int]] | None = None
    segmentation: SegmentationArguments = field(default_factory=SegmentationArguments)
    classification: ClassificationArguments = field(default_factory=ClassificationArguments)


def make_method(name: str, settings: MethodSettings) -> Method:
    """Make a method by its name.

    Raises:
        ValueError: If there is none of this name.

    Example:
        >>> fedd = make_method("FEDD", settings)  # doctest: +SKIP
    """
    if name not in METHODS:
        raise ValueError(f"A method must be one of {list(METHODS)}, got {name!r}.")
    return METHODS[name](settings)


def make_fedd(settings: MethodSettings) -> FeatureMethod:
    """Make FEDD on the backbone of the settings."""
    return _on_backbone(FEDD, settings, settings.reading.backbone)


def make_random_unet(settings: MethodSettings) -> FeatureMethod:
    """Make the floor: FEDD on the same UNet with random weights, which are drawn once and stay in the folder."""
    folder, source = settings.folder / "random-unet", settings.reading.backbone
    backbone = write_random_backbone(source, folder, settings.accelerator, RANDOM_SEED)
    return _on_backbone(RANDOM, settings, str(backbone))


def _on_backbone(name: str, settings: MethodSettings, backbone: str) -> FeatureMethod:
    return FeatureMethod(
        name,
        settings.reading,
        backbone,
        settings.malignancy_readings,
        settings.segmentation,
        settings.classification,
        settings.folder / "features",
        settings.accelerator,
    )


METHODS: dict[str, Callable[[MethodSettings], Method]] = {FEDD: make_fedd, RANDOM: make_random_unet}
