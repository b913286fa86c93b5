"""Noise, colour, and the materials around a painted lesion, in CIELAB: skin, hair, pen ink and cloth."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fedd_hf.labels import SkinTone

# Individual typology angle (mean, spread, lowest, highest), a* and b* of each group. Source: Chardon 1991 and
# Del Bino 2013 for the angle, which is above 41 degrees in light skin and below 10 in brown and dark skin.
SKIN_COLOURS = {
    SkinTone.I_II: (52.0, 6.0, 38.0, 61.0, 11.5, 16.0),
    SkinTone.III_IV: (27.0, 8.0, 10.0, 43.0, 13.5, 19.0),
    SkinTone.V_VI: (-27.0, 16.0, -55.0, 12.0, 12.5, 17.5),
}
HAIR_COLOUR = np.array([14.0, 3.0, 4.0])
INKS = {"purple": (24.0, 30.0, -38.0), "blue": (26.0, 12.0, -42.0), "black": (13.0, 2.0, -6.0)}
CLOTHS = {
    "surgical blue": (50.0, -8.0, -28.0),
    "surgical green": (48.0, -26.0, 6.0),
    "white": (86.0, -0.5, -1.0),
    "grey": (62.0, 0.0, -1.0),
    "denim": (32.0, 0.0, -18.0),
    "black": (12.0, 0.5, -1.0),
    "red": (38.0, 42.0, 20.0),
    "teal": (36.0, -16.0, -10.0),
}

HAIR_OVERSAMPLING = 4

# Source: IEC 61966-2-1.
WHITE_XYZ = np.array([0.95047, 1.0, 1.08883])
XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def unit_grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return y and x of each pixel's centre, 0 at the picture's centre, 1 being its shorter side."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    return (y - (height - 1) / 2) / min(shape), (x - (width - 1) / 2) / min(shape)


def detail_scale(shape: tuple[int, ...]) -> float:
    """Return the size of a picture relative to 256 pixels, for which details are given in pixels."""
    return min(shape[:2]) / 256


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], grain: float, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Return Gaussian noise with zero mean and unit variance, smooth over `grain` pixels.

    It is `stretch` times longer along `angle`. Filtering in Fourier space makes the cost independent of the grain.
    """
    height, width = shape
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    response = np.exp(-2.0 * (np.pi * grain) ** 2 * ((stretch * along) ** 2 + across**2))
    response[0, 0] = 0.0
    spectrum = response * (rng.standard_normal(response.shape) + 1j * rng.standard_normal(response.shape))
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return noise / max(noise.std(), 1e-9)


def soft_step(values: np.ndarray, softness: float) -> np.ndarray:
    """Return a step from 0 to 1 at zero, about `4 * softness` wide."""
    return 1.0 / (1.0 + np.exp(-np.clip(values / softness, -30.0, 30.0)))


def valleys(values: np.ndarray, width: float) -> np.ndarray:
    """Return 1 where noise crosses zero, which draws a net of thin lines, and 0 further off than `width`."""
    return np.exp(-((values / width) ** 2))


