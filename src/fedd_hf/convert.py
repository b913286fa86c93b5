"""guided-diffusion (ADM) checkpoint -> diffusers folder that [`FEDDBackbone`] reads, verified tensor by tensor."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor
from tqdm import tqdm

from .files import hash_file, write_whole

# Source: guided-diffusion, `script_util.py`, `create_model`.
CHANNEL_MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
NORM_NUM_GROUPS = 32

_ENDS = {
    "time_embed.0": ("time_embedding.linear_1",),
    "time_embed.2": ("time_embedding.linear_2",),
    "input_blocks.0.0": ("conv_in",),
    "out.0": ("conv_norm_out",),
    "out.2": ("conv_out",),
}
_RESNET = {
    "in_layers.0": ("norm1",),
    "in_layers.2": ("conv1",),
    "emb_layers.1": ("time_emb_proj",),
    "out_layers.0": ("norm2",),
    "out_layers.3": ("conv2",),
    "skip_connection": ("conv_shortcut",),
}
_ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "proj_out": ("to_out.0",)}
_DOWNSAMPLE = {"op": ("conv",)}
_UPSAMPLE = {"conv": ("conv",)}
_PLAIN_BLOCKS = {
    "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
    "conv": ("DownBlock2D", "UpBlock2D"),
}
_Modules = Iterator[tuple[str, str, Mapping[str, tuple[str, ...]]]]


@dataclass(frozen=True, kw_only=True)
class ADMArchitecture:
    """The flags of guided-diffusion that shape the network; the defaults are `256x256_diffusion_uncond.pt`.

    Source: guided-diffusion, `README.md` and `script_util.py`, `create_model`, whose names are kept.

    Args:
        image_size (`int`): Side of the square image in pixels.
        num_channels (`int`): Width of the first level, and of the timestep embedding.
        num_res_blocks (`int`): Residual blocks per level of the encoder; the decoder has one more.
        channel_mult (`Sequence[int]`, *optional*): Width of each level in `num_channels`; chosen by `image_size`.
        attention_resolutions (`Sequence[int]`): Side, in pixels, of the feature maps that attention follows.
        num_head_channels (`int`): Channels of one attention head.
        learn_sigma (`bool`): Whether three more output channels hold the variance.
        resblock_updown (`bool`): Whether residual blocks change the resolution, or else strided convolutions.
        use_scale_shift_norm (`bool`): Whether the timestep scales and shifts the norm, or else is added before it.
        use_new_attention_order (`bool`): Whether `qkv` is ordered (q/k/v, head, channel), or else (head, q/k/v,
            channel). The tensors look the same, so a wrong value is not noticed: take the flag of the checkpoint.
    """

    image_size: int = 256
    num_channels: int = 256
    num_res_blocks: int = 2
    channel_mult: Sequence[float] | None = None
    attention_resolutions: Sequence[int] = (32, 16, 8)
    num_head_channels: int = 64
    learn_sigma: bool = True
    resblock_updown: bool = True
    use_scale_shift_norm: bool = True
    use_new_attention_order: bool = False

    def __post_init__(self) -> None:
        if self.channel_mult is None and self.image_size not in CHANNEL_MULT:
            raise ValueError(
                f"`channel_mult` has a default for `image_size` {sorted(CHANNEL_MULT)} only, got {self.image_size}. "
                "Pass the `channel_mult` that the checkpoint was trained with."
            )
        self._check_levels()
        self._check_attention()

    def _check_levels(self) -> None:
        if self.num_res_blocks < 1:
            raise ValueError(f"`num_res_blocks` must be at least 1, got {self.num_res_blocks}.")
        if self.block_out_channels[:1] != (self.num_channels,):
            raise ValueError(
                "`channel_mult` must begin with 1: UNet2DModel ties the width of the timestep embedding to the first "
                f"level, got {list(self._channel_mult)}."
            )
        if any(channels < 1 or channels % NORM_NUM_GROUPS for channels in self.block_out_channels):
            raise ValueError(
                f"Every level must have a multiple of {NORM_NUM_GROUPS} channels, the groups of its norms, got "
                f"{list(self.block_out_channels)}; check `num_channels` and `channel_mult`."
            )
        smallest = 2 ** (len(self.block_out_channels) - 1)
        if self.image_size < smallest or self.image_size % smallest:
            raise ValueError(
                f"`image_size` must be a multiple of {smallest} for {len(self.block_out_channels)} levels, got "
                f"{self.image_size}."
            )

    def _check_attention(self) -> None:
        if any(resolution < 1 for resolution in self.attention_resolutions):
            raise ValueError(f"`attention_resolutions` are sides in pixels, got {list(self.attention_resolutions)}.")
        if self.num_head_channels < 1:
            raise ValueError(
                "`num_head_channels` must be positive: UNet2DModel fixes the channels of a head, not the number of "
                f"heads (`num_heads`), got {self.num_head_channels}."
            )
        levels = zip(self.block_out_channels, self.has_attention, strict=True)
        attended = {channels for channels, has_attention in levels if has_attention} | {self.block_out_channels[-1]}
        if any(channels % self.num_head_channels for channels in attended):
            raise ValueError(
                f"`num_head_channels` must divide the channels under attention, {sorted(attended)}, got "
                f"{self.num_head_channels}."
            )

    @property
    def _channel_mult(self) -> tuple[float, ...]:
        return tuple(CHANNEL_MULT[self.image_size] if self.channel_mult is None else self.channel_mult)

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """Channels of each level, from the image's resolution down."""
        return tuple(int(multiplier * self.num_channels) for multiplier in self._channel_mult)

    @property
    def has_attention(self) -> tuple[bool, ...]:
        """Return whether each level has attention; the middle block always has."""
        rates = {self.image_size // resolution for resolution in self.attention_resolutions}
        return tuple(2**level in rates for level in range(len(self.block_out_channels)))

    def unet_config(self) -> dict[str, Any]:
        """Return the arguments of the `UNet2DModel` that computes the same function."""
        resampling = "resnet" if self.resblock_updown else "conv"
        down_block, up_block = _PLAIN_BLOCKS[resampling]
        return {
            "sample_size": self.image_size,
            "in_channels": 3,
            "out_channels": 6 if self.learn_sigma else 3,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.num_res_blocks,
            "down_block_types": tuple("AttnDownBlock2D" if attends else down_block for attends in self.has_attention),
            "up_block_types": tuple("AttnUpBlock2D" if attends else up_block for attends in self.has_attention[::-1]),
            "downsample_type": resampling,
            "upsample_type": resampling,
            "downsample_padding": 1,
            "time_embedding_type": "positional",
            "freq_shift": 0,
            "flip_sin_to_cos": True,
            "resnet_time_scale_shift": "scale_shift" if self.use_scale_shift_norm else "default",
            "attention_head_dim": self.num_head_channels,
            "norm_num_groups": NORM_NUM_GROUPS,
            "attn_norm_num_groups": NORM_NUM_GROUPS,
            "norm_eps": 1e-5,
            "act_fn": "silu",
            "dropout": 0.0,
        }


class Inventory(NamedTuple):
    """Account of a conversion: tensors of the checkpoint and of the folder, and the numbers in either."""

    num_source_tensors: int
    num_tensors: int  # q, k and v are apart
    num_parameters: int


def take_inventory(architecture: ADMArchitecture) -> Inventory:
    """Count what a checkpoint of this architecture holds; a conversion that succeeds has accounted for all of it."""
    shapes = _target_shapes(architecture)
    return Inventory(
        num_source_tensors=len(_tensor_map(architecture, shapes)),
        num_tensors=len(shapes),
        num_parameters=sum(shape.numel() for shape in shapes.values()),
    )


def convert_checkpoint(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    architecture: ADMArchitecture | None = None,
    sha256: str | None = None,
    dtype: torch.dtype = torch.float32,
    card: str | None = None,
) -> UNet2DModel:
    """Write a guided-diffusion checkpoint as a diffusers folder, read it back and compare every tensor.

    The folder appears complete or not at all: `unet/`, `scheduler/` and, if `card` is given, `README.md`.

    Args:
        checkpoint (`str` or `Path`): The `.pt` file.
        output_dir (`str` or `Path`): Folder to write; it must be empty or not exist.
        architecture ([`ADMArchitecture`], *optional*): Flags of the checkpoint; defaults to the paper's.
        sha256 (`str`, *optional*): Hash that the file must have.
        dtype (`torch.dtype`): `torch.float32` or `torch.float16`.
        card (`str`, *optional*): Text of the model card.

    Returns:
        `UNet2DModel`: the network as read back, in evaluation mode.

    Raises:
        FileExistsError: If `output_dir` holds anything.
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is not one of this architecture.
        OSError: If what was read back is not what was written.
    """
    output_dir = Path(output_dir).resolve()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"The output folder {output_dir} is not empty. Name another, or empty it first.")
    architecture = architecture or ADMArchitecture()
    converted = convert_state_dict(read_checkpoint(checkpoint, sha256), architecture, dtype)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(output_dir) as folder:
        _write(folder, converted, architecture, card)
        unet = _read_back(folder / "unet", converted, dtype)
    return unet


