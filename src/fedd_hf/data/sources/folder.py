"""A user's own photos, in a folder or listed in a CSV file -> rows of the one format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fedd_hf.data.masks import read_class_mask, read_lesion_mask
from fedd_hf.image_processing_fedd import IGNORE_INDEX, read_image
from fedd_hf.labels import PixelClass, SkinTone

from .collection import Photo, attempt, collection_folder, fitting_png, listed_photo, make_collection, make_rows
from .tables import FITZPATRICK, MALIGNANT, NO_ROW, SPLITS, TableRow, read_rows, unpaired

SKIN_TONES = {tone.label: tone.label for tone in SkinTone} | {str(tone.value): tone.label for tone in SkinTone}
MASK_SUFFIXES = (".png", ".npy")
WRITTEN_BY_WINDOWS = ("Thumbs.db", "desktop.ini")
BLACK_AND_WHITE = (
    "It looks like a black and white lesion mask, but 255 means that a pixel does not count. Make class ids of it, "
    "white -> 1 lesion and black -> 4 skin: `Image.fromarray(fedd_hf.data.masks.read_lesion_mask(path)).save(path)`."
)


def load_folder(root: str | Path) -> Dataset:
    """Load one's own photos, with masks of class ids and labels as far as they are there.

    Args:
        root (`str` or `Path`):
            Folder that holds

            - `images/`: the photos (JPEG, PNG, WEBP, BMP or TIFF) and no other files;
            - *optional* `masks/`: a `.png` or `.npy` file of class ids (0 background, 1 lesion, 2 marker, 3 ruler,
              4 skin, 255 does not count) of the name of its photo, for all photos or some;
            - *optional* `metadata.csv`: one row for each photo.

            Or a CSV file with the column `image` and, if there are masks, `mask`: paths relative to its folder.

            `metadata.csv` has `file_name`, or `image_id` (the file name without its suffix). Both tables may have the
            columns `skin_tone` (I-II, III-IV, V-VI, or DDI's 12, 34, 56) or `fitzpatrick` (1 to 6 or I to VI),
            `malignant` (0 or 1, true or false, benign or malignant), `disease`, `group_id` (where it is empty,
            `patient_id`, else `lesion_id`) and `split` (train, validation or val, test). An empty cell means "not
            known". Other columns are ignored: `ita` and `monk_skin_tone` are no Fitzpatrick types and never become a
            tone.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`], photos in the order of their names,
        or of the CSV file.

    Raises:
        FileNotFoundError: If there is no `root` or no folder `images` in it.
        ValueError: If there are no photos, the table lacks its first column or has both `skin_tone` and
            `fitzpatrick`, photos, masks or cells are not usable, a photo has no row or a row no photo; all of them are
            listed.
    """
    root = Path(root)
    problems: list[str] = []
    photos = _listed_photos(root, problems) if root.suffix.lower() == ".csv" else _found_photos(root, problems)
    rows = make_rows(_row, photos, problems, root.name)
    return make_collection(rows, problems, root, source="folder")


def _listed_photos(table: Path, problems: list[str]) -> list[Photo]:
    rows = _read_labels(table, {"image": ()}, problems)
    return [listed_photo(table.parent, row) for row in rows]


def _found_photos(root: Path, problems: list[str]) -> list[Photo]:
    folder = collection_folder(root) / "images"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}. Put the photos there, or give a CSV file of their paths."
        )
    images = _files(folder)
    if not images:
        raise ValueError(f"{folder} holds no photos.")
    masks = _masks(root / "masks", images, problems)
    rows = _rows(root / "metadata.csv", images, problems)
    return [Photo(image, masks.get(image.stem), rows.get(image.name, NO_ROW)) for image in images]


def _files(folder: Path) -> list[Path]:
    """Return what a folder holds, without the hidden files that file managers leave."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if not file.name.startswith(".") and file.name not in WRITTEN_BY_WINDOWS)


def _masks(folder: Path, images: list[Path], problems: list[str]) -> dict[str, Path]:
    stems = {image.stem for image in images}
    masks: dict[str, Path] = {}
    for mask in _files(folder):
        if mask.suffix.lower() not in MASK_SUFFIXES:
            problems.append(f"{mask} must be a {' or '.join(MASK_SUFFIXES)} file.")
        elif mask.stem not in stems:
            problems.append(f"{mask} is the mask of no photo: there is no photo {mask.stem!r}.")
        elif mask.stem in masks:
            problems.append(f"{mask} is a second mask of {mask.stem!r}, beside {masks[mask.stem].name}.")
        else:
            masks[mask.stem] = mask
    return masks


def _rows(table: Path, images: list[Path], problems: list[str]) -> dict[str, TableRow]:
    """Return the row of each photo by the name of its file."""
    if not table.exists():
        return {}
    rows = _read_labels(table, {"file_name": (), "image_id": ()}, problems)
    by_name = any("file_name" in row.cells for row in rows)
    keys = {image.name if by_name else image.stem: image for image in images}
    problems += unpaired(keys, rows, table)
    return {keys[row.key].name: row for row in rows if row.key in keys}


def _read_labels(table: Path, layouts: Mapping[str, tuple[str, ...]], problems: list[str]) -> list[TableRow]:
    rows = read_rows(table, layouts, problems)
    if {"skin_tone", "fitzpatrick"} <= {column for row in rows for column in row.cells}:
        problems.append(f"{table} has both `skin_tone` and `fitzpatrick`; keep the one that was recorded.")
    return rows


def _row(photo: Photo, problems: list[str]) -> dict[str, Any]:
    row = photo.row
    size = attempt(problems, _decoded_size, photo.image)
    column, tones = ("fitzpatrick", FITZPATRICK) if "fitzpatrick" in row.cells else ("skin_tone", SKIN_TONES)
    return {
        "image_id": row.first("image_id") or photo.image.stem,
        "image": str(photo.image),
        "mask": None if photo.mask is None else attempt(problems, fitting_png, _read_ids, photo.mask, size),
        "skin_tone": attempt(problems, row.meaning, column, tones),
        "malignant": attempt(problems, row.meaning, "malignant", MALIGNANT),
        "malignancy_policy": "recorded" if "malignant" in row.cells else None,
        "disease": row.first("disease"),
        "group_id": row.first("group_id", "patient_id", "lesion_id"),
        "split": attempt(problems, row.meaning, "split", SPLITS),
    }


def _decoded_size(path: Path) -> tuple[int, int]:
    """Return height and width of the upright photo after decoding all of it: damage may be at its end."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; photos must lie in {path.parent} itself.")
    image = read_image(path)
    return image.height, image.width


def _read_ids(path: Path) -> np.ndarray:
    try:
        ids = read_class_mask(path)
    except ValueError as error:
        raise ValueError(f"{error} {BLACK_AND_WHITE}" if _is_black_and_white(path) else str(error)) from error
    if IGNORE_INDEX in ids and not (set(PixelClass) - {PixelClass.BACKGROUND}).intersection(np.unique(ids)):
        raise ValueError(f"{path} holds only 0 and 255. {BLACK_AND_WHITE}")
    return ids


def _is_black_and_white(path: Path) -> bool:
    """Tell whether a mask that holds no class ids has white in it and little grey."""
    try:
        return PixelClass.LESION in read_lesion_mask(path)
    except ValueError:
        return False
