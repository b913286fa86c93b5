"""Rulers of a painted photo, in CIELAB: ticks, numbers and print, laid into any region of a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .textures import blend, detail_scale, draw_colour, smooth_noise

FACES = {"white": (92.0, -0.5, 1.5), "cream": (87.0, 0.5, 11.0), "yellow": (82.0, 3.0, 38.0)}
PRINT_COLOUR = np.array([16.0, 0.0, -4.0])
PRINT_OVERSAMPLING = 4

# Millimetres: period and length of the ticks, distance of the numbers and of the print from the graduated edge.
TICKS = ((1, 2.2), (5, 3.2), (10, 4.4))
NUMBERS_AT, PRINT_FROM = 6.4, 9.5

# Each digit as one stroke, x in 0..1 and y in 0..2 downwards.
DIGITS = (
    ((0, 0), (1, 0), (1, 2), (0, 2), (0, 0)),
    ((0.5, 0), (0.5, 2)),
    ((0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)),
    ((0, 0), (1, 0), (1, 1), (0, 1), (1, 1), (1, 2), (0, 2)),
    ((0, 0), (0, 1), (1, 1), (1, 0), (1, 2)),
    ((1, 0), (0, 0), (0, 1), (1, 1), (1, 2), (0, 2)),
    ((1, 0), (0, 0), (0, 2), (1, 2), (1, 1), (0, 1)),
    ((0, 0), (1, 0), (1, 2)),
    ((0, 1), (0, 0), (1, 0), (1, 2), (0, 2), (0, 1), (1, 1)),
    ((1, 1), (0, 1), (0, 0), (1, 0), (1, 2), (0, 2)),
)


@dataclass(frozen=True)
class RulerFrame:
    """Position of each pixel on a ruler in millimetres, its graduated edge being the one towards the lesion.

    `along` runs along that edge and `inwards` away from it; `down` of shape `(height, width, 2)` is the unit vector
    x, y in which `inwards` grows. `width` is the ruler's, and a millimetre has `millimetre` pixels.
    """

    region: np.ndarray
    along: np.ndarray
    inwards: np.ndarray
    down: np.ndarray
    width: float
    millimetre: float


def paint_ruler(rng: np.random.Generator, region: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Paint a ruler, straight or L-shaped, wherever `region` is true."""
    uneven = smooth_noise(rng, region.shape, 20 * detail_scale(region.shape))
    face = draw_colour(rng, FACES, 1.5) + uneven[..., None] * [1.2, 0.1, 0.4]
    if not region.any():
        return face
    frame = _ruler_frame(region, lesion, rng.uniform(2.5, 4.2) * detail_scale(region.shape))
    coverage = np.maximum.reduce([_ticks(frame), _numbers(frame), _small_print(rng, frame)])
    return blend(face, PRINT_COLOUR, 0.85 * coverage)


def _ruler_frame(region: np.ndarray, lesion: np.ndarray, max_millimetre: float) -> RulerFrame:
    """Read the position of a ruler from its region: the edge nearest to a pixel says on which arm it lies."""
    angle = _edge_angle(region)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    y, x = np.mgrid[: region.shape[0], : region.shape[1]]
    seen = lesion if lesion.any() else np.ones_like(lesion)
    u, v = np.moveaxis(np.stack([x - x[seen].mean(), y - y[seen].mean()], axis=-1) @ axes.T, -1, 0)
    depth = ndimage.distance_transform_edt(region)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(depth, 1.0))
    slope_u, slope_v = np.moveaxis(np.stack([slope_x, slope_y], axis=-1) @ axes.T, -1, 0)
    is_upright = np.abs(slope_u) > np.abs(slope_v)
    faces_lesion = np.where(is_upright, slope_u * np.sign(u), slope_v * np.sign(v)) > 0.0
    millimetre = min(max_millimetre, depth.max() / 3)
    return RulerFrame(
        region=region,
        along=np.where(is_upright, v, u) / millimetre,
        inwards=(np.where(faces_lesion, depth, 2.0 * depth.max() - depth) - 0.5) / millimetre,
        down=np.where(is_upright[..., None], np.sign(u)[..., None] * axes[0], np.sign(v)[..., None] * axes[1]),
        width=2.0 * depth.max() / millimetre,
        millimetre=millimetre,
    )


