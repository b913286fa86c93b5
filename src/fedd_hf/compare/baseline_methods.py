"""The baselines as methods that are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from datasets import Dataset
from torch import Tensor, nn
from transformers import set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from fedd_hf.baselines.deepderm import DeepDermForImageClassification, train_deepderm, train_diagnoses
from fedd_hf.baselines.encoders import RANDOM
from fedd_hf.baselines.frozen_models import (
    FrozenNetworkForImageClassification,
    FrozenNetworkForSegmentation,
    HeldFeatures,
    train_frozen_classifier,
)
from fedd_hf.baselines.frozen_networks import WITHOUT_WEIGHTS
from fedd_hf.baselines.recipes import CLASSIFIER_RECIPE, DEEPDERM_RECIPE, UNET_RECIPE, FittingArguments
from fedd_hf.baselines.unet import UNetForSegmentation, train_unet
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.evaluation.report import NOT_A_COMPARISON
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers

from .results_cache import cache_folder
from .run import CLASSIFICATION, SEGMENTATION, MethodSettings, Run

Drawn = TypeVar("Drawn", bound=nn.Module)

SURELY_BENIGN = 20.0  # logit


class Baseline:
    """A method whose model reads photos: no features of them are stored.

    Args:
        name (`str`):
            Name in reports.
        settings ([`MethodSettings`]):
            What all methods have in common.
    """

    tasks: tuple[str, ...] = (CLASSIFICATION,)

    def __init__(self, name: str, settings: MethodSettings) -> None:
        self.name, self.settings = name, settings

    def read_features(self, run: Run, photos: Dataset) -> None:
        """Return nothing: the model reads photos."""


class CNNMethod(Baseline):
    """A baseline of the paper: a U-Net on a CNN for masks, and a classifier on the frozen CNN for malignancy.

    Args:
        encoder (`str`):
            Name in [`~fedd_hf.baselines.encoders.ENCODERS`].
        settings ([`MethodSettings`]):
            What all methods have in common.

    Source: hectorcarrion/FEDD, notebooks of the U-Nets and of the classifiers.
    """

    tasks = (SEGMENTATION, CLASSIFICATION)

    def __init__(self, encoder: str, settings: MethodSettings) -> None:
        super().__init__(_name(encoder, settings), settings)
        self.encoder = encoder

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the run."""
        training = self.settings.unet if task == SEGMENTATION else self.settings.classifier
        authors = UNET_RECIPE if task == SEGMENTATION else CLASSIFIER_RECIPE
        return _describe(self.encoder, self.settings, training, authors)

    def train(self, run: Run) -> tuple[nn.Module, FEDDImageProcessor]:
        """Train the U-Net, or the classifier."""
        settings = self.settings
        if run.task == CLASSIFICATION:
            return _train_frozen_classifier(self.encoder, settings, run)
        model = _draw(UNetForSegmentation.from_encoder, self.encoder, settings, run.seed)
        arguments = replace(settings.unet, seed=run.seed)
        train_unet(model, settings.processor, run.train, run.validation, arguments)
        return model, settings.processor


