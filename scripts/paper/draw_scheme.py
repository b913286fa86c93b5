"""Figure 3: the path from photo to segmentation map and malignancy score, drawn from the real configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from fedd_hf.figures.overlays import LABELS, colour_map
from fedd_hf.figures.style import CLASS_COLOURS, WIDTH
from fedd_hf.labels import PixelClass

HEIGHT = 4.7  # inches; all places below are in inches from the lower left corner
FONT = 7.5
SMALL = 7.0
PHOTO = 0.9  # side of a picture
PHOTO_X, ENCODER_X, DECODER_X, BUS_X, HEADS_X = 0.58, 1.82, 3.4, 4.82, 5.92  # centres
HALF_BAR = 0.48  # half the width of a bar of as many pixels as the photo
BOTTOM, TOP = 1.0, 4.3  # of the UNet
HEAD_WIDTH = 1.84
READ, COMPUTED, LEVEL, DARK = "#D55E00", "#9DC3E0", "#C9CED3", "0.25"
NOTES = (
    "Bars: resolution, to scale. Numbers: channels×height×width. Dotted: skip connections.",
    "The malignancy head reads one block, which need not be one of those of the map.",
)
MAX_SWATCHES = 6
MAX_TIMESTEPS = 3
UPSAMPLE_Y, ENSEMBLE_Y, MAP_Y = 3.98, 3.3, 2.36
POOL_Y, CLASSIFIER_Y, SCORE_Y = 1.22, 0.72, 0.3


def draw_scheme(scheme: dict[str, Any], photo: Image.Image | None = None) -> Figure:
    """Draw the blocks of the UNet to the scale of their resolution, which of them are read, and both heads.

    Args:
        scheme (`dict`):
            What [`~scheme.describe_scheme`] says of a configuration.
        photo (`PIL.Image.Image`, *optional*):
            Photo to show; by default a drawing of one, and of its map.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT))  # every part has its place: there is nothing to lay out
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axis.set_axis_off()
    drawing, classes = _draw_skin()
    is_drawing = photo is None and scheme["labels"] == list(LABELS.values())
    places = _block_places(scheme)
    _draw_input(axis, scheme, drawing if photo is None else photo)
    _draw_encoder(axis, scheme, places)
    _draw_decoder(axis, scheme, places)
    _draw_segmentation(axis, scheme, colour_map(classes, LABELS).convert("RGB") if is_drawing else None)
    _draw_malignancy(axis, scheme)
    _draw_bus(axis, [place for place, block in zip(places, scheme["blocks"], strict=True) if block["is_read"]])
    _draw_key(axis, scheme)
    return figure


def _block_places(scheme: dict[str, Any]) -> list[float]:
    """Return how high each decoder block is drawn, the first one at the bottom."""
    step = (TOP - BOTTOM) / len(scheme["blocks"])
    return [BOTTOM + step * (block + 0.5) for block in range(len(scheme["blocks"]))]


def _draw_input(axis: Axes, scheme: dict[str, Any], photo: Image.Image) -> None:
    side = scheme["image_size"]
    pixels = np.asarray(photo.convert("RGB").resize((128, 128), Image.Resampling.BOX))
    upper, lower = TOP - PHOTO / 2, TOP - 1.5 * PHOTO - 0.62
    _write(axis, PHOTO_X, TOP + 0.2, "Photo", weight="bold")
    _show(axis, pixels, PHOTO_X, upper)
    _write(axis, PHOTO_X, upper - PHOTO / 2 - 0.1, f"3×{side}×{side}", size=SMALL)
    _arrow(axis, (PHOTO_X, upper - PHOTO / 2 - 0.19), (PHOTO_X, lower + PHOTO / 2 + 0.04))
    _write(axis, PHOTO_X + 0.06, lower + PHOTO / 2 + 0.22, "+ noise", ha="left", size=SMALL)
    _show(axis, _add_noise(pixels, min(scheme["alphas_cumprod"])), PHOTO_X, lower)
    _write(axis, PHOTO_X, lower - PHOTO / 2 - 0.1, _say_timesteps(scheme["timesteps"]), size=SMALL)
    entry = ENCODER_X - HALF_BAR - 0.14
    top = _level_places(scheme)[0]
    _path(
        axis, [(PHOTO_X + PHOTO / 2 + 0.03, lower), (entry, lower), (entry, top), (ENCODER_X - HALF_BAR - 0.01, top)]
    )


