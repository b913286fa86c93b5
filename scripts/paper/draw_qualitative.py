"""Figure 5 and the supplement's Figure 3: predicted maps with few labels and with more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedd_hf.figures.overlays import LABELS, add_class_legend, open_overlay, open_photo, show
from fedd_hf.figures.style import FONT, per_cent

PANEL = 0.95  # inches
PAGE = 9.2  # inches: what a page is high
NAMES = 1.6  # inches: names of tones and methods
LEGEND = 0.6


def draw_qualitative(examples: list[dict[str, Any]], folder: Path, methods: list[str] | None = None) -> Figure:
    """Draw photo, truth and predictions: a row per photo and method, a column per label fraction.

    Args:
        examples (`list[dict]`):
            Rows `image_id`, `skin_tone`, `photo_path`, `truth_path` and `maps` (`method`, `label_fraction`,
            `map_path`) of a label-efficiency report.
        folder (`Path`):
            Folder to which the paths are relative.
        methods (`list[str]`, *optional*):
            Methods to draw, downwards; by default all that predicted a map.

    Raises:
        ValueError: If no example has a map of any of the methods.
    """
    maps = [prediction for example in examples for prediction in example["maps"]]
    methods = list(dict.fromkeys(prediction["method"] for prediction in maps)) if methods is None else methods
    fractions = sorted({prediction["label_fraction"] for prediction in maps if prediction["method"] in methods})
    if not fractions:
        raise ValueError(f"No example has a map of any of {methods}: there is nothing to draw.")
    rows, columns = len(examples) * len(methods), 2 + len(fractions)
    panel = min(PANEL, (PAGE - LEGEND) / rows)
    figure = Figure(
        figsize=(panel * columns + NAMES, panel * rows + LEGEND),
        layout=ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0),
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for index, example in enumerate(examples):
        for position, method in enumerate(methods):
            row = axes[index * len(methods) + position]
            _draw_row(row, example, method, fractions, folder, shows_photo=position == 0)
    titles = ["photo", "truth", *(f"{per_cent(fraction)}\nlabels" for fraction in fractions)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=FONT, pad=3)
    add_class_legend(figure, LABELS)
    return figure


def _draw_row(
    row: list[Axes],
    example: dict[str, Any],
    method: str,
    fractions: list[float],
    folder: Path,
    shows_photo: bool,
) -> None:
    photo_path = folder / example["photo_path"]
    if shows_photo:
        show(row[0], open_photo(photo_path))
        show(row[1], open_overlay(photo_path, folder / example["truth_path"]))
        _name(row[0], f"tone\n{example['skin_tone'] or 'unknown'}")
    paths = {item["label_fraction"]: item["map_path"] for item in example["maps"] if item["method"] == method}
    for axis, fraction in zip(row[2:], fractions, strict=True):
        if paths.get(fraction) is not None:
            show(axis, open_overlay(photo_path, folder / paths[fraction]))
    _name(row[2], method)
    for axis in row:
        if not axis.images:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)


def _name(axis: Axes, name: str) -> None:
    axis.set_ylabel(name, fontsize=FONT, rotation="horizontal", ha="right", va="center")
