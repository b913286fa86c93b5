"""Released masks and facts about them -> the rows of the ddi-seg dataset, which holds no photo."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage

from fedd_hf.data.masks import encode_png
from fedd_hf.data.schema import refuse
from fedd_hf.data.splits import draw_nested
from fedd_hf.labels import PixelClass, SkinTone

from .release import FRACTIONS, released_splits

CLASSIFICATION_SEED = 0
CELLS = [(tone.label, malignant) for tone in SkinTone for malignant in (True, False)]
TRAIN_PER_CELL = {fraction: fraction for fraction in FRACTIONS}  # 5 photos of each tone and kind at 5 percent
HELD_OUT_PER_CELL = 5
TRAIN_PER_TONE = {5: 10, 10: 20, 15: 30, 20: 40}  # FEDD (MICCAI 2023), section 2
VALIDATION_PER_TONE = 5
LABELS = {
    "skin_tone": ClassLabel(names=[tone.label for tone in SkinTone]),  # null where it is not known
    "label_fraction": Value("int8"),  # smallest of 5, 10, 15, 20 percent that holds the row; null outside train
}
DIAGNOSIS = {"malignant": Value("bool"), "disease": Value("string")}
SEGMENTATION_FEATURES = Features(
    {
        "image_id": Value("string"),
        "mask": Image(mode="L"),  # pixel = class id
        "mask_preview": Image(),  # the same ids with a palette, to be looked at
        **LABELS,
        "in_small_test": Value("bool"),
        **{f"{kind.label}_pixels": Value("int32") for kind in PixelClass},
    }
)
CLASSIFICATION_FEATURES = Features({"image_id": Value("string"), **LABELS, **DIAGNOSIS})


def draw_classification(metadata: pd.DataFrame, seed: int = CLASSIFICATION_SEED) -> pd.DataFrame:
    """Draw the splits of the classification task, whose ids were never published.

    Each skin tone has as many malignant as benign photos: 5, 10, 15 and 20 of each in the nested training sets, 5 of
    each in validation and in test; all others are `large_test`. Photos of a tone and diagnosis are taken in the order
    of [`~fedd_hf.data.splits.rank_photos`]: first train, then validation, then test.

    Args:
        metadata (`pd.DataFrame`):
            What [`read_ddi_metadata`] returns.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order.

    Returns:
        `pd.DataFrame`: the rows of `metadata` with `split` and `label_fraction`.

    Raises:
        ValueError: If a tone has too few malignant or benign photos.

    Source: FEDD (MICCAI 2023), supplement, Table 1.
    """
    drawn = metadata.assign(split="large_test", label_fraction=np.nan)
    largest = max(TRAIN_PER_CELL.values())
    held_out = {"test": largest + 2 * HELD_OUT_PER_CELL, "validation": largest + HELD_OUT_PER_CELL}
    for split, number in held_out.items():
        drawn.loc[_first_of_each_cell(metadata, number, seed), "split"] = split
    for fraction, number in sorted(TRAIN_PER_CELL.items(), reverse=True):
        drawn.loc[_first_of_each_cell(metadata, number, seed), ["split", "label_fraction"]] = "train", fraction
    return drawn


def _first_of_each_cell(metadata: pd.DataFrame, number: int, seed: int) -> pd.Series:
    return metadata["image_id"].isin(draw_nested(diagnosis_cells(metadata), dict.fromkeys(CELLS, number), seed))


def diagnosis_cells(table: pd.DataFrame) -> dict[str, tuple[str, bool]]:
    """Return skin tone and malignancy of each `image_id`: the strata that the classification task balances."""
    return {row["image_id"]: (row["skin_tone"], row["malignant"]) for row in to_records(table)}


def hash_draw(drawn: pd.DataFrame) -> str:
    """Return the SHA-256 of the lines `image_id,split,label_fraction` of a draw, in the order of `image_id`."""
    lines = [f"{row['image_id']},{row['split']},{row['label_fraction'] or ''}\n" for row in to_records(drawn)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries of Python's own types, None where a value is missing."""
    return table.convert_dtypes().astype(object).where(table.notna(), None).to_dict("records")


