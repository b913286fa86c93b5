"""Real photos with a lesion mask -> composite five-class data: cloth, ruler and pen marks are painted over skin."""

from __future__ import annotations

import logging
from functools import partial
from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from fedd_hf.data.masks import encode_png
from fedd_hf.data.painted.layout import BACKGROUND, LESION, MARKER, RULER, SKIN, check_size, paint_surroundings
from fedd_hf.data.painted.rulers import paint_ruler
from fedd_hf.data.painted.textures import (
    WHITE_XYZ,
    XYZ_TO_RGB,
    detail_scale,
    lab_to_linear_rgb,
    linear_rgb_to_srgb,
    paint_cloth,
    paint_ink,
)
from fedd_hf.data.schema import make_dataset
from fedd_hf.image_processing_fedd import read_image
from fedd_hf.labels import PixelClass

logger = logging.getLogger(__name__)

# A ruler is kept if at least this much of it is in the picture: half its visible width, and its area, in sides.
MIN_RULER_DEPTH, MIN_RULER_AREA = 0.045, 0.03
MAX_DRAWS = 20
PEN_WIDTHS = (0.011, 0.026)  # in sides, twice the painter's: phones came nearer than the cameras of DDI

# Skin under the light for which the painter's colours are meant, and how far a photo that differs from it is taken to
# be lit otherwise (1) rather than to show other skin (0): for the exposure, and for the colour of the light.
REFERENCE_SKIN = np.array([[[62.0, 12.0, 17.0]]])
EXPOSURE_SHARE, WHITE_BALANCE_SHARE = 0.6, 0.3

# In pixels of a 256-pixel photo.
SHADOW_SHIFT, SHADOW_BLUR, SHADOW_STRENGTH = 3.0, 2.5, 0.5
SHADOW_FREE = 4.0  # around the lesion
BORDER_BLUR, BORDER_RADIUS = 0.6, 2  # in pixels of any photo


def paint_composite(dataset: datasets.Dataset, seed: int = 0, size: int = 256) -> datasets.Dataset:
    """Paint cloth, rulers and pen marks over the photos of a dataset that have a lesion mask.

    Photo and mask are squashed to a square, as [`FEDDImageProcessor`] does by default. Every row has a generator of
    `seed` and its `image_id`, so that it is the same whatever the other rows are. Rows without a lesion mask are left
    out.

    Args:
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`], whose masks hold lesion and skin only.
        seed (`int`, *optional*, defaults to 0):
            Not negative.
        size (`int`, *optional*, defaults to 256):
            Side of the square photos in pixels, at least 32.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`]; `source` is `composite-` and the
        source of the photo. Photos are stored as PNG, so that lesion and skin are the photo's own to the last bit; at
        256 pixels that is 90 kB each, three times the size of a JPEG of quality 95.

    Raises:
        ValueError: If `seed` or `size` is too small, a photo is damaged, a mask holds other classes than lesion and
            skin, or no row has a lesion mask.
    """
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    check_size(size)
    encoded = dataset.cast_column("image", datasets.Image(decode=False))
    rows = [_composite_row(row, seed, size) for row in tqdm(encoded, desc="Composites", unit="photo", leave=False)]
    painted = [row for row in rows if row is not None]
    if len(painted) < len(rows):
        logger.info("%d of %d photos have no lesion mask and are left out.", len(rows) - len(painted), len(rows))
    return make_dataset(painted, source="composite")


def _composite_row(row: dict[str, Any], seed: int, size: int) -> dict[str, Any] | None:
    if row["mask"] is None:
        return None
    mask = np.asarray(row["mask"].resize((size, size), Image.Resampling.NEAREST))
    if not (mask == LESION).any():
        return None
    photo = _read_photo(row).resize((size, size), Image.Resampling.BILINEAR)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(row["image_id"].encode())))
    image, mask = paint_over(np.asarray(photo), mask, rng)
    return row | {"image": encode_png(image), "mask": encode_png(mask), "source": f"composite-{row['source']}"}


