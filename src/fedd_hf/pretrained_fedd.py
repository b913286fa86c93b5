"""FEDDPreTrainedModel: how a model with a frozen backbone is made, stored and found again."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from .configuration_fedd import FEDDConfig, is_repo_id
from .unet_files_fedd import (
    check_dtypes,
    describe_model,
    find_backbone,
    hash_backbone,
    locate_backbone,
    read_backbone_tensors,
    read_index,
)

_HUB_KWARGS = ("token", "cache_dir", "local_files_only", "force_download")
_FILE_KWARGS = (*_HUB_KWARGS, "revision", "subfolder", "proxies")
_NOT_CONFIG_KWARGS = ("dtype", "torch_dtype", "trust_remote_code")
_ALIGNMENT = 64  # bytes, of all memory that torch allocates itself


class FEDDPreTrainedModel(PreTrainedModel):
    """Base of the backbone and of the models on it: made from a UNet, stored, and loaded with the backbone frozen."""

    config_class = FEDDConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    task = "segmentation"  # whose defaults are read beside a backbone
    accepts_loss_kwargs = False  # losses are means, which a Trainer that accumulates gradients has to divide
    _no_split_modules = ["FEDDBackbone"]
    _keep_in_fp32_modules_strict = ["backbone.noise"]
    _keys_to_ignore_on_load_unexpected = [r"^(backbone\.)?unet\."]  # of a UNet that is cut after an earlier block

    def __init__(self, config: FEDDConfig) -> None:
        if config.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                "`problem_type` must be None or 'single_label_classification', as each pixel or photo has one class, "
                f"got {config.problem_type!r}."
            )
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights that no checkpoint holds, each layer by its own rule."""
        if isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm):
            module.reset_parameters()
        else:
            PreTrainedModel._init_weights(self, module)  # by name: models on other frozen networks use this rule too

    def post_init(self) -> None:
        """Finish the construction."""
        super().post_init()
        self._choose_what_to_save()

    @classmethod
    def from_backbone(cls, backbone: str = "embedded", revision: str | None = None, **kwargs: Any) -> Self:
        """Put new, untrained heads on a pretrained backbone.

        Args:
            backbone (`str`, *optional*, defaults to `"embedded"`):
                The small backbone inside this package, a local diffusers folder, or a repository id on the Hub.
            revision (`str`, *optional*):
                Commit, tag or branch of the repository; the configuration keeps the commit.
            kwargs:
                Fields of [`FEDDConfig`] such as `blocks` and `timesteps`; `variant` of the weights, such as `"fp16"`;
                `token`, `cache_dir`, `local_files_only` and `force_download` for the download; `dtype` and
                `device_map` for the model. Blocks, timesteps and image size that are stored beside the backbone are
                the defaults; where none are, they are chosen by the shape of the UNet, and logged.

        Returns:
            The model, with a frozen backbone and random heads.

        Raises:
            FileNotFoundError: If the folder does not exist, or holds no UNet in safetensors.
            TypeError: If a keyword is no field of [`FEDDConfig`].
            ValueError: If the UNet is of a kind that cannot be read, or lacks a block.
        """
        hub = {name: kwargs.pop(name) for name in _HUB_KWARGS if name in kwargs}
        loading = {name: kwargs.pop(name) for name in ("dtype", "device_map") if name in kwargs}
        variant = kwargs.pop("variant", None)
        _check_fields(kwargs)
        folder = locate_backbone(backbone, revision, variant, **hub)
        kwargs |= {
            "backbone": backbone,
            "backbone_variant": variant,
            "backbone_sha256": hash_backbone(folder, variant),
        }
        if backbone != "embedded":
            is_folder = Path(backbone).is_dir()
            kwargs |= {"backbone": str(folder)} if is_folder else {"backbone_revision": folder.name}
        config = describe_model(folder, cls.task, **(cls._default_fields() | kwargs))
        tensors = _name_unet(read_backbone_tensors(folder, variant)) | cls._draw_heads(config)
        tensors["backbone.noise"] = make_noise(config.noise_seed, config.image_size)
        model, _ = cls._from_tensors(config, tensors, name="", **loading)
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a model from the Hub or a folder, self-contained or heads-only, with a frozen backbone.

        transformers is given the tensors and never the repository, where it would look for pickles and adapters.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Repository id or folder that [`~FEDDPreTrainedModel.save_pretrained`] wrote.
            config ([`FEDDConfig`], *optional*):
                Configuration to use instead of the stored one.
            args:
                As in [`~transformers.PreTrainedModel.from_pretrained`].
            kwargs:
                As there, `dtype` and `device_map` among them.

        Raises:
            OSError: If there is no such model, or it holds no safetensors.
            ValueError: If a field of the configuration is wrong, a tensor is missing or no float, a file is damaged,
                or the backbone is not the one of the heads.
        """
        path, wants_info = pretrained_model_name_or_path, kwargs.pop("output_loading_info", False)
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("FEDD loads safetensors only, no pickles (.bin, .pt). Leave `use_safetensors` out.")
        _check_not_redirected(path, kwargs.pop("adapter_kwargs", None) or {})
        if "noise_seed" in kwargs:
            raise ValueError("The noise is stored with the model. For another one type from_backbone(noise_seed=...).")
        tensors = kwargs.pop("state_dict", None)
        if path is not None and tensors is not None:
            raise ValueError(f"`state_dict` takes the place of a checkpoint; leave it or {path} out.")
        if path is not None:
            files = {name: kwargs.pop(name) for name in _FILE_KWARGS if name in kwargs}
            folder = Path(path, files.get("subfolder") or "")
            _check_folder(folder)
            config, kwargs = cls._read_config(config or path, files, kwargs)
            _localise_backbone(config, folder)
            tensors = cls._read_tensors(path, config, files, kwargs.pop("variant", None))
        model, info = cls._from_tensors(config, tensors, str(path or ""), *args, **kwargs)
        if path is not None:
            _check_missing(path, model, info["missing_keys"])
        return (model, info) if wants_info else model

    @classmethod
    def _from_tensors(cls, config: Any, tensors: Any, name: str, *args: Any, **kwargs: Any) -> tuple[Self, dict]:
        """Let transformers build the model and set its tensors, and freeze the backbone again, which it unfreezes."""
        loading = {"config": config, "state_dict": tensors, "output_loading_info": True}
        model, info = super().from_pretrained(None, *args, **loading, **kwargs)
        model.name_or_path = model.config.name_or_path = name
        model.base_model.freeze()
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.data_ptr() % _ALIGNMENT:  # the last bits of a product depend on how weights lie in a mapped file
                tensor.data = tensor.data.clone()
        return model, info

    @classmethod
    def _read_config(
        cls, source: Any, files: dict[str, Any], kwargs: dict[str, Any]
    ) -> tuple[FEDDConfig, dict[str, Any]]:
        """Read the configuration; what it does not use of the keywords goes on to the model."""
        if not isinstance(source, str | os.PathLike):
            return copy.deepcopy(source), kwargs
        kept = {name: kwargs.pop(name) for name in _NOT_CONFIG_KWARGS if name in kwargs}
        config, unused = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **files, **kwargs)
        return config, {name: value for name, value in unused.items() if name not in files} | kept

    @classmethod
    def _read_tensors(
        cls, path: Any, config: FEDDConfig, files: dict[str, Any], variant: str | None
    ) -> dict[str, Tensor]:
        """Read a checkpoint; a heads-only one is joined by the backbone that its configuration names."""
        try:
            weights = _find_weights(path, files, variant)
            for file in weights:
                check_dtypes(file)
            tensors = {name: tensor for file in weights for name, tensor in load_file(file).items()}
        except SafetensorError as error:
            raise ValueError(f"The weights of {path} are damaged: {error}. Fetch or save them again.") from error
        if config.save_backbone:
            return tensors
        folder = find_backbone(config, **{name: files[name] for name in _HUB_KWARGS if name in files})
        return tensors | _name_unet(read_backbone_tensors(folder, config.backbone_variant))

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Write the model as safetensors: all of it, or only the heads if `config.save_backbone` is False.

        Raises:
            ValueError: If only the heads are wanted, but nothing says where the backbone is.
        """
        if kwargs.get("push_to_hub"):
            self._check_can_be_pushed()
        self._choose_what_to_save()
        attributes: Any = self.config.__dict__
        before = dict(attributes)
        self.config.backbone = _relative_backbone(self.config.backbone, Path(save_directory))
        if self._auto_class is not None:  # transformers adds the class of this model to what is there
            self.config.auto_map = {"AutoModel": "backbone_fedd.FEDDBackbone"}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:  # transformers leaves class names in a configuration that other models may share
            attributes.clear()
            attributes.update(before)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Upload the model, as [`~transformers.PreTrainedModel.push_to_hub`] does.

        Raises:
            ValueError: If only the heads would be uploaded and their backbone is a folder of this machine.
        """
        self._check_can_be_pushed()
        return super().push_to_hub(*args, **kwargs)

    def _choose_what_to_save(self) -> None:
        """Name the tensors that are left out of a checkpoint; transformers wants exact names, no pattern."""
        names = [] if self.config.save_backbone else self.state_dict()
        self._keys_to_ignore_on_save = {name for name in names if name.startswith("backbone.unet.")}

    def _check_can_be_pushed(self) -> None:
        backbone = self.config.backbone
        if not self.config.save_backbone and _is_path(backbone):
            raise ValueError(
                f"The backbone {backbone!r} of these heads is a local folder that nobody else can load. Push it first "
                "and build the model with from_backbone(repo_id), or set `model.config.save_backbone = True`."
            )

    @classmethod
    def _draw_heads(cls, config: FEDDConfig) -> dict[str, Tensor]:
        """Draw the tensors that a model adds to its backbone."""
        return {}

    @classmethod
    def _default_fields(cls) -> dict[str, Any]:
        """Return fields in which a model differs from the defaults of [`FEDDConfig`]."""
        return {}


def holds_backbone(path: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether `path` is `"embedded"`, or holds a diffusers UNet rather than a FEDD model."""
    if str(path) == "embedded":
        return True
    files = {name: kwargs[name] for name in _FILE_KWARGS if name in kwargs}
    config = _find_file(path, "config.json", files)
    return config is None or "_class_name" in json.loads(Path(config).read_text())


