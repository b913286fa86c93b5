"""FEDDForSegmentation and FEDDForImageClassification: small heads on the frozen diffusion backbone."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput, SemanticSegmenterOutput
from transformers.utils import cached_file

from .backbone_fedd import (
    FEDDBackbone,
    check_backbone,
    check_dtypes,
    fetch_backbone,
    hash_backbone,
    locate_backbone,
    make_noise,
    read_backbone_config,
    read_backbone_defaults,
    read_backbone_tensors,
    read_index,
)
from .configuration_fedd import MALIGNANCY_LABELS, FEDDConfig, is_repo_id
from .decode_head_fedd import FEDDDecodeHead, jensen_shannon, vote

_HUB_KWARGS = ("token", "cache_dir", "local_files_only", "force_download")
_FILE_KWARGS = (*_HUB_KWARGS, "revision", "subfolder")
_ALIGNMENT = 64  # bytes, of all memory that torch allocates itself
_NOT_CONFIG_KWARGS = ("dtype", "torch_dtype", "trust_remote_code", "output_loading_info")
_PIXELS_PER_BATCH = 131_072


@dataclass
class FEDDSegmenterOutput(SemanticSegmenterOutput):
    """Output of [`FEDDForSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean of the members' cross-entropies, when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`):
            Votes per class, or the log of the mean softmax, as `config.voting` says.
        member_logits (`torch.FloatTensor`, *optional*):
            What each pixel classifier says, of shape `(batch_size, ensemble_size, num_labels, height, width)`.
        uncertainty (`torch.FloatTensor` of shape `(batch_size, height, width)`, *optional*):
            Jensen-Shannon divergence of the members in nats, from 0 (they agree) to log(num_labels).
    """

    member_logits: Tensor | None = None
    uncertainty: Tensor | None = None


class SelfDrawnModel(PreTrainedModel):
    """A model whose modules draw their own weights."""

    def _init_weights(self, module: nn.Module) -> None:
        """Let every module draw its own weights; transformers keeps the loaded ones as they are."""
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # their own reset would overwrite loaded statistics
            super()._init_weights(module)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()


class FEDDPreTrainedModel(SelfDrawnModel):
    """What both models share: a frozen backbone, and how it is stored and found again."""

    config_class = FEDDConfig
    main_input_name = "pixel_values"
    task = ""
    _no_split_modules = ["FEDDBackbone"]
    _keep_in_fp32_modules_strict = ["backbone.noise"]

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__(copy.deepcopy(config))  # save_pretrained writes the model's class into its configuration

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
                Fields of [`FEDDConfig`] such as `blocks` and `timesteps`; `token`, `cache_dir`, `local_files_only` and
                `force_download` for the download; `dtype` and `device_map` for the model. Blocks, timesteps and image
                size that are stored beside the backbone are the defaults.

        Returns:
            The model, with a frozen backbone and random heads.

        Raises:
            FileNotFoundError: If the folder does not exist, or holds no UNet in safetensors.
            TypeError: If a keyword is no field of [`FEDDConfig`].
            ValueError: If the UNet is of a kind that cannot be read, or lacks a block.
        """
        hub = {name: kwargs.pop(name) for name in _HUB_KWARGS if name in kwargs}
        loading = {name: kwargs.pop(name) for name in ("dtype", "device_map") if name in kwargs}
        _check_fields(kwargs)
        folder = locate_backbone(backbone, revision, **hub)
        fields = read_backbone_config(folder) | read_backbone_defaults(folder, cls.task) | cls._default_fields()
        source = {"backbone": backbone, "backbone_sha256": hash_backbone(folder)}
        if backbone != "embedded":
            is_folder = Path(backbone).is_dir()
            source |= {"backbone": str(folder)} if is_folder else {"backbone_revision": folder.name}
        config = FEDDConfig(**(fields | source | kwargs))
        return cls._from_tensors(config, read_backbone_tensors(folder, config), **loading)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a model from the Hub or a folder, self-contained or heads-only, with a frozen backbone.

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
            ValueError: If a field of the configuration is unknown or wrong, a tensor is missing or no float, a file is
                damaged, or the backbone is not the one of the heads.
        """
        path = pretrained_model_name_or_path
        if path is None:
            return super().from_pretrained(None, *args, config=config, **kwargs)
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError("FEDD loads safetensors only, no pickles (.bin, .pt). Leave `use_safetensors` out.")
        if "noise_seed" in kwargs:
            raise ValueError(
                "The noise is stored with the model. For another one, type from_backbone(noise_seed=...)."
            )
        _check_folder(path)
        files = {name: kwargs[name] for name in _FILE_KWARGS if name in kwargs}
        config, kwargs = cls._load_config(config or path, kwargs)
        _localise_backbone(config, Path(path, files.get("subfolder") or ""))
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            target, kwargs = cls._find_tensors(config, path, files, kwargs)
            model, info = super().from_pretrained(target, *args, config=config, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"The weights of {path} are damaged: {error}. Fetch or save them again.") from error
        _check_missing(path, model, info["missing_keys"])
        model._settle(name=str(path))
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Write the model as safetensors: all of it, or only the heads if `config.save_backbone` is False.

        Raises:
            ValueError: If only the heads are wanted, but nothing says where the backbone is.
        """
        if kwargs.get("push_to_hub"):
            self._check_can_be_pushed()
        backbone = self.config.backbone
        if backbone is None and not self.config.save_backbone:
            raise ValueError("`save_backbone=False` needs a `backbone` to load the rest from; got None.")
        self._choose_what_to_save()
        self.config.backbone = _relative_backbone(backbone, Path(save_directory))
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.backbone = backbone

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
    def _default_fields(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def _from_tensors(cls, config: FEDDConfig, tensors: dict[str, Tensor], **kwargs: Any) -> Self:
        state_dict = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
        state_dict["backbone.noise"] = make_noise(config.noise_seed, config.image_size)
        model = super().from_pretrained(None, config=config, state_dict=state_dict, **kwargs)
        model._settle(name="")
        return model

    def _settle(self, name: str) -> None:
        """Finish loading: set the name, freeze, and align what the memory map of a file left unaligned.

        The last bits of a matrix product depend on the alignment of its weights, so on the file that they came from.
        """
        self.name_or_path = self.config.name_or_path = name
        self.backbone.freeze()
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.data_ptr() % _ALIGNMENT:
                tensor.data = tensor.data.clone()

    @classmethod
    def _load_config(cls, source: Any, kwargs: dict[str, Any]) -> tuple[FEDDConfig, dict[str, Any]]:
        """Read the configuration; what it does not use of the keywords goes on to the model."""
        if not isinstance(source, str | os.PathLike):
            return copy.deepcopy(source), kwargs
        kept = {name: kwargs.pop(name) for name in _NOT_CONFIG_KWARGS if name in kwargs}
        files = {name: kwargs[name] for name in _FILE_KWARGS if name in kwargs}
        config, unused = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **kwargs)
        return config, unused | kept | files

    @classmethod
    def _find_tensors(
        cls, config: FEDDConfig, path: Any, files: dict[str, Any], kwargs: dict[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        """Name the local folder of a checkpoint that was checked, or put its tensors into `state_dict`.

        transformers is never given the repository: it would look there for pickles and adapters.
        """
        kwargs = {name: value for name, value in kwargs.items() if name not in _FILE_KWARGS}
        if "state_dict" in kwargs:
            return None, kwargs
        weights = _find_weights(path, files, kwargs.get("variant"))
        for file in weights:
            check_dtypes(file)
        if config.save_backbone:
            return os.path.dirname(weights[0]), kwargs
        return None, kwargs | {"state_dict": cls._join_backbone(config, weights, files)}

    @classmethod
    def _join_backbone(cls, config: FEDDConfig, weights: list[str], files: dict[str, Any]) -> dict[str, Tensor]:
        """Read heads and backbone into one state dict, so that transformers reports truly what is missing."""
        heads = {name: tensor for file in weights for name, tensor in load_file(file).items()}
        hub = {name: files[name] for name in _HUB_KWARGS if name in files}
        folder = _find_backbone(config, hub)
        check_backbone(folder, config)
        tensors = read_backbone_tensors(folder, config)
        return heads | {f"backbone.{name}": tensor for name, tensor in tensors.items()}


class FEDDForSegmentation(FEDDPreTrainedModel):
    """Five-class lesion segmentation: pixel classifiers on frozen diffusion features.

    Args:
        config ([`FEDDConfig`]):
            Configuration of the model.

    Source: FEDD (MICCAI 2023), section 3.1.
    """

    task = "segmentation"

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__(config)
        self.backbone = FEDDBackbone(config)
        self.decode_head = FEDDDecodeHead(config)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_member_logits: bool = False,
        output_uncertainty: bool = False,
        return_dict: bool | None = None,
    ) -> FEDDSegmenterOutput | tuple[Tensor, ...]:
        """Segment a batch of dermatology photos.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.
            labels (`torch.LongTensor` of shape `(batch_size, image_size, image_size)`, *optional*):
                Class of each pixel in `[0, num_labels - 1]`, 255 where it does not count.
            output_member_logits (`bool`, *optional*, defaults to `False`):
                Whether to return what each member says.
            output_uncertainty (`bool`, *optional*, defaults to `False`):
                Whether to return a map of the members' disagreement.
            return_dict (`bool`, *optional*):
                Whether to return a [`FEDDSegmenterOutput`] rather than a tuple.

        Returns:
            [`FEDDSegmenterOutput`]: `logits` of shape `(batch_size, num_labels, image_size, image_size)`; `loss` when
            `labels` are given.

        Example:
            >>> inputs = processor(images=image, return_tensors="pt")
            >>> model(**inputs).logits.shape
            torch.Size([1, 5, 256, 256])
        """
        feature_maps = self.backbone(pixel_values)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        member_logits = self.decode_head(feature_maps, size)
        output = FEDDSegmenterOutput(
            loss=None if labels is None else self.loss(member_logits, labels),
            logits=vote(member_logits, self.config.voting),
            member_logits=member_logits if output_member_logits else None,
            uncertainty=jensen_shannon(member_logits) if output_uncertainty else None,
        )
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()

    def loss(self, member_logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return the mean of the members' cross-entropies over the pixels that count.

        Args:
            member_logits (`torch.Tensor` of shape `(batch_size, ensemble_size, num_labels, height, width)`):
                What each pixel classifier says.
            labels (`torch.LongTensor` of shape `(batch_size, height, width)`):
                Class of each pixel.
            class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*):
                How much a pixel of each class counts in the mean; all alike by default.

        Raises:
            ValueError: If the labels are not integers of the size of the logits.
        """
        batch_size, ensemble_size, _, *size = member_logits.shape
        if tuple(labels.shape) != (batch_size, *size) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"`labels` must be integers of shape {(batch_size, *size)}, got {labels.dtype} of shape "
                f"{tuple(labels.shape)}. Pass the map to FEDDImageProcessor as `segmentation_maps`."
            )
        labels = labels.long()[:, None].expand(-1, ensemble_size, -1, -1)
        ignore_index = self.config.semantic_loss_ignore_index
        logits, labels = member_logits.flatten(0, 1), labels.flatten(0, 1)
        return F.cross_entropy(logits, labels, weight=class_weights, ignore_index=ignore_index)


class FEDDForImageClassification(FEDDPreTrainedModel):
    """Malignancy classification: a small network on the pooled activation of one block.

    Args:
        config ([`FEDDConfig`]):
            Configuration of the model, with one block, one timestep and two labels.

    Raises:
        ValueError: If there are several blocks or timesteps, other than two labels, or a block too small to pool.

    Source: FEDD (MICCAI 2023), section 3.2.
    """

    task = "classification"

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__(config)
        _check_classification(config)
        self.backbone = FEDDBackbone(config)
        self.classifier = make_classifier(config)
        self.post_init()

    @classmethod
    def _default_fields(cls) -> dict[str, Any]:
        return {"id2label": dict(enumerate(MALIGNANCY_LABELS))}

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None
    ) -> ImageClassifierOutput | tuple[Tensor, ...]:
        """Score the malignancy of a batch of dermatology photos.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                0 benign, 1 malignant.
            return_dict (`bool`, *optional*):
                Whether to return an [`~transformers.modeling_outputs.ImageClassifierOutput`] rather than a tuple.

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`]: `logits` of shape `(batch_size, 2)`, the first of
            them 0, so that softmax is the sigmoid of the second; `loss` when `labels` are given.
        """
        (feature_map,) = self.backbone(pixel_values)
        logits = self.classify(pool_features(feature_map, self.config.pooled_size))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()

    def classify(self, pooled: Tensor) -> Tensor:
        """Turn pooled features of shape `(batch_size, pooled_size)` into logits (0, z) of shape `(batch_size, 2)`."""
        malignancy = self.classifier(pooled.to(next(self.classifier.parameters()).dtype))
        return torch.cat([torch.zeros_like(malignancy), malignancy], dim=-1)


def default_batch_size(image_size: int) -> int:
    """Return how many photos go through the backbone at once: 131,072 pixels, 2 photos of 256 x 256."""
    return max(1, _PIXELS_PER_BATCH // image_size**2)


def make_classifier(config: Any) -> nn.Sequential:
    """Make the network from `config.pooled_size` pooled features to one logit.

    Source: FEDD (MICCAI 2023), supplement, section 3; hectorcarrion/FEDD, notebook of the classifiers.
    """
    sizes = (config.pooled_size, *config.classifier_hidden_sizes)
    layers: list[nn.Module] = []
    for size, next_size, rate in zip(sizes, sizes[1:], config.classifier_dropout, strict=False):
        layers += [nn.Linear(size, next_size), nn.BatchNorm1d(next_size), nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def pool_features(feature_map: Tensor, pooled_size: int = 512) -> Tensor:
    """Max-pool a feature map of shape `(batch_size, channels, height, width)` to `(batch_size, pooled_size)`.

    Rows are kept apart only as far as the channels do not fill `pooled_size`.

    Source: hectorcarrion/FEDD, baseline notebooks, `get_poolings`, in closed form.
    """
    rows = _pooled_rows(feature_map.shape[1], pooled_size)
    flat = F.adaptive_max_pool2d(feature_map.float(), (rows, 1)).flatten(1)
    return F.adaptive_max_pool1d(flat, pooled_size)


def _pooled_rows(channels: int, pooled_size: int) -> int:
    return max(1, math.ceil(pooled_size / channels))


def _check_classification(config: FEDDConfig) -> None:
    if len(config.blocks) != 1 or len(config.timesteps) != 1:
        raise ValueError(
            "The malignancy classifier reads one block at one timestep, got "
            f"`blocks`={config.blocks}, `timesteps`={config.timesteps}."
        )
    if config.num_labels != len(MALIGNANCY_LABELS):
        raise ValueError(
            f"The malignancy classifier has the labels {list(MALIGNANCY_LABELS)}, got {config.id2label}. "
            "Type FEDDConfig(..., num_labels=2)."
        )
    block, size = config.blocks[0], config.block_size(config.blocks[0])
    rows = _pooled_rows(config.block_channels(block), config.pooled_size)
    if rows > size:
        raise ValueError(
            f"Block {block} is too small to pool to {config.pooled_size}: its {config.block_channels(block)} channels "
            f"need {rows} rows, and it has {size}. Choose a later block or a larger `image_size`."
        )


def _check_folder(path: str | os.PathLike) -> None:
    """Recognise the two folders that are most easily mistaken for a model."""
    folder = Path(path)
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
    heads = {name for name in model.state_dict() if not name.startswith("backbone.")}
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


def _find_backbone(config: FEDDConfig, hub_kwargs: dict[str, Any]) -> Path:
    """Return the folder of the backbone; a repository id is never taken for a folder of the same name."""
    backbone = str(config.backbone)
    if not is_repo_id(backbone):
        return locate_backbone(backbone)
    folder = fetch_backbone(backbone, config.backbone_revision, **hub_kwargs)
    if not folder.is_dir():  # huggingface_hub takes 40 digits for the commit, but puts what it gets under the true one
        raise ValueError(
            f"`backbone_revision` {config.backbone_revision} must be a commit of {backbone!r}, but is the name of a "
            "branch or tag there, which may move."
        )
    return folder


def _is_path(backbone: str) -> bool:
    return backbone != "embedded" and not is_repo_id(backbone)


def _relative_backbone(backbone: str | None, save_directory: Path) -> str | None:
    if backbone is None or not _is_path(backbone):
        return backbone
    relative = Path(os.path.relpath(Path(backbone).resolve(), save_directory.resolve())).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"


__all__ = ["FEDDForImageClassification", "FEDDForSegmentation", "FEDDPreTrainedModel", "FEDDSegmenterOutput"]
