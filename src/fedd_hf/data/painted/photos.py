"""Painted photographs whose segmentation map is known exactly: for tests, demo and quickstart, no patient."""

from __future__ import annotations

import datasets
import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from fedd_hf.data.masks import encode_png
from fedd_hf.data.schema import make_dataset
from fedd_hf.labels import SkinTone

from .layout import BACKGROUND, LESION, MARKER, RULER, SKIN, check_size, paint_mask
from .lesions import paint_lesion
from .rulers import paint_ruler
from .textures import (
    HAIR_COLOUR,
    blend,
    draw_skin_colour,
    lab_to_linear_rgb,
    linear_rgb_to_srgb,
    paint_cloth,
    paint_hair,
    paint_ink,
    paint_skin,
    smooth_noise,
    unit_grid,
)

__all__ = ["paint_dataset", "paint_photo"]


def paint_dataset(num_per_tone: int, seed: int, size: int = 256, malignant_fraction: float = 0.5) -> datasets.Dataset:
    """Paint a tone-balanced dataset of photos with their segmentation maps.

    Row `i` has skin tone `i % 3` and its own generator, so that it is the same however many rows are painted, and any
    whole number of three rows from the start holds each tone equally often.

    Args:
        num_per_tone (`int`):
            Photos of each of the three skin tones.
        seed (`int`):
            Not negative. Rows of different seeds have nothing in common.
        size (`int`, *optional*, defaults to 256):
            Side of the square photos in pixels, at least 32.
        malignant_fraction (`float`, *optional*, defaults to 0.5):
            Share of malignant lesions in [0, 1], the same within every skin tone.

    Returns:
        `datasets.Dataset` with the columns of [`~fedd_hf.data.schema.FEATURES`].

    Example:
        >>> dataset = paint_dataset(num_per_tone=1, seed=7, size=64)
        >>> dataset[0]["image_id"], dataset[0]["mask"].size
        ('painted-0007-000000', (64, 64))
    """
    if num_per_tone < 1:
        raise ValueError(f"`num_per_tone` must be at least 1, got {num_per_tone}.")
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    if not 0.0 <= malignant_fraction <= 1.0:
        raise ValueError(f"`malignant_fraction` must lie in [0, 1], got {malignant_fraction}.")
    check_size(size)
    indices = tqdm(range(len(SkinTone) * num_per_tone), desc="Painting", unit="photo", leave=False)
    rows = (_paint_row(seed, index, size, malignant_fraction) for index in indices)
    return make_dataset(rows, source="painted")


def _paint_row(seed: int, index: int, size: int, malignant_fraction: float) -> dict:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    order, tone_index = divmod(index, len(SkinTone))
    malignant = _num_malignant(order + 1, malignant_fraction) > _num_malignant(order, malignant_fraction)
    mask = paint_mask(rng, size, malignant=malignant)
    return {
        "image_id": f"painted-{seed:04d}-{index:06d}",
        "image": encode_png(paint_photo(mask, list(SkinTone)[tone_index], malignant, rng)),
        "mask": encode_png(mask),
        "skin_tone": tone_index,
        "malignant": malignant,
        "malignancy_policy": "painted",
    }


def _num_malignant(num_photos: int, malignant_fraction: float) -> int:
    """Return how many of the first photos of a tone are malignant; rounding mends products such as 0.29 * 100."""
    return int(round(num_photos * malignant_fraction, 6))