def _edge_angle(region: np.ndarray) -> float:
    """Return the direction of a shape with right angles, in [-45, 45] degrees, modulo 90 of which its edges agree."""
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(1.0 * region, 2.0, mode="nearest"))
    slope = slope_x + 1j * slope_y
    return float(np.angle(np.sum(slope**4 / np.maximum(np.abs(slope), 1e-9) ** 3)) / 4)


def _to_nearest(values: np.ndarray, period: float) -> np.ndarray:
    """Return the signed distance to the nearest multiple of `period`."""
    return (values + period / 2) % period - period / 2


def _ticks(frame: RulerFrame) -> np.ndarray:
    """Return the coverage of the graduation, without millimetres if pixels cannot resolve them."""
    coverage = np.zeros(frame.along.shape)
    half_width = max(0.16 * frame.millimetre, 0.4)
    for period, length in TICKS:
        if period * frame.millimetre >= 2.4:
            distance = np.abs(_to_nearest(frame.along, period)) * frame.millimetre
            line = np.clip(0.5 + half_width - distance, 0.0, 1.0)
            coverage = np.maximum(coverage, line * (frame.inwards < length))
    return coverage


def _numbers(frame: RulerFrame) -> np.ndarray:
    """Return the coverage of the numbers, one at each centimetre."""
    height, width = frame.region.shape
    canvas = Image.new("L", (PRINT_OVERSAMPLING * width, PRINT_OVERSAMPLING * height))
    draw = ImageDraw.Draw(canvas)
    line_width = round(PRINT_OVERSAMPLING * max(0.35 * frame.millimetre, 0.8))
    for number, centre, axes in _number_places(frame):
        for place, digit in enumerate(str(number)):
            shift = 1.6 * (place - (len(str(number)) - 1) / 2)
            stroke = 1.3 * frame.millimetre * (np.array(DIGITS[int(digit)]) + [shift - 0.5, -1.0])
            points = PRINT_OVERSAMPLING * (centre + 0.5 + stroke @ axes)
            draw.line([tuple(point) for point in points], fill=255, width=line_width)
    return np.asarray(canvas.reduce(PRINT_OVERSAMPLING)) / 255.0


def _number_places(frame: RulerFrame) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each number with its centre and its axes to the right and down, all x, y; each arm counts from 1."""
    off_centre = np.maximum(np.abs(_to_nearest(frame.along, 10)), np.abs(frame.inwards - NUMBERS_AT))
    labels, num_places = ndimage.label(frame.region & (off_centre * frame.millimetre < 0.75), np.ones((3, 3)))
    arms: dict[tuple[float, ...], list[np.ndarray]] = {}
    for rows, columns in (np.nonzero(labels == place) for place in range(1, num_places + 1)):
        arms.setdefault(tuple(frame.down[rows[0], columns[0]]), []).append(np.array([columns.mean(), rows.mean()]))
    for (down_x, down_y), centres in arms.items():
        axes = np.array([[down_y, -down_x], [down_x, down_y]])
        for number, index in enumerate(np.argsort(np.array(centres) @ axes[0]), start=1):
            yield number, centres[index], axes


def _small_print(rng: np.random.Generator, frame: RulerFrame) -> np.ndarray:
    """Return the coverage of rows of print too small to read, behind the numbers."""
    row, behind = np.divmod(frame.inwards - PRINT_FROM, 3.2)
    words = np.repeat(rng.random((8, 64)) < 0.6, 8, axis=1) & (rng.random((8, 1)) < 0.6)
    letters = words * rng.random(words.shape)
    is_printed = (row >= 0) & (behind < 1.4) & (frame.inwards < frame.width - 2.0)
    return 0.8 * is_printed * letters[np.clip(row, 0, 7).astype(int), np.floor(frame.along / 0.45).astype(int) % 512]
