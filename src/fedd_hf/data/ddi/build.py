"""Released masks and, where they are at hand, metadata and photos -> the folder of the dataset repository ddi-seg."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from fedd_hf.data.masks import hash_mask
from fedd_hf.data.repository import write_repository
from fedd_hf.labels import PixelClass, SkinTone

from .ddi_seg import CLASSIFICATION_SEED, build_classification, build_segmentation, draw_classification, hash_draw
from .local_copy import describe_photo, find_photos, read_ddi_metadata, read_photos
from .release import FRACTIONS, check_released, read_released_masks

SKIPPED = ("000025", "000055", "000161")  # that the authors give as examples of photos they did not annotate
PIXELS = [f"{kind.label}_pixels" for kind in PixelClass]
FEW_PIXELS = 20


def build_ddi_seg(
    output_dir: str | Path,
    masks: str | Path,
    render_card: Callable[..., str],
    metadata: str | Path | None = None,
    photos: str | Path | None = None,
) -> dict[str, Any]:
    """Write ddi-seg: masks, ids, skin tones, splits, and no photo.

    Args:
        output_dir (`str` or `Path`):
            New or empty folder.
        masks (`str` or `Path`):
            `ddi_labels` of the FEDD repository, folder or zip.
        render_card (`Callable[..., str]`):
            Takes the name of the card's template and its fields, and returns the README.
        metadata (`str` or `Path`, *optional*):
            `ddi_metadata.csv` of DDI: skin tones, diagnoses, and with them the configuration `classification`.
        photos (`str` or `Path`, *optional*):
            Licensed copy of DDI; size and pixel hash of each photo are recorded. Needs `metadata`.

    Returns:
        `dict`: the fields of the card.

    Raises:
        FileExistsError: If `output_dir` is not empty.
        FileNotFoundError: If masks, metadata or photos are not there.
        ValueError: If masks or metadata are not those of the release, or photos are missing, damaged or come without
            metadata.
    """
    if photos and not metadata:
        raise ValueError("`photos` needs `metadata`, which says which photos are of DDI.")
    released = read_released_masks(masks)
    table = read_ddi_metadata(metadata) if metadata else None
    configurations = {"segmentation": build_segmentation(released, table)}
    facts: dict[str, Any] = {"masks": {name: hash_mask(mask) for name, mask in sorted(released.items())}}
    if table is not None:
        drawn = draw_classification(table)
        configurations["classification"] = build_classification(drawn)
        facts["classification"] = {"seed": CLASSIFICATION_SEED, "sha256": hash_draw(drawn)}
    if table is not None and photos:
        facts["photos"] = read_photos(find_photos(photos), table["file"], table["file"], {}, describe_photo)
    fields = describe_ddi_seg(configurations) | {
        "is_released": check_released(released),
        "has_photo_facts": "photos" in facts,
        "classification_seed": CLASSIFICATION_SEED,
        "classification_sha256": facts.get("classification", {}).get("sha256"),
        "num_skipped_masks": len(released.keys() & set(SKIPPED)),
    }

    def render(configurations_yaml: str) -> str:
        return render_card("ddi_seg.md.j2", configurations_yaml=configurations_yaml, **fields)

    write_repository(output_dir, configurations, render, facts)
    return fields


def describe_ddi_seg(configurations: dict[str, DatasetDict]) -> dict[str, Any]:
    """Count what the configurations hold.

    Returns:
        `dict`: the fields of `ddi_seg.md.j2`: `num_masks`, `splits` (photos by split), `sets` (photos, tones and
        malignant ones of each nested training set and of the held-out sets), `pixel_shares` (percent of each class by
        set), `lesion_area` (percentiles of the share of lesion, in percent), and more counts; `classification` is
        `None` where there is no such configuration.
    """
    rows = _table(configurations["segmentation"])
    lesion = 100 * rows["lesion_pixels"] / rows[PIXELS].sum(axis=1)
    smallest = rows[PIXELS].where(rows[PIXELS] > 0).min(axis=1)
    return {
        "num_masks": len(rows),
        "splits": rows["split"].value_counts(sort=False).to_dict(),
        "has_metadata": "malignant" in rows,
        "sets": [_describe_set(name, members) for name, members in _sets(rows)],
        "pixel_shares": {name: _pixel_shares(members) for name, members in _tone_sets(rows)},
        "lesion_area": {percentile: float(np.percentile(lesion, percentile)) for percentile in (5, 50, 95, 100)},
        "num_with": {kind.label: int((rows[f"{kind.label}_pixels"] > 0).sum()) for kind in PixelClass},
        "num_with_few_pixels": int((smallest < FEW_PIXELS).sum()),
        "few_pixels": FEW_PIXELS,
        "small_test_ids": rows.loc[rows["in_small_test"], "image_id"].tolist(),
        "classification": _describe_classification(configurations.get("classification")),
    }


def _table(splits: DatasetDict) -> pd.DataFrame:
    """Return the rows of all splits without their pixels, skin tone by its label."""
    tables = [_split_table(name, dataset) for name, dataset in splits.items()]
    return pd.concat(tables, ignore_index=True)


def _split_table(name: str, dataset: Dataset) -> pd.DataFrame:
    names = dict(enumerate(dataset.features["skin_tone"].names))
    columns = [column for column in dataset.column_names if not column.startswith("mask")]
    table = dataset.select_columns(columns).to_pandas()
    return table.assign(split=name, skin_tone=table["skin_tone"].map(names))


def _sets(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for fraction in FRACTIONS:
        yield f"train, {fraction} %", rows[rows["label_fraction"] <= fraction]
    yield "validation", rows[rows["split"] == "validation"]
    yield "test", rows[rows["split"] == "test"]
    yield "small test (within test)", rows[rows["in_small_test"]]


def _tone_sets(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "train", rows[rows["split"] == "train"]
    test = rows[rows["split"] == "test"]
    for tone in SkinTone:
        yield f"test, {tone.label}", test[test["skin_tone"] == tone.label]
    yield "all masks", rows


def _describe_set(name: str, members: pd.DataFrame) -> dict[str, Any]:
    tones = {tone.label: int((members["skin_tone"] == tone.label).sum()) for tone in SkinTone}
    return {
        "name": name,
        "photos": len(members),
        "tones": {**tones, "not known": int(members["skin_tone"].isna().sum())},
        "malignant": int(members["malignant"].sum()) if "malignant" in members else None,
    }


def _pixel_shares(members: pd.DataFrame) -> dict[str, float]:
    pixels = members[PIXELS].sum()
    return {kind.label: float(100 * pixels[f"{kind.label}_pixels"] / pixels.sum()) for kind in PixelClass}


def _describe_classification(splits: DatasetDict | None) -> list[dict[str, Any]] | None:
    if splits is None:
        return None
    rows = _table(splits)
    sets = [(f"train, {fraction} %", rows[rows["label_fraction"] <= fraction]) for fraction in FRACTIONS]
    sets += [(name.replace("_", " "), rows[rows["split"] == name]) for name in splits if name != "train"]
    return [_describe_set(name, members) for name, members in sets]
