"""Which photos are labelled, and which are held out: nested label fractions, and splits that keep groups together."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from fedd_hf.labels import SkinTone

from .leakage import check_leakage, fingerprint_photos, near_duplicates
from .schema import SPLITS, tone_labels

FOLDS = {"test": (0, 1), "validation": (2,), "train": (3, 4, 5, 6, 7, 8, 9)}
NUM_FOLDS = 10


def rank_photos(image_ids: Iterable[str], seed: int) -> list[str]:
    """Put photos into the order of the SHA-256 of `seed/image_id`, which no version of any library changes."""
    return sorted(image_ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())


def draw_nested(strata: Mapping[str, Any], num_per_stratum: Mapping[Any, int], seed: int) -> set[str]:
    """Draw photos of each stratum; for one seed, a smaller number gives a part of what a larger one gives.

    Args:
        strata (`dict[str, Any]`):
            Stratum of each `image_id`.
        num_per_stratum (`dict[Any, int]`):
            Number of photos to draw of each stratum; of others none.
        seed (`int`):
            Seed of the order.

    Raises:
        ValueError: If a stratum has fewer photos than are to be drawn.
    """
    drawn: set[str] = set()
    for stratum, number in num_per_stratum.items():
        members = [name for name, its_stratum in strata.items() if its_stratum == stratum]
        if len(members) < number:
            raise ValueError(f"{number} photos of {stratum} are to be drawn, but there are {len(members)}.")
        drawn.update(rank_photos(members, seed)[:number])
    return drawn


def select_label_fraction(dataset: Dataset, label_fraction: float, seed: int = 0) -> Dataset:
    """Keep a fraction of the photos of each skin tone, rounded up; photos without a tone are a stratum of their own.

    For one seed, a smaller fraction is part of a larger one.

    Args:
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        label_fraction (`float`):
            Share of the photos to keep, in (0, 1].
        seed (`int`, *optional*, defaults to 0):
            Seed of the choice.
    """
    if not 0.0 < label_fraction <= 1.0:
        raise ValueError(f"`label_fraction` must lie in (0, 1], got {label_fraction}.")
    strata = dict(zip(dataset["image_id"], tone_labels(dataset), strict=True))
    sizes = Counter(strata.values())
    numbers = {tone: math.ceil(round(label_fraction * size, 6)) for tone, size in sizes.items()}
    return keep_photos(dataset, draw_nested(strata, numbers, seed))


def select_photos(dataset: Dataset, number: int, strata: Sequence[Any], seed: int = 0) -> Dataset:
    """Keep a number of photos, of each stratum its share.

    For one seed, a smaller number is part of a larger one.

    Args:
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        number (`int`):
            How many photos to keep, from 1 to all.
        strata (`list`):
            Stratum of each row, such as its skin tone.
        seed (`int`, *optional*, defaults to 0):
            Seed of the choice.

    Raises:
        ValueError: If there are fewer photos.
    """
    if not 1 <= number <= len(dataset):
        raise ValueError(f"`number` must lie in [1, {len(dataset)}], the number of photos there are, got {number}.")
    members: dict[Any, list[str]] = {}
    for name, stratum in zip(dataset["image_id"], strata, strict=True):
        members.setdefault(stratum, []).append(name)
    places = {
        name: (place + 0.5) / len(names)
        for names in members.values()
        for place, name in enumerate(rank_photos(names, seed))
    }
    spread = sorted(rank_photos(places, seed), key=lambda name: places[name])
    return keep_photos(dataset, set(spread[:number]))


def select_skin_tones(dataset: Dataset, skin_tones: Iterable[str | SkinTone]) -> Dataset:
    """Keep the photos of these groups, given as `"I-II"`, `"III-IV"`, `"V-VI"` or [`SkinTone`]."""
    wanted = {tone.label if isinstance(tone, SkinTone) else SkinTone.from_label(tone).label for tone in skin_tones}
    return dataset.select([index for index, tone in enumerate(tone_labels(dataset)) if tone in wanted])


def keep_photos(dataset: Dataset, image_ids: set[str]) -> Dataset:
    """Keep the photos with these ids, in their order."""
    return dataset.select([index for index, name in enumerate(dataset["image_id"]) if name in image_ids])


def split_photos(dataset: Dataset, seed: int = 0, allow_leakage: bool = False) -> DatasetDict:
    """Split a dataset as its source does, or draw splits where the source records none.

    Recorded splits are checked for what they share. Drawn ones are 70 % train, 10 % validation and 20 % test,
    stratified by malignancy and skin tone (by malignancy alone or by nothing where no stratum has ten photos), and
    share nothing: photos of one patient or lesion stay together, and so do near-duplicates.

    Args:
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        seed (`int`, *optional*, defaults to 0):
            Seed of drawn splits.
        allow_leakage (`bool`, *optional*, defaults to `False`):
            Warn of what recorded splits share instead of refusing it.

    Raises:
        ValueError: If recorded splits share photos or patients or have unknown names, some photos have a recorded
            split and others not, or there are too few groups to draw.
    """
    recorded = pd.Series(dataset["split"], dtype=object)
    if recorded.isna().all():
        return _by_split(dataset, _draw_splits(dataset, seed))
    if recorded.isna().any():
        without = [name for name, split in zip(dataset["image_id"], recorded, strict=True) if split is None]
        raise ValueError(f"Every photo must have a `split`, or none: {without[:5]} have none, others have one.")
    if not recorded.isin(SPLITS).all():
        raise ValueError(f"`split` must be one of {list(SPLITS)}, got also {sorted({*recorded} - {*SPLITS})}.")
    splits = _by_split(dataset, recorded)
    check_leakage(splits, allow_leakage)
    return splits


def _by_split(dataset: Dataset, split_of_row: pd.Series) -> DatasetDict:
    present = [name for name in SPLITS if (split_of_row == name).any()]
    return DatasetDict({name: dataset.select(np.flatnonzero(split_of_row == name)) for name in present})


def _draw_splits(dataset: Dataset, seed: int) -> pd.Series:
    groups = _groups(fingerprint_photos(dataset))
    if len(set(groups)) < NUM_FOLDS:
        raise ValueError(
            f"Splits are drawn from at least {NUM_FOLDS} patients, lesions or single photos, got {len(set(groups))}. "
            "Write the split of each photo into the column `split`: train, validation or test."
        )
    strata = _strata(dataset)
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    splits = pd.Series(index=range(len(dataset)), dtype=object)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a tone of two photos is a fact
        for fold, (_, rows) in enumerate(folds.split(strata, strata, groups)):
            splits[rows] = next(name for name, members in FOLDS.items() if fold in members)
    return splits


def _strata(dataset: Dataset) -> np.ndarray:
    """Number the strata of malignancy and tone, or of less in a small set: one must have a photo for each fold."""
    malignant = list(dataset["malignant"])
    for labels in (list(zip(malignant, dataset["skin_tone"], strict=True)), malignant):
        strata, _ = pd.factorize(pd.Series([str(label) for label in labels]))
        if np.bincount(strata).max() >= NUM_FOLDS:
            return strata
    return np.zeros(len(dataset), dtype=int)


def _groups(fingerprints: pd.DataFrame) -> np.ndarray:
    """Number the groups of photos that belong together: by patient or lesion, by pixels, and by looks."""
    pairs = near_duplicates(fingerprints)
    for column in ("group_id", "pixels"):
        known = fingerprints[fingerprints[column].notna()]
        firsts = known.groupby(column)[column].transform(lambda members: members.index[0])
        pairs += zip(firsts.tolist(), known.index.tolist(), strict=True)
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(fingerprints),) * 2)
    return connected_components(links, directed=False)[1]
