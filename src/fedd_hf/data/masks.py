"""Masks as files of every source keep them -> PNG of class ids, at the size of the photo."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedd_hf.image_processing_fedd import FORMATS, IGNORE_INDEX
from fedd_hf.labels import PixelClass


def read_class_mask(path: str | Path) -> np.ndarray:
    """Read a map of class ids.

    Args:
        path (`str` or `Path`):
            Image of mode L or P whose pixels are class ids, or an `.npy` array of integers.

    Returns:
        `np.ndarray` of shape `(height, width)`, `uint8`: ids 0..4, and 255 where a pixel does not count.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If the file is damaged, or holds something else than class ids.
    """
    return check_class_ids(_read_pixels(path), str(path))


def check_class_ids(ids: np.ndarray, name: str) -> np.ndarray:
    """Return a map of class ids as `uint8`.

    Raises:
        ValueError: If `ids` holds something else than the class ids 0..4 and 255; `name` says whose they are.
    """
    if ids.dtype.kind not in "ui":
        raise ValueError(f"{name} must hold class ids, which are integers, but holds {ids.dtype}.")
    if ids.ndim != 2:
        raise ValueError(f"{name} must be of shape (height, width) with one class id per pixel, got {ids.shape}.")
    foreign = np.setdiff1d(ids, [*PixelClass, IGNORE_INDEX])
    if foreign.size:
        allowed = ", ".join(f"{kind:d} {kind.label}" for kind in PixelClass)
        raise ValueError(f"{name} may hold the class ids {allowed} and 255, found also {foreign[:10].tolist()}.")
    return ids.astype(np.uint8)


def read_lesion_mask(path: str | Path) -> np.ndarray:
    """Read a mask in which white is lesion; all else becomes skin.

    Returns:
        `np.ndarray` of shape `(height, width)`, `uint8`: 1 lesion, 4 skin.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If the file is damaged, in colour, or not black and white: a grey level between 10 % and 90 % on
            more than 5 % of the pixels is no mask, nor are bytes of 0 and 1. Blurred borders are cut at the middle.
    """
    pixels = _read_pixels(path)
    if pixels.ndim != 2 or pixels.dtype not in (bool, np.uint8):
        raise ValueError(f"{path} must be a black and white image, got {pixels.dtype} of shape {pixels.shape}.")
    white = 1 if pixels.dtype == bool else 255
    if pixels.max() == 1 < white:
        raise ValueError(f"{path} must be black and white, 0 and {white}, but its highest value is 1.")
    if np.mean((pixels > 0.1 * white) & (pixels < 0.9 * white)) > 0.05:
        raise ValueError(f"{path} must be black and white, 0 and {white}, but is a picture of many greys.")
    return np.where(pixels > white / 2, PixelClass.LESION, PixelClass.SKIN).astype(np.uint8)


def _read_pixels(path: str | Path) -> np.ndarray:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no mask file at {path}.")
    try:
        if Path(path).suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(image)
    except Exception as error:  # decoders raise a dozen kinds of error on damaged files
        raise ValueError(f"Cannot read the mask {path}: {str(error) or type(error).__name__}") from error


def encode_png(pixels: np.ndarray | Image.Image, compress_level: int = 6) -> dict[str, Any]:
    """Return pixels as an `Image` feature keeps them: the bytes of a PNG without metadata.

    `compress_level` 1 is several times faster than 6, for what stays in memory.
    """
    buffer = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format="PNG", icc_profile=None, compress_level=compress_level)  # a profile may name a camera
    return {"bytes": buffer.getvalue(), "path": None}


def hash_mask(mask: np.ndarray) -> str:
    """Return the SHA-256 of the class ids of a mask, one byte a pixel, row by row."""
    return hashlib.sha256(np.ascontiguousarray(mask, dtype=np.uint8).tobytes()).hexdigest()
