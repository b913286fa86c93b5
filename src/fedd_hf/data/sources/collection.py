"""The files of a collection, photo and mask, checked as the rows are made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar
from zipfile import is_zipfile

import numpy as np
from datasets import Dataset
from PIL import ExifTags, Image
from tqdm.contrib.concurrent import thread_map

from fedd_hf.data.masks import encode_png, read_lesion_mask
from fedd_hf.data.schema import make_dataset, refuse
from fedd_hf.image_processing_fedd import FORMATS, MAX_PIXELS

from .tables import TableRow

NUM_THREADS = 4  # files are read and decoded without Python's lock
SIDEWAYS = range(5, 9)  # EXIF orientations that swap height and width

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Photo(NamedTuple):
    """A photo, its mask, and what the table says of it."""

    image: Path
    mask: Path | None
    row: TableRow


def collection_folder(root: str | Path) -> Path:
    """Return the folder of a collection.

    Raises:
        FileNotFoundError: If there is nothing at `root`.
        ValueError: If `root` is a zip file or another file.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder {root}.")
    if root.is_dir():
        return root
    remedy = "Unzip it and give the folder" if is_zipfile(root) else "Give the folder that holds it"
    raise ValueError(f"`root` must be a folder, but {root} is a file. {remedy}.")


def make_rows(
    make_row: Callable[[Photo, list[str]], dict[str, Any]], photos: list[Photo], problems: list[str], title: str
) -> list[dict[str, Any]]:
    """Make the row of each photo, a few at a time; `make_row` adds what is wrong to the list that it is given.

    `problems` gets these in the order of the photos.
    """

    def make(photo: Photo) -> tuple[dict[str, Any], list[str]]:
        found: list[str] = []
        return make_row(photo, found), found

    results = thread_map(make, photos, max_workers=NUM_THREADS, desc=title, unit="photo", leave=False)
    problems += [problem for _, found in results for problem in found]
    return [row for row, _ in results]


def make_collection(rows: list[dict[str, Any]], problems: list[str], root: Path, source: str) -> Dataset:
    """Make the dataset of a collection.

    Raises:
        ValueError: If there were problems with its files or table, or photos share an `image_id`; all are listed.
    """
    refuse(f"{source} in {root} cannot be loaded", problems + _shared_ids(rows))
    return make_dataset(rows, source)


def _shared_ids(rows: list[dict[str, Any]]) -> list[str]:
    photos: dict[str, str] = {}
    problems = []
    for row in rows:
        first = photos.setdefault(row["image_id"], row["image"])
        if first != row["image"]:
            problems.append(f"{row['image']} has the `image_id` {row['image_id']!r}, as has {first}.")
    return problems


def listed_photo(root: Path, row: TableRow) -> Photo:
    """Return the photo of a row whose columns `image` and, where there is one, `mask` are paths below `root`."""
    mask = row.first("mask")
    return Photo(root / row.key, root / mask if mask else None, row)


def photo_and_lesion(photo: Photo, problems: list[str]) -> dict[str, Any]:
    """Return `image_id`, `image` and `mask` of a row; the mask is white where there is lesion.

    The photo's header is read, not its pixels, so that collections of tens of thousands load in seconds.
    """
    size = attempt(problems, upright_size, photo.image)
    mask = None if photo.mask is None else attempt(problems, fitting_png, read_lesion_mask, photo.mask, size)
    return {"image_id": photo.image.stem, "image": str(photo.image), "mask": mask}


def attempt(
    problems: list[str], read: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | None:
    """Return what `read` returns; where it refuses, add its message to `problems` and return None."""
    try:
        return read(*args, **kwargs)
    except (OSError, ValueError) as error:
        problems.append(str(error))
        return None


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width of a photo as it is seen, by its header and EXIF orientation.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If the file is no photo that can be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no image file at {path}.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    except Exception as error:  # decoders raise a dozen kinds of error on damaged files
        raise ValueError(f"{path} is not an image that can be read; it must be {', '.join(FORMATS)}.") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path} has {height} x {width} pixels, more than {MAX_PIXELS:,}.")
    return (width, height) if sideways else (height, width)


def fitting_png(read: Callable[[Path], np.ndarray], path: Path, size: tuple[int, int] | None) -> dict[str, Any]:
    """Read a mask and return it as an `Image` feature keeps it.

    Args:
        read (`Callable`):
            `read_lesion_mask` or `read_class_mask`.
        path (`Path`):
            The mask.
        size (`tuple[int, int]`, *optional*):
            Height and width of the upright photo; None if the photo cannot be read.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If the mask cannot be read or is not of the size of its photo.
    """
    mask = read(path)
    if size is not None and mask.shape != size:
        (height, width), (photo_height, photo_width) = mask.shape, size
        raise ValueError(
            f"{path} must be of the size of its upright photo, {photo_height} x {photo_width} (height x width), "
            f"but is {height} x {width}."
        )
    return encode_png(mask)