def _say_timesteps(timesteps: list[int]) -> str:
    if len(timesteps) > MAX_TIMESTEPS:
        return f"t = {timesteps[0]}, …, {timesteps[-1]} ({len(timesteps)})"
    return "t = " + ", ".join(map(str, timesteps))


def _level_places(scheme: dict[str, Any]) -> list[float]:
    """Return how high each encoder level is drawn: as high as the decoder blocks that get its activations."""
    groups = np.array_split(_block_places(scheme), len(scheme["encoder"]))
    return [float(group.mean()) for group in groups[::-1]]


def _draw_encoder(axis: Axes, scheme: dict[str, Any], places: list[float]) -> None:
    levels = _level_places(scheme)
    _write(axis, ENCODER_X, TOP + 0.2, "Encoder ↓", weight="bold")
    for place, level in zip(levels, scheme["encoder"], strict=True):
        half = HALF_BAR * level["size"] / scheme["image_size"]
        _bar(axis, ENCODER_X, place, half, 0.11, facecolor=LEVEL)
        _write(axis, ENCODER_X, place - 0.13, _shape(level), size=SMALL)
        _skip(axis, (ENCODER_X + half + 0.03, place), _is_needed(scheme, places, place))
    for above, below in zip(levels, levels[1:], strict=False):
        _arrow(axis, (ENCODER_X, above - 0.2), (ENCODER_X, below + 0.07))
    _draw_middle(axis, levels[-1] - 0.2, places[0] - 0.06)


def _is_needed(scheme: dict[str, Any], places: list[float], level_place: float) -> bool:
    """Return whether a decoder block that is computed gets the activations of the level at this height."""
    last = places[_last_read(scheme)]
    half_group = (TOP - BOTTOM) / len(scheme["encoder"]) / 2
    return level_place - half_group < last


def _last_read(scheme: dict[str, Any]) -> int:
    return max(block["block"] for block in scheme["blocks"] if block["is_read"])


def _draw_middle(axis: Axes, start: float, end: float) -> None:
    """Lead from the last level through the middle block to decoder block 0."""
    height, centre = BOTTOM - 0.3, (ENCODER_X + DECODER_X) / 2
    _path(axis, [(ENCODER_X, start), (ENCODER_X, height), (centre - 0.42, height)])
    _box(axis, centre, height, 0.78, 0.22, ["middle block"])
    _path(axis, [(centre + 0.42, height), (DECODER_X, height), (DECODER_X, end)])


def _draw_decoder(axis: Axes, scheme: dict[str, Any], places: list[float]) -> None:
    last, thickness = _last_read(scheme), min(0.13, 0.72 * (places[1] - places[0]))
    left = DECODER_X - HALF_BAR - 0.08
    _write(axis, DECODER_X, TOP + 0.2, "Decoder ↑", weight="bold")
    for place, block in zip(places, scheme["blocks"], strict=True):
        half = HALF_BAR * block["size"] / scheme["image_size"]
        is_cut = block["block"] > last
        _bar(axis, DECODER_X, place, half, thickness, **_look(block, is_cut))
        colour = "0.45" if is_cut else READ if block["is_read"] else "black"
        weight = "bold" if block["is_read"] else "normal"
        _write(axis, left, place, str(block["block"]), ha="right", size=SMALL, color=colour, weight=weight)
        _write(axis, DECODER_X + HALF_BAR + 0.06, place, _shape(block), ha="left", size=SMALL, color=colour)


def _look(block: dict[str, Any], is_cut: bool) -> dict[str, Any]:
    if is_cut:
        return {"facecolor": "none", "edgecolor": "0.6", "linestyle": (0, (2, 1.5))}
    return {"facecolor": READ if block["is_read"] else COMPUTED}


