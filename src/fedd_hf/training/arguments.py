"""Arguments of a training run; the model's own are in FEDDConfig."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReadingArguments:
    """Which backbone is read, and where; what is not given is the backbone's own default.

    Args:
        backbone (`str`): `embedded`, a folder or a repository id.
        blocks (`list[int]`, *optional*): Decoder blocks, in the paper's numbering.
        timesteps (`list[int]`, *optional*): Noise levels.
        image_size (`int`, *optional*): Side of the square to which photos are brought, in pixels.
    """

    backbone: str = field(default="embedded", metadata={"help": "'embedded', a folder or a repository id"})
    blocks: list[int] | None = field(default=None, metadata={"help": "decoder blocks, in the paper's numbering"})
    timesteps: list[int] | None = field(default=None, metadata={"help": "noise levels"})
    image_size: int | None = field(default=None, metadata={"help": "side of the square, in pixels"})

    def given(self) -> dict[str, Any]:
        """Return the fields of `FEDDConfig` that were given."""
        fields = {"blocks": self.blocks, "timesteps": self.timesteps, "image_size": self.image_size}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Where a run leaves its result.

    Args:
        output_dir (`str`): Folder for the model, its image processor and `run.json`.
    """

    output_dir: str = field(metadata={"help": "folder for the model, its image processor and run.json"})


@dataclass(frozen=True, kw_only=True)
class SegmentationArguments:
    """How the pixel classifiers are trained.

    Args:
        learning_rate (`float`): Peak of Adam's learning rate, which then falls along a cosine to 0.
        num_steps (`int`): Number of optimizer steps.
        images_per_step (`int`): Photos in a batch.
        pixels_per_image (`int`): Pixels drawn from each of them, uniformly.
        seed (`int`): Seed of the heads' weights, the order of photos and the choice of pixels.

    Raises:
        ValueError: If `num_steps` is less than 1.
    """

    learning_rate: float = 2e-3
    num_steps: int = 300
    images_per_step: int = 10
    pixels_per_image: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1, got {self.num_steps}.")


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

    Raises:
        ValueError: If `max_epochs` is less than 1.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    max_epochs: int = 500
    patience: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_epochs < 1:
            raise ValueError(f"`max_epochs` must be at least 1, got {self.max_epochs}.")
