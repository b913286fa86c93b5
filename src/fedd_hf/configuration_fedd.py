"""FEDDConfig: everything that is needed to rebuild a model, typed and checked at the door."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import field, fields
from typing import Any, ClassVar

import numpy as np
from transformers import PreTrainedConfig
from transformers.utils import logging

# The paper's backbone, `256x256_diffusion_uncond` of guided-diffusion, as diffusers builds it.
PAPER_UNET: dict[str, Any] = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 6,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 3,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"] * 3,
    "block_out_channels": [256, 256, 512, 512, 1024, 1024],
    "layers_per_block": 2,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "attn_norm_num_groups": 32,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "scale_shift",
}
SEGMENTATION_LABELS = ("background", "lesion", "marker", "ruler", "skin")
MALIGNANCY_LABELS = ("benign", "malignant")

UP_BLOCK_TYPES = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")
DOWN_BLOCK_TYPES = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
VOTINGS = ("majority", "mean")
DTYPES = ("float16", "bfloat16", "float32", "float64")

# What transformers reads or writes in a config.json beside the fields of the class; its Trainer writes `use_cache`.
_FIELDS_OF_TRANSFORMERS = {"model_type", "auto_map", "num_labels", "output_attentions", "use_cache", "_name_or_path"}
# What transformers acts on, and a configuration from elsewhere may not ask for: other code, kernels, files, weights.
_REFUSED_FIELDS = re.compile(
    r"quantization_config|_?(attn|experts)_implementation.*|fusion_config|kernel_config|transformers_weights"
    r"|distributed_config|per_layer_config|extra_(config_)?files|adapter_(config|kwargs|name)|.*_plan"
    r"|custom_pipelines"
)
_ADDED = "user_attributes"
_OWN_CLASS = re.compile(r"\w+\.\w+")  # in `auto_map`: a class in a file of the same repository

_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_VARIANT = re.compile(r"\w+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

logger = logging.get_logger(__name__)


class FEDDConfig(PreTrainedConfig):
    r"""Configuration of a FEDD model; the defaults are the paper's segmentation model.

    Args:
        backbone_config (`dict`, *optional*, defaults to the paper's network):
            Arguments of `diffusers.UNet2DModel`: an unconditional pixel-space DDPM.
        num_train_timesteps (`int`, *optional*, defaults to 1000):
            Length of the noise schedule that the backbone was trained with.
        beta_start (`float`, *optional*, defaults to 1e-4):
            First beta of the schedule.
        beta_end (`float`, *optional*, defaults to 0.02):
            Last beta of the schedule.
        beta_schedule (`str`, *optional*, defaults to `"linear"`):
            `"linear"`, `"scaled_linear"` or `"squaredcos_cap_v2"`, as in diffusers' `DDPMScheduler`.
        backbone (`str`, *optional*):
            Where the frozen UNet comes from: a repository id, `"embedded"` (the small one inside this package) or,
            if this configuration lies in a local folder, a path relative to it that starts with `./` or `../`.
        backbone_revision (`str`, *optional*):
            Commit of the backbone's repository, 40 hexadecimal digits.
        backbone_variant (`str`, *optional*):
            Variant of the backbone's weights, such as `"fp16"`.
        backbone_sha256 (`str`, *optional*):
            SHA-256 over the sorted (name, dtype, shape, bytes) of the untruncated UNet's tensors as stored.
        save_backbone (`bool`, *optional*, defaults to `True`):
            Whether `save_pretrained` writes the UNet too. If not, only the heads are written, and `backbone`,
            `backbone_revision` and `backbone_sha256` say where the rest is.
        blocks (`list[int]`, *optional*, defaults to `[6, 8]`):
            Decoder blocks to read, in the paper's numbering (guided-diffusion `output_blocks`), rising.
        timesteps (`list[int]`, *optional*, defaults to `[100]`):
            Noise levels at which the UNet is run, in `[0, num_train_timesteps)`. Each adds one forward pass.
        noise_seed (`int`, *optional*, defaults to 0):
            Seed of the one noise image that all photos share.
        image_size (`int`, *optional*, defaults to 256):
            Side in pixels of the square that the UNet sees, a multiple of its downsampling factor. It may differ from
            the UNet's `sample_size`.
        hidden_sizes (`list[int]`, *optional*, defaults to `[128, 32]`):
            Widths of each pixel classifier.
        ensemble_size (`int`, *optional*, defaults to 5):
            Number of pixel classifiers that vote.
        voting (`str`, *optional*, defaults to `"majority"`):
            How a map is made: `"majority"` of the members, as in the paper, or `"mean"`, the largest mean probability.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label of pixels that do not count.
        pooled_size (`int`, *optional*, defaults to 512):
            Length of the pooled feature vector of the malignancy classifier.
        classifier_hidden_sizes (`list[int]`, *optional*, defaults to `[64, 32]`):
            Widths of the malignancy classifier.
        classifier_dropout (`list[float]`, *optional*, defaults to `[0.5, 0.25]`):
            Dropout after each of them.

    Raises:
        ValueError: If a value is outside what the method or the backbone allows.

    Source: FEDD (MICCAI 2023), section 3; guided-diffusion, `unet.py`; ddpm-segmentation, `pixel_classifier.py`.
    """

    model_type: ClassVar[str] = "fedd"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["votes"]  # so that a Trainer's predictions are the logits

    backbone_config: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(PAPER_UNET))
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    backbone: str | None = None
    backbone_revision: str | None = None
    backbone_variant: str | None = None
    backbone_sha256: str | None = None
    save_backbone: bool = True
    blocks: list[int] = field(default_factory=lambda: [6, 8])
    timesteps: list[int] = field(default_factory=lambda: [100])
    noise_seed: int = 0
    image_size: int = 256
    hidden_sizes: list[int] = field(default_factory=lambda: [128, 32])
    ensemble_size: int = 5
    voting: str = "majority"
    semantic_loss_ignore_index: int = 255
    pooled_size: int = 512
    classifier_hidden_sizes: list[int] = field(default_factory=lambda: [64, 32])
    classifier_dropout: list[float] = field(default_factory=lambda: [0.5, 0.25])

    def __post_init__(self, **kwargs: Any) -> None:
        self.backbone_config = copy.deepcopy(self.backbone_config)
        labels: dict[int, str] | None = self.id2label  # type: ignore[has-type]
        if labels is None:
            labels = _default_labels(kwargs.pop("num_labels", len(SEGMENTATION_LABELS)))
        self.id2label = labels
        if self.label2id is None:  # type: ignore[has-type]
            self.label2id = {label: int(index) for index, label in labels.items()}
        for name in ("blocks", "timesteps", "hidden_sizes", "classifier_hidden_sizes", "classifier_dropout"):
            setattr(self, name, _as_list(name, getattr(self, name)))
        self.validate()
        super().__post_init__(**kwargs)

    def validate(self) -> None:
        """Check every field, at construction and, by transformers, before saving.

        Raises:
            ValueError: If a value is outside what the method or the backbone allows.
        """
        _check_unet(self.backbone_config)
        _check_schedule(self)
        _check_features(self)
        _check_heads(self)
        _check_labels(self)
        _check_source(self)
        _check_dtype(self)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from a dictionary; unknown fields are named in a warning and dropped.

        A config.json may come from anybody, and transformers acts on fields that it does not announce: some name code
        to be fetched and run (CVE-2026-4372). So only the fields of this class are read.

        Raises:
            ValueError: If `model_type` names another model, or a field asks for code, kernels, files or weights of
                others.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type or "_class_name" in config_dict:
            found = config_dict.get("_class_name", model_type)
            raise ValueError(
                f"This is the configuration of a {found!r}, not of a {cls.model_type!r} model. To put new heads on a "
                "diffusers UNet2DModel, type FEDDForSegmentation.from_backbone(...)."
            )
        if kwargs.get("dtype") == "auto":  # which pipelines pass on to whatever they open; it is for the model
            del kwargs["dtype"]
        if "id2label" in kwargs:
            kwargs.setdefault("label2id", {label: int(index) for index, label in kwargs["id2label"].items()})
        known, added = _known_fields(cls, config_dict)
        config, unused = super().from_dict(known, **kwargs | {"return_unused_kwargs": True})
        for name, value in added.items():
            setattr(config, name, value)
        config.validate()  # transformers sets keywords after construction
        return (config, unused) if kwargs.get("return_unused_kwargs") else config

    def to_dict(self) -> dict[str, Any]:
        """Return all fields; attributes that a user has added stand together, so that they are known when read."""
        output = super().to_dict()
        added = {
            name: output.pop(name) for name in vars(self) if name not in _known_names(type(self)) and name[0] != "_"
        }
        return output | ({_ADDED: added} if added else {})

    @property
    def num_blocks(self) -> int:
        """Number of decoder blocks that the UNet has."""
        return len(self.backbone_config["up_block_types"]) * (self.backbone_config["layers_per_block"] + 1)

    def block_channels(self, block: int) -> int:
        """Number of channels of the activation of `block`."""
        level, _ = block_address(self.backbone_config, block)
        return int(self.backbone_config["block_out_channels"][::-1][level])

    def block_size(self, block: int) -> int:
        """Side in pixels of the activation of `block`, when the UNet sees `image_size`."""
        level, layer = block_address(self.backbone_config, block)
        last_level = len(self.backbone_config["block_out_channels"]) - 1
        is_upsampled = layer == self.backbone_config["layers_per_block"] and level < last_level
        return self.image_size // 2 ** (last_level - level - is_upsampled)

    def pooled_rows(self, block: int) -> int:
        """Number of rows of `block` that are pooled apart, so that the pooled vector has `pooled_size` numbers."""
        return max(1, math.ceil(self.pooled_size / self.block_channels(block)))

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each feature map, one map per block: those of the block, once for each timestep."""
        return tuple(len(self.timesteps) * self.block_channels(block) for block in self.blocks)

    def alphas_cumprod(self) -> np.ndarray:
        """Return alpha-bar, float64 of shape `(num_train_timesteps,)`. Source: DDPM (2006.11239), eq. 4."""
        return np.cumprod(1.0 - _betas(self))

    # transformers names and numbers the stages of a backbone: here they are the blocks. `BackboneMixin` reads the
    # private names too.

    @property
    def stage_names(self) -> list[str]:
        """Name of each decoder block."""
        return [f"block{block}" for block in range(self.num_blocks)]

    @property
    def out_indices(self) -> list[int]:
        """The blocks that are read; to set them is to set `blocks`."""
        return self.blocks

    @out_indices.setter
    def out_indices(self, indices: list[int] | tuple[int, ...] | None) -> None:
        self.blocks = [index % self.num_blocks for index in (indices or [-1])]
        _check_features(self)

    @property
    def out_features(self) -> list[str]:
        """Names of the blocks that are read; to set them is to set `blocks`."""
        return [self.stage_names[block] for block in self.blocks]

    @out_features.setter
    def out_features(self, names: list[str] | None) -> None:
        self.out_indices = None if names is None else [self.stage_names.index(name) for name in names]

    _out_indices, _out_features = out_indices, out_features

    def verify_out_features_out_indices(self) -> None:
        """Do nothing: blocks are checked where they are set."""


def default_features(fields: dict[str, Any], task: str) -> dict[str, Any]:
    """Choose `blocks`, `timesteps` and `image_size` for a UNet by its shape, where nobody has chosen better ones.

    Segmentation reads the first and the last block of the level a third of the way up, as the paper does with blocks 6
    and 8 of 18; classification the first from there that can be pooled, without noise. The image size is that of the
    pre-training, as near as the UNet can be given it.

    Args:
        fields (`dict[str, Any]`):
            What is known of the configuration, `backbone_config` at least.
        task (`str`):
            `"segmentation"` or `"classification"`.

    Source: FEDD (MICCAI 2023), section 3.
    """
    unet = fields["backbone_config"]
    _check_unet(unet)
    levels, layers = len(unet["up_block_types"]), unet["layers_per_block"] + 1
    factor, sample_size = 2 ** (levels - 1), np.max(unet.get("sample_size") or PAPER_UNET["sample_size"])
    image_size = max(1, round(int(sample_size) / factor)) * factor
    first = levels // 3 * layers
    if task == "segmentation":
        return {"blocks": [first, first + layers - 1], "timesteps": [100], "image_size": image_size}
    defaults = {"timesteps": [0], "image_size": image_size}
    config = FEDDConfig(**(defaults | fields | {"blocks": [first], "id2label": None, "num_labels": 2}))
    candidates = range(first, config.num_blocks)
    fitting = [block for block in candidates if config.pooled_rows(block) <= config.block_size(block)]
    return defaults | {"blocks": (fitting or [first])[:1]}


def block_address(unet_config: dict[str, Any], block: int) -> tuple[int, int]:
    """Translate a block number of the paper into diffusers' (up block, layer inside it).

    The paper counts the `output_blocks` of guided-diffusion, one per residual block; diffusers groups
    `layers_per_block + 1` of them into one up block.

    Source: guided-diffusion, `unet.py`, `UNetModel.output_blocks`.
    """
    return divmod(block, unet_config["layers_per_block"] + 1)


def _betas(config: FEDDConfig) -> np.ndarray:
    """Source: diffusers, `scheduling_ddpm.py`, in float64."""
    steps, start, end = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.beta_schedule == "linear":
        return np.linspace(start, end, steps)
    if config.beta_schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps) ** 2
    alpha_bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _known_names(cls: type[FEDDConfig]) -> set[str]:
    return {entry.name for entry in fields(cls)} | _FIELDS_OF_TRANSFORMERS