def _read_photo(row: dict[str, Any]) -> Image.Image:
    cell = row["image"]
    return read_image(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]), name=row["image_id"])


def paint_over(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint cloth, a ruler and pen marks over the skin of a photo, each as often as DDI shows it.

    They are lit as the skin of the photo is. The lesion keeps every pixel; skin changes only within two pixels of
    what is painted and in the shadow, at most 9 pixels wide in a photo of 256, of cloth and ruler.

    Args:
        photo (`np.ndarray` of shape `(size, size, 3)`, `uint8`):
            The photo in sRGB.
        mask (`np.ndarray` of shape `(size, size)`):
            Class of each pixel, 1 lesion or 4 skin. The lesion may touch the border.
        rng (`np.random.Generator`):
            Source of every choice.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: the photo, and its map of the ids 0 background, 1 lesion, 2 marker, 3 ruler
        and 4 skin, both of the shapes given and `uint8`. Where the lesion leaves no room for a ruler there is none.

    Raises:
        ValueError: If `photo` and `mask` are not square and of one size, or `mask` holds no lesion or other classes.
    """
    _check_photo(photo, mask)
    painted_mask = _draw_mask(rng, mask == LESION)
    linear_rgb = srgb_to_linear_rgb(photo)
    light = _estimate_light(linear_rgb, mask == SKIN)
    own = linear_rgb_to_lab(linear_rgb / light)
    grain = _grain(rng, own)
    layers = {
        BACKGROUND: paint_cloth(rng, mask.shape) + grain,
        MARKER: paint_ink(rng, own) + _relief(own),
        RULER: paint_ruler(rng, painted_mask == RULER, mask == LESION) + grain,
    }
    lit = lab_to_linear_rgb(_compose(painted_mask, layers, own)) * light * _shadows(painted_mask, light)[..., None]
    return np.where((mask == LESION)[..., None], photo, linear_rgb_to_srgb(lit)), painted_mask


def _check_photo(photo: np.ndarray, mask: np.ndarray) -> None:
    size = mask.shape[0]
    if mask.shape != (size, size) or photo.shape != (size, size, 3) or photo.dtype != np.uint8:
        raise ValueError(
            "`photo` and `mask` must be uint8 of shape (size, size, 3) and ids of shape (size, size), got "
            f"{photo.dtype} of shape {photo.shape} and {mask.shape}."
        )
    check_size(size)
    if not np.isin(mask, (LESION, SKIN)).all() or not (mask == LESION).any():
        raise ValueError(f"`mask` must hold {LESION:d} lesion and {SKIN:d} skin only, got {np.unique(mask)[:10]}.")


def _draw_mask(rng: np.random.Generator, lesion: np.ndarray) -> np.ndarray:
    """Draw what lies around the lesion again until the ruler, if there is one, shows enough to be known as one."""
    for _ in range(MAX_DRAWS):
        mask = paint_surroundings(rng, lesion, PEN_WIDTHS)
        ruler = mask == RULER
        depth = ndimage.distance_transform_edt(ruler).max() / len(mask)
        if not ruler.any() or (depth >= MIN_RULER_DEPTH and ruler.mean() >= MIN_RULER_AREA):
            return mask
    return np.where(ruler, SKIN, mask).astype(np.uint8)


def _estimate_light(linear_rgb: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Return the light of a photo, about 1, of shape `(height, width, 3)`: how bright, of what colour and from where.

    A photo of skin alone does not tell light from skin, so both take a share of the difference to ordinary skin.
    """
    seen = linear_rgb[skin] if skin.any() else linear_rgb.reshape(-1, 3)
    gains = np.maximum(np.median(seen, axis=0), 1e-3) / lab_to_linear_rgb(REFERENCE_SKIN)[0, 0]
    exposure = np.exp(np.log(gains).mean())
    colour = exposure**EXPOSURE_SHARE * (gains / exposure) ** WHITE_BALANCE_SHARE
    luminance = linear_rgb.mean(axis=-1)
    far, weight = partial(ndimage.gaussian_filter, sigma=len(skin) / 6, truncate=2.0), skin + 1e-3
    nearby = far(luminance * weight) / far(weight)
    uneven = np.clip(nearby / np.maximum(np.median(nearby), 1e-3), 0.5, 1.5)
    return uneven[..., None] * np.clip(colour, 0.2, 1.5)


def _grain(rng: np.random.Generator, own: np.ndarray) -> np.ndarray:
    """Return noise as strong as half of the photo's finest detail, the other half being the skin's."""
    finest = own - ndimage.gaussian_filter(own, (1.0, 1.0, 0.0))
    deviation = 0.5 * np.median(np.abs(finest), axis=(0, 1)) / 0.6745  # median of |x| of a standard Gaussian x
    noise = ndimage.gaussian_filter(rng.standard_normal(own.shape), (0.5, 0.5, 0.0))
    return noise * deviation / noise.std()


def _relief(own: np.ndarray) -> np.ndarray:
    """Return the fine texture and the shine of skin, which ink follows."""
    return (own - ndimage.gaussian_filter(own, (2.0, 2.0, 0.0))) * [0.8, 0.0, 0.0]


def _compose(mask: np.ndarray, layers: dict[PixelClass, np.ndarray], own: np.ndarray) -> np.ndarray:
    """Lay what is painted over the photo's `own` colours, mixing neighbours at their border."""
    lab = own.copy()
    for label, layer in layers.items():
        coverage = ndimage.gaussian_filter(1.0 * (mask == label), BORDER_BLUR, radius=BORDER_RADIUS)
        lab += coverage[..., None] * (layer - own)
    return lab


def _shadows(mask: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the light that is left, in [0, 1], on skin beside a ruler or cloth, away from the light."""
    scale, lies_on_skin = detail_scale(mask.shape), np.isin(mask, (BACKGROUND, RULER))
    slope = np.array([step.mean() for step in np.gradient(light.mean(axis=-1))])
    away = -SHADOW_SHIFT * scale * slope / max(np.hypot(*slope), 1e-9)
    height = ndimage.gaussian_filter(1.0 * lies_on_skin, SHADOW_BLUR * scale, truncate=2.0)
    shade = ndimage.shift(height, away, order=1, mode="nearest")
    near_lesion = np.minimum(ndimage.distance_transform_edt(mask != LESION) / (SHADOW_FREE * scale), 1.0)
    return np.where(lies_on_skin, 1.0, 1.0 - SHADOW_STRENGTH * shade * near_lesion)


def measure_classes(splits: dict[str, datasets.Dataset]) -> pd.DataFrame:
    """Measure what the masks of each split hold.

    Returns:
        `pd.DataFrame`: one row per `split` and `pixel_class`, with `pixel_share` of all pixels of the split, and
        `photos`, the number of photos that show the class.
    """
    return pd.concat([_measure_split(name, dataset) for name, dataset in splits.items()], ignore_index=True)


def _measure_split(name: str, dataset: datasets.Dataset) -> pd.DataFrame:
    masks = dataset.select_columns("mask")
    pixels = np.array([np.bincount(np.asarray(row["mask"]).ravel(), minlength=len(PixelClass)) for row in masks])
    return pd.DataFrame(
        {
            "split": name,
            "pixel_class": [kind.label for kind in PixelClass],
            "pixel_share": pixels.sum(axis=0) / pixels.sum(),
            "photos": (pixels > 0).sum(axis=0),
        }
    )


def linear_rgb_to_lab(linear_rgb: np.ndarray) -> np.ndarray:
    """Convert linear sRGB of shape `(height, width, 3)` to CIELAB (D65): the inverse of [`lab_to_linear_rgb`]."""
    xyz = linear_rgb @ np.linalg.inv(np.transpose(XYZ_TO_RGB)) / WHITE_XYZ
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def srgb_to_linear_rgb(srgb: np.ndarray) -> np.ndarray:
    """Convert 8-bit sRGB to linear sRGB in [0, 1]. Source: IEC 61966-2-1."""
    encoded = srgb / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
