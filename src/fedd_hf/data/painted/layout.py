"""Segmentation maps with the class shares and lesion sizes of DDI: what a painted photo shows, and where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from fedd_hf.labels import PixelClass

from .textures import smooth_noise, unit_grid

BACKGROUND, LESION, MARKER, RULER, SKIN = PixelClass

MIN_SIZE = 32
MIN_LESION_PIXELS = 9
STROKE_OVERSAMPLING = 4

# Chosen to meet the released masks of DDI: background covers 10.8 %, lesion 1.5 % (median 0.61 %, at most 31 %),
# marker 0.44 %, ruler 9.2 %; 22 masks of 30 show a ruler and 21 a marker.
BACKGROUND_RATE, RULER_RATE, MARKER_RATE = 0.61, 0.735, 0.70
PEN_WIDTHS = (0.008, 0.015)
LESION_MEDIAN_AREA, LESION_LOG_SPREAD, LESION_MAX_AREA = 0.0061, 1.34, 0.31
MALIGNANT_LOG_SHIFT = 0.15

# Irregularity of the border (median, log-spread), its decay over harmonics, largest elongation.
BENIGN_BORDER = (0.045, 0.45, 1.7, 1.45)
MALIGNANT_BORDER = (0.11, 0.40, 1.35, 1.8)
OUTLINE_ANGLES = np.linspace(0.0, 2.0 * np.pi, 360, endpoint=False)


def paint_mask(rng: np.random.Generator, size: int = 256, *, malignant: bool = False) -> np.ndarray:
    """Paint a segmentation map.

    Args:
        rng (`np.random.Generator`):
            Source of every choice.
        size (`int`, *optional*, defaults to 256):
            Side in pixels, at least 32. The lesion is drawn with an area of at least 9 pixels, so that small lesions
            are relatively larger in small maps.
        malignant (`bool`, *optional*, defaults to `False`):
            Malignant lesions tend to be larger, less symmetric and less regular at the border (A and B of the ABCD
            rule); the two kinds overlap.

    Returns:
        `np.ndarray` of shape `(size, size)`, `uint8`: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin. The lesion is
        always there and never touches the border.
    """
    check_size(size)
    return paint_surroundings(rng, _lesion_region(rng, size, malignant))


def paint_surroundings(
    rng: np.random.Generator, lesion: np.ndarray, pen_widths: tuple[float, float] = PEN_WIDTHS
) -> np.ndarray:
    """Paint a segmentation map around a lesion: skin and, as often as in DDI, background, a ruler and a marker.

    Args:
        rng (`np.random.Generator`):
            Source of every choice.
        lesion (`np.ndarray` of shape `(size, size)`, `bool`):
            At least one pixel must be true. The lesion may touch the border; nothing covers it, and where it leaves
            no room for a ruler there is none, or what of it still fits.
        pen_widths (`tuple[float, float]`, *optional*):
            Least and greatest width of a pen stroke, in sides of the picture: broader for photos taken from nearer.

    Returns:
        `np.ndarray` of shape `(size, size)`, `uint8`: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin.
    """
    mask = np.full(lesion.shape, SKIN, dtype=np.uint8)
    if rng.random() < BACKGROUND_RATE:
        mask[_background_region(rng, lesion)] = BACKGROUND
    if rng.random() < RULER_RATE:
        mask[_ruler_region(rng, lesion)] = RULER
    if rng.random() < MARKER_RATE:
        mask[_marker_region(rng, lesion, pen_widths) & (mask == SKIN)] = MARKER
    mask[lesion] = LESION
    return mask


def check_size(size: int) -> None:
    """Raise `ValueError` if `size` is too small for a photo."""
    if size < MIN_SIZE:
        raise ValueError(f"`size` must be at least {MIN_SIZE} pixels, got {size}.")


def _lesion_region(rng: np.random.Generator, size: int, malignant: bool) -> np.ndarray:
    shift = MALIGNANT_LOG_SHIFT if malignant else -MALIGNANT_LOG_SHIFT
    area = LESION_MEDIAN_AREA * np.exp(rng.normal(shift, LESION_LOG_SPREAD))
    radii = _lesion_outline(rng, malignant) * np.sqrt(
        np.clip(area, MIN_LESION_PIXELS / size**2, LESION_MAX_AREA) / np.pi
    )
    outline = radii * np.stack([np.sin(OUTLINE_ANGLES), np.cos(OUTLINE_ANGLES)])  # (y and x, num_angles)
    room = 0.5 - max(0.03, 2.0 / size)
    shrink = min(1.0, 2.0 * room / np.ptp(outline, axis=1).max())
    lowest, highest = -room - shrink * outline.min(axis=1), room - shrink * outline.max(axis=1)
    centre_y, centre_x = np.clip(rng.normal(0.0, 0.1, 2), lowest, highest)
    y, x = unit_grid((size, size))
    distances = np.hypot(y - centre_y, x - centre_x)
    borders = np.interp(np.arctan2(y - centre_y, x - centre_x), OUTLINE_ANGLES, shrink * radii, period=2.0 * np.pi)
    return (distances <= borders) | (distances == distances.min())


def _lesion_outline(rng: np.random.Generator, malignant: bool) -> np.ndarray:
    """Return the radius at each of `OUTLINE_ANGLES` of a closed curve that encloses the area of a unit disc."""
    median, log_spread, decay, max_elongation = MALIGNANT_BORDER if malignant else BENIGN_BORDER
    harmonics = np.arange(2, 20)[:, None]
    amplitudes = median * np.exp(rng.normal(0.0, log_spread)) * (harmonics / 2.0) ** -decay
    waves = np.cos(harmonics * OUTLINE_ANGLES + rng.uniform(0.0, 2.0 * np.pi, harmonics.shape))
    radii = np.clip(1.0 + (amplitudes * rng.normal(size=harmonics.shape) * waves).sum(axis=0), 0.35, 2.2)
    elongation, turned = np.sqrt(rng.uniform(1.0, max_elongation)), OUTLINE_ANGLES - rng.uniform(0.0, np.pi)
    radii /= np.hypot(np.cos(turned) / elongation, np.sin(turned) * elongation)
    return radii / np.sqrt(np.mean(radii**2))


def _background_region(rng: np.random.Generator, lesion: np.ndarray) -> np.ndarray:
    """Return what lies beyond the body: past an edge, in a corner, on both sides of a limb, around a rounded part."""
    y, x = _rotate(*unit_grid(lesion.shape), rng.uniform(0.0, 2.0 * np.pi))
    y = y + rng.normal(0.0, 0.35) * x**2
    edge, corner = y, -np.logaddexp(-10.0 * y, -10.0 * x) / 10.0
    limb, rounded = np.abs(y + rng.normal(0.0, 0.1)), np.hypot(y + 0.4, x)
    field = (edge, corner, limb, rounded)[rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])]
    field = field + rng.uniform(0.002, 0.02) * smooth_noise(rng, lesion.shape, lesion.shape[0] / 10)
    near_lesion = ndimage.distance_transform_edt(~lesion) < 0.04 * lesion.shape[0]
    return field > max(np.quantile(field, 1.0 - rng.beta(1.4, 5.0)), field[near_lesion].max())


def _ruler_region(rng: np.random.Generator, lesion: np.ndarray) -> np.ndarray:
    """Return a strip or, more rarely, an L beside the lesion, cut off where it leaves the picture."""
    v, u = _rotate(*unit_grid(lesion.shape), rng.integers(4) * np.pi / 2 + rng.normal(0.0, 0.12))
    v = v + rng.normal(0.0, 0.04) * u**2
    width, length, corner = rng.uniform(0.10, 0.18), rng.uniform(0.65, 1.3), rng.choice([0.004, 0.02])
    across = _beside(rng, v[lesion].max(), width)
    if rng.random() >= 0.1:
        start = rng.normal(0.0, 0.12) - length / 2
        return _box_distance(u, v, (start, start + length), across, corner) < 0.0
    along = _beside(rng, u[lesion].max(), width)
    strip = _box_distance(u, v, (along[1] - length, along[1]), across, corner)
    arm = _box_distance(u, v, along, (across[1] - 0.8 * length, across[1]), corner)
    return np.minimum(strip, arm) < 0.0


def _beside(rng: np.random.Generator, lesion_end: float, width: float) -> tuple[float, float]:
    """Return where a ruler starts and ends: past the lesion, most of its width in the picture if there is room."""
    wanted = lesion_end + rng.uniform(0.03, 0.28)
    start = max(lesion_end + 0.02, min(wanted, 0.5 - rng.uniform(0.6, 1.0) * width))
    return start, start + width


def _box_distance(
    u: np.ndarray, v: np.ndarray, u_range: tuple[float, float], v_range: tuple[float, float], corner: float
) -> np.ndarray:
    """Return the signed distance to a rectangle with rounded corners, negative inside."""
    beyond_u = np.abs(u - sum(u_range) / 2) - (u_range[1] - u_range[0]) / 2 + corner
    beyond_v = np.abs(v - sum(v_range) / 2) - (v_range[1] - v_range[0]) / 2 + corner
    outside = np.hypot(np.maximum(beyond_u, 0.0), np.maximum(beyond_v, 0.0))
    return outside + np.minimum(np.maximum(beyond_u, beyond_v), 0.0) - corner


def _rotate(y: np.ndarray, x: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)


# A stroke has shape `(num_points, 2)`: x and y from the lesion's centre, in sides of the picture.
Motif = Callable[[np.random.Generator, float], list[np.ndarray]]


def _marker_region(rng: np.random.Generator, lesion: np.ndarray, pen_widths: tuple[float, float]) -> np.ndarray:
    """Return the strokes of a surgical pen around the lesion, never on it."""
    size = lesion.shape[0]
    y, x = unit_grid(lesion.shape)
    centre = np.array([x[lesion].mean(), y[lesion].mean()])
    reach = np.hypot(x[lesion] - centre[0], y[lesion] - centre[1]).max() + rng.uniform(0.03, 0.07)
    motifs = MARKINGS[rng.choice(len(MARKINGS), p=MARKING_RATES)]
    strokes = [centre + stroke for motif in motifs for stroke in motif(rng, reach)]
    width = max(rng.uniform(*pen_widths), 1.2 / size)
    return _draw_strokes(strokes, width, size) & ~ndimage.binary_dilation(lesion)


def _draw_strokes(strokes: list[np.ndarray], width: float, size: int) -> np.ndarray:
    side = STROKE_OVERSAMPLING * size
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for stroke in strokes:
        points = (stroke + 0.5) * side
        draw.line([tuple(point) for point in points], fill=255, width=round(width * side), joint="curve")
        for x, y in points[[0, -1]]:
            draw.circle((x, y), width * side / 2, fill=255)
    return np.asarray(canvas.reduce(STROKE_OVERSAMPLING)) > 110


def _directions(angles: float | np.ndarray) -> np.ndarray:
    """Return unit vectors x, y along a new last axis."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _arcs(rng: np.random.Generator, reach: float) -> list[np.ndarray]:
    """Circle the lesion, in one go or in a few dashes."""
    num_arcs = rng.choice([1, 1, 2, 4, 8])
    span = 2.0 * np.pi / num_arcs * rng.uniform(0.5, 1.02 if num_arcs == 1 else 0.75)
    starts = rng.uniform(0.0, 2.0 * np.pi) + 2.0 * np.pi * np.arange(num_arcs) / num_arcs
    ellipse, wobble, phase = rng.uniform(0.85, 1.15), rng.uniform(0.0, 0.06), rng.uniform(0.0, 2.0 * np.pi)
    angles = starts[:, None] + np.linspace(0.0, span, 40)
    radii = reach * (1.0 + wobble * (1.0 + np.sin(2.0 * angles + phase)))
    return list(radii[..., None] * _directions(angles) * [ellipse, 1.0 / ellipse])


