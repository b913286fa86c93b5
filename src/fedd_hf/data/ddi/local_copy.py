"""A licensed local copy of DDI: its table and its photos, checked against what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fedd_hf.data.leakage import hash_pixels
from fedd_hf.data.schema import refuse
from fedd_hf.data.sources.tables import check_columns, read_table
from fedd_hf.image_processing_fedd import read_image
from fedd_hf.labels import SkinTone

METADATA_FILE = "ddi_metadata.csv"
OLDER_HEADER = {"malignancy(malig=1)": "malignant"}
COLUMNS = ("DDI_file", "skin_tone", "malignant", "disease")
MALIGNANT = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
HOW_TO_GET_DDI = "DDI is free for research, from Stanford AIMI under its own agreement: https://ddi-dataset.github.io."
Result = TypeVar("Result")


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


def find_photos(root: str | Path) -> dict[str, Path]:
    """Return the photos of a DDI folder by their names, from `root/images/` or, as it is downloaded, from `root`.

    Raises:
        FileNotFoundError: If there is no such folder, or no photo in it.
        ValueError: If both places hold photos.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no DDI folder at {root}. {HOW_TO_GET_DDI}")
    places = [_images_in(folder) for folder in (root / "images", root)]
    if all(places):
        raise ValueError(f"Photos lie in {root} and in {root / 'images'}: keep those of one place.")
    photos = places[0] or places[1]
    if not photos:
        raise FileNotFoundError(f"There are no photos like 000001.png in {root / 'images'} nor in {root}.")
    return photos


def _images_in(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.name: file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def describe_photo(photo: Image.Image) -> dict[str, Any]:
    """Return what a manifest records of a photo: its size in pixels, and a hash from which it can't be restored."""
    return {"width": photo.width, "height": photo.height, "pixel_sha256": hash_pixels(photo)}


def read_photos(
    photos: Mapping[str, Path],
    expected: Iterable[str],
    wanted: Iterable[str],
    recorded: Mapping[str, Mapping[str, Any]],
    use: Callable[[Image.Image], Result],
) -> dict[str, Result]:
    """Read photos one after the other, check each, and keep what `use` makes of it.

    Args:
        photos (`dict[str, Path]`):
            What [`find_photos`] returns.
        expected (`Iterable[str]`):
            Names of all the photos of DDI; others must not be there.
        wanted (`Iterable[str]`):
            Names of the photos to read.
        recorded (`dict[str, dict]`):
            What the manifest says of photos ([`describe_photo`]); empty where it says nothing.
        use (`Callable[[PIL.Image.Image], Result]`):
            Takes the upright RGB photo.

    Raises:
        ValueError: If photos are missing, extra, damaged, of another size or changed; all of it is listed.
    """
    expected = set(expected)
    problems = [f"missing: {name}" for name in sorted(expected - photos.keys())]
    problems += [f"not of DDI: {photos[name]}" for name in sorted(photos.keys() - expected)]
    results: dict[str, Result] = {}
    for name in tqdm(sorted(set(wanted) & photos.keys()), desc="Reading photos", unit="photo", leave=False):
        try:
            photo = read_image(photos[name])
            problems += _differences(photo, recorded.get(name), name)
            results[name] = use(photo)
        except ValueError as error:
            problems.append(str(error))
    refuse("The photos are not those of DDI", problems)
    return results


def _differences(photo: Image.Image, recorded: Mapping[str, Any] | None, name: str) -> list[str]:
    if recorded is None:
        return []
    found = describe_photo(photo)
    sizes = [f"{facts['width']} x {facts['height']}" for facts in (found, recorded)]
    if sizes[0] != sizes[1]:
        return [f"wrong size: {name} is of {sizes[0]} pixels, and of {sizes[1]} in the manifest"]
    if found["pixel_sha256"] != recorded["pixel_sha256"]:
        return [f"changed: {name} has other pixels than the manifest says"]
    return []