class FrozenMethod(Baseline):
    """The heads of FEDD on a frozen network other than a diffusion model.

    Args:
        name (`str`):
            Name in reports.
        network (`str`):
            Name in [`~fedd_hf.baselines.frozen_networks.NETWORKS`].
        tasks (`tuple[str, ...]`):
            What it is compared in.
        settings ([`MethodSettings`]):
            What all methods have in common.
    """

    def __init__(self, name: str, network: str, tasks: tuple[str, ...], settings: MethodSettings) -> None:
        super().__init__(name if network in WITHOUT_WEIGHTS else _name(name, settings), settings)
        self.network, self.tasks = network, tasks

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the run."""
        training = self.settings.segmentation if task == SEGMENTATION else self.settings.classifier
        return _describe(self.network, self.settings, training)

    def train(self, run: Run) -> tuple[nn.Module, FEDDImageProcessor]:
        """Train the pixel classifiers, or the malignancy classifier."""
        settings = self.settings
        if run.task == CLASSIFICATION:
            return _train_frozen_classifier(self.network, settings, run)
        model = _draw(FrozenNetworkForSegmentation.from_network, self.network, settings, run.seed)
        model.to(settings.accelerator.device)
        features = HeldFeatures(model, run.train, settings.processor, settings.accelerator)
        arguments = replace(settings.segmentation, seed=run.seed)
        train_pixel_classifiers(model, features, arguments, settings.accelerator)
        return model, settings.processor


class DeepDermMethod(Baseline):
    """DeepDerm, which learns the diagnoses of HAM10000 once, and then malignancy in each run.

    Args:
        settings ([`MethodSettings`]):
            What all methods have in common.

    Source: hectorcarrion/FEDD, notebook of DeepDerm.
    """

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__(_name("DeepDerm", settings), settings)

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the run."""
        return _describe("DeepDerm", self.settings, self.settings.deepderm, DEEPDERM_RECIPE)

    def train(self, run: Run) -> tuple[nn.Module, FEDDImageProcessor]:
        """Train all of the network, which knows HAM10000."""
        settings = self.settings
        told = _describe("DeepDerm", settings, settings.deepderm) | {"photos": settings.ham10000}
        folder = cache_folder(settings.folder, "deepderm", told, self._learn_diagnoses, settings.accelerator)
        model = DeepDermForImageClassification.from_pretrained(folder)
        arguments = replace(settings.deepderm, seed=run.seed)
        train_deepderm(model, settings.processor, run.train, run.validation, arguments)
        return model, settings.processor

    def _learn_diagnoses(self, folder: Path) -> None:
        """Teach a network the diagnoses of HAM10000, and write it."""
        settings = self.settings
        if settings.ham10000 is None:
            raise ValueError("DeepDerm learns HAM10000 first: give `ham10000`, its folder.")
        splits = load_splits(DataArguments(dataset="ham10000", root=settings.ham10000), "pretraining")
        set_seed(0)
        model = DeepDermForImageClassification.from_inception(settings.weights, image_size=settings.image_size)
        train, validation = need_split(splits, "train"), need_split(splits, "validation")
        train_diagnoses(model, settings.processor, train, validation, settings.deepderm)
        model.save_pretrained(folder)


class AlwaysBenign(Baseline):
    """What calls every photo benign; its accuracy is what a malignancy classifier has to beat.

    Args:
        settings ([`MethodSettings`]):
            What all methods have in common.
    """

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__("always benign", settings)

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on: nothing."""
        return {}

    def train(self, run: Run) -> tuple[nn.Module, FEDDImageProcessor]:
        """Return a model that needs no training."""
        return _Benign(self.settings), self.settings.processor


def _train_frozen_classifier(
    network: str, settings: MethodSettings, run: Run
) -> tuple[FrozenNetworkForImageClassification, FEDDImageProcessor]:
    """Train a classifier on a frozen network."""
    model = _draw(FrozenNetworkForImageClassification.from_network, network, settings, run.seed)
    model.to(settings.accelerator.device)
    arguments = replace(settings.classifier, seed=run.seed)
    train_frozen_classifier(model, settings.processor, run.train, run.validation, arguments)
    return model, settings.processor


def _draw(open_model: Callable[..., Drawn], network: str, settings: MethodSettings, seed: int) -> Drawn:
    """Open a model whose new weights, all of them if they are random, depend on the seed alone."""
    set_seed(seed)
    return open_model(network, settings.weights, image_size=settings.image_size)


def _name(name: str, settings: MethodSettings) -> str:
    """Return a method's name, which says so if it is no comparison."""
    return f"{name} ({NOT_A_COMPARISON})" if settings.weights == RANDOM else name


def _describe(
    network: str,
    settings: MethodSettings,
    training: FittingArguments | SegmentationArguments,
    authors: FittingArguments | None = None,
) -> dict[str, Any]:
    """Say what is read and how it is trained, and what the authors of the paper do otherwise."""
    weights = {} if network in WITHOUT_WEIGHTS else {"weights": settings.weights}
    read = {"network": network, **weights, "image_size": settings.image_size}
    used = asdict(replace(training, seed=0))
    told = {"reading": read, "training": {name: value for name, value in used.items() if name != "seed"}}
    if authors is None:
        return told
    return told | {"authors": {name: value for name, value in asdict(authors).items() if value != used[name]}}


class _Benign(nn.Module):
    """A model that needs no training."""

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__()
        self.config, self.device = SimpleNamespace(image_size=settings.image_size), settings.accelerator.device

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(
            logits=pixel_values.new_tensor([[SURELY_BENIGN, 0.0]]).expand(len(pixel_values), -1)
        )
