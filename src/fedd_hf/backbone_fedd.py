"""FEDDBackbone: shared noise and a frozen, truncated DDPM UNet that turn an image into feature maps."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import initialization

from .configuration_fedd import FEDDConfig, block_address, is_repo_id

WEIGHTS_NAME = "diffusion_pytorch_model"
DEFAULTS_NAME = "fedd_defaults.json"
FLOAT_DTYPES = ("F16", "BF16", "F32", "F64")
_SHARD_NAME = re.compile(r"\w[\w.-]*\.safetensors")
_SCHEDULE_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")


class FEDDBackbone(nn.Module):
    """A DDPM UNet that is never trained and never runs past the last block that is read.

    Its weights lie channels last, which is faster on CPUs, and so do the feature maps.

    Args:
        config ([`FEDDConfig`]):
            Says which UNet, which blocks and timesteps, and at which image size.

    Source: ddpm-segmentation (2112.03126), `feature_extractors.py`; FEDD (MICCAI 2023), section 3.1.
    """

    noise: Tensor

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__()
        self.blocks, self.timesteps = tuple(config.blocks), tuple(config.timesteps)
        alphas_cumprod = config.alphas_cumprod()
        self.alphas_cumprod = tuple(float(alphas_cumprod[timestep]) for timestep in self.timesteps)
        self.noise_seed = config.noise_seed
        self.unet = truncate(_build_unet(config.backbone_config), last_block=max(self.blocks))
        self.register_buffer("noise", make_noise(config.noise_seed, config.image_size))
        self.freeze()

    def reset_parameters(self) -> None:
        """Draw the noise anew, unless it came from a checkpoint."""
        initialization.copy_(self.noise, make_noise(self.noise_seed, self.noise.shape[-1]))

    def freeze(self) -> FEDDBackbone:
        """Take gradients away, keep the noise in float32 and lay the convolutions out channels last."""
        self.noise = self.noise.float()
        self.unet.to(memory_format=torch.channels_last)
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FEDDBackbone:
        """Stay in evaluation mode: a frozen network has no dropout."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> FEDDBackbone:
        """Move the noise with the network, but never cast it: a map must not depend on `dtype`."""
        noise = self.noise
        super()._apply(fn, recurse)
        if not noise.is_meta:
            self.noise = noise.to(self.noise.device)
        return self

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Read the feature maps of a batch of images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.

        Returns:
            `tuple[torch.Tensor]`: one map of shape `(batch_size, channels, block_height, block_width)` per timestep
            and block, timesteps outermost. Strides are channels-last.

        Raises:
            ValueError: If the images are not of the size that the noise has.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != self.noise.shape:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {', '.join(map(str, self.noise.shape))}), got "
                f"{tuple(pixel_values.shape)}. Type FEDDImageProcessor(size={self.noise.shape[-1]})(images=...)."
            )
        feature_maps: list[Tensor] = []
        for timestep, alpha_bar in zip(self.timesteps, self.alphas_cumprod, strict=True):
            feature_maps += self._read(self.add_noise(pixel_values, alpha_bar), timestep)
        return tuple(feature_maps)

    def add_noise(self, pixel_values: Tensor, alpha_bar: float) -> Tensor:
        """Sample x_t from x_0 in float32 or wider, then cast to the UNet's dtype. Source: DDPM (2006.11239), eq. 4."""
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        noisy = alpha_bar**0.5 * pixel_values.to(dtype) + (1.0 - alpha_bar) ** 0.5 * self.noise.to(dtype)
        return noisy.to(self.unet.dtype, memory_format=torch.channels_last)

    def _read(self, sample: Tensor, timestep: int) -> list[Tensor]:
        """Run the UNet once; `UNet2DModel.forward` would keep every skip connection to the end."""
        time = embed_time(self.unet, timestep, sample)
        return self._decode(self._encode(sample, time), time)

    def _encode(self, sample: Tensor, time: Tensor) -> list[Tensor]:
        """Return the skip connections that the decoder reads; those of the blocks that were removed are let go."""
        blocks, skips = input_blocks(self.unet), []
        first = len(blocks) - len(output_blocks(self.unet))
        for index, layers in enumerate(blocks):
            for layer in layers:
                sample = run_layer(layer, sample, time)
            if index >= first:
                skips.append(sample)
        return skips

    def _decode(self, skips: list[Tensor], time: Tensor) -> list[Tensor]:
        """Return the activations of the blocks that are read; each skip connection is let go once it is used."""
        sample, feature_maps = skips[-1], []
        if self.unet.mid_block is not None:
            sample = self.unet.mid_block(sample, time)
        for block, layers in enumerate(output_blocks(self.unet)):
            sample = torch.cat([sample, skips.pop()], dim=1)
            for layer in layers:
                sample = run_layer(layer, sample, time)
            if block in self.blocks:
                feature_maps.append(sample)
        return feature_maps


