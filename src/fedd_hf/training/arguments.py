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
class FeatureArguments:
    """How features get from the backbone to the heads.

    Args:
        features (`str`): Folder of the feature stores.
        dtype (`str`): `float16` or `float32`.
        batch_size (`int`, *optional*): Photos per pass of the backbone; 131,072 pixels by default.
        num_threads (`int`, *optional*): Threads of each process that fills a store; torch's by default.

    Raises:
        ValueError: If `dtype` is unknown, or a number is less than 1.
    """

    features: str = field(default="features", metadata={"help": "folder of the feature stores"})
    dtype: str = field(default="float16", metadata={"help": "float16 or float32"})
    batch_size: int | None = field(default=None, metadata={"help": "photos per pass of the backbone"})
    num_threads: int | None = field(default=None, metadata={"help": "threads of each process"})

    def __post_init__(self) -> None:
        _need_one_of("dtype", self.dtype, ("float16", "float32"))
        for name in ("batch_size", "num_threads"):
            _need_positive(name, getattr(self, name))

    def of_store(self) -> dict[str, Any]:
        """Return the options of a feature store."""
        return {name: getattr(self, name) for name in ("dtype", "batch_size", "num_threads")}


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where a run leaves its result, and how Accelerate runs it.

    Args:
        output_dir (`str`): Folder for the model, its image processor and `run.json`.
        mixed_precision (`str`): `no`, `fp16` or `bf16`, of the heads.
        gradient_accumulation_steps (`int`): Parts into which the batch of a step is cut.
        log_with (`str`, *optional*): Tracker of Accelerate, such as `tensorboard`.
        push_to_hub (`str`, *optional*): Repository id to push the model to.
    """

    output_dir: str = field(metadata={"help": "folder for the model, its image processor and run.json"})
    mixed_precision: str = field(default="no", metadata={"help": "no, fp16 or bf16, of the heads"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "parts into which a batch is cut"})
    log_with: str | None = field(default=None, metadata={"help": "tracker of Accelerate, such as tensorboard"})
    push_to_hub: str | None = field(default=None, metadata={"help": "repository id to push the model to"})

    def __post_init__(self) -> None:
        _need_positive("gradient_accumulation_steps", self.gradient_accumulation_steps)


@dataclass(frozen=True, kw_only=True)
class SegmentationArguments:
    """How the pixel classifiers are trained.

    Args:
        learning_rate (`float`): Peak of Adam's learning rate, which then falls along a cosine to 0.
        num_steps (`int`): Number of optimizer steps.
        images_per_step (`int`): Photos in a batch.
        pixels_per_image (`int`): Pixels drawn from each of them, uniformly.
        class_weights (`str`, *optional*): `balanced` weighs each class by the inverse of its share of pixels.
        seed (`int`): Seed of the heads' weights, the order of photos and the choice of pixels.

    Raises:
        ValueError: If a number is less than 1, or a name is unknown.
    """

    learning_rate: float = 2e-3
    num_steps: int = 900
    images_per_step: int = 16
    pixels_per_image: int = 64
    class_weights: str | None = field(default=None, metadata={"help": "balanced"})
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_steps", "images_per_step", "pixels_per_image"):
            _need_positive(name, getattr(self, name))
        _need_one_of("class_weights", self.class_weights, (None, "balanced"))


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
        _need_positive("max_epochs", self.max_epochs)


@dataclass(frozen=True)
class Stage:
    """Steps of pre-training at one resolution.

    Args:
        image_size (`int`):
            Side of the crops, in pixels.
        batch_size (`int`):
            Photos of a step.
        numbers (`range`):
            Numbers of the exposures, whole batches of them.
    """

    image_size: int
    batch_size: int
    numbers: range

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return len(self.numbers) // self.batch_size


@dataclass(frozen=True, kw_only=True)
class PretrainingArguments:
    """How a backbone is pretrained, in stages of growing resolution.

    Args:
        image_sizes (`list[int]`): Side of the crops of each stage, in pixels.
        exposures (`list[int]`): Crops that are seen in each stage.
        batch_sizes (`list[int]`): Crops of a step of each stage.
        learning_rate (`float`): AdamW's learning rate.
        ema_decay (`float`): Decay of the moving average of the weights, which starts lower.
        least_crop (`float`): Least side of a crop as a share of the photo's shorter side.
        look_every (`int`): Steps from one look at the moving average, and one checkpoint, to the next.
        seed (`int`): Seed of the weights, crops, noise and timesteps.

    Raises:
        ValueError: If the stages are not of one number, a number is less than 1, or a share is not in (0, 1].
    """

    image_sizes: list[int] = field(default_factory=lambda: [32, 64], metadata={"help": "side of crops, by stage"})
    exposures: list[int] = field(default_factory=lambda: [160_000, 40_000], metadata={"help": "crops of each stage"})
    batch_sizes: list[int] = field(default_factory=lambda: [24, 12], metadata={"help": "crops of a step, by stage"})
    learning_rate: float = 4e-4
    ema_decay: float = 0.999
    least_crop: float = 0.6
    look_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not len(self.image_sizes) == len(self.exposures) == len(self.batch_sizes):
            raise ValueError(
                "`image_sizes`, `exposures` and `batch_sizes` must have one number for each stage, got "
                f"{self.image_sizes}, {self.exposures} and {self.batch_sizes}."
            )
        for stage, (exposures, batch_size) in enumerate(zip(self.exposures, self.batch_sizes, strict=True)):
            _need_positive(f"batch_sizes[{stage}]", batch_size)
            if exposures < batch_size:
                raise ValueError(f"`exposures[{stage}]` {exposures} is less than one batch of {batch_size}.")
        _need_positive("look_every", self.look_every)
        for name in ("ema_decay", "least_crop"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1], got {getattr(self, name)}.")

    def stages(self) -> list[Stage]:
        """Return the stages; exposures that do not fill a batch are left out."""
        stages, start = [], 0
        for image_size, exposures, batch_size in zip(self.image_sizes, self.exposures, self.batch_sizes, strict=True):
            stop = start + exposures // batch_size * batch_size
            stages.append(Stage(image_size, batch_size, range(start, stop)))
            start = stop
        return stages


def _need_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")


def _need_one_of(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {list(allowed)}, got {value!r}.")
