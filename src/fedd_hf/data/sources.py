"""Public collections of photos, read into the one row format."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL import Image

from fedd_hf.skin_tone import SkinTone

from .schema import FEATURES

LESION, SKIN = 1, 4


def load_pad_ufes_20(root: str | Path, split: str | None = None) -> Dataset:
    """Load the photos of PAD-UFES-20 that have a lesion mask; what is not lesion is skin.

    Args:
        root (`str` or `Path`):
            Folder with `metadata.csv` (columns `image`, `mask`, `malignant`, `fitzpatrick`, `split`) and the files
            that it names.
        split (`str`, *optional*):
            `"train"`, `"validation"` or `"test"`; all of them by default.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`].

    Raises:
        FileNotFoundError: If there is no `metadata.csv`.
        ValueError: If no row is of this split.
    """
    table = Path(root) / "metadata.csv"
    if not table.is_file():
        raise FileNotFoundError(f"PAD-UFES-20 must hold metadata.csv; {table} does not exist.")
    rows = pd.read_csv(table)
    rows = rows[rows["mask"].notna() & ((rows["split"] == split) | (split is None))]
    if rows.empty:
        raise ValueError(f"`split` must be one of ['train', 'validation', 'test'], got {split!r}.")
    return Dataset.from_list([_pad_row(Path(root), row) for row in rows.to_dict("records")], features=FEATURES)


def _pad_row(root: Path, row: dict[str, Any]) -> dict[str, Any]:
    tone = None if np.isnan(row["fitzpatrick"]) else SkinTone.from_fitzpatrick(int(row["fitzpatrick"])).label
    return {
        "image_id": Path(row["image"]).stem,
        "image": str(root / row["image"]),
        "mask": {"bytes": _class_ids(root / row["mask"]), "path": None},
        "skin_tone": tone,
        "malignant": bool(row["malignant"]),
    }


def _class_ids(mask_path: Path) -> bytes:
    """Encode a lesion mask (255 = lesion) as a PNG of class ids."""
    with Image.open(mask_path) as mask:
        lesion = np.asarray(mask.convert("L")) > 127
    buffer = BytesIO()
    Image.fromarray(np.where(lesion, LESION, SKIN).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