def _build_unet(unet_config: dict[str, Any]) -> UNet2DModel:
    try:
        return UNet2DModel(**unet_config)
    except TypeError as error:
        raise ValueError(f"`backbone_config` must hold the arguments of a diffusers UNet2DModel: {error}.") from error


def make_noise(seed: int, image_size: int) -> Tensor:
    """Draw the noise image that all photos share, float32 of shape `(3, image_size, image_size)`, on the CPU."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn((3, image_size, image_size), generator=generator, device="cpu", dtype=torch.float32)


def embed_time(unet: UNet2DModel, timestep: int, sample: Tensor) -> Tensor:
    """Embed the timestep of a batch: shape `(batch_size, embedding_size)`, rows alike.

    One row would do, but a product with a vector sums in an order that depends on where the weights lie in memory.
    """
    position = unet.time_proj(sample.new_full((sample.shape[0],), timestep, dtype=torch.long))
    return unet.time_embedding(position.to(sample.dtype))


def input_blocks(unet: UNet2DModel) -> list[list[nn.Module]]:
    """Group the layers of the encoder into those between two skip connections.

    Source: guided-diffusion, `unet.py`, `UNetModel.input_blocks`.
    """
    blocks: list[list[nn.Module]] = [[unet.conv_in]]
    for down_block in unet.down_blocks:
        blocks += _residual_blocks(down_block)
        if down_block.downsamplers is not None:
            blocks.append([*down_block.downsamplers])
    return blocks


def output_blocks(unet: UNet2DModel) -> list[list[nn.Module]]:
    """Group the layers of the decoder into the blocks that the paper counts, each of which reads one skip connection.

    A block of guided-diffusion ends after its attention, and the last one of a level after the upsampling too.

    Source: guided-diffusion, `unet.py`, `UNetModel.output_blocks`.
    """
    blocks: list[list[nn.Module]] = []
    for up_block in unet.up_blocks:
        blocks += _residual_blocks(up_block)
        if up_block.upsamplers is not None:
            blocks[-1] += up_block.upsamplers
    return blocks


def _residual_blocks(level: Any) -> list[list[nn.Module]]:
    """Put each residual layer of a level together with its attention, if there is one."""
    if hasattr(level, "attentions"):
        return [[resnet, attention] for resnet, attention in zip(level.resnets, level.attentions, strict=True)]
    return [[resnet] for resnet in level.resnets]


def run_layer(layer: nn.Module, sample: Tensor, time: Tensor) -> Tensor:
    """Run a layer; only the residual ones see the time."""
    return layer(sample, time) if isinstance(layer, ResnetBlock2D) else layer(sample)


def truncate(unet: UNet2DModel, last_block: int) -> UNet2DModel:
    """Remove, in place, everything that runs after `last_block`."""
    level, layer = block_address(unet.config, last_block)
    del unet.up_blocks[level + 1 :]
    up_block = unet.up_blocks[level]
    if layer < unet.config["layers_per_block"]:
        up_block.upsamplers = None
    up_block.resnets = up_block.resnets[: layer + 1]
    if hasattr(up_block, "attentions"):
        up_block.attentions = up_block.attentions[: layer + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
    return unet


def locate_backbone(backbone: str, revision: str | None = None, **hub_kwargs: Any) -> Path:
    """Return the local folder of the backbone that a user names: `"embedded"`, a folder, or a repository id.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the repository cannot be reached, or does not exist.
    """
    if backbone == "embedded":
        return _embedded_folder()
    if Path(backbone).is_dir():
        return Path(backbone).resolve()
    if not is_repo_id(backbone):
        raise FileNotFoundError(f"The backbone folder {backbone!r} does not exist.")
    return fetch_backbone(backbone, revision, **hub_kwargs)


def fetch_backbone(repo_id: str, revision: str | None = None, **hub_kwargs: Any) -> Path:
    """Download a backbone (safetensors and JSON only) and return its local folder, named after the commit.

    Raises:
        OSError: If the repository or the revision cannot be reached, or does not exist.
    """
    files = (f"{WEIGHTS_NAME}.safetensors", f"{WEIGHTS_NAME}-*.safetensors", f"{WEIGHTS_NAME}.safetensors.index.json")
    names = ("config.json", *files)
    patterns = [*names, *(f"unet/{name}" for name in names), "scheduler*/*", "scheduler_config.json", DEFAULTS_NAME]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, **hub_kwargs))
    except Exception as error:  # errors of the HTTP library pass through the client, and so do names that it refuses
        raise OSError(f"The backbone {repo_id!r} (revision {revision}) could not be loaded: {error}") from error


def _embedded_folder() -> Path:
    """Find the backbone that travels in the package, also from remote code, which is not part of it."""
    package = importlib.util.find_spec("fedd_hf")
    if package is None or package.origin is None:
        raise ImportError("This model stands on the backbone embedded in fedd_hf. Type `pip install fedd-hf`.")
    return Path(package.origin).parent / "embedded"


def read_backbone_config(folder: Path) -> dict[str, Any]:
    """Describe the UNet and the schedule of a diffusers folder as fields of [`FEDDConfig`].

    Raises:
        FileNotFoundError: If the folder holds no UNet.
        ValueError: If the schedule was trained or rescaled, so that betas cannot be recomputed.
    """
    unet_config = json.loads((_unet_folder(folder) / "config.json").read_text())
    arguments, _, _ = UNet2DModel.extract_init_dict(unet_config)
    return {"backbone_config": arguments} | _read_schedule(folder)


def _read_schedule(folder: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.is_file():
            scheduler = json.loads(path.read_text())
            if scheduler.get("trained_betas") is not None or scheduler.get("rescale_betas_zero_snr"):
                raise ValueError(f"{path} holds trained or rescaled betas; FEDD reads {list(_SCHEDULE_FIELDS)} only.")
            return {name: scheduler[name] for name in _SCHEDULE_FIELDS if name in scheduler}
    return {}


def read_backbone_defaults(folder: Path, task: str) -> dict[str, Any]:
    """Return the blocks, timesteps and image size chosen for this backbone and task, where they are stored."""
    path = folder / DEFAULTS_NAME
    return json.loads(path.read_text()).get(task, {}) if path.is_file() else {}


def check_backbone(folder: Path, config: FEDDConfig) -> None:
    """Make sure that the stored UNet is the one that the configuration names.

    Raises:
        ValueError: If its tensors are others.
    """
    digest = hash_backbone(folder)
    if config.backbone_sha256 != digest:
        raise ValueError(
            f"These heads stand on another backbone: `backbone_sha256` is {config.backbone_sha256}, but the tensors "
            f"of {config.backbone!r} have {digest}. Load the backbone that the heads were trained on; if it was "
            "damaged on the way, fetch it again with `force_download=True`."
        )


def read_backbone_tensors(folder: Path, config: FEDDConfig) -> dict[str, Tensor]:
    """Load the tensors of the truncated UNet, named as in [`FEDDBackbone`].

    Raises:
        FileNotFoundError: If the folder holds no UNet, or only pickled weights.
        ValueError: If some are missing, of another dtype than floats, or quantised.
    """
    unet_folder = _unet_folder(folder)
    _check_can_be_read(unet_folder)
    loading = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    unet, info = UNet2DModel.from_pretrained(unet_folder, **loading)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(f"The backbone {folder} lacks {len(missing)} tensors: {missing[:5]}. Fetch it again.")
    return {f"unet.{name}": tensor for name, tensor in truncate(unet, max(config.blocks)).state_dict().items()}


def _check_can_be_read(unet_folder: Path) -> None:
    path = unet_folder / "config.json"
    if json.loads(path.read_text()).get("quantization_config") is not None:
        raise ValueError(f"{path} has a `quantization_config`; FEDD reads UNets of {', '.join(FLOAT_DTYPES)} only.")
    for file in _weight_files(unet_folder):
        check_dtypes(file)


def check_dtypes(path: str | Path) -> None:
    """Make sure that a file holds floats, and integers only where batches are counted.

    A header may give the bytes of floats out for integers, which would be loaded as numbers that mean nothing.

    Raises:
        SafetensorError: If the file is damaged.
        ValueError: If a tensor is of another dtype.
    """
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            dtype = file.get_slice(name).get_dtype()
            allowed = ["I64"] if name.endswith("num_batches_tracked") else list(FLOAT_DTYPES)
            if dtype not in allowed:
                raise ValueError(f"The tensor {name!r} of {path} must be of one of the dtypes {allowed}, got {dtype}.")


def hash_backbone(folder: Path) -> str:
    """Return the SHA-256 over the sorted (name, dtype, shape, bytes) of all tensors of the UNet as stored.

    Raises:
        FileNotFoundError: If the folder holds no UNet, or only pickled weights.
        ValueError: If a file is damaged.
    """
    digest = hashlib.sha256()
    paths = _tensor_files(_unet_folder(folder))
    with ExitStack() as stack:
        files = {path: stack.enter_context(safe_open(path, framework="pt")) for path in set(paths.values())}
        for name in sorted(paths):
            file = files[paths[name]]
            dtype, tensor = file.get_slice(name).get_dtype(), file.get_tensor(name)
            digest.update(json.dumps([name, dtype, list(tensor.shape)]).encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor_files(unet_folder: Path) -> dict[str, Path]:
    """Map each tensor's name to its file."""
    names: dict[str, Path] = {}
    for path in _weight_files(unet_folder):
        try:
            with safe_open(path, framework="pt") as file:
                names |= dict.fromkeys(file.keys(), path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}. Fetch it again.") from error
    return names