def _name_unet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a UNet as in the checkpoint of a model."""
    return {f"backbone.unet.{name}": tensor for name, tensor in tensors.items()}


def make_noise(seed: int, image_size: int) -> Tensor:
    """Draw the noise image that all photos share, float32 of shape `(3, image_size, image_size)`, on the CPU."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn((3, image_size, image_size), generator=generator, device="cpu", dtype=torch.float32)


def _check_not_redirected(path: Any, adapter_kwargs: dict[str, Any]) -> None:
    """Refuse the base model of an adapter, which auto classes load in the place of the repository that was named."""
    asked = adapter_kwargs.get("_adapter_model_path", path)
    if str(asked) != str(path):
        raise ValueError(
            f"The adapter_config.json in {asked} leads to another model, {path}. For the adapter, load that model and "
            f"type peft.PeftModel.from_pretrained(model, {asked!r}); for a model in {asked}, open it with its class."
        )


def _check_folder(folder: Path) -> None:
    """Recognise the two folders that are most easily mistaken for a model."""
    if (folder / "unet" / "config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is a bare backbone, without heads. Type from_backbone({str(folder)!r}).")
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if pickles and folder.is_dir() and not list(folder.glob("*.safetensors")):
        raise OSError(f"{folder} holds only pickled weights, {pickles}. FEDD loads safetensors only.")


