"""FEDDForSegmentation and FEDDForImageClassification: small heads on the frozen diffusion backbone."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput, SemanticSegmenterOutput
from transformers.utils.generic import can_return_tuple

from .backbone_fedd import FEDDBackbone
from .configuration_fedd import MALIGNANCY_LABELS, FEDDConfig
from .pretrained_fedd import FEDDPreTrainedModel

_PIXELS_PER_BATCH = 131_072
_PIXELS_PER_BAND = 1024  # 128 hidden values of each take 512 KB and stay in the cache


@dataclass
class FEDDSegmenterOutput(SemanticSegmenterOutput):
    """Output of [`FEDDForSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean of the members' cross-entropies, when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`):
            Log of the members' mean softmax.
        votes (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`, *optional*):
            How many members choose each class, when `config.voting` is `"majority"`; maps are made of these.
        member_logits (`torch.FloatTensor`, *optional*):
            Logits of each pixel classifier, of shape `(batch_size, ensemble_size, num_labels, height, width)`.
        uncertainty (`torch.FloatTensor` of shape `(batch_size, height, width)`, *optional*):
            Jensen-Shannon divergence of the members in nats, from 0 (they agree) to log(num_labels).
        hidden_states (`tuple[torch.FloatTensor]`, *optional*):
            Feature maps of the backbone, one per block.
    """

    votes: Tensor | None = None
    member_logits: Tensor | None = None
    uncertainty: Tensor | None = None


class PixelLinear(nn.Linear):
    """A linear layer at each pixel. Source: ddpm-segmentation, `pixel_classifier.py`, `init_weights`."""

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02), with zero bias."""
        nn.init.normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class PixelClassifier(nn.Module):
    """Linear, ReLU, BatchNorm, Linear, ReLU, BatchNorm, Linear at each pixel of upsampled, concatenated feature maps.

    The first layer runs on each map at its own resolution, where it is exact and smaller: upsampling commutes with it.

    Source: ddpm-segmentation, `pixel_classifier.py`; FEDD (MICCAI 2023), section 3.1.
    """

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__()
        sizes = [*config.hidden_sizes, config.num_labels]
        self.projections = nn.ModuleList(
            PixelLinear(channels, sizes[0], bias=index == 0) for index, channels in enumerate(config.feature_channels)
        )
        layers: list[nn.Module] = []
        for size, next_size in zip(sizes, sizes[1:], strict=False):
            layers += [nn.ReLU(), nn.BatchNorm1d(size), PixelLinear(size, next_size)]
        self.layers = nn.Sequential(*layers)

    def forward(
        self, feature_maps: list[Tensor], upsampling: dict[tuple[int, int], BilinearUpsampling], bands: list[range]
    ) -> Tensor:
        """Classify pixels.

        Args:
            feature_maps (`list[torch.Tensor]`):
                Maps of shape `(batch_size, block_height, block_width, channels)`.
            upsampling (`dict[tuple[int, int], BilinearUpsampling]`):
                How maps of each other size are brought to the size of the result.
            bands (`list[range]`):
                Rows of the result that are computed together.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels, height, width)`.
        """
        coarse: dict[tuple[int, int], Tensor] = {}
        full: list[tuple[Tensor, nn.Module]] = []
        for feature_map, projection in zip(feature_maps, self.projections, strict=True):
            if (map_size := _map_size(feature_map)) not in upsampling:
                full.append((feature_map, projection))
            else:
                hidden = projection(feature_map)
                coarse[map_size] = coarse[map_size] + hidden if map_size in coarse else hidden
        wide = {map_size: upsampling[map_size].columns(hidden) for map_size, hidden in coarse.items()}
        logits = []
        for band in bands:
            parts = [upsampling[map_size].rows(hidden, band) for map_size, hidden in wide.items()]
            parts += [projection(feature_map[:, band.start : band.stop]) for feature_map, projection in full]
            hidden = functools.reduce(torch.add, parts)
            pixels = self.layers(hidden.flatten(0, 2))
            logits.append(pixels.unflatten(0, hidden.shape[:3]).movedim(-1, 1))
        return torch.cat(logits, dim=2)


class BilinearUpsampling:
    """Upsampling as products with the weights of `F.interpolate`: all columns first, then rows, band by band.

    In bands that stay in the cache such products take far less time than `F.interpolate`.
    """

    def __init__(self, map_size: tuple[int, int], size: tuple[int, int], like: Tensor) -> None:
        self.map_size, self.size = map_size, size
        self.row_weights, self.column_weights = (
            _resizing(*lengths).to(like) for lengths in zip(map_size, size, strict=True)
        )

    def columns(self, hidden: Tensor) -> Tensor:
        """Upsample `(batch_size, map_height, map_width, channels)` to `(..., map_height, width, channels)`."""
        return hidden if self.map_size[1] == self.size[1] else self.column_weights @ hidden

    def rows(self, hidden: Tensor, band: range) -> Tensor:
        """Upsample `(batch_size, map_height, width, channels)` to some rows, `(..., rows, width, channels)`."""
        scale = self.map_size[0] / self.size[0]
        if scale == 1:
            return hidden[:, band.start : band.stop]
        first, last = (max(0, math.floor((row + 0.5) * scale - 0.5)) for row in (band.start, band.stop - 1))
        weights = self.row_weights[band.start : band.stop, first : last + 2]
        return (weights @ hidden[:, first : last + 2].flatten(2)).unflatten(2, hidden.shape[2:])


def _resizing(length: int, new_length: int) -> Tensor:
    """Return the weights of one axis, of shape `(new_length, length)`."""
    identity = torch.eye(length)[None, None]
    return F.interpolate(identity, size=(new_length, length), mode="bilinear", align_corners=False)[0, 0]


def _map_size(feature_map: Tensor) -> tuple[int, int]:
    return feature_map.shape[1], feature_map.shape[2]


class FEDDDecodeHead(nn.Module):
    """An ensemble of pixel classifiers."""

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(PixelClassifier(config) for _ in range(config.ensemble_size))

    def forward(self, feature_maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Classify each pixel.

        Args:
            feature_maps (`tuple[torch.Tensor]`):
                Maps of shape `(batch_size, channels, block_height, block_width)`, as [`FEDDBackbone`] returns them.
            size (`tuple[int, int]`):
                Height and width of the result.

        Returns:
            `torch.Tensor` of shape `(batch_size, ensemble_size, num_labels, height, width)`: logits of each member.
        """
        dtype = next(self.parameters()).dtype
        maps = [feature_map.movedim(1, -1).to(dtype) for feature_map in feature_maps]
        coarse = {map_size for map_size in map(_map_size, maps) if map_size != tuple(size)}
        upsampling = {map_size: BilinearUpsampling(map_size, size, like=maps[0]) for map_size in sorted(coarse)}
        # Batch statistics need all pixels at once, and so do small graphs. Else a band of rows stays in the cache.
        is_whole = self.training or torch.compiler.is_compiling()
        height = size[0] if is_whole else max(1, _PIXELS_PER_BAND // size[1])
        bands = [range(start, min(start + height, size[0])) for start in range(0, size[0], height)]
        return torch.stack([member(maps, upsampling, bands) for member in self.members], dim=1)


def mean_log_softmax(member_logits: Tensor) -> Tensor:
    """Return the log of the members' mean softmax, of shape `(batch_size, num_labels, ...)`."""
    return member_logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(member_logits.shape[1])


def count_votes(member_logits: Tensor) -> Tensor:
    """Return how many members choose each class, of shape `(batch_size, num_labels, ...)`.

    Its argmax gives ties to the smallest id. Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`.
    """
    choices = member_logits.max(dim=2).indices  # those of argmax, in a seventh of its time
    votes = [(choices == label).sum(dim=1) for label in range(member_logits.shape[2])]
    return torch.stack(votes, dim=1).to(member_logits.dtype)


def jensen_shannon(member_logits: Tensor) -> Tensor:
    """Return H(mean softmax) - mean H(softmax) in nats, of shape `(batch_size, ...)`.

    Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`.
    """
    probabilities = member_logits.float().softmax(dim=2)
    entropy_of_mean = torch.special.entr(probabilities.mean(dim=1)).sum(dim=1)
    mean_entropy = torch.special.entr(probabilities).sum(dim=2).mean(dim=1)
    return (entropy_of_mean - mean_entropy).clamp_min(0.0)


class FEDDForSegmentation(FEDDPreTrainedModel):
    """Five-class lesion segmentation: pixel classifiers on frozen diffusion features.

    Args:
        config ([`FEDDConfig`]):
            Configuration of the model.

    Source: FEDD (MICCAI 2023), section 3.1.
    """

    task = "segmentation"

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__(copy.deepcopy(config))  # two models may be built from one configuration and stored apart
        self.backbone = FEDDBackbone(self.config)
        self.decode_head = FEDDDecodeHead(self.config)
        self.post_init()

    @classmethod
    def _draw_heads(cls, config: FEDDConfig) -> dict[str, Tensor]:
        return {f"decode_head.{name}": tensor for name, tensor in FEDDDecodeHead(config).state_dict().items()}

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_member_logits: bool = False,
        output_uncertainty: bool = False,
        **kwargs: Any,
    ) -> FEDDSegmenterOutput:
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
            kwargs:
                `output_hidden_states` and `return_dict`, as in other models of transformers.

        Returns:
            [`FEDDSegmenterOutput`]: `logits` of shape `(batch_size, num_labels, image_size, image_size)`; `loss` when
            `labels` are given.

        Raises:
            ValueError: If images or labels have another shape, or labels are no class ids.

        Example:
            >>> inputs = processor(images=image, return_tensors="pt")
            >>> model(**inputs).logits.shape
            torch.Size([1, 5, 256, 256])
        """
        features = self.backbone(pixel_values, return_dict=True, **kwargs)
        member_logits = self.decode_head(features.feature_maps, pixel_values.shape[-2:])
        return FEDDSegmenterOutput(
            loss=None if labels is None else self.loss(member_logits, labels),
            logits=mean_log_softmax(member_logits),
            votes=count_votes(member_logits) if self.config.voting == "majority" else None,
            member_logits=member_logits if output_member_logits else None,
            uncertainty=jensen_shannon(member_logits) if output_uncertainty else None,
            hidden_states=features.hidden_states,
        )

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
        _check_labels(labels, (batch_size, *size), "Pass the map to FEDDImageProcessor as `segmentation_maps`.")
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
        super().__init__(copy.deepcopy(config))
        _check_classification(config)
        self.backbone = FEDDBackbone(self.config)
        self.classifier = make_classifier(self.config)
        self.post_init()

    @classmethod
    def _draw_heads(cls, config: FEDDConfig) -> dict[str, Tensor]:
        return {f"classifier.{name}": tensor for name, tensor in make_classifier(config).state_dict().items()}

    @classmethod
    def _default_fields(cls) -> dict[str, Any]:
        return {"id2label": dict(enumerate(MALIGNANCY_LABELS))}

    @can_return_tuple
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        """Score the malignancy of a batch of dermatology photos.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                0 benign, 1 malignant.
            kwargs:
                `output_hidden_states` and `return_dict`, as in other models of transformers.

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`]: `logits` of shape `(batch_size, 2)`, the first of
            them 0, so that softmax is the sigmoid of the second; `loss` when `labels` are given.

        Raises:
            ValueError: If images or labels have another shape, or labels are no class ids.
        """
        features = self.backbone(pixel_values, return_dict=True, **kwargs)
        (feature_map,) = features.feature_maps
        logits = self.classify(pool_features(feature_map, self.config.pooled_size))
        loss = None if labels is None else self.loss(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=features.hidden_states)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of logits of shape `(batch_size, 2)` and labels of shape `(batch_size,)`.

        Raises:
            ValueError: If the labels are not integers of this shape.
        """
        _check_labels(labels, logits.shape[:1], "Give one of 0 (benign) and 1 (malignant) for each photo.")
        if not ((labels >= 0) & (labels < logits.shape[1])).all():
            raise ValueError(f"`labels` must lie in 0..{logits.shape[1] - 1}, got {sorted(set(labels.tolist()))}.")
        return F.cross_entropy(logits, labels.long())

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
    rows = max(1, math.ceil(pooled_size / feature_map.shape[1]))
    flat = F.adaptive_max_pool2d(feature_map.float(), (rows, 1)).flatten(1)
    return F.adaptive_max_pool1d(flat, pooled_size)


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
    rows = config.pooled_rows(block)
    if rows > size:
        raise ValueError(
            f"Block {block} is too small to pool to {config.pooled_size}: its {config.block_channels(block)} channels "
            f"need {rows} rows, and it has {size}. Choose a later block or a larger `image_size`."
        )


def _check_labels(labels: Tensor, shape: Sequence[int], advice: str) -> None:
    if tuple(labels.shape) != tuple(shape) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"`labels` must be integers of shape {tuple(shape)}, got {labels.dtype} of shape {tuple(labels.shape)}. "
            + advice
        )


__all__ = ["FEDDForImageClassification", "FEDDForSegmentation", "FEDDSegmenterOutput"]