def _known_fields(cls: type[FEDDConfig], config_dict: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the known fields of a config.json and those that a user added; refuse what transformers would act on."""
    added = config_dict.get(_ADDED) or {}
    if not isinstance(added, dict):
        raise ValueError(f"`{_ADDED}` in a config.json of FEDD must be a dictionary, got {added!r}.")
    everything = [*config_dict.items(), *added.items()]
    refused = {name: value for name, value in everything if value and _REFUSED_FIELDS.fullmatch(name)}
    auto_map = config_dict.get("auto_map") or {}
    if not isinstance(auto_map, dict) or not all(_OWN_CLASS.fullmatch(str(name)) for name in auto_map.values()):
        refused["auto_map"] = auto_map
    if refused:
        raise ValueError(
            f"A config.json of FEDD may not hold {refused}: it would make transformers fetch or run what is not part "
            "of this model. If you trust it, delete these fields from a copy of the folder."
        )
    known = _known_names(cls)
    unreadable = {
        name
        for name, value in added.items()
        if name in known or name[:1] == "_" or hasattr(cls, name) or not _is_plain(value)
    }
    unknown = sorted(set(config_dict) - known - {_ADDED} | unreadable)
    if unknown:
        logger.warning(f"The configuration holds fields that FEDDConfig does not have; they are ignored: {unknown}.")
    return (
        {name: value for name, value in config_dict.items() if name in known},
        {name: value for name, value in added.items() if name not in unreadable},
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a string, number, boolean, None or a list of these, on which nothing acts."""
    return all(isinstance(item, str | int | float | None) for item in (value if isinstance(value, list) else [value]))


def _default_labels(num_labels: int) -> dict[int, str]:
    """Name the classes of the two tasks; classes of another count stay anonymous."""
    for labels in (SEGMENTATION_LABELS, MALIGNANCY_LABELS):
        if len(labels) == num_labels:
            return dict(enumerate(labels))
    return {index: f"LABEL_{index}" for index in range(num_labels)}


def _as_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"`{name}` must be a list, got {value!r}. Type `{name}=[{value!r}]`.")
    return list(value)


