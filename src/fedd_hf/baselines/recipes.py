"""Arguments of the baselines' trainings; the defaults are the authors'."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FittingArguments:
    """How a network is trained until a score of the validation photos no longer grows.

    Args:
        learning_rate (`float`): Adam's learning rate.
        batch_size (`int`): Photos of a step.
        max_epochs (`int`): Epochs at most.
        patience (`int`): Epochs without a better score after which training stops.
        plateau_patience (`int`): Epochs without a better score after which the learning rate falls to a tenth.
        min_learning_rate (`float`): What it falls to at least.
        seed (`int`): Seed of new weights, of dropout and of the order of photos.

    Raises:
        ValueError: If a number is less than 1.
    """

    learning_rate: float = 1e-4
    batch_size: int
    max_epochs: int
    patience: int
    plateau_patience: int
    min_learning_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_epochs", "patience", "plateau_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


# Source: hectorcarrion/FEDD, notebook of the U-Nets.
UNET_RECIPE = FittingArguments(batch_size=64, max_epochs=1000, patience=100, plateau_patience=50)
# Source: hectorcarrion/FEDD, notebook of the classifiers.
CLASSIFIER_RECIPE = FittingArguments(batch_size=30, max_epochs=500, patience=50, plateau_patience=25)
# Source: hectorcarrion/FEDD, notebook of DeepDerm; the learning rate does not fall.
DEEPDERM_RECIPE = FittingArguments(batch_size=30, max_epochs=500, patience=50, plateau_patience=500)
