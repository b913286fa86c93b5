"""The files of a pretrained UNet, in the layout of diffusers: found or fetched, described, checked and read."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import logging

from .configuration_fedd import FEDDConfig, default_features, is_repo_id

WEIGHTS_NAME = "diffusion_pytorch_model"
DEFAULTS_NAME = "fedd_defaults.json"
FLOAT_DTYPES = ("F16", "BF16", "F32", "F64")
_SHARD_NAME = re.compile(r"\w[\w.-]*\.safetensors")
_SCHEDULE_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")

logger = logging.get_logger(__name__)


def locate_backbone(backbone: str, revision: str | None = None, variant: str | None = None, **hub_kwargs: Any) -> Path:
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
    return fetch_backbone(backbone, revision, variant, **hub_kwargs)


def fetch_backbone(repo_id: str, revision: str | None = None, variant: str | None = None, **hub_kwargs: Any) -> Path:
    """Download a backbone (safetensors and JSON only) and return its local folder, named after the commit.

    Raises:
        OSError: If the repository or the revision cannot be reached, or does not exist.
    """
    weights = [_with_variant(f"{WEIGHTS_NAME}{end}", variant) for end in (".safetensors", ".safetensors.index.json")]
    names = ["config.json", *weights, f"{WEIGHTS_NAME}*-of-*.safetensors"]
    patterns = [*names, *(f"unet/{name}" for name in names), "scheduler*/*", "scheduler_config.json", DEFAULTS_NAME]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, **hub_kwargs))
    except Exception as error:  # errors of the HTTP library pass through the client, and so do names that it refuses
        raise OSError(f"The backbone {repo_id!r} (revision {revision}) could not be loaded: {error}") from error


def find_backbone(config: FEDDConfig, **hub_kwargs: Any) -> Path:
    """Return the local folder of the backbone that a configuration names, once its tensors have been checked.

    A repository id is never taken for a folder of the same name.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the repository cannot be reached, or does not exist.
        ValueError: If the revision is not a commit, or the tensors are not those that the configuration names.
    """
    backbone = str(config.backbone)
    if is_repo_id(backbone):
        folder = fetch_backbone(backbone, config.backbone_revision, config.backbone_variant, **hub_kwargs)
        if not folder.is_dir():  # huggingface_hub takes 40 digits for the commit, but stores under the true one
            raise ValueError(
                f"`backbone_revision` {config.backbone_revision} must be a commit of {backbone!r}, but is the name of "
                "a branch or tag there, which may move."
            )
    else:
        folder = locate_backbone(backbone)
    digest = hash_backbone(folder, config.backbone_variant)
    if config.backbone_sha256 != digest:
        raise ValueError(
            f"These heads were trained on another backbone: `backbone_sha256` is {config.backbone_sha256}, but the "
            f"tensors of {config.backbone!r} have {digest}. Load the backbone that the heads were trained on; if it "
            "was damaged on the way, fetch it again with `force_download=True`."
        )
    return folder


def _embedded_folder() -> Path:
    """Find the backbone inside the package, also from remote code, which is not part of it."""
    package = importlib.util.find_spec("fedd_hf")
    if package is None or package.origin is None:
        raise ImportError("This model uses the backbone embedded in fedd_hf. Type `pip install fedd-hf`.")
    return Path(package.origin).parent / "embedded"


def read_backbone_config(folder: Path) -> dict[str, Any]:
    """Describe the UNet and the schedule of a diffusers folder as fields of [`FEDDConfig`].

    Raises:
        FileNotFoundError: If the folder holds no UNet.
        ValueError: If the schedule was trained or rescaled, so that betas cannot be recomputed.
    """
    unet_config = json.loads((unet_folder(folder) / "config.json").read_text())
    arguments, _, _ = UNet2DModel.extract_init_dict(unet_config)
    return {"backbone_config": arguments} | _read_schedule(folder)


def _read_schedule(folder: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.is_file():
            scheduler = json.loads(path.read_text())
            if scheduler.get("trained_betas") is not None or scheduler.get("rescale_betas_zero_snr"):
                raise ValueError(f"{path} holds trained or rescaled betas; FEDD reads {list(_SCHEDULE_FIELDS)} only.")
            return {name: scheduler[name] for name in _SCHEDULE_FIELDS if name in scheduler}
    logger.warning_once(
        f"There is no noise schedule beside the UNet of {folder}: the linear one of DDPM is assumed, 1000 timesteps "
        "with betas from 0.0001 to 0.02. For another one pass beta_schedule=..., beta_start=..., beta_end=..."
    )
    return {}


def read_backbone_defaults(folder: Path, task: str) -> dict[str, Any]:
    """Return the blocks, timesteps and image size chosen for this backbone and task, where they are stored."""
    path = folder / DEFAULTS_NAME
    return json.loads(path.read_text()).get(task, {}) if path.is_file() else {}


def describe_model(folder: Path, task: str, **fields: Any) -> FEDDConfig:
    """Build the configuration of a model on a backbone; what neither the user nor its files set is chosen and logged.

    Args:
        folder (`Path`):
            Diffusers folder.
        task (`str`):
            `"segmentation"` or `"classification"`.
        fields:
            Fields of [`FEDDConfig`] that the user sets.
    """
    known = read_backbone_config(folder) | read_backbone_defaults(folder, task) | fields
    chosen = {name: value for name, value in default_features(known, task).items() if name not in known}
    if chosen:
        settings = ", ".join(f"{name}={value}" for name, value in chosen.items())
        logger.warning_once(f"{folder} does not say how FEDD reads it best; chosen by its shape: {settings}.")
    return FEDDConfig(**(known | chosen))


def read_backbone_tensors(folder: Path, variant: str | None = None) -> dict[str, Tensor]:
    """Load the tensors of a whole UNet, with the names that diffusers has for them today.

    Raises:
        FileNotFoundError: If the folder holds no UNet, or only pickled weights.
        ValueError: If some are missing, of another dtype than floats, or quantised.
    """
    path = unet_folder(folder)
    config = path / "config.json"
    if json.loads(config.read_text()).get("quantization_config") is not None:
        raise ValueError(f"{config} has a `quantization_config`; FEDD reads UNets of {', '.join(FLOAT_DTYPES)} only.")
    for file in _weight_files(path, variant):
        check_dtypes(file)
    loading = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    unet, info = UNet2DModel.from_pretrained(path, variant=variant, **loading)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(f"The backbone {folder} lacks {len(missing)} tensors: {missing[:5]}. Fetch it again.")
    return unet.state_dict()


def check_dtypes(path: str | Path) -> None:
    """Make sure that a file holds floats, and integers only where batches are counted.

    A header may give the bytes of floats out for integers, which would be loaded as numbers that mean nothing.

    Raises:
        SafetensorError: If the file is damaged.
        ValueError: If a tensor has another dtype.
    """
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            dtype = file.get_slice(name).get_dtype()
            allowed = ["I64"] if name.endswith("num_batches_tracked") else list(FLOAT_DTYPES)
            if dtype not in allowed:
                raise ValueError(f"The tensor {name!r} of {path} must be of one of the dtypes {allowed}, got {dtype}.")


def hash_backbone(folder: Path, variant: str | None = None) -> str:
    """Return the SHA-256 over the sorted (name, dtype, shape, bytes) of all tensors of the UNet as stored.

    Raises:
        FileNotFoundError: If the folder holds no UNet, or only pickled weights.
        ValueError: If a file is damaged.
    """
    digest = hashlib.sha256()
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in _weight_files(unet_folder(folder), variant):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged: {error}. Fetch it again.") from error
            files |= dict.fromkeys(file.keys(), file)
        for name in sorted(files):
            dtype, tensor = files[name].get_slice(name).get_dtype(), files[name].get_tensor(name)
            digest.update(json.dumps([name, dtype, list(tensor.shape)]).encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weight_files(path: Path, variant: str | None = None) -> list[Path]:
    """Return the files that diffusers loads: where there is an index, those that it names."""
    index = path / _with_variant(f"{WEIGHTS_NAME}.safetensors.index.json", variant)
    names = read_index(index) if index.is_file() else [_with_variant(f"{WEIGHTS_NAME}.safetensors", variant)]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        others = sorted(set(_variants(path)) - {variant})
        advice = f" Type variant={others[0]!r}." if others else ""
        raise FileNotFoundError(
            f"{path} holds no {', '.join(missing)}. FEDD reads safetensors only, no pickles (.bin, .pt).{advice}"
        )
    return [path / name for name in names]


def _variants(path: Path) -> Iterator[str]:
    for file in path.glob(f"{WEIGHTS_NAME}.*.safetensors"):
        yield file.name.removeprefix(f"{WEIGHTS_NAME}.").removesuffix(".safetensors").partition("-")[0]


def _with_variant(name: str, variant: str | None) -> str:
    """Name the file of a variant. Source: diffusers, `model_loading_utils.py`, `_add_variant`."""
    stem, _, end = name.rpartition(".")
    return name if variant is None else f"{stem}.{variant}.{end}"


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


def unet_folder(folder: Path) -> Path:
    """Return where the UNet lies: a pipeline keeps it in `unet/`, a bare model at the root.

    Raises:
        FileNotFoundError: If neither is there.
    """
    for candidate in (folder / "unet", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise FileNotFoundError(f"{folder} holds no diffusers UNet: neither unet/config.json nor config.json is there.")
