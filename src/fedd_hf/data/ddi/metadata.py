"""`ddi_metadata.csv` of a licensed copy of DDI, in either of its headers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fedd_hf.data.schema import refuse
from fedd_hf.data.sources.tables import check_columns, read_table
from fedd_hf.labels import SkinTone

METADATA_FILE = "ddi_metadata.csv"
OLDER_HEADER = {"malignancy(malig=1)": "malignant"}
COLUMNS = ("DDI_file", "skin_tone", "malignant", "disease")
MALIGNANT = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_ddi_metadata(path: str | Path) -> pd.DataFrame:
    """Read the table of DDI.

    Args:
        path (`str` or `Path`):
            `ddi_metadata.csv` with the columns `DDI_file`, `skin_tone` (12, 34 or 56), `malignant` (older copies:
            `malignancy(malig=1)`) and `disease`.

    Returns:
        `pd.DataFrame`: one row per photo in the order of `image_id` (`"000001"`): `file`, `skin_tone` (`"I-II"`,
        `"III-IV"` or `"V-VI"`), `malignant` (`bool`) and `disease`.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If a column is missing, or rows hold something else; all of them are listed.

    Source: DDI-Dataset/DDI-Code, `ddi_dataset.py`.
    """
    table = read_table(Path(path)).rename(columns=OLDER_HEADER)
    check_columns(Path(path), table, COLUMNS)
    malignant = table["malignant"].astype(str).str.lower()
    refuse(f"{path} is no table of DDI", _problems(table, malignant))
    metadata = pd.DataFrame(
        {
            "image_id": [Path(name).stem for name in table["DDI_file"]],
            "file": table["DDI_file"],
            "skin_tone": [SkinTone(tone).label for tone in table["skin_tone"]],
            "malignant": malignant.map(MALIGNANT).astype(bool),
            "disease": table["disease"].astype(object).where(table["disease"].notna(), None),
        }
    )
    return metadata.sort_values("image_id", ignore_index=True)


def _problems(table: pd.DataFrame, malignant: pd.Series) -> list[str]:
    names = table["DDI_file"].astype(str)
    codes = [int(tone) for tone in SkinTone]
    wrong = {
        "`DDI_file` must be like 000001.png": ~names.str.fullmatch(r"\d{6}\.png"),
        "`DDI_file` must occur once": names.duplicated(),
        f"`skin_tone` must be one of {codes}": ~table["skin_tone"].isin(codes),
        "`malignant` must be True or False": ~malignant.isin(MALIGNANT),
    }
    return [f"{rule}, not so: {names[rows].tolist()}" for rule, rows in wrong.items() if rows.any()]
