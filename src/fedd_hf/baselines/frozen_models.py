"""The heads of FEDD on frozen networks other than a diffusion model: floors and fair rivals."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import MALIGNANCY_LABELS, SEGMENTATION_LABELS
from fedd_hf.modeling_fedd import (
    FEDDDecodeHead,
    FEDDForImageClassification,
    FEDDForSegmentation,
    default_batch_size,
    make_classifier,
    pool_features,
)
from fedd_hf.pretrained_fedd import FEDDPreTrainedModel
from fedd_hf.training.pixels import LabelMaps

from .encoders import IMAGENET
from .fitting import accuracy, fit
from .frozen_networks import COLOUR, NETWORKS, check_network, open_network
from .recipes import CLASSIFIER_RECIPE, FittingArguments

LEAST_POOLED_SIZE = 512
SMALLEST_IMAGE = 32  # that every network can see


class FrozenNetworkConfig(PreTrainedConfig):
    """Configuration of a head on a frozen network; what is named as in [`FEDDConfig`] is the same.

    Args:
        network (`str`, *optional*, defaults to `"colour"`):
            Name in [`~fedd_hf.baselines.frozen_networks.NETWORKS`].
        feature_channels (`list[int]`, *optional*):
            Channels of each map that it returns.
        image_size (`int`, *optional*, defaults to 256):
            Side in pixels of the square that it sees.

    Raises:
        ValueError: If the network is unknown.
    """

    model_type: ClassVar[str] = "fedd-baseline-frozen"

    network: str = COLOUR
    feature_channels: list[int] = field(default_factory=lambda: [3])
    image_size: int = 256
    hidden_sizes: list[int] = field(default_factory=lambda: [128, 32])
    ensemble_size: int = 5
    voting: str = "majority"
    semantic_loss_ignore_index: int = 255
    classifier_hidden_sizes: list[int] = field(default_factory=lambda: [64, 32])
    classifier_dropout: list[float] = field(default_factory=lambda: [0.5, 0.25])
    pooled_size: int = 512
    id2label: dict[int, str] | None = field(default_factory=lambda: dict(enumerate(SEGMENTATION_LABELS)))

    def __post_init__(self, **kwargs: Any) -> None:
        check_network(self.network)
        super().__post_init__(**kwargs)


class FrozenNetworkModel(PreTrainedModel):
    """What both models share."""

    config_class = FrozenNetworkConfig
    main_input_name = "pixel_values"
    labels: ClassVar[tuple[str, ...]]
    _init_weights = FEDDPreTrainedModel._init_weights

    def __init__(self, config: FrozenNetworkConfig) -> None:
        super().__init__(config)
        self.backbone = NETWORKS[config.network]().freeze()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model, with a frozen network, as [`~transformers.PreTrainedModel.from_pretrained`] does."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.backbone.freeze()
        return loaded

    @classmethod
    def from_network(cls, network: str, weights: str = IMAGENET, **kwargs: Any) -> Self:
        """Put new, untrained heads on a frozen network.

        Args:
            network (`str`):
                Name in [`~fedd_hf.baselines.frozen_networks.NETWORKS`].
            weights (`str`, *optional*, defaults to `"imagenet"`):
                `"imagenet"`, or `"random"`, which is no comparison.
            kwargs:
                Other fields of [`FrozenNetworkConfig`].

        Raises:
            OSError: If the weights are on the Hub, and it cannot be reached.
            ValueError: If network or weights are unknown.
        """
        opened = open_network(network, weights)
        with torch.no_grad():
            last_channels = opened.last_map(torch.zeros(1, 3, SMALLEST_IMAGE, SMALLEST_IMAGE)).shape[1]
        sizes = {"feature_channels": list(opened.channels), "pooled_size": halve_to_pooled_size(last_channels)}
        model = cls(FrozenNetworkConfig(network=network, id2label=dict(enumerate(cls.labels)), **(sizes | kwargs)))
        model.backbone = opened
        return model.eval()


class FrozenNetworkForSegmentation(FrozenNetworkModel):
    """The pixel classifiers of [`FEDDForSegmentation`], on the maps of a frozen network."""

    labels = SEGMENTATION_LABELS
    forward = FEDDForSegmentation.forward
    loss = FEDDForSegmentation.loss

    def __init__(self, config: FrozenNetworkConfig) -> None:
        super().__init__(config)
        self.decode_head = FEDDDecodeHead(config)
        self.post_init()


class FrozenNetworkForImageClassification(FrozenNetworkModel):
    """The malignancy classifier of [`FEDDForImageClassification`], on the pooled last map of a frozen network.

    Source: hectorcarrion/FEDD, notebook of the classifiers.
    """

    labels = MALIGNANCY_LABELS
    classify = FEDDForImageClassification.classify

    def __init__(self, config: FrozenNetworkConfig) -> None:
        super().__init__(config)
        self.classifier = make_classifier(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Score photos. Arguments and result are those of [`FEDDForImageClassification`]."""
        logits = self.classify(self.pool(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def pool(self, pixel_values: Tensor) -> Tensor:
        """Return what the classifier takes, float32 of shape `(batch_size, pooled_size)`."""
        return pool_features(self.backbone.last_map(pixel_values), self.config.pooled_size)


class PooledClassifier(nn.Module):
    """The classifier without its network, on features that were pooled once."""

    def __init__(self, model: FrozenNetworkForImageClassification) -> None:
        super().__init__()
        self.classifier, self.classify = model.classifier, model.classify

    def forward(self, pooled: Tensor, labels: Tensor) -> ImageClassifierOutput:
        """Score photos of which `pooled` is known, float32 of shape `(batch_size, pooled_size)`."""
        logits = self.classify(pooled)
        return ImageClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)


def train_frozen_classifier(
    model: FrozenNetworkForImageClassification,
    processor: FEDDImageProcessor,
    train: Dataset,
    validation: Dataset,
    arguments: FittingArguments = CLASSIFIER_RECIPE,
) -> list[dict[str, float]]:
    """Train the classifier in place, and return `loss` and `score`, the accuracy, of each epoch.

    Args:
        model ([`FrozenNetworkForImageClassification`]):
            Model whose network stays as it is.
        processor ([`FEDDImageProcessor`]):
            Brings photos to its size.
        train (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        validation (`datasets.Dataset`):
            Rows that say when to stop.
        arguments ([`FittingArguments`], *optional*):
            How to train; by default as the authors did.
    """
    seen, unseen = (pool_labelled_photos(model, processor, rows) for rows in (train, validation))
    set_seed(arguments.seed)
    model.classifier.apply(model._init_weights)
    return fit(PooledClassifier(model), seen, unseen, accuracy, arguments)


@torch.no_grad()
def pool_labelled_photos(
    model: FrozenNetworkForImageClassification, processor: FEDDImageProcessor, photos: Dataset
) -> list[dict[str, Tensor]]:
    """Run the network over photos once; return `pooled` and `labels` (1 is malignant) of each."""
    batch_size = default_batch_size(model.config.image_size)
    pooled: list[Tensor] = []
    for batch in tqdm(photos.select_columns(["image"]).batch(batch_size), desc="Features", leave=False):
        pixel_values = processor(batch["image"], return_tensors="pt")["pixel_values"]
        pooled += model.pool(pixel_values.to(model.device)).cpu()
    labels = torch.tensor(photos["malignant"][:], dtype=torch.long)
    return [{"pooled": features, "labels": label} for features, label in zip(pooled, labels, strict=True)]


def halve_to_pooled_size(channels: int) -> int:
    """Return channels after they were max-pooled in pairs as often as at least 512 are left: 1280 gives 640.

    Source: hectorcarrion/FEDD, notebook of the classifiers, `get_poolings`.
    """
    while channels >= 2 * LEAST_POOLED_SIZE:
        channels //= 2
    return channels


class HeldFeatures:
    """Labelled photos whose feature maps were computed once and stay in memory.

    Args:
        model ([`FrozenNetworkForSegmentation`]):
            Model whose network is read.
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        processor ([`FEDDImageProcessor`]):
            Brings photos and masks to the size of the model.
        accelerator (`accelerate.Accelerator`):
            Where the network runs.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: FrozenNetworkForSegmentation,
        dataset: Dataset,
        processor: FEDDImageProcessor,
        accelerator: Accelerator,
    ) -> None:
        self.labels = LabelMaps(dataset, processor).read
        self.maps: list[tuple[Tensor, ...]] = []
        model, batch_size = model.to(accelerator.device), default_batch_size(model.config.image_size)
        for batch in tqdm(dataset.select_columns(["image"]).batch(batch_size), desc="Features", leave=False):
            pixel_values = processor(batch["image"], return_tensors="pt")["pixel_values"]
            num_photos = len(pixel_values)
            last = pixel_values[-1:].expand(batch_size - num_photos, -1, -1, -1)  # all batches have one shape
            maps = model.backbone(torch.cat([pixel_values, last]).to(model.device)).feature_maps
            halves = [feature_map[:num_photos].movedim(1, -1).half().cpu() for feature_map in maps]
            self.maps += zip(*halves, strict=True)

    def __len__(self) -> int:
        return len(self.maps)

    def read(self, photo: int) -> tuple[Tensor, ...]:
        """Return the maps of a photo."""
        return self.maps[photo]
