"""One row format for every source of labelled photos."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from datasets import ClassLabel, Dataset, Features, Image, Value

from fedd_hf.labels import SkinTone

SPLITS = ("train", "validation", "test", "large_test")
MAX_PROBLEMS_SHOWN = 20

FEATURES = Features(
    {
        "image_id": Value("string"),  # unique within its source
        "image": Image(),
        "mask": Image(),  # PNG of mode L, pixel = class id of PixelClass, 255 = does not count; null without a mask
        "skin_tone": ClassLabel(names=[tone.label for tone in SkinTone]),  # null where no tone is recorded
        "malignant": Value("bool"),  # null where it is unknown
        "malignancy_policy": Value("string"),  # name of the rule that made `malignant` of the source's labels
        "disease": Value("string"),  # as the source writes it
        "group_id": Value("string"),  # patient, else lesion; photos of a group stay in one split; null if unknown
        "split": Value("string"),  # the source's own; null where it records none
        "source": Value("string"),
    }
)


def make_dataset(rows: Iterable[dict], source: str) -> Dataset:
    """Make a dataset of the one row format; columns that a source lacks are null.

    Raises:
        ValueError: If there are no rows, an `image_id` occurs twice, or a split has an unknown name.
    """
    rows = [dict.fromkeys(FEATURES) | {"source": source} | row for row in rows]
    if not rows:
        raise ValueError(f"{source} has no photos to load.")
    image_ids = pd.Series([row["image_id"] for row in rows])
    problems = [f"`image_id` {name!r} occurs twice" for name in image_ids[image_ids.duplicated()].unique()]
    splits = {row["split"] for row in rows if row["split"] is not None}
    problems += [f"`split` must be one of {list(SPLITS)}, got {name!r}" for name in sorted(splits.difference(SPLITS))]
    refuse(f"The rows of {source} are not usable", problems)
    return Dataset.from_list(rows, features=FEATURES)


def refuse(title: str, problems: list[str]) -> None:
    """Raise one error that lists every problem, or do nothing if there is none.

    Raises:
        ValueError: If there are problems; at most 20 are written out, the others counted.
    """
    if problems:
        shown = problems[:MAX_PROBLEMS_SHOWN]
        more = [f"and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        raise ValueError("\n- ".join([f"{title}:", *shown, *more]))


def tone_labels(dataset: Dataset) -> list[str | None]:
    """Return the label of the skin-tone group of each row, None where no tone is recorded."""
    names = dataset.features["skin_tone"].names
    return [None if index is None else names[index] for index in dataset["skin_tone"]]


def count_photos(splits: dict[str, Dataset]) -> pd.DataFrame:
    """Count photos by split and skin tone; unknown tones and labels are counted too.

    Returns:
        `pd.DataFrame`: one row per `split` and `skin_tone` (with `"unknown"`), and the columns `photos`, `masks`,
        `malignant`, `benign` and `unlabelled`.
    """
    tables = [_count_split(name, dataset) for name, dataset in splits.items()]
    return pd.concat(tables, ignore_index=True)


def _count_split(name: str, dataset: Dataset) -> pd.DataFrame:
    malignant = pd.Series(dataset["malignant"], dtype="boolean")
    has_mask = dataset.select_columns("mask").with_format("arrow")[:]["mask"].is_valid().to_pylist()
    table = pd.DataFrame(
        {
            "skin_tone": [tone or "unknown" for tone in tone_labels(dataset)],
            "photos": 1,
            "masks": has_mask,
            "malignant": malignant.fillna(False).astype(int),
            "benign": (~malignant).fillna(False).astype(int),
            "unlabelled": malignant.isna().astype(int),
        }
    )
    order = [tone.label for tone in SkinTone] + ["unknown"]
    counts = table.groupby("skin_tone").sum().reindex(order).dropna(how="all").astype(int).reset_index()
    counts.insert(0, "split", name)
    return counts