def _draw_bus(axis: Axes, read: Sequence[float]) -> None:
    """Lead from the blocks that are read to both heads."""
    for place in read:
        axis.plot([BUS_X - 0.1, BUS_X], [place, place], color=READ, linewidth=1.1)
    ends = (UPSAMPLE_Y, POOL_Y)
    axis.plot([BUS_X, BUS_X], [min(*ends, *read), max(*ends, *read)], color=READ, linewidth=1.1)
    for place in ends:
        _arrow(axis, (BUS_X, place), (HEADS_X - HEAD_WIDTH / 2 - 0.02, place), color=READ)


def _draw_segmentation(axis: Axes, scheme: dict[str, Any], classes: Image.Image | None) -> None:
    channels = sum(block["channels"] for block in scheme["blocks"] if block["is_read"]) * len(scheme["timesteps"])
    side, sizes = scheme["image_size"], [channels, *scheme["hidden_sizes"], scheme["num_labels"]]
    _write(axis, HEADS_X, TOP + 0.2, "Segmentation", weight="bold")
    _box(
        axis,
        HEADS_X,
        UPSAMPLE_Y,
        HEAD_WIDTH,
        0.4,
        [f"upsample to {side}×{side}", f"& concatenate: {channels} channels"],
    )
    _arrow(axis, (HEADS_X, UPSAMPLE_Y - 0.22), (HEADS_X, ENSEMBLE_Y + 0.29))
    for offset in (0.08, 0.04):  # a stack of cards
        _box(axis, HEADS_X + offset - 0.04, ENSEMBLE_Y + offset, HEAD_WIDTH - 0.08, 0.4, [])
    mlps = [f"ensemble of {scheme['ensemble_size']} MLPs per pixel", "–".join(map(str, sizes))]
    _box(axis, HEADS_X - 0.04, ENSEMBLE_Y, HEAD_WIDTH - 0.08, 0.4, mlps)
    _arrow(axis, (HEADS_X, ENSEMBLE_Y - 0.22), (HEADS_X, MAP_Y + 0.57))
    _draw_classes(axis, scheme["labels"], classes)


def _draw_classes(axis: Axes, labels: list[str], classes: Image.Image | None) -> None:
    _write(axis, HEADS_X, MAP_Y + 0.48, f"map of {len(labels)} classes", size=FONT)
    left = HEADS_X - HEAD_WIDTH / 2
    if classes is not None:
        _show(axis, np.asarray(classes), left + 0.4, MAP_Y, 0.76)
    left += 0.95 if classes is not None else 0.5
    shown = labels if len(labels) <= MAX_SWATCHES else [*labels[: MAX_SWATCHES - 1], "…"]
    for place, label in zip(MAP_Y + 0.15 * ((len(shown) - 1) / 2 - np.arange(len(shown))), shown, strict=True):
        colour = np.array(CLASS_COLOURS.get(label, (128, 128, 128))) / 255
        _bar(axis, left + 0.06, place, 0.06, 0.1, facecolor=colour)
        _write(axis, left + 0.18, place, label, ha="left", size=SMALL)


def _draw_malignancy(axis: Axes, scheme: dict[str, Any]) -> None:
    pooled = scheme["pooled_size"]
    sizes = "–".join(str(size) for size in (pooled, *scheme["classifier_sizes"]))
    _write(axis, HEADS_X, POOL_Y + 0.3, "Malignancy", weight="bold")
    _box(axis, HEADS_X, POOL_Y, HEAD_WIDTH, 0.26, [f"max-pool one block to {pooled}"])
    _arrow(axis, (HEADS_X, POOL_Y - 0.15), (HEADS_X, CLASSIFIER_Y + 0.15))
    _box(axis, HEADS_X, CLASSIFIER_Y, HEAD_WIDTH, 0.26, [f"MLP {sizes}"])
    _arrow(axis, (HEADS_X, CLASSIFIER_Y - 0.15), (HEADS_X, SCORE_Y + 0.1))
    _write(axis, HEADS_X, SCORE_Y, "malignancy score")


