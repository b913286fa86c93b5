"""Maps of classes as pictures: palette PNGs, overlays on the photo, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from fedd_hf.labels import PixelClass

from .style import CLASS_COLOURS, FONT

OPACITY = 0.45
LABELS = {int(kind): kind.label for kind in PixelClass}
SHOWN_SIZE = 320  # pixels of the longer side of a photo in a figure: 300 per inch at the size at which it is printed


def colour_map(segmentation_map: np.ndarray, labels: dict[int, str]) -> Image.Image:
    """Return a palette image whose pixels are class ids, shown in the authors' colours.

    Args:
        segmentation_map (`np.ndarray` of shape `(height, width)`, uint8):
            Class id of each pixel.
        labels (`dict[int, str]`):
            Name of each class.
    """
    image = Image.fromarray(segmentation_map)
    image.putpalette([channel for index in sorted(labels) for channel in _colour(labels[index])])
    return image


def overlay(
    photo: Image.Image, segmentation_map: np.ndarray, labels: dict[int, str], opacity: float = OPACITY
) -> Image.Image:
    """Lay the map over the photo, both of one size; background and pixels without a class stay clear."""
    shows_photo = np.full(256, 255, dtype=np.uint8)
    shows_photo[[index for index, label in labels.items() if label != "background"]] = round(255 * (1 - opacity))
    colours = colour_map(segmentation_map, labels).convert("RGB")
    return Image.composite(photo.convert("RGB"), colours, Image.fromarray(shows_photo[segmentation_map]))


def open_photo(path: Path) -> Image.Image:
    """Open a photo, no larger than a figure shows it."""
    with Image.open(path) as file:
        photo = file.convert("RGB")
    photo.thumbnail((SHOWN_SIZE, SHOWN_SIZE))
    return photo


def open_overlay(photo_path: Path, map_path: Path) -> Image.Image:
    """Lay a map of class ids (PNG) over its photo; the map may be of another size than the photo."""
    photo = open_photo(photo_path)
    with Image.open(map_path) as file:
        classes = np.array(file.resize(photo.size, Image.Resampling.NEAREST))
    return overlay(photo, classes, LABELS)


def show(axis: Axes, picture: Image.Image) -> None:
    """Show a picture in a thin frame, without ticks."""
    axis.imshow(picture)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color="0.5")


def add_class_legend(figure: Figure, labels: dict[int, str], fontsize: float = FONT) -> None:
    """Name the colours of the classes below a figure; the background is left as it is."""
    patches = [_swatch(label) for label in labels.values()]
    look: dict[str, Any] = {"ncols": len(patches), "frameon": False, "fontsize": fontsize}
    figure.legend(handles=patches, loc="outside lower center", **look)


def draw_overlays(
    photos: Sequence[Image.Image],
    truths: list[np.ndarray],
    maps: list[np.ndarray],
    labels: dict[int, str],
    titles: list[str],
) -> Figure:
    """Draw a column per photo: the photo, the truth, the prediction."""
    figure = Figure(figsize=(2.1 * len(photos), 6.8), layout="constrained")
    axes = figure.subplots(3, len(photos), squeeze=False)
    for column, (photo, truth, prediction) in enumerate(zip(photos, truths, maps, strict=True)):
        pictures = (photo, overlay(photo, truth, labels), overlay(photo, prediction, labels))
        for axis, picture in zip(axes[:, column], pictures, strict=True):
            show(axis, picture)
        axes[0, column].set_title(titles[column], fontsize=10)
    for axis, name in zip(axes[:, 0], ("photo", "truth", "prediction"), strict=True):
        axis.set_ylabel(name, fontsize=11)
    add_class_legend(figure, labels, fontsize=10)
    return figure


def _swatch(label: str) -> Patch:
    if label == "background":
        return Patch(facecolor="none", edgecolor="0.5", label="background: as it is")
    return Patch(facecolor="#{:02x}{:02x}{:02x}".format(*_colour(label)), label=label)


def _colour(label: str) -> tuple[int, int, int]:
    return CLASS_COLOURS.get(label, (128, 128, 128))
