"""What train, validation and test must not share: files, pixels, near-duplicates, patients, lesions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from datasets import Dataset, Image
from PIL import Image as PILImage
from tqdm.auto import tqdm

from fedd_hf.image_processing_fedd import read_image

from .schema import refuse

logger = logging.getLogger(__name__)

# Measured on the 10,015 dermoscopic photos of HAM10000, 200 px wide: 5,579 pairs of different lesions lie within 8 of
# 64 bits, since a round spot on skin looks like another one. Within 40 of 256 bits as well, 4 of them are left, of
# which 2 show the same lesion; with 4 or 12 of 64 bits the same 4 would be left. JPEG at quality 50, shrinking to a
# third and 15 % more light moved 800 of these photos by at most 8 and 28 bits.
MAX_COARSE_DISTANCE, MAX_FINE_DISTANCE = 8, 40
COARSE_SIDE, FINE_SIDE = 8, 16
CHUNK = 1024
SAME = {"file": "same file", "pixels": "same pixels", "group_id": "same patient or lesion"}
COLUMNS = ["kind", "first", "first_split", "second", "second_split"]


def hash_pixels(photo: PILImage.Image) -> str:
    """Return the SHA-256 of the size and the pixels of a photo as upright RGB, whatever its file looks like."""
    size = f"{photo.width}x{photo.height}:".encode()
    return hashlib.sha256(size + photo.convert("RGB").tobytes()).hexdigest()


def perceptual_hash(photo: PILImage.Image, side: int = COARSE_SIDE) -> np.ndarray:
    """Return the DCT hash of a photo: `side * side` bits as `uint8` bytes. Source: PyPI ImageHash, `phash`."""
    return np.packbits(imagehash.phash(photo, hash_size=side).hash)


def fingerprint_photos(dataset: Dataset) -> pd.DataFrame:
    """Read every photo of a dataset once.

    Returns:
        `pd.DataFrame`: one row per photo: `image_id`, `group_id`, `file` and `pixels` (SHA-256), `coarse` and `fine`
        (perceptual hashes of 64 and 256 bits).

    Raises:
        FileNotFoundError: If a photo is missing.
        ValueError: If one is damaged.
    """
    photos = dataset.select_columns(["image_id", "group_id", "image"]).cast_column("image", Image(decode=False))
    progress = tqdm(photos, desc="Comparing photos", unit="photo", leave=False)
    return pd.DataFrame([_fingerprint(row) for row in progress])


def _fingerprint(row: dict) -> dict:
    cell = row["image"]
    encoded = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    photo = read_image(BytesIO(encoded), name=cell["path"] or row["image_id"])
    return {
        "image_id": row["image_id"],
        "group_id": row["group_id"],
        "file": hashlib.sha256(encoded).hexdigest(),
        "pixels": hash_pixels(photo),
        "coarse": perceptual_hash(photo, COARSE_SIDE),
        "fine": perceptual_hash(photo, FINE_SIDE),
    }


def near_duplicates(fingerprints: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the positions, in rising order, of each two photos that look the same."""
    coarse, fine = (np.stack(fingerprints[column].to_list()) for column in ("coarse", "fine"))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(coarse), CHUNK):
        chunk = coarse[start : start + CHUNK]
        first, second = np.nonzero(_distances(chunk[:, None], coarse[None, start:]) <= MAX_COARSE_DISTANCE)
        first, second = start + first[first < second], start + second[first < second]
        close = _distances(fine[first], fine[second]) <= MAX_FINE_DISTANCE
        pairs += zip(first[close].tolist(), second[close].tolist(), strict=True)
    return pairs


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.uint16)


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
