"""Arguments of a training run; the model's own are in FEDDConfig."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SegmentationArguments:
    """How the pixel classifiers are trained.

    Args:
        learning_rate (`float`): Peak of Adam's learning rate, which then falls along a cosine to 0.
        num_steps (`int`): Number of optimizer steps.
        images_per_step (`int`): Photos in a batch.
        pixels_per_image (`int`): Pixels drawn from each of them, uniformly.
        seed (`int`): Seed of the heads' weights, the order of photos and the choice of pixels.
    """

    learning_rate: float = 2e-3
    num_steps: int = 300
    images_per_step: int = 10
    pixels_per_image: int = 400
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ClassificationArguments:
    """How the malignancy classifier is trained: full batch, stopped by the validation loss.

    Source: FEDD (MICCAI 2023), supplement, section 3; the learning rate is not published.

    Args:
        learning_rate (`float`): Adam's learning rate.
        weight_decay (`float`): Adam's L2 penalty.
        max_epochs (`int`): Epochs at most, each of one step.
        patience (`int`): Epochs without a better validation loss after which training stops.
        seed (`int`): Seed of the head's weights and of dropout.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    max_epochs: int = 500
    patience: int = 50
    seed: int = 0
