"""What else a pixel head can read: colour, networks that were trained on ImageNet, DINOv2. None of them is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model
from transformers.modeling_outputs import BackboneOutput

from .encoders import ENCODERS, IMAGENET, check_weights, load_network
from .unet import Normalisation

DINOV2 = "DINOv2"
DINOV2_REPOSITORY = "facebook/dinov2-small"
DINOV2_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518}
COLOUR, COLOUR_AND_POSITION = WITHOUT_WEIGHTS = ("colour", "colour and position")


class FrozenNetwork(nn.Module):
    """A network that is read and never trained.

    `read` takes `pixel_values` of shape `(batch_size, 3, height, width)` in [-1, 1] and returns feature maps of shape
    `(batch_size, channels, map_height, map_width)`.
    """

    channels: tuple[int, ...]
    read: Callable[[Tensor], tuple[Tensor, ...]]

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        """Return the feature maps as [`FEDDBackbone`] does."""
        return BackboneOutput(feature_maps=self.read(pixel_values))

    def freeze(self) -> Self:
        """Take no gradient, and stay in evaluation."""
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation, whatever becomes of the heads."""
        return super().train(False)

    def last_map(self, pixel_values: Tensor) -> Tensor:
        """Return the map that a classifier pools."""
        return self.read(pixel_values)[-1]

    def load(self) -> None:
        """Load the weights that the network was trained to."""


class Colour(FrozenNetwork):
    """Red, green and blue of each pixel, and where it lies: what a head knows without any network.

    Args:
        position (`bool`):
            Whether row and column, from -1 to 1, are told too.
    """

    def __init__(self, position: bool) -> None:
        super().__init__()
        self.position, self.channels = position, (5,) if position else (3,)

    def read(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return one map, of the photo's own size."""
        if not self.position:
            return (pixel_values,)
        batch_size, _, height, width = pixel_values.shape
        rows, columns = (torch.linspace(-1, 1, length, device=pixel_values.device) for length in (height, width))
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(pixel_values.dtype)
        return (torch.cat([pixel_values, where.expand(batch_size, -1, -1, -1)], dim=1),)


class FrozenCNN(FrozenNetwork):
    """A convolutional network of timm, read after each of its stages.

    Args:
        name (`str`):
            Name in [`~fedd_hf.baselines.encoders.ENCODERS`].
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, encoder = name, ENCODERS[name]
        self.normalise = Normalisation(*encoder.normalisation)
        cnn: Any = timm.create_model(encoder.timm_name, num_classes=0)
        if hasattr(cnn, "pre_logits"):
            cnn.pre_logits = nn.Identity()  # of VGG: 120 million weights behind the last map
        self.cnn, self.channels = cnn, tuple(stage["num_chs"] for stage in cnn.feature_info)

    def read(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return one map for each stage, the largest first."""
        return tuple(self.cnn.forward_intermediates(self.normalise(pixel_values), intermediates_only=True))

    def last_map(self, pixel_values: Tensor) -> Tensor:
        """Return what the classifier of ImageNet pools."""
        return self.cnn.forward_features(self.normalise(pixel_values))

    def load(self) -> None:
        """Load the weights that the network was trained to on ImageNet.

        Raises:
            OSError: If they are on the Hub, and it cannot be reached.
        """
        load_network(self.cnn, self.name)


class FrozenDINOv2(FrozenNetwork):
    """DINOv2 (small), whose last layer has a vector for each patch of 14 pixels.

    Source: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2304.07193).
    """

    def __init__(self) -> None:
        super().__init__()
        config = Dinov2Config(**DINOV2_SMALL)
        self.normalise = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.transformer = Dinov2Model(config)
        self.channels, self.patch_size = (config.hidden_size,), config.patch_size

    def read(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Resize to a multiple of the patch and return the patches as a map."""
        patches = [max(1, round(length / self.patch_size)) for length in pixel_values.shape[-2:]]
        size = [number * self.patch_size for number in patches]
        resized = F.interpolate(self.normalise(pixel_values), size=size, mode="bilinear", antialias=True)
        tokens = self.transformer(resized).last_hidden_state[:, 1:]
        return (tokens.transpose(1, 2).unflatten(2, patches),)

    def load(self) -> None:
        """Load the weights from the Hub.

        Raises:
            OSError: If it cannot be reached.
        """
        self.transformer.load_state_dict(Dinov2Model.from_pretrained(DINOV2_REPOSITORY).state_dict())


NETWORKS: dict[str, Callable[[], FrozenNetwork]] = {
    COLOUR: partial(Colour, position=False),
    COLOUR_AND_POSITION: partial(Colour, position=True),
    **{name: partial(FrozenCNN, name) for name in ENCODERS},
    DINOV2: FrozenDINOv2,
}


def check_network(name: str) -> None:
    """Refuse an unknown network.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"A network must be one of {list(NETWORKS)}, got {name!r}.")


def open_network(name: str, weights: str = IMAGENET) -> FrozenNetwork:
    """Make a network and load its weights.

    Args:
        name (`str`):
            Name in `NETWORKS`.
        weights (`str`, *optional*, defaults to `"imagenet"`):
            `"imagenet"`, the weights that it was trained to, or `"random"`, which is no comparison.

    Raises:
        OSError: If the weights are on the Hub, and it cannot be reached.
        ValueError: If network or weights are unknown.
    """
    check_network(name)
    check_weights(weights)
    network = NETWORKS[name]()
    if weights == IMAGENET:
        network.load()
    return network.freeze()