def _check_unet(unet: Any) -> None:
    if not isinstance(unet, dict):
        raise ValueError(f"`backbone_config` must be a dictionary, got {type(unet).__name__}.")
    missing = sorted({"up_block_types", "down_block_types", "block_out_channels", "layers_per_block"} - set(unet))
    if missing:
        raise ValueError(
            f"`backbone_config` must hold the arguments of a diffusers UNet2DModel; {missing} is missing."
        )
    if not _is_count(unet["layers_per_block"]) or not (
        len(unet["up_block_types"]) == len(unet["down_block_types"]) == len(unet["block_out_channels"]) > 0
    ):
        raise ValueError(
            "`backbone_config` must name one up block, one down block and one width per level, and a positive "
            f"`layers_per_block`; got {unet}."
        )
    for allowed, found in ((UP_BLOCK_TYPES, unet["up_block_types"]), (DOWN_BLOCK_TYPES, unet["down_block_types"])):
        unknown = sorted(set(found) - set(allowed))
        if unknown:
            raise ValueError(f"UNet blocks of type {unknown} cannot be read; {list(allowed)} can.")
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise ValueError("This UNet is class-conditional (`num_class_embeds`); FEDD needs an unconditional one.")
    if unet.get("time_embedding_type", "positional") != "positional" or unet.get("center_input_sample"):
        raise ValueError(
            "FEDD reads DDPMs with a positional time embedding on images in [-1, 1]; this UNet has "
            f"time_embedding_type={unet.get('time_embedding_type')!r}, "
            f"center_input_sample={unet.get('center_input_sample')}."
        )
    if unet.get("in_channels", 3) != 3:
        raise ValueError(f"FEDD reads UNets of RGB pixels; this one has in_channels={unet['in_channels']}.")