def _dots(rng: np.random.Generator, reach: float) -> list[np.ndarray]:
    """Set a few dots or short dashes around the lesion."""
    num_dots = rng.integers(2, 7)
    angles = rng.uniform(0.0, 2.0 * np.pi) + 2.0 * np.pi * np.arange(num_dots) / num_dots
    directions = _directions(angles + rng.normal(0.0, 0.2, num_dots))
    dash = rng.choice([0.003, 0.03])
    return [np.stack([reach * direction, (reach + dash) * direction]) for direction in directions]


def _arrow(rng: np.random.Generator, reach: float) -> list[np.ndarray]:
    """Point at the lesion."""
    angle, length = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.08, 0.16)
    tip = (reach + 0.03) * _directions(angle)
    shaft, barbs = length * _directions(angle), 0.35 * length * _directions(angle + np.array([-0.5, 0.5]))
    return [np.stack([tip, tip + line]) for line in (shaft, *barbs)]


def _initials(rng: np.random.Generator, reach: float) -> list[np.ndarray]:
    """Scribble two to four letter-like signs next to the lesion."""
    height, num_signs = rng.uniform(0.04, 0.08), int(rng.integers(2, 5))
    middle = (reach + (0.8 + 0.4 * num_signs) * height) * _directions(rng.uniform(0.0, 2.0 * np.pi))
    corners = np.array([(-0.3, -0.5), (0.3, -0.5), (-0.3, 0.5), (0.3, 0.5), (0.0, 0.0)])
    signs = []
    for place in np.arange(num_signs) - (num_signs - 1) / 2:
        joints = rng.permutation(corners)[: rng.integers(3, 6)]
        curve = ndimage.zoom(joints + rng.normal(0.0, 0.08, joints.shape), (6, 1), order=2)
        signs.append(middle + height * (curve + [0.95 * place, 0.0]))
    return signs


MARKINGS: tuple[tuple[Motif, ...], ...] = (
    (_arcs,),
    (_dots,),
    (_initials,),
    (_arrow,),
    (_arcs, _initials),
    (_dots, _initials),
    (_arcs, _arrow),
)
MARKING_RATES = (0.34, 0.16, 0.05, 0.05, 0.22, 0.08, 0.10)
