"""Painting over parts of a photo with what is around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

HALO = 1 / 64  # of the side: how far the blurred edge and the shadow of a mark reach
NEAREST_BLUR = 1 / 32  # of the side: the finest scale at which colours are taken from the surroundings
ENOUGH = 0.2  # of a window
CONTROL_SCALE = 1 / 24  # of the side: how large the patches of the control are


def widen(marks: np.ndarray, surroundings: Sequence[np.ndarray]) -> np.ndarray:
    """Return marks with the rim into which their blurred edges and shadows reach.

    Args:
        marks (`np.ndarray` of shape `(height, width)`, bool):
            Pixels of marks.
        surroundings (`list[np.ndarray]`, each of shape `(height, width)`, bool):
            What a rim may take, such as skin and background. If nothing of them would be left, there is no rim.
    """
    around = np.any(surroundings, axis=0)
    steps = max(1, round(HALO * min(marks.shape)))
    widened = marks | (ndimage.binary_dilation(marks, iterations=steps) & around)
    return widened if (around & ~widened).any() else marks


def paint_over(pixels: np.ndarray, region: np.ndarray, surroundings: Sequence[np.ndarray]) -> np.ndarray:
    """Paint a region with the colours around it, weighted by nearness, and with their grain.

    Each pixel becomes what is nearest to it: skin, or cloth where a ruler lies on cloth. Colours are means under a
    Gaussian window, the narrowest of rising widths that reaches enough. What remains beside these means, the grain,
    is mirrored into the region, so that a painted patch is not smoother than its surroundings.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8):
            The photo.
        region (`np.ndarray` of shape `(height, width)`, bool):
            What to paint over.
        surroundings (`list[np.ndarray]`, each of shape `(height, width)`, bool):
            Where colours are taken from, each kind apart: pixels of skin, of background. The region is left out.
    """
    kinds = [kind & ~region for kind in surroundings if (kind & ~region).any()]
    distances = np.stack([ndimage.distance_transform_edt(~kind) for kind in kinds])
    nearest = distances.argmin(axis=0)
    painted = pixels.astype(float)
    for index, kind in enumerate(kinds):
        part = region & (nearest == index)
        if part.any():
            painted[part] = _continue(pixels.astype(float), kind)[part]
    return np.clip(np.round(painted), 0, 255).astype(np.uint8)


def choose_skin(skin: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Choose so many pixels of skin in smooth patches at random places, at most half of the skin.

    Args:
        skin (`np.ndarray` of shape `(height, width)`, bool):
            Pixels of skin.
        number (`int`):
            How many to choose.
        rng (`np.random.Generator`):
            Source of the places.
    """
    field = ndimage.gaussian_filter(rng.standard_normal(skin.shape), CONTROL_SCALE * min(skin.shape))
    candidates = np.flatnonzero(skin)
    order = np.argsort(-field.flat[candidates], kind="stable")
    chosen = np.zeros(skin.shape, dtype=bool)
    chosen.flat[candidates[order[: min(number, len(candidates) // 2)]]] = True
    return chosen


def _continue(pixels: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Continue the colours and the grain of one kind of pixels beyond its border."""
    colours = _smooth(pixels, kind, NEAREST_BLUR * min(kind.shape))
    return colours + _mirror(np.where(kind[..., None], pixels - colours, 0.0), kind)


def _smooth(pixels: np.ndarray, kind: np.ndarray, width: float) -> np.ndarray:
    """Return the mean colour around each pixel; where a window sees too little of the kind, that of a wider one."""
    colours = np.broadcast_to(pixels[kind].mean(axis=0), pixels.shape)
    widths = [width]
    while widths[-1] < max(kind.shape) / 4:
        widths.append(2 * widths[-1])
    for sigma in reversed(widths):
        seen = ndimage.gaussian_filter(kind.astype(float), sigma)
        total = ndimage.gaussian_filter(pixels * kind[..., None], (sigma, sigma, 0))
        trust = np.clip(seen / ENOUGH, 0, 1)[..., None]
        colours = trust * total / np.maximum(seen, 1e-9)[..., None] + (1 - trust) * colours
    return colours


def _mirror(grain: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Take the grain of each pixel from as far inside the border as it lies outside, else from the border itself."""
    nearest = np.stack(ndimage.distance_transform_edt(~kind, return_distances=False, return_indices=True))
    limits = np.array(kind.shape)[:, None, None] - 1
    mirrored = np.clip(2 * nearest - np.indices(kind.shape), 0, limits)
    return grain[tuple(np.where(kind[tuple(mirrored)], mirrored, nearest))]
