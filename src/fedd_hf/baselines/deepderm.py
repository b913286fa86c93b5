"""DeepDerm as the authors re-implemented it: Inception-v3 learns diagnoses of HAM10000, then malignancy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, ClassVar, Self

import timm
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from torchvision.transforms import v2
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import MALIGNANCY_LABELS

from .encoders import IMAGENET, check_weights, fetch_network
from .fitting import accuracy, fit
from .recipes import DEEPDERM_RECIPE, FittingArguments
from .unet import Normalisation

INCEPTION = "inception_v3.tv_in1k"
DROPOUT = 0.5
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")  # of HAM10000


class DeepDermConfig(PreTrainedConfig):
    """Configuration of DeepDerm.

    Args:
        image_size (`int`, *optional*, defaults to 299):
            Side in pixels of the square that it sees, at least 75.
        diagnoses (`list[str]`, *optional*):
            What it learns first; by default the diagnoses of HAM10000.
    """

    model_type: ClassVar[str] = "fedd-baseline-deepderm"

    image_size: int = 299
    diagnoses: list[str] = field(default_factory=lambda: list(DIAGNOSES))
    id2label: dict[int, str] | None = field(default_factory=lambda: dict(enumerate(MALIGNANCY_LABELS)))


class DeepDermForImageClassification(PreTrainedModel):
    """Inception-v3, all of it trained, with a malignancy classifier on the softmax of its diagnoses.

    Source: hectorcarrion/FEDD, notebook of DeepDerm. The authors split HAM10000 by photo; here photos of one lesion
    stay together.
    """

    config_class = DeepDermConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DeepDermConfig) -> None:
        super().__init__(config)
        known = timm.get_pretrained_cfg(INCEPTION)
        assert known is not None
        self.normalise = Normalisation(known.mean, known.std)
        self.inception = timm.create_model(INCEPTION, num_classes=len(config.diagnoses), drop_rate=DROPOUT)
        self.malignancy = nn.Linear(len(config.diagnoses), 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave modules as their library has drawn them."""

    @classmethod
    def from_inception(cls, weights: str = IMAGENET, **kwargs: Any) -> Self:
        """Start from Inception-v3.

        Args:
            weights (`str`, *optional*, defaults to `"imagenet"`):
                `"imagenet"`, or `"random"`, which is no comparison.
            kwargs:
                Fields of [`DeepDermConfig`].

        Raises:
            OSError: If the weights are on the Hub, and it cannot be reached.
            ValueError: If weights are unknown.
        """
        check_weights(weights)
        model = cls(DeepDermConfig(**kwargs))
        if weights == IMAGENET:
            options: dict[str, Any] = {"num_classes": len(model.config.diagnoses), "drop_rate": DROPOUT}
            source = fetch_network("Inception-v3", lambda: timm.create_model(INCEPTION, pretrained=True, **options))
            model.inception.load_state_dict(source.state_dict())
        return model.eval()

    def diagnose(self, pixel_values: Tensor) -> Tensor:
        """Return the logits of the diagnoses, of shape `(batch_size, num_diagnoses)`."""
        return self.inception(self.normalise(pixel_values))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Score photos. Arguments and result are those of [`FEDDForImageClassification`]."""
        malignancy = self.malignancy(self.diagnose(pixel_values).softmax(dim=-1))
        logits = torch.cat([torch.zeros_like(malignancy), malignancy], dim=-1)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class DiagnosisTraining(nn.Module):
    """DeepDerm while it learns diagnoses."""

    def __init__(self, model: DeepDermForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, labels: Tensor) -> ImageClassifierOutput:
        """Return the logits of the diagnoses, and their loss."""
        logits = self.model.diagnose(pixel_values)
        return ImageClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)


def train_diagnoses(
    model: DeepDermForImageClassification,
    processor: FEDDImageProcessor,
    train: Dataset,
    validation: Dataset,
    arguments: FittingArguments = DEEPDERM_RECIPE,
) -> list[dict[str, float]]:
    """Teach the diagnoses of HAM10000 in place; return the loss of validation photos at each epoch, and its negative.

    Args:
        model ([`DeepDermForImageClassification`]):
            The network.
        processor ([`FEDDImageProcessor`]):
            Brings photos to its size.
        train (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`] with a `disease`.
        validation (`datasets.Dataset`):
            Rows that say when to stop.
        arguments ([`FittingArguments`], *optional*):
            How to train; by default as the authors did.

    Raises:
        ValueError: If a photo has another diagnosis.
    """
    names = {name: number for number, name in enumerate(model.config.diagnoses)}
    unknown = sorted({str(name) for rows in (train, validation) for name in rows["disease"]} - set(names))
    if unknown:
        raise ValueError(f"DeepDerm learns the diagnoses {list(names)}, but photos have {unknown}.")
    prepare = _prepare_with(processor, "disease", lambda diseases: [names[name] for name in diseases])
    training = DiagnosisTraining(model)
    return fit(training, prepare(train, True), prepare(validation, False), _negative_loss, arguments)


def train_deepderm(
    model: DeepDermForImageClassification,
    processor: FEDDImageProcessor,
    train: Dataset,
    validation: Dataset,
    arguments: FittingArguments = DEEPDERM_RECIPE,
) -> list[dict[str, float]]:
    """Teach malignancy in place; return `loss` and `score`, the accuracy, of each epoch.

    Arguments are those of [`train_diagnoses`]; rows need `malignant`.
    """
    prepare = _prepare_with(processor, "malignant", lambda malignant: [int(value) for value in malignant])
    return fit(model, prepare(train, True), prepare(validation, False), accuracy, arguments)


def turn_at_random(image_size: int) -> v2.Transform:
    """Return what turns photos by any angle and mirrors half of them upside down; corners are filled by reflection."""
    around = v2.Pad(image_size // 2, padding_mode="reflect")
    return v2.Compose([v2.RandomVerticalFlip(), around, v2.RandomRotation(180), v2.CenterCrop(image_size)])


def _prepare_with(
    processor: FEDDImageProcessor, column: str, number: Callable[[Sequence[Any]], list[int]]
) -> Callable[[Dataset, bool], Dataset]:
    """Return what makes pixels and labels of rows, turned at random for training."""

    def prepare(photos: Dataset, augment: bool) -> Dataset:
        turn = turn_at_random(processor.size["height"]) if augment else nn.Identity()

        def transform(rows: dict[str, Any]) -> dict[str, Any]:
            pixel_values = processor(rows["image"], return_tensors="pt")["pixel_values"]
            return {"pixel_values": [turn(photo) for photo in pixel_values], "labels": number(rows[column])}

        return photos.select_columns(["image", column]).with_transform(transform)

    return prepare


def _negative_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(logits, labels)
