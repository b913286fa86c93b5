"""The baselines as methods of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pandas as pd
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
from fedd_hf.evaluation.report import NOT_A_COMPARISON, write_report
from fedd_hf.prediction import predict_classification
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers

from .kept_results import is_kept
from .method_settings import MethodSettings
from .segment_trial import segment_trial
from .trial import CLASSIFICATION, SEGMENTATION, Trial

Drawn = TypeVar("Drawn", bound=nn.Module)

SURELY_BENIGN = 20.0  # logit
DIAGNOSES = "diagnoses.json"  # how DeepDerm learned them


class CNNMethod:
    """A baseline of the paper: a U-Net on a CNN for masks, and a classifier on the frozen CNN for malignancy.

    Args:
        encoder (`str`):
            Name in [`~fedd_hf.baselines.encoders.ENCODERS`].
        settings ([`MethodSettings`]):
            What all methods have in common.

    Source: hectorcarrion/FEDD, notebooks of the U-Nets and of the classifiers.
    """

    tasks: tuple[str, ...] = (SEGMENTATION, CLASSIFICATION)

    def __init__(self, encoder: str, settings: MethodSettings) -> None:
        self.encoder, self.settings, self.name = encoder, settings, _name(encoder, settings)

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the trial."""
        training = self.settings.unet if task == SEGMENTATION else self.settings.classifier
        authors = UNET_RECIPE if task == SEGMENTATION else CLASSIFIER_RECIPE
        return _describe(self.encoder, self.settings, training, authors)

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Train the U-Net and segment `trial.photos`."""
        settings = self.settings
        model = _draw(UNetForSegmentation.from_encoder, self.encoder, settings, trial.seed)
        arguments = replace(settings.unet, seed=trial.seed)
        train_unet(model, settings.processor, trial.train, trial.validation, arguments)
        trial.keep(model, settings.processor)
        return segment_trial(model, settings.processor, trial, maps_dir)

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Train the classifier and score `trial.photos`."""
        return classify_with_frozen(self.encoder, self.settings, trial)


class FrozenMethod:
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
        self.name = name if network in WITHOUT_WEIGHTS else _name(name, settings)
        self.network, self.tasks, self.settings = network, tasks, settings

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the trial."""
        training = self.settings.segmentation if task == SEGMENTATION else self.settings.classifier
        return _describe(self.network, self.settings, training)

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Train the pixel classifiers and segment `trial.photos`."""
        settings = self.settings
        model = _draw(FrozenNetworkForSegmentation.from_network, self.network, settings, trial.seed)
        model.to(settings.accelerator.device)
        features = HeldFeatures(model, trial.train, settings.processor, settings.accelerator)
        arguments = replace(settings.segmentation, seed=trial.seed)
        train_pixel_classifiers(model, features, arguments, settings.accelerator)
        trial.keep(model, settings.processor)
        return segment_trial(model, settings.processor, trial, maps_dir)

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Train the classifier and score `trial.photos`."""
        return classify_with_frozen(self.network, self.settings, trial)


class DeepDermMethod:
    """DeepDerm, which learns the diagnoses of HAM10000 once, and then malignancy at each trial.

    Args:
        settings ([`MethodSettings`]):
            What all methods have in common.

    Source: hectorcarrion/FEDD, notebook of DeepDerm.
    """

    tasks: tuple[str, ...] = (CLASSIFICATION,)

    def __init__(self, settings: MethodSettings) -> None:
        self.settings, self.name = settings, _name("DeepDerm", settings)

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the trial."""
        return _describe("DeepDerm", self.settings, self.settings.deepderm, DEEPDERM_RECIPE)

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Refuse: this is a method for malignancy alone."""
        raise ValueError(f"{self.name!r} segments nothing.")

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Train all of the network and score `trial.photos`."""
        settings, model = self.settings, DeepDermForImageClassification.from_pretrained(self._learn_diagnoses())
        arguments = replace(settings.deepderm, seed=trial.seed)
        train_deepderm(model, settings.processor, trial.train, trial.validation, arguments)
        trial.keep(model, settings.processor)
        return predict_classification(model, settings.processor, trial.photos)

    def _learn_diagnoses(self) -> Path:
        """Return the folder of the network that knows HAM10000, which is trained unless it is kept."""
        folder = self.settings.folder / "deepderm"
        told = {"settings": _describe("DeepDerm", self.settings, self.settings.deepderm)}
        if not is_kept(folder / DIAGNOSES, told["settings"]):
            if folder.exists():
                raise ValueError(
                    f"{folder} does not say how it learned: {DIAGNOSES} is absent. Delete it to train anew."
                )
            model = self._train_diagnoses()
            partial = folder.with_name(f".{folder.name}.partial")
            model.save_pretrained(partial)
            write_report(told, partial / DIAGNOSES)
            partial.rename(folder)
        return folder

    def _train_diagnoses(self) -> DeepDermForImageClassification:
        """Teach a network the diagnoses of HAM10000."""
        settings = self.settings
        if settings.ham10000 is None:
            raise ValueError("DeepDerm learns HAM10000 first: give `ham10000`, its folder.")
        splits = load_splits(DataArguments(dataset="ham10000", root=settings.ham10000), "pretraining")
        set_seed(0)
        model = DeepDermForImageClassification.from_inception(settings.weights, image_size=settings.image_size)
        train, validation = need_split(splits, "train"), need_split(splits, "validation")
        train_diagnoses(model, settings.processor, train, validation, settings.deepderm)
        return model


class AlwaysBenign:
    """What calls every photo benign; its accuracy is what a malignancy classifier has to beat.

    Args:
        settings ([`MethodSettings`]):
            What all methods have in common.
    """

    name = "always benign"
    tasks: tuple[str, ...] = (CLASSIFICATION,)

    def __init__(self, settings: MethodSettings) -> None:
        self.settings = settings

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on: nothing."""
        return {}

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Refuse: this is a method for malignancy alone."""
        raise ValueError(f"{self.name!r} segments nothing.")

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Score `trial.photos`."""
        return predict_classification(_Benign(self.settings), self.settings.processor, trial.photos)


def classify_with_frozen(network: str, settings: MethodSettings, trial: Trial) -> pd.DataFrame:
    """Train a classifier on a frozen network and score `trial.photos`."""
    model = _draw(FrozenNetworkForImageClassification.from_network, network, settings, trial.seed)
    model.to(settings.accelerator.device)
    arguments = replace(settings.classifier, seed=trial.seed)
    train_frozen_classifier(model, settings.processor, trial.train, trial.validation, arguments)
    trial.keep(model, settings.processor)
    return predict_classification(model, settings.processor, trial.photos)


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
