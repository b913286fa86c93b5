"""Masks of ddi-seg and the photos of a licensed local copy -> rows of the one format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import hf_hub_download
from PIL import Image, ImageOps

from fedd_hf.data.masks import encode_png, hash_mask
from fedd_hf.data.repository import MANIFEST, read_manifest
from fedd_hf.data.schema import make_dataset, refuse
from fedd_hf.data.splits import draw_nested, keep_photos, select_skin_tones, split_photos
from fedd_hf.image_processing_fedd import GEOMETRIES
from fedd_hf.labels import SkinTone

from .ddi_seg import CELLS, TRAIN_PER_TONE, check_metadata, diagnosis_cells, draw_classification, hash_draw
from .local_copy import METADATA_FILE, find_photos, read_ddi_metadata, read_photos
from .release import MASK_SIZE

TASKS = ("segmentation", "classification")
HOW_TO_BUILD = "Build it from the released masks with scripts/build_ddi_seg.py and pass that folder as `masks`."


def load_ddi(
    root: str | Path,
    masks: str | Path = "fedd/ddi-seg",
    *,
    task: str = "segmentation",
    label_fraction: float | None = None,
    skin_tone: str | SkinTone | Iterable[str | SkinTone] | None = None,
    seed: int | None = None,
    geometry: str = "squash",
    revision: str | None = None,
    allow_leakage: bool = False,
) -> DatasetDict:
    """Join the masks of ddi-seg with a licensed local copy of the DDI photos, which stay on this disk.

    Args:
        root (`str` or `Path`):
            Folder of the copy: `ddi_metadata.csv`, and the photos in `images/` or beside it.
        masks (`str` or `Path`, *optional*, defaults to `"fedd/ddi-seg"`):
            Repository id or folder of the dataset.
        task (`str`, *optional*, defaults to `"segmentation"`):
            `"segmentation"`: photos with a mask, in the released splits `train` (120), `validation` (15) and `test`
            (198). `"classification"`: all photos, in the splits of
            [`~fedd_hf.data.ddi.ddi_seg.draw_classification`]: `train` (120), `validation` (30), `test` (30) and
            `large_test` (476), with masks where there are any.
        label_fraction (`float`, *optional*):
            Keep 0.05, 0.10, 0.15 or 0.20 of DDI as training photos: 10, 20, 30 or 40 of each skin tone, nested.
        skin_tone (`str`, [`SkinTone`] or several of them, *optional*):
            Keep these groups in every split.
        seed (`int`, *optional*):
            Draw the label fraction anew from the training photos, nested for one seed. By default it is the published
            one.
        geometry (`str`, *optional*, defaults to `"squash"`):
            How a photo becomes the square of 256 pixels that its mask is: `"squash"` resizes it whole,
            `"center_crop"` its largest centred square. The authors' rule is not published.
        revision (`str`, *optional*):
            Commit, tag or branch of `masks` on the Hub.
        allow_leakage (`bool`, *optional*, defaults to `False`):
            Warn of what splits share instead of refusing it.

    Returns:
        `datasets.DatasetDict` with the columns of [`~fedd_hf.data.schema.FEATURES`]; photos and masks are of 256 x 256
        pixels and in memory.

    Raises:
        FileNotFoundError: If there is no copy of DDI, no metadata, or no such dataset.
        ValueError: If an argument is unknown, photos are missing, extra, damaged or changed, the metadata contradicts
            the masks, or splits share photos. What is wrong with photos is listed in one error.

    Example:
        >>> ddi = load_ddi("path/to/ddi", masks="path/to/ddi-seg", label_fraction=0.05)  # doctest: +SKIP
    """
    percent = _check_arguments(task, geometry, label_fraction)
    tones = _skin_tones(skin_tone)
    found = find_photos(root)
    metadata = read_ddi_metadata(Path(root) / METADATA_FILE)
    released, manifest = _open_masks(masks, revision)
    check_metadata(metadata)
    drawn = draw_classification(metadata)
    _check_facts(released, drawn, manifest)
    rows = drawn if task == "classification" else _segmentation_rows(released, metadata)
    photos = read_photos(found, metadata["file"], rows["file"], manifest.get("photos", {}), _squared(geometry))
    splits = split_photos(make_dataset(_rows(rows, released, photos), source="ddi"), allow_leakage=allow_leakage)
    if percent is not None:
        splits["train"] = keep_photos(splits["train"], _labelled_ids(rows, task, percent, seed))
    if tones is not None:
        splits = DatasetDict({name: select_skin_tones(dataset, tones) for name, dataset in splits.items()})
    return splits


def _check_arguments(task: str, geometry: str, label_fraction: float | None) -> int | None:
    """Return the label fraction in percent, None for all training photos."""
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}.")
    if geometry not in GEOMETRIES:
        raise ValueError(f"`geometry` must be one of {list(GEOMETRIES)}, got {geometry!r}.")
    if label_fraction is None:
        return None
    percent = round(100 * label_fraction, 6)
    if percent not in TRAIN_PER_TONE:
        allowed = [fraction / 100 for fraction in TRAIN_PER_TONE]
        raise ValueError(f"`label_fraction` of DDI must be one of {allowed}, got {label_fraction}.")
    return int(percent)


def _skin_tones(skin_tone: str | SkinTone | Iterable[str | SkinTone] | None) -> list[SkinTone] | None:
    if skin_tone is None:
        return None
    several = [skin_tone] if isinstance(skin_tone, (str, SkinTone)) else skin_tone
    return [tone if isinstance(tone, SkinTone) else SkinTone.from_label(tone) for tone in several]


def _open_masks(masks: str | Path, revision: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows of ddi-seg, masks as arrays, and the manifest of the same revision."""
    try:
        if Path(masks).is_dir():
            manifest = read_manifest(masks)
        else:
            path = hf_hub_download(str(masks), MANIFEST, repo_type="dataset", revision=revision)
            manifest = json.loads(Path(path).read_text())
        if "masks" not in manifest:
            raise ValueError(f"{MANIFEST} names no masks.")
        dataset = load_dataset(str(masks), "segmentation", revision=revision)
    except (OSError, ValueError, DatasetsError) as error:  # not found, offline, no such configuration, damaged
        raise FileNotFoundError(f"{masks} cannot be opened as ddi-seg: {error} {HOW_TO_BUILD}") from error
    tables = []
    for split, rows in dataset.items():
        table = rows.remove_columns("mask_preview").to_pandas().assign(split=split)
        tables.append(table.assign(mask=[np.asarray(row["mask"]) for row in rows.select_columns("mask")]))
    return pd.concat(tables, ignore_index=True), manifest