def _weight_files(unet_folder: Path) -> list[Path]:
    """Return the files that diffusers loads: where there is an index, those that it names."""
    index = unet_folder / f"{WEIGHTS_NAME}.safetensors.index.json"
    names = read_index(index) if index.is_file() else [f"{WEIGHTS_NAME}.safetensors"]
    missing = [name for name in names if not (unet_folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{unet_folder} holds no {', '.join(missing)}. FEDD reads safetensors only, no pickles (.bin, .pt)."
        )
    return [unet_folder / name for name in names]


def read_index(path: str | Path) -> list[str]:
    """Return the files that the index of a sharded checkpoint names; all lie beside it.

    Raises:
        ValueError: If the index is damaged, or names anything but safetensors files beside it.
    """
    try:
        names = sorted(set(json.loads(Path(path).read_text())["weight_map"].values()))
        foreign = [name for name in names if not _SHARD_NAME.fullmatch(name)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, {type(error).__name__}: {error}. Fetch it again.") from error
    if foreign or not names:
        raise ValueError(f"{path} must name safetensors files that lie beside it, got {foreign}.")
    return names


def _unet_folder(folder: Path) -> Path:
    """Return where the UNet lies: a pipeline keeps it in `unet/`, a bare model at the root."""
    for candidate in (folder / "unet", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise FileNotFoundError(f"{folder} holds no diffusers UNet: neither unet/config.json nor config.json is there.")


__all__ = ["FEDDBackbone"]