def blend(below: np.ndarray, above: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Lay colours over colours of shape `(height, width, 3)` where `coverage` of shape `(height, width)` is 1."""
    return below + coverage[..., None] * (above - below)


def lab_to_linear_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB (D65) of shape `(height, width, 3)` to linear sRGB, about [0, 1]. Source: IEC 61966-2-1."""
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * WHITE_XYZ
    return xyz @ np.transpose(XYZ_TO_RGB)


def linear_rgb_to_srgb(linear_rgb: np.ndarray) -> np.ndarray:
    """Convert linear sRGB to 8-bit sRGB; what is darker than black or brighter than white is cut off."""
    linear_rgb = np.clip(linear_rgb, 0.0, 1.0)
    encoded = np.where(linear_rgb <= 0.0031308, 12.92 * linear_rgb, 1.055 * linear_rgb ** (1 / 2.4) - 0.055)
    return np.round(255.0 * encoded).astype(np.uint8)


def draw_colour(rng: np.random.Generator, table: dict[str, tuple[float, float, float]], spread: float) -> np.ndarray:
    """Draw a colour of a table and vary it."""
    colours = list(table.values())
    return np.array(colours[rng.integers(len(colours))]) + rng.normal(0.0, spread, 3)


def draw_skin_colour(rng: np.random.Generator, tone: SkinTone) -> np.ndarray:
    """Draw L*, a*, b* of one person's skin. Neighbouring groups overlap a little, as they do in clinic."""
    mean, spread, lowest, highest, redness, yellowness = SKIN_COLOURS[tone]
    angle = np.deg2rad(np.clip(rng.normal(mean, spread), lowest, highest))
    a, b = rng.normal(redness, 1.5), rng.normal(yellowness, 1.5)
    return np.array([50.0 + b * np.tan(angle), a, b])


def paint_skin(rng: np.random.Generator, shape: tuple[int, ...], colour: np.ndarray) -> np.ndarray:
    """Paint healthy skin: mottled, blotched, lined, porous, glossy and freckled."""
    lab = colour + _mottling(rng, shape)
    lab += _blotches(rng, shape)[..., None] * [-1.5, 5.0 * (colour[0] / 70.0) ** 2, 0.5]
    lab[..., 0] += _lines_and_pores(rng, shape) * colour[0] / 60.0
    lab += _gloss(rng, shape)[..., None] * [1.0, -0.15, -0.25]
    lab += _freckles(rng, shape)[..., None] * [-5.0, 1.5, 2.0]
    return lab


def _mottling(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    scales = ((30.0, (1.4, 0.9, 0.9)), (9.0, (0.8, 0.8, 0.5)), (2.5, (0.7, 0.5, 0.3)))
    channels = [
        sum(spreads[channel] * smooth_noise(rng, shape, grain * detail_scale(shape)) for grain, spreads in scales)
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def _blotches(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    strength, grain = rng.choice([0.2, 0.6, 1.2]), rng.uniform(8, 22) * detail_scale(shape)
    return strength * soft_step(smooth_noise(rng, shape, grain) - 1.2, 0.3)


def _lines_and_pores(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return the shading of nets of skin lines, which run along one direction, and of pores."""
    scale, direction, depth = detail_scale(shape), rng.uniform(0.0, np.pi), rng.uniform(0.5, 1.6)
    shading = -2.0 * np.maximum(smooth_noise(rng, shape, 0.8 * scale) - 1.9, 0.0)
    for grain, stretch, strength in ((1.6, 1.6, 1.3), (3.2, 3.0, 1.5), (1.6, 1.0, 0.8)):
        angle = direction + rng.normal(0.0, 0.3)
        shading -= strength * valleys(smooth_noise(rng, shape, grain * scale, stretch=stretch, angle=angle), 0.22)
    return depth * shading


def _gloss(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return the shine of damp skin, broken up by its relief."""
    scale = detail_scale(shape)
    place = np.maximum(smooth_noise(rng, shape, rng.uniform(15, 35) * scale) - 0.5, 0.0)
    return rng.uniform(0.0, 7.0) * place * (1.0 + 0.18 * smooth_noise(rng, shape, 1.2 * scale))


def _freckles(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return the strength in [0, 1] of a few spots too faint to be taken for the lesion."""
    y, x = unit_grid(shape)
    spots = np.zeros(shape)
    for _ in range(rng.choice([0, 0, 3, 8, 20])):
        top, left, radius = *rng.uniform(-0.5, 0.5, 2), rng.uniform(0.004, 0.011)
        spots += rng.uniform(0.2, 1.0) * np.exp(-((y - top) ** 2 + (x - left) ** 2) / radius**2)
    return np.minimum(spots, 1.0)


def paint_hair(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return the coverage of body hair of shape `(height, width)`, none in half of the photos."""
    height, width = shape
    scale = detail_scale(shape)
    canvas = Image.new("L", (HAIR_OVERSAMPLING * width, HAIR_OVERSAMPLING * height))
    draw = ImageDraw.Draw(canvas)
    direction, curl, steps = rng.uniform(0.0, 2.0 * np.pi), rng.normal(0.0, 0.8), np.linspace(0.0, 1.0, 10)
    for _ in range(rng.choice([0, 0, 0, 8, 20, 45])):
        root, length = rng.uniform(0.0, 1.0, 2) * (width, height), scale * rng.lognormal(3.2, 0.4)
        angles = direction + rng.normal(0.0, 0.25) + (curl + rng.normal(0.0, 0.4)) * steps
        points = root + np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0) * length / len(steps)
        draw.line([tuple(point) for point in HAIR_OVERSAMPLING * points], fill=int(rng.integers(60, 190)), width=2)
    return min(1.0, scale + 0.1) * np.asarray(canvas.reduce(HAIR_OVERSAMPLING)) / 255.0


def paint_ink(rng: np.random.Generator, skin: np.ndarray) -> np.ndarray:
    """Paint skin under the ink of a surgical pen, which lets some of its texture and colour through."""
    shape, scale = skin.shape[:2], detail_scale(skin.shape)
    streaks = smooth_noise(rng, shape, 1.5 * scale) + smooth_noise(rng, shape, 8.0 * scale)
    return blend(skin, draw_colour(rng, INKS, 3.0), np.clip(rng.uniform(0.55, 0.95) + 0.08 * streaks, 0.3, 1.0))


def paint_cloth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Paint drape or clothing: folds at two scales and a weave."""
    scale, angle = detail_scale(shape), rng.uniform(0.0, np.pi)
    folds = 0.6 * smooth_noise(rng, shape, 11 * scale, stretch=4.0, angle=angle)
    folds += 0.4 * smooth_noise(rng, shape, 4 * scale, stretch=6.0, angle=angle + rng.normal(0.0, 0.3))
    weave = smooth_noise(rng, shape, 0.6 * scale, stretch=2.5, angle=angle + np.pi / 2)
    shading = 1.0 + rng.uniform(0.08, 0.2) * folds + 0.02 * weave
    return shading[..., None] * draw_colour(rng, CLOTHS, 3.0)