def _check_schedule(config: FEDDConfig) -> None:
    _require(config.beta_schedule in BETA_SCHEDULES, config, "beta_schedule", f"be one of {list(BETA_SCHEDULES)}")
    start, end = config.beta_start, config.beta_end
    if not (_is_number(start) and _is_number(end) and 0 < start <= end < 1):
        raise ValueError(f"Betas must satisfy 0 < beta_start <= beta_end < 1, got {start!r} and {end!r}.")
    _require(_is_count(config.num_train_timesteps), config, "num_train_timesteps", "be a positive integer")


def _check_features(config: FEDDConfig) -> None:
    """Check blocks, timesteps and image size against the UNet."""
    for name, end in (("blocks", config.num_blocks), ("timesteps", config.num_train_timesteps)):
        values = getattr(config, name)
        rises = bool(values) and all(map(_is_integer, values)) and values == sorted(set(values))
        is_inside = rises and values[0] >= 0 and values[-1] < end
        _require(is_inside, config, name, f"rise within [0, {end - 1}] for this backbone")
    factor, size = 2 ** (len(config.backbone_config["block_out_channels"]) - 1), config.image_size
    allowed = f"be a multiple of {factor}, the downsampling factor of this UNet"
    _require(_is_count(size) and size % factor == 0, config, "image_size", allowed)
    is_seed = _is_integer(config.noise_seed) and config.noise_seed >= 0
    _require(is_seed, config, "noise_seed", "be an integer of at least 0")


