"""PAD-UFES-20, clinical photos taken with smartphones -> rows of the one format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from tqdm.auto import tqdm

from fedd_hf.data.masks import encode_png, read_lesion_mask
from fedd_hf.data.schema import make_dataset
from fedd_hf.skin_tone import SkinTone

from .tables import read_table

COLUMNS = ("image", "mask", "label", "malignant", "fitzpatrick", "patient_id", "split")


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
        FileNotFoundError: If there is no `metadata.csv`, or a file that it names is missing.
        ValueError: If a column is missing or a mask is no black and white image.
    """
    root = Path(root)
    table = read_table(root / "metadata.csv", COLUMNS)
    rows = tqdm(table.to_dict("records"), desc="PAD-UFES-20", unit="photo", leave=False)
    return make_dataset((_row(root, row) for row in rows), source="pad-ufes-20")


def _row(root: Path, row: dict[str, Any]) -> dict[str, Any]:
    tone = None if pd.isna(row["fitzpatrick"]) else SkinTone.from_fitzpatrick(int(row["fitzpatrick"])).label
    return {
        "image_id": Path(row["image"]).stem,
        "image": str(root / row["image"]),
        "mask": None if pd.isna(row["mask"]) else encode_png(read_lesion_mask(root / row["mask"])),
        "skin_tone": tone,
        "malignant": bool(row["malignant"]),
        "malignancy_policy": "recorded",
        "disease": row["label"],
        "group_id": row["patient_id"],
        "split": row["split"],
    }