def _find_weights(path: Any, files: dict[str, Any], variant: str | None) -> list[str]:
    """Return the local files that hold the tensors of a checkpoint, downloaded if need be."""
    tag = f".{variant}" if variant else ""
    if whole := _find_file(path, f"model{tag}.safetensors", files):
        return [whole]
    if index := _find_file(path, f"model.safetensors.index{tag}.json", files):
        return [cached_file(path, name, **files) for name in read_index(index)]
    raise OSError(f"{path} holds no model{tag}.safetensors. FEDD loads safetensors only, no pickles (.bin, .pt).")


def _find_file(path: Any, name: str, files: dict[str, Any]) -> str | None:
    try:
        return cached_file(path, name, _raise_exceptions_for_missing_entries=False, **files)
    except OSError:
        raise
    except Exception as error:  # errors of the HTTP library pass through the client
        raise OSError(f"{name} of {path} could not be loaded: {error}. Try again.") from error


def _check_fields(kwargs: dict[str, Any]) -> None:
    known = {*vars(FEDDConfig()), "num_labels"}
    unknown = sorted(name for name in kwargs if name not in known)
    if unknown:
        raise TypeError(f"{unknown} are no fields of FEDDConfig. Its fields are listed in help(FEDDConfig).")


def _check_missing(path: Any, model: FEDDPreTrainedModel, missing: set[str]) -> None:
    """Accept heads that are new as a whole, and refuse a checkpoint with holes."""
    is_backbone = model.base_model is model
    heads = {name for name in model.state_dict() if not is_backbone and not name.startswith("backbone.")}
    holes = missing - heads if heads <= missing else missing
    if holes:
        raise ValueError(f"The checkpoint {path} lacks {len(holes)} tensors: {sorted(holes)[:5]}. Save it again.")


def _localise_backbone(config: FEDDConfig, folder: Path) -> None:
    """Make a path beside a local configuration absolute; a path of somebody else's machine means nothing here."""
    backbone = config.backbone
    if backbone is None or not _is_path(backbone):
        return
    if folder.is_dir() and backbone.startswith("."):
        config.backbone = os.path.normpath(folder.resolve() / backbone)
    elif config.save_backbone:
        config.backbone = None
    else:
        raise ValueError(
            f"`backbone` {backbone!r} must be a repository id, 'embedded', or, in a local folder only, a path "
            "relative to it that starts with ./ or ../"
        )


def _is_path(backbone: str) -> bool:
    return backbone != "embedded" and not is_repo_id(backbone)


def _relative_backbone(backbone: str | None, save_directory: Path) -> str | None:
    if backbone is None or not _is_path(backbone):
        return backbone
    relative = Path(os.path.relpath(Path(backbone).resolve(), save_directory.resolve())).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"


__all__ = ["FEDDPreTrainedModel"]
