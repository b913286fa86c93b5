"""Maps of classes as pictures: palette PNGs, overlays on the photo, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from .style import CLASS_COLOURS

OPACITY = 0.45


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


def overlay(photo: Image.Image, segmentation_map: np.ndarray, labels: dict[int, str]) -> Image.Image:
    """Lay the map over the photo, both of one size; background and pixels without a class stay clear."""
    shows_photo = np.full(256, 255, dtype=np.uint8)
    shows_photo[[index for index, label in labels.items() if label != "background"]] = round(255 * (1 - OPACITY))
    colours = colour_map(segmentation_map, labels).convert("RGB")
    return Image.composite(photo.convert("RGB"), colours, Image.fromarray(shows_photo[segmentation_map]))


def draw_overlays(
    photos: Sequence[Image.Image],
    truths: list[np.ndarray],
    maps: list[np.ndarray],
    labels: dict[int, str],
    titles: list[str],
) -> Figure:
    """Draw a column per photo: the photo, the truth, the prediction."""
    figure = Figure(figsize=(2.1 * len(photos), 7.0), layout="constrained")
    axes = figure.subplots(3, len(photos), squeeze=False)
    for column, (photo, truth, prediction) in enumerate(zip(photos, truths, maps, strict=True)):
        pictures = (photo, overlay(photo, truth, labels), overlay(photo, prediction, labels))
        for axis, picture in zip(axes[:, column], pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        axes[0, column].set_title(titles[column], fontsize=10)
    for axis, name in zip(axes[:, 0], ("photo", "truth", "prediction"), strict=True):
        axis.set_ylabel(name, fontsize=11)
    patches = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*_colour(label)), label=label)
        for label in labels.values()
        if label != "background"
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return figure


def _colour(label: str) -> tuple[int, int, int]:
    return CLASS_COLOURS.get(label, (128, 128, 128))