def _check_facts(released: pd.DataFrame, drawn: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Refuse masks of another revision than the manifest, and diagnoses that the local copy contradicts."""
    hashes = manifest["masks"]
    problems = [
        f"the mask of {name} is not that of the manifest"
        for name, mask in zip(released["image_id"], released["mask"], strict=True)
        if hash_mask(mask) != hashes.get(name)
    ]
    if "malignant" in released:
        both = released.merge(drawn, on="image_id", suffixes=("", "_local"))
        differing = both.loc[both["malignant"].astype(bool) != both["malignant_local"], "image_id"]
        problems += [f"`malignant` of {name} differs from that of ddi-seg" for name in differing]
    published = manifest.get("classification", {"sha256": None})["sha256"]
    if published not in (None, hash_draw(drawn)):
        problems.append("the classification splits drawn from this metadata are not the published ones")
    refuse("ddi-seg and the local copy do not fit together", problems)


def _segmentation_rows(released: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    return released[["image_id", "split", "label_fraction"]].merge(metadata, on="image_id")


def _squared(geometry: str) -> Callable[[Image.Image], Image.Image]:
    """Return what makes a photo the square of its mask, in one of the geometries of FEDD's processor."""
    size = (MASK_SIZE, MASK_SIZE)
    if geometry == "center_crop":
        return lambda photo: ImageOps.fit(photo, size, Image.Resampling.BILINEAR)
    return lambda photo: photo.resize(size, Image.Resampling.BILINEAR)


def _rows(table: pd.DataFrame, released: pd.DataFrame, photos: dict[str, Image.Image]) -> Iterable[dict[str, Any]]:
    masks = dict(zip(released["image_id"], released["mask"], strict=True))
    for row in table.to_dict("records"):
        mask = masks.get(row["image_id"])
        yield {
            "image_id": row["image_id"],
            "image": encode_png(photos[row["file"]], compress_level=1),
            "mask": None if mask is None else encode_png(mask),
            "skin_tone": row["skin_tone"],
            "malignant": row["malignant"],
            "malignancy_policy": "recorded",
            "disease": row["disease"],
            "split": row["split"],
        }


def _labelled_ids(rows: pd.DataFrame, task: str, percent: int, seed: int | None) -> set[str]:
    """Return the published training photos of a label fraction, or those that a seed draws; both are nested."""
    train = rows[rows["split"] == "train"]
    if seed is None:
        return set(train.loc[train["label_fraction"] <= percent, "image_id"])
    per_tone = TRAIN_PER_TONE[percent]
    if task == "classification":
        return draw_nested(diagnosis_cells(train), dict.fromkeys(CELLS, per_tone // 2), seed)
    tones = dict(zip(train["image_id"], train["skin_tone"], strict=True))
    return draw_nested(tones, {tone.label: per_tone for tone in SkinTone}, seed)