def read_checkpoint(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a `.pt` file of plain tensors, without running any code that it may hold.

    Args:
        path (`str` or `Path`): The file; its tensors stay on disk until they are used, where its format allows.
        sha256 (`str`, *optional*): Hash that the file must have, checked before anything is read from it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another hash, is no PyTorch checkpoint, is not a flat dictionary of tensors, or holds
            a tensor that is not finite.
    """
    path = find_checkpoint(path)
    if sha256 is not None and (digest := hash_file(path)) != sha256.strip().lower():
        raise ValueError(f"{path} has SHA-256 {digest}, but {sha256} was expected. Download it again.")
    state_dict = _require_flat(_load(path), path)
    _require_finite(state_dict, f"{path} is damaged")
    return state_dict


def convert_state_dict(
    state_dict: Mapping[str, Tensor], architecture: ADMArchitecture, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Rename and reshape the tensors of a guided-diffusion UNet into those of `UNet2DModel`.

    Every tensor is used once and every parameter of the target is filled; nothing is left to an initialisation.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Flat, as `UNetModel.state_dict()` gives it, in any float type.
        architecture ([`ADMArchitecture`]): The flags it was trained with.
        dtype (`torch.dtype`): `torch.float32` or `torch.float16`, for all tensors.

    Returns:
        `dict[str, torch.Tensor]`: the state dict of `UNet2DModel(**architecture.unet_config())`. Tensors that need
        neither a cast nor a copy share their memory with `state_dict`.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, if the network is class-conditional, or
            if a weight does not fit `dtype`.
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"`dtype` must be torch.float32 or torch.float16, got {dtype}.")
    if "label_emb.weight" in state_dict:
        raise ValueError("The checkpoint is class-conditional (`label_emb.weight`); FEDD reads an unconditional one.")
    shapes = _target_shapes(architecture)
    tensor_map = _tensor_map(architecture, shapes)
    source_shapes = {source: _source_shape(source, targets, shapes) for source, targets in tensor_map.items()}
    _require_shapes(source_shapes, state_dict, "The checkpoint does not fit the flags of `architecture`")
    converted: dict[str, Tensor] = {}
    for source, targets in _progress(tensor_map.items(), "Converting"):
        pieces = _split_qkv(state_dict[source], architecture) if len(targets) == 3 else (state_dict[source],)
        for target, piece in zip(targets, pieces, strict=True):
            converted[target] = piece.detach().reshape(shapes[target]).to(dtype).contiguous()
    _require_shapes(shapes, converted, "This release of diffusers names its UNet2DModel differently")
    _require_finite(converted, f"The weights do not fit {dtype}")
    return converted


def _split_qkv(qkv: Tensor, architecture: ADMArchitecture) -> tuple[Tensor, ...]:
    """Return q, k and v, each of a third of the rows, ordered (head, channel).

    Source: guided-diffusion, `unet.py`, `QKVAttention` and `QKVAttentionLegacy`.
    """
    if architecture.use_new_attention_order:
        return qkv.chunk(3)
    by_head = qkv.unflatten(0, (-1, 3, architecture.num_head_channels))
    return tuple(by_head[:, index].flatten(0, 1) for index in range(3))


def _target_shapes(architecture: ADMArchitecture) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _empty_unet(architecture).state_dict().items()}


def _empty_unet(architecture: ADMArchitecture) -> UNet2DModel:
    """Build the network without memory for its tensors."""
    with torch.device("meta"):
        return UNet2DModel(**architecture.unet_config())


def _tensor_map(architecture: ADMArchitecture, shapes: Mapping[str, torch.Size]) -> dict[str, tuple[str, ...]]:
    """Map each tensor of guided-diffusion to its one or three of diffusers."""
    layers: dict[str, tuple[str, ...]] = dict(_ENDS)
    for source, target, table in _modules(architecture):
        for source_layer, target_layers in table.items():
            layers[f"{source}.{source_layer}"] = tuple(f"{target}.{layer}" for layer in target_layers)
    return {
        f"{source}.{kind}": tuple(f"{target}.{kind}" for target in targets)
        for source, targets in layers.items()
        for kind in ("weight", "bias")
        if f"{targets[0]}.{kind}" in shapes  # a residual block of constant width has no `skip_connection`
    }


def _source_shape(source: str, targets: Sequence[str], shapes: Mapping[str, torch.Size]) -> torch.Size:
    """Return the shape in guided-diffusion, where q, k, v are one and attention is made of 1-D convolutions."""
    rows, *rest = shapes[targets[0]]
    kernel = (1,) if source.endswith(("qkv.weight", "proj_out.weight")) else ()
    return torch.Size((len(targets) * rows, *rest, *kernel))


def _modules(architecture: ADMArchitecture) -> _Modules:
    """Pair the modules: guided-diffusion's name, diffusers' name, the names inside.

    Source: guided-diffusion, `unet.py`, `UNetModel.__init__`; diffusers, `unet_2d.py`, `UNet2DModel.__init__`.
    """
    yield from _encoder_modules(architecture)
    yield "middle_block.0", "mid_block.resnets.0", _RESNET
    yield "middle_block.1", "mid_block.attentions.0", _ATTENTION
    yield "middle_block.2", "mid_block.resnets.1", _RESNET
    yield from _decoder_modules(architecture)


def _encoder_modules(architecture: ADMArchitecture) -> _Modules:
    num_layers, last_level = architecture.num_res_blocks, len(architecture.has_attention) - 1
    for level, has_attention in enumerate(architecture.has_attention):
        first = 1 + level * (num_layers + 1)
        for layer in range(num_layers):
            yield from _layer_modules(f"input_blocks.{first + layer}", f"down_blocks.{level}", layer, has_attention)
        if level < last_level:
            table = _RESNET if architecture.resblock_updown else _DOWNSAMPLE
            yield f"input_blocks.{first + num_layers}.0", f"down_blocks.{level}.downsamplers.0", table


def _decoder_modules(architecture: ADMArchitecture) -> _Modules:
    num_layers, last_level = architecture.num_res_blocks + 1, len(architecture.has_attention) - 1
    for level, has_attention in enumerate(reversed(architecture.has_attention)):
        first = level * num_layers
        for layer in range(num_layers):
            yield from _layer_modules(f"output_blocks.{first + layer}", f"up_blocks.{level}", layer, has_attention)
        if level < last_level:
            source = f"output_blocks.{first + num_layers - 1}.{2 if has_attention else 1}"
            table = _RESNET if architecture.resblock_updown else _UPSAMPLE
            yield source, f"up_blocks.{level}.upsamplers.0", table


def _layer_modules(source: str, target: str, layer: int, has_attention: bool) -> _Modules:
    yield f"{source}.0", f"{target}.resnets.{layer}", _RESNET
    if has_attention:
        yield f"{source}.1", f"{target}.attentions.{layer}", _ATTENTION


def find_checkpoint(path: str | Path) -> Path:
    """Return the path of a checkpoint, or say where the paper's is.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {path}. The paper's is `256x256_diffusion_uncond.pt` of "
            "https://github.com/openai/guided-diffusion."
        )
    return path


