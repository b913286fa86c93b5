"""HAM10000, dermoscopic photos of pigmented lesions -> rows of the one format."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from .collection import Photo, attempt, collection_folder, listed_photo, make_collection, make_rows, photo_and_lesion
from .tables import Policy, TableRow, check_policy, read_rows

# Actinic keratosis and Bowen's disease are one label, `akiec`, which papers count as malignant or as benign.
DIAGNOSES = {"akiec": None, "bcc": True, "bkl": False, "df": False, "mel": True, "nv": False, "vasc": False}
MALIGNANCY_POLICIES: dict[str, Policy] = {
    "akiec-malignant": DIAGNOSES | {"akiec": True},
    "akiec-benign": DIAGNOSES | {"akiec": False},
    "akiec-unknown": DIAGNOSES,
}

TABLES = ("HAM10000_metadata", "HAM10000_metadata.csv")
PHOTO_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", "images")
MASK_FOLDERS = ("HAM10000_segmentations_lesion_tschandl", "masks")


def load_ham10000(root: str | Path, malignancy_policy: str = "akiec-malignant") -> Dataset:
    """Load HAM10000: every photo, with its lesion mask; what is not lesion is skin.

    Args:
        root (`str` or `Path`):
            Folder as the publisher's files unpack: `HAM10000_metadata` (also with `.csv`; columns `lesion_id`,
            `image_id`, `dx`), photos in `HAM10000_images_part_1`, `HAM10000_images_part_2` or `images`, masks
            `<image_id>_segmentation.png` in `HAM10000_segmentations_lesion_tschandl` or `masks`; without such a folder
            masks are null. Or a folder with `metadata.csv` (columns `image`, `mask`, `label`, `lesion_id`) and the
            files that it names.
        malignancy_policy (`str`, defaults to `"akiec-malignant"`):
            What actinic keratosis and Bowen's disease, one label of seven, count as: `"akiec-malignant"`,
            `"akiec-benign"` or `"akiec-unknown"` (null).

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`]. `malignant` follows from the
        diagnosis by `malignancy_policy`, never from a column. Photos of a lesion are one group. `skin_tone` is always
        null: the columns `skin_tone` and `ita` of some copies are colours measured in the photo (ITA), no Fitzpatrick
        types, and are not read.

    Raises:
        FileNotFoundError: If there is no folder `root` or no table in it.
        ValueError: If `malignancy_policy` is unknown, the table lacks a column, or files or diagnoses are not usable;
            all of them are listed.

    Source: Tschandl et al., The HAM10000 dataset, doi:10.7910/DVN/DBW86T.
    """
    check_policy(malignancy_policy, MALIGNANCY_POLICIES)
    root = collection_folder(root)
    problems: list[str] = []
    photos = _photos(root, problems)
    rows = make_rows(partial(_row, malignancy_policy), photos, problems, "HAM10000")
    return make_collection(rows, problems, root, source="ham10000")


def _photos(root: Path, problems: list[str]) -> list[Photo]:
    if (root / "metadata.csv").is_file():
        table = read_rows(root / "metadata.csv", {"image": ("mask", "label", "lesion_id")}, problems)
        return [listed_photo(root, row) for row in table]
    path = next((root / name for name in TABLES if (root / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"There is no table in {root}: neither metadata.csv nor {' nor '.join(TABLES)}.")
    return _published_photos(root, read_rows(path, {"image_id": ("dx", "lesion_id")}, problems), problems)


def _published_photos(root: Path, table: list[TableRow], problems: list[str]) -> list[Photo]:
    has_masks = any((root / folder).is_dir() for folder in MASK_FOLDERS)
    photos = []
    for row in table:
        image = attempt(problems, _find, root, PHOTO_FOLDERS, f"{row.key}.jpg")
        mask = attempt(problems, _find, root, MASK_FOLDERS, f"{row.key}_segmentation.png") if has_masks else None
        if image is not None:
            photos.append(Photo(image, mask, row))
    return photos


def _find(root: Path, folders: tuple[str, ...], name: str) -> Path:
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    raise FileNotFoundError(f"There is no {name} in {root}, neither in {' nor in '.join(folders)}.")


def _row(malignancy_policy: str, photo: Photo, problems: list[str]) -> dict[str, Any]:
    return photo_and_lesion(photo, problems) | {
        "malignant": attempt(problems, _is_malignant, photo.row, MALIGNANCY_POLICIES[malignancy_policy]),
        "malignancy_policy": malignancy_policy,
        "disease": photo.row.first("dx", "label"),
        "group_id": photo.row.first("lesion_id"),
    }


def _is_malignant(row: TableRow, policy: Policy) -> bool | None:
    diagnosis = row.first("dx", "label")
    if diagnosis is None or diagnosis not in policy:
        raise ValueError(f"{row.where}: the diagnosis must be one of {', '.join(policy)}, got {diagnosis!r}.")
    return policy[diagnosis]
