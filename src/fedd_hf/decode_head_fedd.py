"""FEDDDecodeHead: pixel classifiers on feature maps, their vote and their disagreement."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_fedd import FEDDConfig

_PIXELS_PER_BAND = 2048  # 128 hidden values of each take 1 MB and stay in the cache


class PixelLinear(nn.Conv2d):
    """A linear layer at each pixel, for all members of the ensemble at once.

    Without an input it returns its weight and bias: accelerate fetches those of an offloaded layer for a call only.

    Source: ddpm-segmentation, `pixel_classifier.py`, `init_weights`.
    """

    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, groups=groups)

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02), with zero bias."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor | None = None) -> Any:
        """Apply the layer, or return its weight, of shape `(out_channels, in_channels / groups)`, and its bias."""
        return (self.weight.flatten(1), self.bias) if hidden is None else super().forward(hidden)


class PixelNorm(nn.BatchNorm2d):
    """Batch normalization over pixels. Without an input it returns the scale and shift that it is in evaluation."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, hidden: Tensor | None = None) -> Any:
        """Normalize, or return scale and shift, each of shape `(num_features,)`."""
        if hidden is not None:
            return super().forward(hidden)
        statistics = (self.weight, self.bias, self.running_mean, self.running_var)
        weight, bias, mean, variance = (at_least_float32(tensor) for tensor in statistics)
        scale = weight / (variance + self.eps).sqrt()
        return scale, bias - scale * mean


class FeatureMapLinear(PixelLinear):
    """A linear layer on concatenated, upsampled feature maps, computed before upsampling, with which it commutes."""

    def __init__(self, feature_channels: tuple[int, ...], out_channels: int) -> None:
        super().__init__(sum(feature_channels), out_channels)
        self.feature_channels = feature_channels

    def forward(self, feature_maps: tuple[Tensor, ...] = (), size: tuple[int, int] = (0, 0)) -> Any:  # type: ignore[override]
        """Apply the layer to each map at its own resolution, add those of one size, upsample and add."""
        if not feature_maps:
            return super().forward()
        by_size: dict[torch.Size, Tensor] = {}
        for feature_map, weight in zip(feature_maps, self.weight.split(self.feature_channels, dim=1), strict=True):
            projected = F.conv2d(feature_map.to(weight.dtype), weight)
            map_size = projected.shape[-2:]
            by_size[map_size] = by_size[map_size] + projected if map_size in by_size else projected
        hidden = self.bias[:, None, None]
        for map_size, projected in by_size.items():
            if map_size != tuple(size):
                projected = F.interpolate(projected, size=size, mode="bilinear", align_corners=False)
            hidden = hidden + projected
        return hidden  # (batch_size, out_channels, height, width)