def _load(path: Path) -> Any:
    """Unpickle tensors only. Files from before torch 1.6 are no zip archives, and those cannot be mapped."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # an unpickler fed with anything fails with anything
        raise ValueError(
            f"{path} is not a PyTorch checkpoint of plain tensors ({type(error).__name__}). Python objects that a "
            "file may hold are not run, so save the state dict alone: torch.save(model.state_dict(), ...)."
        ) from error


def _require_flat(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict, or say what the file holds instead."""
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} must hold a state dict, got a {type(loaded).__name__}.")
    others = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    wrapped = [name for name in others if isinstance(loaded.get(name), dict)]
    if wrapped:
        raise ValueError(
            f"{path} wraps its tensors under {_first_few(wrapped)}. Save the inner dictionary on its own: "
            f"torch.save(torch.load({path.name!r})[{wrapped[0]!r}], ...)."
        )
    if others or not loaded:
        raise ValueError(f"{path} must hold tensors only, got {_first_few(others) or 'nothing'}.")
    return loaded


def _require_finite(state_dict: Mapping[str, Tensor], complaint: str) -> None:
    names = [name for name, tensor in _progress(state_dict.items(), "Checking") if not tensor.isfinite().all()]
    if names:
        raise ValueError(
            f"{complaint}: {len(names)} of {len(state_dict)} tensors are not finite ({_first_few(names)})."
        )