def paint_photo(mask: np.ndarray, tone: SkinTone, malignant: bool, rng: np.random.Generator) -> np.ndarray:
    """Paint a clinical photo whose true segmentation is `mask`.

    Materials are composed in CIELAB, light and lens in linear RGB. Borders between classes are about one pixel wide.

    Args:
        mask (`np.ndarray` of shape `(height, width)`):
            Class of each pixel: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin.
        tone (`SkinTone`):
            Group from which the colour of the skin is drawn.
        malignant (`bool`):
            Whether the lesion has the colours and structures of malignant lesions (C and D of the ABCD rule).
        rng (`np.random.Generator`):
            Source of every choice.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, `uint8`: the photo in sRGB.
    """
    if mask.ndim != 2 or not np.isin(mask, range(5)).all():
        raise ValueError(
            f"`mask` must be a map of class ids 0..4, got shape {mask.shape} with {np.unique(mask)[-5:]}."
        )
    light_angle = rng.uniform(0.0, 2.0 * np.pi)
    colour = draw_skin_colour(rng, tone)
    skin = _soften_out_of_focus(rng, paint_skin(rng, mask.shape, colour), mask == LESION)
    lesion = paint_lesion(rng, skin, mask == LESION, colour, malignant, light_angle)
    hair = paint_hair(rng, mask.shape)
    layers: dict[int, np.ndarray] = {
        BACKGROUND: paint_cloth(rng, mask.shape),
        LESION: blend(lesion, HAIR_COLOUR, hair),
        MARKER: blend(paint_ink(rng, skin), HAIR_COLOUR, hair),
        RULER: paint_ruler(rng, mask == RULER, mask == LESION),
        SKIN: blend(skin, HAIR_COLOUR, hair),
    }
    light = _light(rng, mask.shape, light_angle) * _shadows(mask, light_angle)
    return _expose(rng, lab_to_linear_rgb(_compose(mask, layers)) * light[..., None])


def _compose(mask: np.ndarray, layers: dict[int, np.ndarray]) -> np.ndarray:
    """Show each layer where the mask says so, mixing neighbours within half a pixel of their border."""
    lab = np.zeros((*mask.shape, 3))
    for label, layer in layers.items():
        lab += ndimage.gaussian_filter(1.0 * (mask == label), 0.45)[..., None] * layer
    return lab


def _soften_out_of_focus(rng: np.random.Generator, skin: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Blur with the distance from the lesion, on which a clinical photo is focused."""
    y, x = unit_grid(lesion.shape)
    tilt = rng.uniform(0.0, np.pi)
    towards_lens = y * np.cos(tilt) - x * np.sin(tilt)
    focus = towards_lens[lesion].mean() if lesion.any() else 0.0
    blur = np.clip(rng.uniform(0.0, 3.0) * (np.abs(towards_lens - focus) - 0.12), 0.0, 1.0)
    sigma = 1.6 * min(lesion.shape) / 256
    return blend(skin, ndimage.gaussian_filter(skin, (sigma, sigma, 0.0)), blur)


def _light(rng: np.random.Generator, shape: tuple[int, ...], light_angle: float) -> np.ndarray:
    """Return the illumination, about 1: its direction, the unevenness of a body, and the lens's vignette."""
    y, x = unit_grid(shape)
    towards_light = x * np.cos(light_angle) + y * np.sin(light_angle)
    uneven = 0.07 * smooth_noise(rng, shape, min(shape) / 5)
    vignette = rng.uniform(0.1, 0.6) * (x**2 + y**2)
    return np.clip(1.0 + rng.uniform(0.1, 0.55) * towards_light + uneven - vignette, 0.25, 1.6)


def _shadows(mask: np.ndarray, light_angle: float) -> np.ndarray:
    """Return the light that is left, in [0, 1], beside a ruler and where the body turns away or goes under cloth."""
    scale = min(mask.shape) / 256
    away = -3.0 * scale * np.array([np.sin(light_angle), np.cos(light_angle)])
    ruler = ndimage.gaussian_filter(1.0 * (mask == RULER), 2.5 * scale)
    shade = 0.45 * ndimage.shift(ruler, away, order=1, mode="nearest")
    if (mask == BACKGROUND).any():
        distance = ndimage.distance_transform_edt(mask != BACKGROUND) / scale
        shade += 0.35 * np.exp(-distance / 5.0) + 0.2 * np.exp(-distance / 25.0)
    return np.where((mask == RULER) | (mask == BACKGROUND), 1.0, 1.0 - np.minimum(shade, 0.8))


def _expose(rng: np.random.Generator, linear_rgb: np.ndarray) -> np.ndarray:
    """Return the 8-bit sRGB photo that a camera stores: exposure, white balance, correlated noise of the sensor."""
    gains = np.exp(rng.normal(0.06, 0.07) + rng.normal(0.0, [0.035, 0.01, 0.045]))
    exposed = np.clip(linear_rgb * gains, 0.0, None)
    noise = rng.standard_normal(exposed.shape) * np.sqrt(1e-5 + rng.uniform(1e-4, 6e-4) * exposed)
    exposed = np.clip(exposed + ndimage.gaussian_filter(noise, (0.5, 0.5, 0.0)), 0.0, 1.0)
    return linear_rgb_to_srgb(exposed)
