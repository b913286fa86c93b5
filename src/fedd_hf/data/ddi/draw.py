"""The splits of the classification task, balanced by tone and malignancy: drawn, since they were not published."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from fedd_hf.data.splits import draw_nested
from fedd_hf.labels import SkinTone

from .release import FRACTIONS

CLASSIFICATION_SEED = 0
CELLS = [(tone.label, malignant) for tone in SkinTone for malignant in (True, False)]
TRAIN_PER_CELL = {fraction: fraction for fraction in FRACTIONS}  # 5 photos of each tone and kind at 5 percent
HELD_OUT_PER_CELL = 5


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
