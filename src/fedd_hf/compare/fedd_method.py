"""FEDD as a method that is compared: heads on the features of one backbone, which are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from diffusers import DDPMScheduler, UNet2DModel

from fedd_hf.evaluation.report import write_report
from fedd_hf.features import FeatureStore, read_maps, read_pooled
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation
from fedd_hf.prediction import PhotoFeatures
from fedd_hf.training.malignancy_heads import PAPER_READINGS, paper_reading, train_malignancy_classifier
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from fedd_hf.unet_files_fedd import DEFAULTS_NAME, locate_backbone, read_backbone_config, read_backbone_defaults

from .blocks_and_timesteps import open_backbone
from .results_cache import cache_folder
from .run import CLASSIFICATION, SEGMENTATION, MethodSettings, Run

CONFIG_FIELDS = ("backbone_sha256", "blocks", "timesteps", "image_size", "noise_seed")
RANDOM_SEED = 1  # of the weights of the random UNet


class FEDDMethod:
    """FEDD on a backbone: pixel classifiers, or a malignancy classifier, on stored features.

    All fractions, seeds and photos share two feature stores, one of maps and one of pooled features: a photo goes
    through the backbone once for each.

    Args:
        name (`str`):
            Name in reports.
        backbone (`str`):
            `"embedded"`, a folder or a repository id, which takes the place of that of the settings.
        settings ([`MethodSettings`]):
            What all methods have in common.
    """

    tasks: tuple[str, ...] = (SEGMENTATION, CLASSIFICATION)

    def __init__(self, name: str, backbone: str, settings: MethodSettings) -> None:
        self.name, self.backbone, self.settings = name, backbone, settings
        self._files: dict[tuple[Path, str], list[Path]] = {}

    def describe(self, task: str, label_fraction: float) -> dict[str, Any]:
        """Return what predictions depend on besides the run."""
        store, training = self._map_store, asdict(self.settings.segmentation)
        if task == CLASSIFICATION:
            store, training = self._pooled_store, asdict(self.settings.classification)
        read = {name: getattr(store.model.config, name) for name in CONFIG_FIELDS}
        if task == CLASSIFICATION:
            block, timestep = self._choose_malignancy_features(label_fraction)
            read |= {"blocks": [block], "timesteps": [timestep]}
        training.pop("seed")
        return {"reading": read, "training": training}

    def open_segmenter(self) -> FEDDForSegmentation:
        """Open a segmentation model on the backbone, whose pixel classifiers are not trained."""
        return FEDDForSegmentation.from_backbone(self.backbone, **self.settings.reading.given())

    def train(self, run: Run) -> tuple[FEDDForSegmentation | FEDDForImageClassification, FEDDImageProcessor]:
        """Train the heads of a run; return the model, which reads its backbone, and its processor."""
        if run.task == CLASSIFICATION:
            return self._train_classifier(run), self._pooled_store.processor
        store, model = self._map_store, self.open_segmenter()
        labelled = StoredFeatures(self._extract(store, run.train), run.train, store.processor)
        arguments = replace(self.settings.segmentation, seed=run.seed)
        accelerator = self.settings.accelerator
        train_pixel_classifiers(model.to(accelerator.device), labelled, arguments, accelerator)
        return model, store.processor

    def read_features(self, run: Run, photos: Dataset) -> Iterator[PhotoFeatures]:
        """Return stored features of photos, one photo at a time."""
        if run.task == SEGMENTATION:
            return map(read_maps, self._extract(self._map_store, photos))
        index = self._pooled_index(run.label_fraction)
        return ((read_maps(file)[index],) for file in self._extract(self._pooled_store, photos))

    def _train_classifier(self, run: Run) -> FEDDForImageClassification:
        store, accelerator = self._pooled_store, self.settings.accelerator
        block, timestep = self._choose_malignancy_features(run.label_fraction)
        model = FEDDForImageClassification.from_backbone(
            self.backbone, blocks=[block], timesteps=[timestep], image_size=store.model.config.image_size
        )
        index = self._pooled_index(run.label_fraction)
        seen, unseen = (
            (read_pooled(self._extract(store, rows))[:, index], torch.tensor(rows["malignant"][:], dtype=torch.long))
            for rows in (run.train, run.validation)
        )
        arguments = replace(self.settings.classification, seed=run.seed)
        train_malignancy_classifier(model, seen, unseen, arguments, accelerator)
        return model.to(accelerator.device)

    def _extract(self, store: FeatureStore, photos: Dataset) -> list[Path]:
        """Return the files of photos, which are looked up once: their names are hashes of pixels."""
        key = (store.folder, photos._fingerprint)
        if key not in self._files:
            self._files[key] = store.extract(photos, self.settings.accelerator)
        return self._files[key]

    @cached_property
    def _map_store(self) -> FeatureStore:
        model = self.open_segmenter()
        return FeatureStore(self.settings.folder / "features", model, FEDDImageProcessor(size=model.config.image_size))

    @cached_property
    def _pooled_store(self) -> FeatureStore:
        """The store of pooled features of all blocks and timesteps that are read at any label fraction."""
        chosen = self.settings.malignancy_readings or PAPER_READINGS
        blocks, timesteps = (sorted(set(numbers)) for numbers in zip(*chosen.values(), strict=True))
        model = open_backbone(
            replace(self.settings.reading, backbone=self.backbone, blocks=blocks, timesteps=timesteps)
        )
        processor = FEDDImageProcessor(size=model.config.image_size)
        pooled_size = model.config.pooled_size
        folder = self.settings.folder / "features"
        return FeatureStore(folder, model, processor, dtype="float32", pooled_size=pooled_size)

    def _choose_malignancy_features(self, label_fraction: float) -> tuple[int, int]:
        """Return block and timestep, 1000 being read at the last index, 999."""
        given = self.settings.malignancy_readings
        last = self._pooled_store.model.config.num_train_timesteps - 1
        if given is None:
            of_paper = paper_reading(label_fraction)
            return of_paper["blocks"][0], min(of_paper["timesteps"][0], last)
        if label_fraction not in given:
            raise ValueError(
                f"A block and timestep are given for the label fractions {list(given)}, but not for {label_fraction}."
            )
        block, timestep = given[label_fraction]
        return block, min(timestep, last)

    def _pooled_index(self, label_fraction: float) -> int:
        """Return which vector of a file of pooled features is read: timesteps outermost."""
        config = self._pooled_store.model.config
        block, timestep = self._choose_malignancy_features(label_fraction)
        return config.timesteps.index(timestep) * len(config.blocks) + config.blocks.index(block)


def draw_random_backbone(backbone: str, root: Path, accelerator: Accelerator, seed: int = RANDOM_SEED) -> Path:
    """Return a backbone like another one, but with the weights that torch draws, once and from a seed.

    Args:
        backbone (`str`):
            `"embedded"`, a folder or a repository id: the network, the noise schedule, and what to read by default.
        root (`Path`):
            Existing folder, in which that of the backbone is written.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.
        seed (`int`, *optional*, defaults to 1):
            Seed of the weights.
    """
    source = locate_backbone(backbone)
    fields = read_backbone_config(source)
    defaults = {task: read_backbone_defaults(source, task) for task in (SEGMENTATION, CLASSIFICATION)}
    described = {"backbone": fields, "defaults": defaults, "seed": seed}
    fill = partial(_write_random_backbone, fields, defaults, seed, accelerator.is_main_process)
    return cache_folder(root, "random-unet", described, fill, accelerator)


def _write_random_backbone(
    fields: dict[str, Any], defaults: dict[str, Any], seed: int, is_main_process: bool, folder: Path
) -> None:
    if not is_main_process:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DModel(**fields["backbone_config"]).save_pretrained(folder / "unet")
    schedule = {name: value for name, value in fields.items() if name != "backbone_config"}
    DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    given = {task: default for task, default in defaults.items() if default}
    if given:
        write_report(given, folder / DEFAULTS_NAME)
