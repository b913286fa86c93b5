"""FEDD as a method of an experiment: heads on the features of one backbone, which are computed once."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from transformers.modeling_outputs import BackboneOutput

from fedd_hf.features import FeatureStore, read_maps, read_pooled
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation
from fedd_hf.prediction import predict_classification
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.training.malignancy_heads import PAPER_READINGS, paper_reading, train_malignancy_classifier
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures

from .block_timestep import open_backbone
from .segment_trial import segment_trial
from .trial import CLASSIFICATION, SEGMENTATION, Trial

CONFIG_FIELDS = ("backbone_sha256", "blocks", "timesteps", "image_size", "noise_seed")


class FeatureMethod:
    """FEDD on a backbone: pixel classifiers, or a malignancy classifier, on stored features.

    All fractions, seeds and photos share two feature stores, one of maps and one of pooled features: a photo goes
    through the backbone once for each.

    Args:
        name (`str`):
            Name in reports.
        reading ([`ReadingArguments`]):
            Blocks, timesteps and image size of the pixel classifiers, and the image size of the malignancy classifier.
        backbone (`str`):
            `"embedded"`, a folder or a repository id, which takes the place of the one of `reading`.
        malignancy_readings (`dict[float, tuple[int, int]]`, *optional*):
            Block and timestep of the malignancy classifier by label fraction; by default those of the paper.
        segmentation ([`SegmentationArguments`]):
            How pixel classifiers are trained; a trial brings the seed.
        classification ([`ClassificationArguments`]):
            How malignancy classifiers are trained; a trial brings the seed.
        features (`Path`):
            Folder of the feature stores.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes.
    """

    tasks: tuple[str, ...] = (SEGMENTATION, CLASSIFICATION)

    def __init__(
        self,
        name: str,
        reading: ReadingArguments,
        backbone: str,
        malignancy_readings: dict[float, tuple[int, int]] | None,
        segmentation: SegmentationArguments,
        classification: ClassificationArguments,
        features: Path,
        accelerator: Accelerator,
    ) -> None:
        self.name, self.backbone = name, backbone
        self.given, self.image_size = reading.given(), reading.image_size
        self.malignancy_readings = malignancy_readings
        self.segmentation, self.classification = segmentation, classification
        self.features, self.accelerator = features, accelerator
        self._files: dict[tuple[Path, str], list[Path]] = {}

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the trial."""
        if task == "segmentation":
            config, training = self._map_store.model.config, asdict(self.segmentation)
            read = {name: getattr(config, name) for name in CONFIG_FIELDS}
        else:
            config, training = self._pooled_store.model.config, asdict(self.classification)
            block, timestep = self._malignancy_reading(label_fraction)
            read = {name: getattr(config, name) for name in CONFIG_FIELDS}
            read |= {"blocks": [block], "timesteps": [timestep]}
        training.pop("seed")
        return {"reading": read, "training": training}

    def open_segmenter(self) -> FEDDForSegmentation:
        """Open a segmentation model on the backbone, whose pixel classifiers are not trained."""
        return FEDDForSegmentation.from_backbone(self.backbone, **self.given)

    def train_segmenter(self, trial: Trial) -> tuple[FEDDForSegmentation, FEDDImageProcessor]:
        """Train the pixel classifiers of a trial; return the model, which reads its backbone, and its processor."""
        model, store = self.open_segmenter(), self._map_store
        labelled = StoredFeatures(self._extract(store, trial.train), trial.train, store.processor)
        arguments = replace(self.segmentation, seed=trial.seed)
        train_pixel_classifiers(model.to(self.accelerator.device), labelled, arguments, self.accelerator)
        return model, store.processor

    def train_classifier(self, trial: Trial) -> tuple[FEDDForImageClassification, FEDDImageProcessor]:
        """Train the malignancy classifier of a trial, in the same way."""
        block, timestep = self._malignancy_reading(trial.label_fraction)
        store = self._pooled_store
        size = {"image_size": store.model.config.image_size}
        model = FEDDForImageClassification.from_backbone(self.backbone, blocks=[block], timesteps=[timestep], **size)
        index = self._pooled_index(trial.label_fraction)
        seen, unseen = (
            (read_pooled(self._extract(store, rows))[:, index], torch.tensor(rows["malignant"][:], dtype=torch.long))
            for rows in (trial.train, trial.validation)
        )
        arguments = replace(self.classification, seed=trial.seed)
        train_malignancy_classifier(model, seen, unseen, arguments, self.accelerator)
        return model.to(self.accelerator.device), store.processor

    def segment(self, trial: Trial, maps_dir: Path) -> pd.DataFrame:
        """Train, segment `trial.photos`, and write the map of each example."""
        model, processor = self.train_segmenter(trial)
        trial.keep(model, processor)
        model.add_module("backbone", _StoredBackbone(self._extract(self._map_store, trial.photos)))
        return segment_trial(model, processor, trial, maps_dir)

    def classify(self, trial: Trial) -> pd.DataFrame:
        """Train and score `trial.photos`."""
        model, processor = self.train_classifier(trial)
        trial.keep(model, processor)
        files = self._extract(self._pooled_store, trial.photos)
        model.add_module("backbone", _StoredBackbone(files, self._pooled_index(trial.label_fraction)))
        return predict_classification(model, processor, trial.photos)

    def _extract(self, store: FeatureStore, photos: Dataset) -> list[Path]:
        """Return the files of photos, which are looked up once: their names are hashes of pixels."""
        key = (store.folder, photos._fingerprint)
        if key not in self._files:
            self._files[key] = store.extract(photos, self.accelerator)
        return self._files[key]

    @cached_property
    def _map_store(self) -> FeatureStore:
        model = self.open_segmenter()
        return FeatureStore(self.features, model, FEDDImageProcessor(size=model.config.image_size))

    @cached_property
    def _pooled_store(self) -> FeatureStore:
        """The store of pooled features of all blocks and timesteps that any label fraction reads."""
        readings = (PAPER_READINGS if self.malignancy_readings is None else self.malignancy_readings).values()
        blocks, timesteps = (sorted(set(numbers)) for numbers in zip(*readings, strict=True))
        reading = ReadingArguments(
            backbone=self.backbone, blocks=blocks, timesteps=timesteps, image_size=self.image_size
        )
        model = open_backbone(reading)
        processor = FEDDImageProcessor(size=model.config.image_size)
        return FeatureStore(self.features, model, processor, dtype="float32", pooled_size=model.config.pooled_size)

    def _malignancy_reading(self, label_fraction: float) -> tuple[int, int]:
        """Return block and timestep, 1000 being read at the last index, 999."""
        last = self._pooled_store.model.config.num_train_timesteps - 1
        if self.malignancy_readings is None:
            reading = paper_reading(label_fraction)
            return reading["blocks"][0], min(reading["timesteps"][0], last)
        if label_fraction not in self.malignancy_readings:
            raise ValueError(
                f"A block and timestep are given for the label fractions {list(self.malignancy_readings)}, but not "
                f"for {label_fraction}."
            )
        block, timestep = self.malignancy_readings[label_fraction]
        return block, min(timestep, last)

    def _pooled_index(self, label_fraction: float) -> int:
        """Return which vector of a file of pooled features is read: timesteps outermost."""
        config = self._pooled_store.model.config
        block, timestep = self._malignancy_reading(label_fraction)
        return config.timesteps.index(timestep) * len(config.blocks) + config.blocks.index(block)


class _StoredBackbone(nn.Module):
    """Takes the place of a backbone: looks features up by the pixels, after which a store names its files.

    Args:
        files (`list[Path]`):
            Features of all photos that will be asked for.
        pooled (`int`, *optional*):
            Which vector of pooled features to return, as a map of one position; by default files hold maps.
    """

    def __init__(self, files: list[Path], pooled: int | None = None) -> None:
        super().__init__()
        self.files, self.pooled = {file.stem: file for file in files}, pooled

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        photos = [self._read(photo) for photo in pixel_values.cpu()]
        maps = tuple(torch.stack(maps).to(pixel_values.device) for maps in zip(*photos, strict=True))
        return BackboneOutput(feature_maps=maps)

    def _read(self, photo: Tensor) -> tuple[Tensor, ...]:
        maps = read_maps(self.files[hashlib.sha256(photo.contiguous().numpy().data).hexdigest()])
        if self.pooled is not None:
            return (maps[self.pooled].float()[:, None, None],)
        return tuple(feature_map.float().movedim(-1, 0) for feature_map in maps)