def _draw_key(axis: Axes, scheme: dict[str, Any]) -> None:
    last = _last_read(scheme)
    key: list[tuple[str, dict[str, Any]]] = [("read", {"facecolor": READ}), ("computed", {"facecolor": COMPUTED})]
    if last < len(scheme["blocks"]) - 1:
        key.append(("cut away, not computed", _look({}, is_cut=True)))
    for left, (name, look) in zip((0.16, 0.75, 1.6), key, strict=False):
        _bar(axis, left + 0.1, 0.42, 0.1, 0.1, **look)
        _write(axis, left + 0.26, 0.42, name, ha="left", size=SMALL)
    for place, note in zip((0.25, 0.1), NOTES, strict=True):
        _write(axis, 0.16, place, note, ha="left", size=SMALL, color=DARK)


def _shape(part: dict[str, Any]) -> str:
    return f"{part['channels']}×{part['size']}×{part['size']}"


def _bar(axis: Axes, x: float, y: float, half: float, thickness: float, **look: Any) -> None:
    frame: dict[str, Any] = {"edgecolor": "0.3", "linewidth": 0.6}
    axis.add_patch(Rectangle((x - half, y - thickness / 2), 2 * half, thickness, **(frame | look)))


def _box(axis: Axes, x: float, y: float, width: float, height: float, lines: list[str]) -> None:
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.05"
    axis.add_patch(FancyBboxPatch(corner, width, height, style, facecolor="0.96", edgecolor=DARK, linewidth=0.7))
    if lines:
        _write(axis, x, y, "\n".join(lines))


def _write(axis: Axes, x: float, y: float, text: str, size: float = FONT, **look: Any) -> None:
    place: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.3}
    axis.text(x, y, text, fontsize=size, **(place | look))


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], color: str = DARK) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(FancyArrowPatch(start, end, color=color, **style))


def _path(axis: Axes, corners: list[tuple[float, float]]) -> None:
    """Draw a line with corners that ends in an arrow."""
    axis.plot(*zip(*corners[:-1], strict=True), color=DARK, linewidth=1, solid_joinstyle="miter")
    _arrow(axis, corners[-2], corners[-1])


def _skip(axis: Axes, start: tuple[float, float], is_needed: bool) -> None:
    end = DECODER_X - HALF_BAR - 0.26
    axis.plot([start[0], end], [start[1]] * 2, color="0.45" if is_needed else "0.8", linewidth=0.8, linestyle=":")


def _show(axis: Axes, pixels: np.ndarray, x: float, y: float, side: float = PHOTO) -> None:
    half = side / 2
    axis.imshow(pixels, extent=(x - half, x + half, y - half, y + half), aspect="auto", zorder=2)
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    _bar(axis, x, y, half, side, facecolor="none", zorder=3)


def _add_noise(pixels: np.ndarray, alpha_bar: float) -> np.ndarray:
    """Return the noised photo, as pixels again. Source: DDPM (2006.11239), eq. 4."""
    noise = np.random.default_rng(0).standard_normal(pixels.shape)
    noisy = np.sqrt(alpha_bar) * (pixels / 127.5 - 1) + np.sqrt(1 - alpha_bar) * noise
    return np.clip(127.5 * (noisy + 1), 0, 255).astype(np.uint8)


def _draw_skin(side: int = 128) -> tuple[Image.Image, np.ndarray]:
    """Draw a photo of a lesion within a pen mark, beside a ruler, and its map: nobody's."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    distance = np.hypot((x - 0.42) / 1.15, y - 0.5) + 0.012 * np.cos(5 * np.arctan2(y - 0.5, x - 0.42))
    classes = np.full((side, side), PixelClass.SKIN, np.uint8)
    classes[x + y < 0.32] = PixelClass.BACKGROUND
    classes[(x > 0.78) & (x < 0.93) & (y > 0.12)] = PixelClass.RULER
    classes[np.abs(distance - 0.28) < 0.016] = PixelClass.MARKER
    classes[distance < 0.15] = PixelClass.LESION
    colours = np.array([(70, 84, 110), (112, 62, 48), (72, 50, 140), (236, 230, 214), (205, 158, 128)], float)
    pixels = colours[classes] * (1.05 - 0.15 * np.hypot(x - 0.4, y - 0.4))[..., None]
    ticks = (classes == PixelClass.RULER) & (x < 0.85) & (y % 0.07 < 0.017)
    pixels[ticks] = 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), classes