def _require_shapes(expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], complaint: str) -> None:
    """Compare names and shapes in both directions."""
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name}: {tuple(tensors[name].shape)} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    found = [f"{len(names)} {problem} ({_first_few(names)})" for problem, names in problems.items() if names]
    if found:
        raise ValueError(f"{complaint}: of {len(expected)} tensors, {'; '.join(found)}.")


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _write(folder: Path, converted: dict[str, Tensor], architecture: ADMArchitecture, card: str | None) -> None:
    unet = _empty_unet(architecture)
    unet.load_state_dict(converted, strict=True, assign=True)
    DDPMPipeline(unet, _scheduler(architecture)).save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")


def _scheduler(architecture: ADMArchitecture) -> DDPMScheduler:
    """Describe the noise. Source: guided-diffusion, `gaussian_diffusion.py`, `get_named_beta_schedule`, linear."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="epsilon",
        variance_type="learned_range" if architecture.learn_sigma else "fixed_large",
    )


def _read_back(folder: Path, converted: Mapping[str, Tensor], dtype: torch.dtype) -> UNet2DModel:
    """Load what was written and compare it bit by bit."""
    unet = UNet2DModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True)
    written = unet.state_dict()
    names = _progress(sorted(converted.keys() | written.keys()), "Verifying")
    different = [name for name in names if not _same_bits(converted.get(name), written.get(name))]
    if different:
        raise OSError(
            f"{len(different)} of {len(converted)} tensors differ after writing ({_first_few(different)}). Nothing "
            "was kept; check the disk and convert again."
        )
    return unet


def _same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _progress(items: Iterable[Any], description: str) -> Iterable[Any]:
    """Show a bar where a person watches, and nothing in a log."""
    return tqdm(items, description, unit=" tensors", disable=None, leave=False)


__all__ = [
    "ADMArchitecture",
    "Inventory",
    "convert_checkpoint",
    "convert_state_dict",
    "find_checkpoint",
    "read_checkpoint",
    "take_inventory",
]
