"""The methods that experiments compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fedd_hf.baselines.arguments import CLASSIFIER_RECIPE, DEEPDERM_RECIPE, UNET_RECIPE, FittingArguments
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments

from .feature_method import FeatureMethod
from .random_backbone import write_random_backbone
from .trial import SEGMENTATION, TASKS, Method

FEDD = "FEDD"
RANDOM_UNET = "random UNet"
COLOUR, COLOUR_AND_POSITION = "raw colour", "colour and position"
LITE0, FROZEN_LITE0 = "EfficientNetLite0", "frozen EfficientNetLite0"
PAPER_CNNS = ("DenseNet121", "VGG16", "ResNet50", "EfficientNetB0", "MobileNetV2")
DINOV2 = "DINOv2"
DEEPDERM, ALWAYS_BENIGN = "DeepDerm", "always benign"
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
        weights (`str`):
            Of baselines: `"imagenet"`, or `"random"`, which is no comparison.
        unet ([`FittingArguments`]):
            How U-Nets are trained; a trial brings the seed.
        classifier ([`FittingArguments`]):
            How classifiers on frozen CNNs are trained; a trial brings the seed.
        deepderm ([`FittingArguments`]):
            How DeepDerm is trained, twice; a trial brings the seed.
        ham10000 (`str`, *optional*):
            Folder of HAM10000, from which DeepDerm learns first.
    """

    folder: Path
    accelerator: Accelerator
    reading: ReadingArguments = field(default_factory=ReadingArguments)
    malignancy_readings: dict[float, tuple[int, int]] | None = None
    segmentation: SegmentationArguments = field(default_factory=SegmentationArguments)
    classification: ClassificationArguments = field(default_factory=ClassificationArguments)
    weights: str = "imagenet"
    unet: FittingArguments = UNET_RECIPE
    classifier: FittingArguments = CLASSIFIER_RECIPE
    deepderm: FittingArguments = DEEPDERM_RECIPE
    ham10000: str | None = None


def make_method(name: str, settings: MethodSettings) -> Method:
    """Make a method by its name.

    Raises:
        ImportError: If it is a baseline, and `fedd-hf[baselines]` is not installed.
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
    return _on_backbone(RANDOM_UNET, settings, str(backbone))


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


def make_cnn(settings: MethodSettings, encoder: str) -> Method:
    """Make a baseline of the paper, or its like on EfficientNet-Lite0."""
    baselines = _import_baselines()
    return baselines.CNNMethod(encoder, _baseline_settings(settings))


def make_frozen(settings: MethodSettings, name: str, network: str, tasks: tuple[str, ...]) -> Method:
    """Make the heads of FEDD on a frozen network other than a diffusion model."""
    baselines = _import_baselines()
    return baselines.FrozenMethod(name, network, tasks, _baseline_settings(settings))


def make_deepderm(settings: MethodSettings) -> Method:
    """Make DeepDerm as the authors re-implemented it."""
    baselines = _import_baselines()
    return baselines.DeepDermMethod(_baseline_settings(settings))


def make_always_benign(settings: MethodSettings) -> Method:
    """Make what calls every photo benign."""
    baselines = _import_baselines()
    return baselines.AlwaysBenign(_baseline_settings(settings))


def _import_baselines() -> Any:
    """Import what needs libraries that FEDD itself does not."""
    try:
        return import_module("fedd_hf.experiments.baseline_methods")
    except ImportError as error:
        raise ImportError(
            f'Baselines need more libraries: {error}. Type `pip install "fedd-hf[baselines]"`.'
        ) from error


def _baseline_settings(settings: MethodSettings) -> Any:
    """Let baselines see photos at the size at which FEDD does."""
    return _import_baselines().BaselineSettings(
        image_size=make_fedd(settings).open_segmenter().config.image_size,
        weights=settings.weights,
        unet=settings.unet,
        classifier=settings.classifier,
        deepderm=settings.deepderm,
        ham10000=settings.ham10000,
        folder=settings.folder,
        pixel_head=settings.segmentation,
        accelerator=settings.accelerator,
    )


METHODS: dict[str, Callable[[MethodSettings], Method]] = {
    FEDD: make_fedd,
    RANDOM_UNET: make_random_unet,
    COLOUR: partial(make_frozen, name=COLOUR, network="colour", tasks=(SEGMENTATION,)),
    COLOUR_AND_POSITION: partial(
        make_frozen, name=COLOUR_AND_POSITION, network=COLOUR_AND_POSITION, tasks=(SEGMENTATION,)
    ),
    FROZEN_LITE0: partial(make_frozen, name=FROZEN_LITE0, network=LITE0, tasks=(SEGMENTATION,)),
    DINOV2: partial(make_frozen, name=DINOV2, network=DINOV2, tasks=TASKS),
    **{encoder: partial(make_cnn, encoder=encoder) for encoder in (LITE0, *PAPER_CNNS)},
    DEEPDERM: make_deepderm,
    ALWAYS_BENIGN: make_always_benign,
}
