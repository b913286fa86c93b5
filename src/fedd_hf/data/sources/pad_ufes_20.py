"""PAD-UFES-20, clinical photos taken with smartphones -> rows of the one format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from .collection import Photo, attempt, collection_folder, listed_photo, make_collection, make_rows, photo_and_lesion
from .tables import FITZPATRICK, MALIGNANT, SPLITS, TableRow, read_rows

LAYOUTS = {
    "image": ("mask", "label", "malignant", "fitzpatrick", "patient_id", "split"),
    "img_id": ("diagnostic", "fitspatrick", "patient_id"),  # the publisher's spelling
}
DIAGNOSES = {"BCC": True, "SCC": True, "MEL": True, "ACK": False, "NEV": False, "SEK": False}


def load_pad_ufes_20(root: str | Path) -> Dataset:
    """Load PAD-UFES-20: every photo, with its lesion mask where it has one; what is not lesion is skin.

    Args:
        root (`str` or `Path`):
            Folder as the publisher's files unpack: `metadata.csv` (columns `img_id`, `diagnostic`, `fitspatrick`,
            `patient_id`), photos in folders such as `imgs_part_1`, and *optional* masks of others in `masks`, each of
            the name of its photo. Or a folder with `metadata.csv` (columns `image`, `mask`, `label`, `malignant`,
            `fitzpatrick`, `patient_id`, `split`) and the files that it names.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`]. BCC, SCC (with Bowen's disease) and
        MEL are malignant; ACK, NEV and SEK are benign. Skin tone is the recorded Fitzpatrick type, null where it is
        empty. Photos of a patient are one group. The publisher records no splits.

    Raises:
        FileNotFoundError: If there is no folder `root` or no `metadata.csv` in it.
        ValueError: If `metadata.csv` lacks a column, or files or cells are not usable; all of them are listed.

    Source: Pacheco et al., PAD-UFES-20, doi:10.17632/zr7vgbcyr2.1.
    """
    root = collection_folder(root)
    problems: list[str] = []
    table = read_rows(root / "metadata.csv", LAYOUTS, problems)
    is_published = any("img_id" in row.cells and "image" not in row.cells for row in table)
    photos = _published_photos(root, table, problems) if is_published else [listed_photo(root, row) for row in table]
    rows = make_rows(_row, photos, problems, "PAD-UFES-20")
    return make_collection(rows, problems, root, source="pad-ufes-20")


def _published_photos(root: Path, table: list[TableRow], problems: list[str]) -> list[Photo]:
    images = {path.name: path for path in sorted(root.rglob("*.png")) if path.parent != root / "masks"}
    photos = []
    for row in table:
        mask = root / "masks" / row.key
        if row.key in images:
            photos.append(Photo(images[row.key], mask if mask.is_file() else None, row))
        else:
            problems.append(f"{row.where}: there is no photo {row.key!r} in {root} or a folder below it.")
    return photos


def _row(photo: Photo, problems: list[str]) -> dict[str, Any]:
    row = photo.row
    tone_column = "fitspatrick" if "fitspatrick" in row.cells else "fitzpatrick"
    label_column, meanings = ("malignant", MALIGNANT) if "malignant" in row.cells else ("diagnostic", DIAGNOSES)
    return photo_and_lesion(photo, problems) | {
        "skin_tone": attempt(problems, row.meaning, tone_column, FITZPATRICK),
        "malignant": attempt(problems, row.meaning, label_column, meanings),
        "malignancy_policy": "recorded",
        "disease": row.first("label", "diagnostic"),
        "group_id": row.first("patient_id"),
        "split": attempt(problems, row.meaning, "split", SPLITS),
    }