def build_segmentation(masks: Mapping[str, np.ndarray], metadata: pd.DataFrame | None = None) -> DatasetDict:
    """Build the configuration `segmentation`: one row per released mask, in the released splits.

    Args:
        masks (`dict[str, np.ndarray]`):
            What [`read_released_masks`] returns.
        metadata (`pd.DataFrame`, *optional*):
            What [`read_ddi_metadata`] returns. Without it skin tones are known for the test set alone, from its
            folders, and `malignant` and `disease` are absent.

    Raises:
        ValueError: If the metadata contradicts the release.
    """
    table = released_splits()
    features = SEGMENTATION_FEATURES
    if metadata is not None:
        check_metadata(metadata)
        table = table.drop(columns="skin_tone").merge(metadata.drop(columns="file"), on="image_id", how="left")
        features = Features({**SEGMENTATION_FEATURES, **DIAGNOSIS})
    rows = [row | _mask_columns(masks[row["image_id"]]) for row in to_records(table)]
    return _by_split(rows, features)


def _mask_columns(mask: np.ndarray) -> dict[str, Any]:
    pixels = np.bincount(mask.flatten(), minlength=len(PixelClass))
    counts = {f"{kind.label}_pixels": int(pixels[kind]) for kind in PixelClass}
    return {"mask": encode_png(mask), "mask_preview": encode_png(_with_palette(mask)), **counts}


def _with_palette(mask: np.ndarray) -> PILImage.Image:
    preview = PILImage.fromarray(mask)
    preview.putpalette([channel for kind in PixelClass for channel in kind.colour])
    return preview


def check_metadata(metadata: pd.DataFrame) -> None:
    """Refuse metadata that contradicts what the release says by its folders.

    The test set lies in a folder per tone, and training and validation photos are balanced by tone at each fraction.

    Raises:
        ValueError: If photos are absent from the metadata, or contradict it; their ids are listed.
    """
    table = released_splits().merge(metadata, on="image_id", how="left", suffixes=("_released", ""))
    absent = table.loc[table["skin_tone"].isna(), "image_id"].tolist()
    problems = [f"photos with a mask are absent: {absent}"] if absent else []
    test = table[(table["split"] == "test") & table["skin_tone"].notna()]
    for row in test[test["skin_tone"] != test["skin_tone_released"]].itertuples():
        problems.append(f"{row.image_id} is {row.skin_tone}, but lies in the test folder of {row.skin_tone_released}")
    problems += _unbalanced(table[table["split"] == "validation"], VALIDATION_PER_TONE, "the validation set")
    for fraction in FRACTIONS:
        train = table[table["label_fraction"] <= fraction]
        problems += _unbalanced(train, TRAIN_PER_TONE[fraction], f"the training set of {fraction} %")
    refuse("The metadata contradicts the released folders", problems)


def _unbalanced(table: pd.DataFrame, per_tone: int, name: str) -> list[str]:
    problems = []
    for tone in SkinTone:
        image_ids = table.loc[table["skin_tone"] == tone.label, "image_id"].tolist()
        if len(image_ids) != per_tone:
            problems.append(f"{name} has {per_tone} photos of {tone.label}, but {len(image_ids)} here: {image_ids}")
    return problems


def build_classification(drawn: pd.DataFrame) -> DatasetDict:
    """Build the configuration `classification` of a draw: ids and diagnoses, no pixel."""
    return _by_split(to_records(drawn), CLASSIFICATION_FEATURES)


def _by_split(rows: list[dict[str, Any]], features: Features) -> DatasetDict:
    """Make one dataset per split, in the order in which people name them, with these columns."""
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in ("train", "validation", "test", "large_test")}
    for row in rows:
        splits[row["split"]].append({column: row[column] for column in features})
    return DatasetDict({name: Dataset.from_list(rows, features=features) for name, rows in splits.items() if rows})