def _check_heads(config: FEDDConfig) -> None:
    _require(config.voting in VOTINGS, config, "voting", f"be one of {list(VOTINGS)}")
    for name in ("ensemble_size", "pooled_size"):
        _require(_is_count(getattr(config, name)), config, name, "be a positive integer")
    for name in ("hidden_sizes", "classifier_hidden_sizes"):
        sizes = getattr(config, name)
        _require(bool(sizes) and all(map(_is_count, sizes)), config, name, "be positive integers")
    dropout, number = config.classifier_dropout, len(config.classifier_hidden_sizes)
    are_rates = len(dropout) == number and all(_is_number(rate) and 0 <= rate < 1 for rate in dropout)
    _require(are_rates, config, "classifier_dropout", f"hold {number} rates in [0, 1)")


def _check_labels(config: FEDDConfig) -> None:
    ids = sorted(int(index) for index in config.id2label)
    are_ids = bool(ids) and ids == list(range(len(ids))) and len(config.label2id) == len(ids)
    _require(are_ids, config, "id2label", "name the classes 0, 1, 2, ... once each")
    _require(_is_integer(config.semantic_loss_ignore_index), config, "semantic_loss_ignore_index", "be an integer")


def _check_source(config: FEDDConfig) -> None:
    """Check that the backbone can be found again, and be recognised."""
    _require(isinstance(config.save_backbone, bool), config, "save_backbone", "be True or False")
    variant = config.backbone_variant
    _require(variant is None or bool(_VARIANT.fullmatch(str(variant))), config, "backbone_variant", "be a plain name")
    if config.backbone is None:
        if not config.save_backbone:
            raise ValueError("`save_backbone=False` needs a `backbone` to load the rest from; got None.")
        return
    if is_repo_id(config.backbone) and not _COMMIT.fullmatch(config.backbone_revision or ""):
        raise ValueError(
            f"`backbone` {config.backbone!r} is a repository, so `backbone_revision` must be a commit "
            f"of 40 hexadecimal digits, got {config.backbone_revision!r}."
        )
    if not _SHA256.fullmatch(config.backbone_sha256 or ""):
        raise ValueError(
            f"`backbone` {config.backbone!r} needs `backbone_sha256`, 64 hexadecimal digits, "
            f"got {config.backbone_sha256!r}."
        )


def _check_dtype(config: FEDDConfig) -> None:
    is_dtype = config.dtype is None or str(config.dtype).removeprefix("torch.") in DTYPES
    _require(is_dtype, config, "dtype", f"be one of {list(DTYPES)}")


def _require(is_right: bool, config: FEDDConfig, name: str, allowed: str) -> None:
    if not is_right:
        raise ValueError(f"`{name}` must {allowed}, got {getattr(config, name)!r}.")


def is_repo_id(backbone: str) -> bool:
    """Return whether `backbone` names a repository on the Hub, rather than `"embedded"` or a path."""
    return backbone != "embedded" and not backbone.startswith((".", "/", "~")) and bool(_REPO_ID.fullmatch(backbone))


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value > 0


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


__all__ = ["FEDDConfig"]
