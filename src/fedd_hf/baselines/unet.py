"""The paper's segmentation baselines: U-Nets on encoders that were trained on ImageNet."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Self

import segmentation_models_pytorch as smp
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from fedd_hf.image_processing_fedd import IGNORE_INDEX, FEDDImageProcessor
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.modeling_fedd import FEDDSegmenterOutput

from .encoders import ENCODERS, IMAGENET, LITE0, check_encoder, check_weights, load_unet_encoder
from .fitting import fit
from .recipes import UNET_RECIPE, FittingArguments

SMOOTH = 1e-5
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


class UNetConfig(PreTrainedConfig):
    """Configuration of a U-Net.

    Args:
        encoder (`str`, *optional*, defaults to `"EfficientNetLite0"`):
            Name in [`~fedd_hf.baselines.encoders.ENCODERS`].
        image_size (`int`, *optional*, defaults to 256):
            Side in pixels of the square that it sees.

    Raises:
        ValueError: If the encoder is unknown.
    """

    model_type: ClassVar[str] = "fedd-baseline-unet"

    encoder: str = LITE0
    image_size: int = 256
    id2label: dict[int, str] | None = field(default_factory=lambda: dict(enumerate(SEGMENTATION_LABELS)))

    def __post_init__(self, **kwargs: Any) -> None:
        check_encoder(self.encoder)
        super().__post_init__(**kwargs)


class UNetForSegmentation(PreTrainedModel):
    """A U-Net of segmentation-models-pytorch that takes and returns what [`FEDDForSegmentation`] does.

    Source: hectorcarrion/FEDD, notebook of the U-Nets; keras segmentation_models 1.0.1.
    """

    config_class = UNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        encoder = ENCODERS[config.encoder]
        self.normalise = Normalisation(*encoder.normalisation)
        self.unet = smp.Unet(encoder.smp_name, encoder_weights=None, classes=config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave modules as their library has drawn them."""

    @classmethod
    def from_encoder(cls, encoder: str, weights: str = IMAGENET, **kwargs: Any) -> Self:
        """Put a new decoder on an encoder.

        Args:
            encoder (`str`):
                Name in [`~fedd_hf.baselines.encoders.ENCODERS`].
            weights (`str`, *optional*, defaults to `"imagenet"`):
                `"imagenet"`, or `"random"`, which is no comparison.
            kwargs:
                Other fields of [`UNetConfig`].

        Raises:
            OSError: If the weights are on the Hub, and it cannot be reached.
            ValueError: If encoder or weights are unknown.
        """
        check_weights(weights)
        model = cls(UNetConfig(encoder=encoder, **kwargs))
        if weights == IMAGENET:
            load_unet_encoder(model.unet.encoder, encoder)
        return model.eval()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_member_logits: bool = False,
        output_uncertainty: bool = False,
    ) -> FEDDSegmenterOutput:
        """Segment a batch of photos.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.
            labels (`torch.LongTensor` of shape `(batch_size, image_size, image_size)`, *optional*):
                Class of each pixel, 255 where it does not count.
            output_member_logits (`bool`, *optional*, defaults to `False`):
                Whether to return the logits once more, as those of an ensemble of one.
            output_uncertainty (`bool`, *optional*, defaults to `False`):
                Whether to return the entropy of each pixel in nats: one network has nobody to disagree with.
        """
        logits = self.unet(self.normalise(pixel_values))
        return FEDDSegmenterOutput(
            loss=None if labels is None else unet_loss(logits, labels),
            logits=logits,
            member_logits=logits[:, None] if output_member_logits else None,
            uncertainty=torch.special.entr(logits.softmax(dim=1)).sum(dim=1) if output_uncertainty else None,
        )


class Normalisation(nn.Module):
    """Bring pixels from [-1, 1] to the mean and deviation that a network was trained with.

    Args:
        mean (`tuple[float, ...]`):
            Mean of each channel of pixels in [0, 1].
        std (`tuple[float, ...]`):
            Standard deviation of each channel.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalise pixels of shape `(batch_size, channels, height, width)`."""
        mean, std = (pixel_values.new_tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        return (pixel_values / 2 + 0.5 - mean) / std


def train_unet(
    model: UNetForSegmentation,
    processor: FEDDImageProcessor,
    train: Dataset,
    validation: Dataset,
    arguments: FittingArguments = UNET_RECIPE,
) -> list[dict[str, float]]:
    """Train encoder and decoder in place, and return `loss` and `score`, the soft IoU, of each epoch.

    Args:
        model ([`UNetForSegmentation`]):
            The U-Net.
        processor ([`FEDDImageProcessor`]):
            Brings photos and masks to its size.
        train (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        validation (`datasets.Dataset`):
            Rows that say when to stop.
        arguments ([`FittingArguments`], *optional*):
            How to train; by default as the authors did.
    """

    def prepare(rows: dict[str, Any]) -> dict[str, Tensor]:
        return dict(processor(rows["image"], segmentation_maps=rows["mask"], return_tensors="pt"))

    seen, unseen = (rows.select_columns(["image", "mask"]).with_transform(prepare) for rows in (train, validation))
    return fit(model, seen, unseen, soft_iou, arguments)


def unet_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of soft Dice loss and categorical focal loss over the pixels that count.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`):
            What the network says.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`):
            Class of each pixel, 255 where it does not count.

    Source: keras segmentation_models 1.0.1, `losses.py`: `DiceLoss() + CategoricalFocalLoss()`.
    """
    log_probabilities, truth = _counted_pixels(logits.log_softmax(dim=1), labels)
    probabilities = log_probabilities.exp()
    dice = soft_overlap(probabilities, truth, intersections=2)
    focal = -truth * FOCAL_ALPHA * (1 - probabilities) ** FOCAL_GAMMA * log_probabilities
    return 1 - dice + focal.mean()


def soft_iou(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the soft IoU, mean over classes, by which training is stopped. Arguments are those of [`unet_loss`].

    Source: keras segmentation_models 1.0.1, `metrics.py`: `IOUScore()`.
    """
    return soft_overlap(*_counted_pixels(logits.softmax(dim=1), labels), intersections=1)


def soft_overlap(probabilities: Tensor, truth: Tensor, intersections: int) -> Tensor:
    """Return Dice (`intersections` 2) or IoU (1), mean over classes, of `(num_pixels, num_labels)`; 1 if both lack it.

    Of two sets, sizes add up to union and intersection: Dice is 2 I / (U + I), IoU is I / U.
    """
    overlap = (probabilities * truth).sum(dim=0)
    union = probabilities.sum(dim=0) + truth.sum(dim=0) - overlap
    total = union + (intersections - 1) * overlap
    return ((intersections * overlap + SMOOTH) / (total + SMOOTH)).mean()


def _counted_pixels(of_classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and one-hot classes of the pixels that count, both of shape `(num_pixels, num_labels)`."""
    counted = labels != IGNORE_INDEX
    values = of_classes.movedim(1, -1)[counted]
    return values, nn.functional.one_hot(labels[counted], values.shape[-1]).to(values.dtype)
