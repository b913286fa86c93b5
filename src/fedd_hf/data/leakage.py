"""What train, validation and test must not share: files, pixels, near-duplicates, patients, lesions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import pandas as pd
from datasets import Dataset

from .fingerprints import fingerprint_photos, near_duplicates
from .schema import refuse

logger = logging.getLogger(__name__)

SAME = {"file": "same file", "pixels": "same pixels", "group_id": "same patient or lesion"}
COLUMNS = ["kind", "first", "first_split", "second", "second_split"]


def check_leakage(splits: Mapping[str, Dataset], allow_leakage: bool = False) -> pd.DataFrame:
    """Refuse splits that share photos or patients.

    Args:
        splits (`dict[str, datasets.Dataset]`):
            Rows of [`~fedd_hf.data.schema.FEATURES`] by the name of their split.
        allow_leakage (`bool`, *optional*, defaults to `False`):
            Warn of everything that is shared instead of refusing it.

    Returns:
        `pd.DataFrame`: one row for each thing that two splits share: `kind`, `first`, `first_split`, `second`,
        `second_split`. Of the four kinds the first that fits is named: same file, same pixels, same patient or
        lesion, near-duplicate.

    Raises:
        ValueError: If something is shared and not allowed; all of it is listed.
    """
    found = find_leakage(splits)
    described = [
        f"{row.kind}: {row.first} ({row.first_split}) and {row.second} ({row.second_split})"
        for row in found.itertuples(index=False)
    ]
    if allow_leakage:
        for line in described:
            logger.warning("Leakage allowed: %s", line)
    else:
        refuse(
            "Splits share photos or patients, so that a test on them would flatter; pass `allow_leakage=True` "
            "(`--allow-leakage`) to go on all the same",
            described,
        )
    return found


def find_leakage(splits: Mapping[str, Dataset]) -> pd.DataFrame:
    """Return everything that two splits share, in the columns of [`check_leakage`]."""
    tables = [fingerprint_photos(dataset).assign(split=name) for name, dataset in splits.items() if len(dataset)]
    photos = pd.concat(tables, ignore_index=True)
    kinds: dict[tuple[int, int], str] = {}
    for kind, first, second in _shared(photos):
        kinds.setdefault((first, second), kind)
    rows = [
        (kind, *photos.loc[first, ["image_id", "split"]], *photos.loc[second, ["image_id", "split"]])
        for (first, second), kind in sorted(kinds.items())
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _shared(photos: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """Yield what is shared and the first two photos, of different splits, that share it."""
    for column, kind in SAME.items():
        known = photos[photos[column].notna()]
        for _, group in known.groupby(column):
            firsts = group.drop_duplicates("split").index
            yield from ((kind, firsts[0], other) for other in firsts[1:])
    for first, second in near_duplicates(photos):
        if photos.loc[first, "split"] != photos.loc[second, "split"]:
            yield "near-duplicate", first, second
