"""The photos of an experiment: nested training sets, validation photos, and the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from datasets import Dataset, concatenate_datasets

from fedd_hf.data.ddi.release import released_splits
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import tone_labels
from fedd_hf.data.splits import draw_nested, keep_photos, select_label_fraction, select_photos, select_skin_tones
from fedd_hf.labels import SEGMENTATION_LABELS, SkinTone

from .run import TASKS

LABELLED_PHOTOS = {0.05: 30, 0.10: 60, 0.15: 90, 0.20: 120}  # of FEDD (MICCAI 2023), by share of DDI that is labelled
VALIDATION, TEST, LARGE_TEST = "validation", "test", "large_test"
LESION = SEGMENTATION_LABELS.index("lesion")
EXAMPLE_QUANTILES = (0.75, 0.5)  # of the lesion's area within the tone: large enough to see


@dataclass(frozen=True, kw_only=True)
class PhotoSets:
    """Photos of one experiment, rows of [`~fedd_hf.data.schema.FEATURES`].

    Args:
        train (`dict[float, datasets.Dataset]`):
            Training photos by label fraction, each set part of the next.
        validation (`datasets.Dataset`):
            Photos for every choice.
        tests (`dict[str, datasets.Dataset]`):
            Photos by name of the test; tests may overlap with one another.
    """

    train: dict[float, Dataset]
    validation: Dataset
    tests: dict[str, Dataset]

    @property
    def scored(self) -> dict[str, Dataset]:
        """The photos that are predicted: each test, and validation."""
        return {VALIDATION: self.validation} | self.tests

    @cached_property
    def photos(self) -> Dataset:
        """Everything that is predicted, each photo once."""
        parts: list[Dataset] = []
        seen: set[str] = set()
        for part in self.scored.values():
            parts.append(part.select([row for row, name in enumerate(part["image_id"]) if name not in seen]))
            seen.update(part["image_id"])
        return concatenate_datasets(parts)


def load_photo_sets(data: DataArguments, task: str, label_fractions: Sequence[float]) -> PhotoSets:
    """Load the photos of an experiment.

    Of DDI, a label fraction is the published draw (malignancy: the project's own), and the tests are the paper's: the
    small one and the large one, which for segmentation are the 16 photos of the released `test` folder and the 198 of
    `testing`. Other datasets have one test, and a label fraction is a share of their training photos.

    Args:
        data ([`DataArguments`]):
            Which photos; its `label_fraction` is not used.
        task (`str`):
            `"segmentation"` or `"classification"`.
        label_fractions (`list[float]`):
            Shares that are labelled.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If `task` or a fraction is unknown, a split is missing, or the data are damaged.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}.")
    splits = load_splits(replace(data, label_fraction=None), task)
    train = {
        fraction: _label(need_split(splits, "train"), data, task, fraction) for fraction in sorted(label_fractions)
    }
    tests = {name: splits[name] for name in (TEST, LARGE_TEST) if name in splits}
    if data.dataset == "ddi" and task == "segmentation":
        tests = {TEST: _small_test(splits[TEST]), LARGE_TEST: splits[TEST]}
    need_split(splits, TEST)
    return PhotoSets(train=train, validation=need_split(splits, VALIDATION), tests=tests)


