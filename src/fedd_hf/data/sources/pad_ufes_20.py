"""PAD-UFES-20, clinical photos taken with smartphones -> rows of the one format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from .collection import Photo, attempt, collection_folder, listed_photo, make_collection, make_rows, photo_and_lesion
from .tables import FITZPATRICK, MALIGNANT, SPLITS, read_rows

LAYOUTS = {"image": ("mask", "label", "malignant", "fitzpatrick", "patient_id", "split")}


def load_pad_ufes_20(root: str | Path) -> Dataset:
    """Load PAD-UFES-20: every photo, with its lesion mask where it has one; what is not lesion is skin.

    Args:
        root (`str` or `Path`):
            Folder with `metadata.csv` (columns `image`, `mask`, `label`, `malignant`, `fitzpatrick`, `patient_id`,
            `split`) and the files that it names.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`]. `malignant` is the source's own: BCC,
        SCC (with Bowen's disease) and MEL; ACK, NEV and SEK are benign. Skin tone is the recorded Fitzpatrick type,
        null where it is empty. Photos of a patient are one group.

    Raises:
        FileNotFoundError: If there is no folder `root` or no `metadata.csv` in it.
        ValueError: If `metadata.csv` lacks a column, or files or cells are not usable; all of them are listed.
    """
    root = collection_folder(root)
    problems: list[str] = []
    photos = [listed_photo(root, row) for row in read_rows(root / "metadata.csv", LAYOUTS, problems)]
    rows = make_rows(_row, photos, problems, "PAD-UFES-20")
    return make_collection(rows, problems, root, source="pad-ufes-20")


def _row(photo: Photo, problems: list[str]) -> dict[str, Any]:
    row = photo.row
    return photo_and_lesion(photo, problems) | {
        "skin_tone": attempt(problems, row.meaning, "fitzpatrick", FITZPATRICK),
        "malignant": attempt(problems, row.meaning, "malignant", MALIGNANT),
        "malignancy_policy": "recorded",
        "disease": row.first("label"),
        "group_id": row.first("patient_id"),
        "split": attempt(problems, row.meaning, "split", SPLITS),
    }
