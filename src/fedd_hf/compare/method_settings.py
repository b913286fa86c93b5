"""What all methods of an experiment have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator

from fedd_hf.baselines.recipes import CLASSIFIER_RECIPE, DEEPDERM_RECIPE, UNET_RECIPE, FittingArguments
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments

from .described_backbone import describe_backbone


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

    @cached_property
    def image_size(self) -> int:
        """Side in pixels of the square that all methods see: what was given, else the backbone's own."""
        return describe_backbone(self.reading, "segmentation").image_size

    @property
    def processor(self) -> FEDDImageProcessor:
        """What brings photos to all methods."""
        return FEDDImageProcessor(size=self.image_size)