def load_numbered_sets(
    data: DataArguments, task: str, numbers_labelled: Sequence[int], max_scored: int | None = None
) -> PhotoSets:
    """Load the photos of an experiment with given numbers of labelled photos, on the splits that the dataset records.

    Labelled photos are spread over skin tones, and for malignancy over benign and malignant ones. A dataset of which
    some photos have a skin tone is seen by a malignancy classifier on those alone: where the tone was not written
    down, other things differ too (of PAD-UFES-20, every photo without one is benign).

    Args:
        data ([`DataArguments`]):
            Which photos.
        task (`str`):
            `"segmentation"` or `"classification"`.
        numbers_labelled (`list[int]`):
            Numbers of training photos that are labelled; their shares are the label fractions.
        max_scored (`int`, *optional*):
            Photos of validation, and of the test, at most.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are not as many photos, a split is missing, or the data are damaged.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}.")
    splits = load_splits(replace(data, label_fraction=None), task)
    chosen = {name: need_split(splits, name) for name in ("train", VALIDATION, TEST)}
    if task == "classification" and any(tone is not None for tone in tone_labels(chosen["train"])):
        chosen = {name: select_skin_tones(rows, list(SkinTone)) for name, rows in chosen.items()}
    train = chosen["train"]
    labelled = {number / len(train): _spread(train, number, task) for number in sorted(numbers_labelled)}
    validation, test = (
        rows if max_scored is None else _spread(rows, min(max_scored, len(rows)), task)
        for rows in (chosen[VALIDATION], chosen[TEST])
    )
    return PhotoSets(train=labelled, validation=validation, tests={TEST: test})


def _spread(photos: Dataset, number: int, task: str) -> Dataset:
    malignant = photos["malignant"][:] if task == "classification" else [None] * len(photos)
    return select_photos(photos, number, list(zip(tone_labels(photos), malignant, strict=True)))


def draw_labelled(train: Dataset, label_fraction: float, seed: int = 0) -> list[int]:
    """Draw as many photos as the paper labels, equally many of each skin tone and malignancy; return their rows.

    For one seed, a smaller fraction is part of a larger one; of DDI with seed 0, they are the project's own draw.

    Args:
        train (`datasets.Dataset`):
            Training photos: rows of [`~fedd_hf.data.schema.FEATURES`].
        label_fraction (`float`):
            0.05, 0.10, 0.15 or 0.20.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draw.

    Raises:
        ValueError: If there are too few photos of a tone and malignancy.
    """
    cells = dict(zip(train["image_id"], zip(tone_labels(train), train["malignant"], strict=True), strict=True))
    number = LABELLED_PHOTOS[label_fraction] // len(set(cells.values()))
    drawn = draw_nested(cells, dict.fromkeys(cells.values(), number), seed)
    return [row for row, name in enumerate(cells) if name in drawn]


def choose_examples(photos: Dataset, per_tone: int = 1) -> Dataset:
    """Choose photos to show by their masks alone, before anything is predicted.

    Args:
        photos (`datasets.Dataset`):
            Photos with masks.
        per_tone (`int`, *optional*, defaults to 1):
            Photos of each skin tone: the one whose lesion is larger than three quarters of those of its tone, then
            others between it and the median.
    """
    areas, tones = lesion_areas(photos), np.array(tone_labels(photos), dtype=object)
    chosen: list[int] = []
    for tone in sorted({tone for tone in tones if tone is not None}):
        rows = np.flatnonzero(tones == tone)
        ranked = rows[np.argsort(areas[rows], kind="stable")]
        quantiles = np.linspace(*EXAMPLE_QUANTILES, per_tone) if per_tone > 1 else EXAMPLE_QUANTILES[:1]
        chosen += dict.fromkeys(int(ranked[round(quantile * (len(ranked) - 1))]) for quantile in quantiles)
    return photos.select(chosen)


def lesion_areas(photos: Dataset) -> np.ndarray:
    """Return the share of lesion pixels in the mask of each photo."""
    masks = photos.select_columns("mask")
    return np.array([(np.asarray(row["mask"]) == LESION).mean() for row in masks])


def _label(train: Dataset, data: DataArguments, task: str, label_fraction: float) -> Dataset:
    """Keep the labelled photos, as [`~fedd_hf.data.loading.load_splits`] does, without reading all photos again."""
    if data.dataset != "ddi":
        return select_label_fraction(train, label_fraction, data.label_seed or 0)
    if label_fraction not in LABELLED_PHOTOS or data.label_seed is not None or data.skin_tone is not None:
        return load_splits(replace(data, label_fraction=label_fraction), task)["train"]
    if task == "classification":
        return train.select(draw_labelled(train, label_fraction))
    released = released_splits()
    return keep_photos(train, set(released.loc[released["label_fraction"] <= 100 * label_fraction + 1e-6, "image_id"]))


def _small_test(test: Dataset) -> Dataset:
    splits = released_splits()
    return keep_photos(test, set(splits.loc[splits["in_small_test"], "image_id"]))
