"""ISIC, challenge folders and downloads of its archive -> rows of the one format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from .collection import Photo, attempt, collection_folder, make_collection, make_rows, photo_and_lesion
from .tables import FITZPATRICK, MALIGNANT, NO_ROW, Policy, TableRow, check_policy, read_rows, unpaired

MALIGNANCY_POLICIES: dict[str, Policy] = {
    "indeterminate-unknown": {"Benign": False, "Indeterminate": None, "Malignant": True},
    "indeterminate-malignant": {"Benign": False, "Indeterminate": True, "Malignant": True},
}

CHALLENGE_FOLDER = re.compile(r"(?P<challenge>ISIC.*_(?P<split>Training|Validation|Test)(_v2)?)_(Data|Input)")
SPLITS = {"Training": "train", "Validation": "validation", "Test": "test"}
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
NOT_PHOTOS = ("_segmentation", "_superpixels")
METADATA_LAYOUTS = {"isic_id": ("diagnosis_1",), "image": ("label", "malignant")}
CHALLENGE_LAYOUT = {"image_id": ("melanoma", "seborrheic_keratosis")}


def load_isic(root: str | Path, malignancy_policy: str = "indeterminate-unknown") -> Dataset:
    """Load photos of ISIC, with their lesion masks and labels as far as they are there; what is not lesion is skin.

    Args:
        root (`str` or `Path`):
            Folder that holds

            - photos `ISIC_*.jpg` or `.png`, in folders of the challenges such as `ISIC-2017_Training_Data` or
              `ISIC2018_Task1-2_Validation_Input`, in `images`, or in `root` itself;
            - *optional* masks `<id>_segmentation.png` in the folder of the challenge, such as
              `ISIC-2017_Training_Part1_GroundTruth` or `ISIC2018_Task1_Validation_GroundTruth`, or in `masks` for the
              photos of no challenge. Where there is such a folder, each of its photos needs a mask;
            - *optional* labels, one row for each photo: `metadata.csv` as the archive gives it (columns `isic_id`,
              `diagnosis_1`) or with the columns `image`, `label`, `malignant`; or tables of the challenge of 2017,
              such as `ISIC-2017_Training_Part3_GroundTruth.csv`.
        malignancy_policy (`str`, defaults to `"indeterminate-unknown"`):
            What `diagnosis_1` "Indeterminate" counts as: `"indeterminate-unknown"` (null) or
            `"indeterminate-malignant"`; never as benign.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`]. `malignant` and its policy are null
        without a table; tables other than the archive's record benign or malignant (in 2017, melanoma is malignant),
        and their policy is `"recorded"`. Skin tone is the recorded Fitzpatrick type. `split` follows from the name of
        the challenge's folder. Photos of a patient, else of a lesion, are one group.

    Raises:
        FileNotFoundError: If there is no folder `root`.
        ValueError: If `malignancy_policy` is unknown, there are no photos, a table lacks a column, or files or cells
            are not usable; all of them are listed.

    Source: challenge.isic-archive.com/data, api.isic-archive.com.
    """
    check_policy(malignancy_policy, MALIGNANCY_POLICIES)
    root = collection_folder(root)
    problems: list[str] = []
    photos = _photos(root, problems)
    rows = make_rows(partial(_row, malignancy_policy), photos, problems, "ISIC")
    return make_collection(rows, problems, root, source="isic")


def _photos(root: Path, problems: list[str]) -> list[Photo]:
    images = {folder: _images(folder) for folder in _photo_folders(root)}
    if not any(images.values()):
        raise ValueError(
            f"{root} holds no photos ISIC_*.jpg or .png, neither itself nor in a folder such as "
            "ISIC-2017_Training_Data, ISIC2018_Task1-2_Training_Input or images."
        )
    rows = _rows(root, images, problems)
    photos = [image for group in images.values() for image in group.values()]
    return [Photo(image, _mask(root, image), rows.get(image.stem, NO_ROW)) for image in photos]


def _photo_folders(root: Path) -> list[Path]:
    challenges = [folder for folder in root.iterdir() if CHALLENGE_FOLDER.fullmatch(folder.name) and folder.is_dir()]
    return [*sorted(challenges), *(folder for folder in (root / "images", root) if folder.is_dir())]


def _images(folder: Path) -> dict[str, Path]:
    files = sorted(file for file in folder.glob("ISIC_*") if file.suffix.lower() in PHOTO_SUFFIXES)
    return {file.stem: file for file in files if not file.stem.endswith(NOT_PHOTOS)}


def _mask(root: Path, image: Path) -> Path | None:
    """Return where the mask of a photo must be, or None if there are no masks for its folder."""
    folders = [root / "masks"]
    challenge = CHALLENGE_FOLDER.fullmatch(image.parent.name)
    if challenge:
        name = challenge["challenge"].replace("_Task1-2_", "_Task1_")
        folders = [image.parents[1] / f"{name}{part}_GroundTruth" for part in ("", "_Part1")]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return folder / f"{image.stem}_segmentation.png" if folder else None


def _rows(root: Path, images: Mapping[Path, dict[str, Path]], problems: list[str]) -> dict[str, TableRow]:
    """Return the row of each photo that a table covers: `metadata.csv` covers all, a challenge's its own folder."""
    if (root / "metadata.csv").is_file():
        everything = {image_id: path for group in images.values() for image_id, path in group.items()}
        return _paired_rows(root / "metadata.csv", METADATA_LAYOUTS, everything, problems)
    rows: dict[str, TableRow] = {}
    for folder, group in images.items():
        challenge = CHALLENGE_FOLDER.fullmatch(folder.name)
        table = folder.parent / f"{challenge['challenge']}_Part3_GroundTruth.csv" if challenge else None
        if table and table.is_file():
            rows |= _paired_rows(table, CHALLENGE_LAYOUT, group, problems)
    return rows


def _paired_rows(
    table: Path, layouts: Mapping[str, tuple[str, ...]], images: Mapping[str, Path], problems: list[str]
) -> dict[str, TableRow]:
    rows = [replace(row, key=Path(row.key).stem) for row in read_rows(table, layouts, problems)]
    problems += unpaired(images, rows, table)
    return {row.key: row for row in rows}


def _row(malignancy_policy: str, photo: Photo, problems: list[str]) -> dict[str, Any]:
    challenge = CHALLENGE_FOLDER.fullmatch(photo.image.parent.name)
    split = SPLITS[challenge["split"]] if challenge else None
    return photo_and_lesion(photo, problems) | {"split": split} | _label_fields(photo.row, malignancy_policy, problems)


def _label_fields(row: TableRow, malignancy_policy: str, problems: list[str]) -> dict[str, Any]:
    if row is NO_ROW:
        return {}
    if "isic_id" in row.cells:
        return _archive_fields(row, malignancy_policy, problems)
    recorded = _listed_fields if "image" in row.cells else _challenge_fields
    return recorded(row, problems) | {"malignancy_policy": "recorded"}


def _archive_fields(row: TableRow, malignancy_policy: str, problems: list[str]) -> dict[str, Any]:
    policy = MALIGNANCY_POLICIES[malignancy_policy]
    return {
        "malignant": attempt(problems, row.meaning, "diagnosis_1", policy),
        "malignancy_policy": malignancy_policy,
        "disease": row.first("diagnosis_3", "diagnosis"),
        "skin_tone": attempt(problems, row.meaning, "fitzpatrick_skin_type", FITZPATRICK),
        "group_id": row.first("patient_id", "lesion_id"),
    }


def _challenge_fields(row: TableRow, problems: list[str]) -> dict[str, Any]:
    """Return the labels of 2017, whose third diagnosis, nevus, has no column."""
    diagnoses = CHALLENGE_LAYOUT["image_id"]
    flags = [attempt(problems, row.meaning, diagnosis, {"0": False, "1": True}) for diagnosis in diagnoses]
    disease = next((name for name, flag in zip(diagnoses, flags, strict=True) if flag), "nevus")
    return {"malignant": flags[0], "disease": None if None in flags else disease}


def _listed_fields(row: TableRow, problems: list[str]) -> dict[str, Any]:
    return {"malignant": attempt(problems, row.meaning, "malignant", MALIGNANT), "disease": row.first("label")}