class FEDDDecodeHead(nn.Module):
    """An ensemble of pixel classifiers, whose first layer runs at block resolution.

    Each member is Linear, ReLU, BatchNorm, Linear, ReLU, BatchNorm, Linear on the concatenated, upsampled feature
    maps. In training all members are one tensor program. In evaluation each photo and member has its turn, so no
    tensor but the result has more than `hidden_sizes[0] * height * width` values, whatever the batch.

    Source: ddpm-segmentation, `pixel_classifier.py`; FEDD (MICCAI 2023), section 3.1.
    """

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__()
        self.ensemble_size = config.ensemble_size
        widths = [size * config.ensemble_size for size in (*config.hidden_sizes, config.num_labels)]
        self.projection = FeatureMapLinear(config.feature_channels, widths[0])
        layers: list[nn.Module] = []
        for width, next_width in zip(widths, widths[1:], strict=False):
            layers += [nn.ReLU(), PixelNorm(width), PixelLinear(width, next_width, groups=config.ensemble_size)]
        self.layers = nn.Sequential(*layers)

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
        if self.training:
            return self.layers(self.projection(feature_maps, size)).unflatten(1, (self.ensemble_size, -1))
        members = self.members()
        (weight, _), *_, (_, bias) = members[0]
        map_sizes = {feature_map.shape[-2:] for feature_map in feature_maps}
        upsampling = {map_size: upsampling_weights(map_size, size, weight) for map_size in map_sizes}
        shape = (len(feature_maps[0]), len(members), len(bias), *size)
        member_logits = weight.new_empty(shape, dtype=self.projection.weight.dtype)
        for photo, photo_maps in enumerate(zip(*feature_maps, strict=True)):
            maps = [feature_map.to(weight.dtype) for feature_map in photo_maps]
            for member, layers in enumerate(members):
                member_logits[photo, member] = classify_pixels(maps, layers, upsampling).unflatten(1, size)
        return member_logits

    def members(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Return weight and bias of each member's layers in evaluation, BatchNorms folded into what follows them."""
        members = [[layer] for layer in self._by_member(*self.projection())]
        for norm, linear in zip(self.layers[1::3], self.layers[2::3], strict=True):
            parts = self._by_member(*linear(), *norm())
            for layers, (weight, bias, scale, shift) in zip(members, parts, strict=True):
                layers.append((weight * scale, bias + weight @ shift))
        return members

    def _by_member(self, *tensors: Tensor) -> Iterator[Any]:
        """Split tensors by member; as copies, because offloaded ones are aligned as their file is."""
        copies = (at_least_float32(tensor).clone() for tensor in tensors)
        return zip(*(tensor.chunk(self.ensemble_size) for tensor in copies), strict=True)


def upsampling_weights(map_size: torch.Size, size: tuple[int, int], like: Tensor) -> tuple[Tensor, list[Any]]:
    """Return the matrix that widens a map and, for each band of rows, the rows of the map it needs and their weights.

    In bands that stay in the cache such products take far less time than `F.interpolate`, whose weights they are.
    """
    rows, columns = (_resizing(*lengths, like.dtype) for lengths in zip(map_size, size, strict=True))
    bands = []
    for weights in rows.split(max(1, _PIXELS_PER_BAND // size[1])):
        first, *_, last = weights.any(dim=0).nonzero().flatten().tolist() * 2
        bands.append((slice(first, last + 1), weights[:, first : last + 1].to(like.device)))
    return columns.to(like.device), bands


def _resizing(length: int, new_length: int, dtype: torch.dtype) -> Tensor:
    identity = torch.eye(length, dtype=dtype)[None, None]
    return F.interpolate(identity, size=(new_length, length), mode="bilinear", align_corners=False)[0, 0]


def classify_pixels(
    feature_maps: list[Tensor],
    layers: list[tuple[Tensor, Tensor]],
    upsampling: dict[torch.Size, tuple[Tensor, list[Any]]],
) -> Tensor:
    """Run one member on the maps of one photo; return its logits, of shape `(num_labels, height * width)`."""
    (weight, bias), *others = layers
    projected = project_maps(feature_maps, weight, bias)
    widened = [_widen(hidden, upsampling[map_size][0]) for map_size, hidden in projected.items()]
    logits = []
    for bands in zip(*(upsampling[map_size][1] for map_size in projected), strict=True):
        parts = [weights @ rows[needed] for (needed, weights), rows in zip(bands, widened, strict=True)]
        hidden = functools.reduce(torch.add, parts).view(-1, len(weight)).T
        for next_weight, next_bias in others:
            hidden = torch.addmm(next_bias[:, None], next_weight, hidden.relu_())
        logits.append(hidden)
    return torch.cat(logits, dim=1)


def project_maps(feature_maps: list[Tensor], weight: Tensor, bias: Tensor) -> dict[torch.Size, Tensor]:
    """Apply the first layer to each map at its own resolution, and add those of one size; channels come last."""
    projected: dict[torch.Size, Tensor] = {}
    weights = weight.split([len(feature_map) for feature_map in feature_maps], dim=1)
    for feature_map, map_weight in zip(feature_maps, weights, strict=True):
        start = projected.get(feature_map.shape[-2:], torch.zeros_like(bias) if projected else bias)
        pixels = torch.addmm(start.view(-1, len(bias)), feature_map.flatten(1).T, map_weight.T)
        projected[feature_map.shape[-2:]] = pixels.unflatten(0, feature_map.shape[-2:])
    return projected


def _widen(hidden: Tensor, columns: Tensor) -> Tensor:
    """Upsample `(map_height, map_width, channels)` to `(map_height, width * channels)`."""
    return (hidden if len(columns) == hidden.shape[1] else columns @ hidden).flatten(1)


def vote(member_logits: Tensor, voting: str) -> Tensor:
    """Join the members' logits, `(batch_size, ensemble_size, num_labels, ...)`, to `(batch_size, num_labels, ...)`.

    Votes per class for `"majority"`, where argmax gives ties to the smallest id; the log of the mean softmax for
    `"mean"`.

    Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`.
    """
    return torch.stack([_vote_on_photo(photo, voting) for photo in member_logits])


def _vote_on_photo(member_logits: Tensor, voting: str) -> Tensor:
    if voting == "mean":
        return member_logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(member_logits))
    choices = member_logits.max(dim=1).indices  # those of argmax, in a seventh of its time
    votes = [(choices == label).sum(dim=0) for label in range(member_logits.shape[1])]
    return torch.stack(votes).to(member_logits.dtype)


def jensen_shannon(member_logits: Tensor) -> Tensor:
    """Return H(mean softmax) - mean H(softmax) in nats, of shape `(batch_size, ...)`.

    Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`.
    """
    return torch.stack([_divergence(photo) for photo in member_logits])


def _divergence(member_logits: Tensor) -> Tensor:
    probabilities = member_logits.float().softmax(dim=1)
    entropy_of_mean = torch.special.entr(probabilities.mean(dim=0)).sum(dim=0)
    mean_entropy = torch.special.entr(probabilities).sum(dim=1).mean(dim=0)
    return (entropy_of_mean - mean_entropy).clamp_min(0.0)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Cast half precision to float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


__all__ = ["FEDDDecodeHead", "jensen_shannon", "vote"]
