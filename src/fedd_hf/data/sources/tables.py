"""The table that says what the photos of a collection show, read with clear errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file in which an empty cell means "not known".

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If it is no CSV file or lacks one of `columns`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table at {path}.")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{path} is no CSV file that can be read: {error}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}.")
    return table
