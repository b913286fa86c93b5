"""The table that says what the photos of a collection show, and rules by which they are malignant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from fedd_hf.labels import SkinTone

Meaning = TypeVar("Meaning")

MALIGNANT = {"0": False, "1": True, "false": False, "true": True, "benign": False, "malignant": True}
ROMAN_NUMERALS = ("I", "II", "III", "IV", "V", "VI")
FITZPATRICK = {
    name: SkinTone.from_fitzpatrick(skin_type).label
    for names in ("123456", ROMAN_NUMERALS)
    for skin_type, name in enumerate(names, start=1)
}
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
Policy = Mapping[str, bool | None]  # what makes malignant or benign of the labels of a source


@dataclass(frozen=True)
class TableRow:
    """One photo's row of a table.

    Args:
        where (`str`):
            File and line, for messages; the header is line 1.
        key (`str`):
            What names the photo: its id, file name or path.
        cells (`dict[str, str]`):
            Text of each cell that is not empty.
    """

    where: str
    key: str
    cells: Mapping[str, str]

    def first(self, *columns: str) -> str | None:
        """Return the text of the first of these columns that is not empty, or None."""
        return next((self.cells[column] for column in columns if column in self.cells), None)

    def meaning(self, column: str, meanings: Mapping[str, Meaning]) -> Meaning | None:
        """Return what a cell means, or None if it is empty; case and the `.0` of `1.0` make no difference.

        Raises:
            ValueError: If the cell holds something else; the message names the row and the allowed values.
        """
        if column not in self.cells:
            return None
        text = self.cells[column].strip().casefold().removesuffix(".0")
        for name, meaning in meanings.items():
            if text == name.casefold():
                return meaning
        allowed = ", ".join(meanings)
        raise ValueError(f"{self.where}: `{column}` must be one of {allowed}, or empty; got {self.cells[column]!r}.")


NO_ROW = TableRow("", "", {})


def read_rows(path: Path, layouts: Mapping[str, Sequence[str]], problems: list[str]) -> list[TableRow]:
    """Read the rows of a table; an empty cell means "not known".

    Args:
        path (`Path`):
            CSV file.
        layouts (`Mapping[str, Sequence[str]]`):
            For each column that may name the photo, the columns needed beside it. The first that occurs is taken.
        problems (`list[str]`):
            Gets rows that name no photo, which are left out, and those that name one again.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If it is no CSV file, has no rows or lacks columns.
    """
    table = read_table(path, dtype=str)
    key = next((column for column in layouts if column in table.columns), None)
    if key is None:
        raise ValueError(f"{path} needs a column `{'` or `'.join(layouts)}`; it has {list(table.columns)}.")
    check_columns(path, table, layouts[key])
    rows = []
    for line, values in enumerate(table.to_dict("records"), start=2):
        cells = {str(column): text for column, text in values.items() if not pd.isna(text)}
        rows.append(TableRow(f"{path}, line {line}", cells.get(key, ""), cells))
    problems += _unusable_keys(rows, key)
    return [row for row in rows if row.key]


def read_table(path: Path, dtype: type | None = None) -> pd.DataFrame:
    """Read a CSV file in which an empty cell means "not known".

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If it is no CSV file, or has no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table at {path}.")
    try:
        table = pd.read_csv(path, dtype=dtype)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{path} is no CSV file that can be read: {error}") from error
    if table.empty:
        raise ValueError(f"{path} has no rows.")
    return table


def check_columns(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table that lacks one of these columns.

    Raises:
        ValueError: If one is missing; the message names it and those that there are.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}.")


def unpaired(images: Mapping[str, Path], rows: Iterable[TableRow], table: Path) -> list[str]:
    """Return one problem for each row without a photo and each photo without a row."""
    keys = {row.key for row in rows}
    problems = [f"{row.where}: there is no photo {row.key!r}." for row in rows if row.key not in images]
    return problems + [f"{image} has no row in {table}." for key, image in images.items() if key not in keys]


def _unusable_keys(rows: list[TableRow], column: str) -> list[str]:
    problems = [f"{row.where}: `{column}` is empty." for row in rows if not row.key]
    keys = pd.Series([row.key for row in rows])
    again = keys.duplicated() & (keys != "")
    return problems + [
        f"{row.where}: {row.key!r} occurs again." for row, twice in zip(rows, again, strict=True) if twice
    ]


def check_policy(name: str, policies: Mapping[str, Policy]) -> None:
    """Refuse a rule that there is not.

    Raises:
        ValueError: If there is none of this name; the message names those that there are.
    """
    if name not in policies:
        raise ValueError(f"`malignancy_policy` must be one of {list(policies)}, got {name!r}.")
