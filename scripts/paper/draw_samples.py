"""Figure 2: true maps over their photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedd_hf.figures.overlays import LABELS, add_class_legend, open_overlay, show
from fedd_hf.figures.style import FONT

PANEL = 1.45  # inches
LEGEND_WIDTH = 3.4


def draw_samples(samples: list[dict[str, Any]], folder: Path) -> Figure:
    """Draw the true map over each photo, a row per skin tone; the background stays clear.

    Args:
        samples (`list[dict]`):
            Rows with `image_id`, `skin_tone`, `photo_path` and `truth_path`.
        folder (`Path`):
            Folder to which the paths are relative.

    Raises:
        ValueError: If there is no sample.
    """
    tones = _by_tone(samples)
    columns = max(len(rows) for rows in tones.values())
    figure = Figure(figsize=(max(PANEL * columns + 0.3, LEGEND_WIDTH), PANEL * len(tones) + 0.5), layout="constrained")
    axes = figure.subplots(len(tones), columns, squeeze=False)
    for row_of_axes, (tone, rows) in zip(axes, tones.items(), strict=True):
        for axis in row_of_axes[len(rows) :]:
            axis.set_axis_off()
        for axis, sample in zip(row_of_axes, rows, strict=False):
            show(axis, open_overlay(folder / sample["photo_path"], folder / sample["truth_path"]))
            axis.set_title(sample["image_id"], fontsize=FONT - 1, pad=2)
        row_of_axes[0].set_ylabel(tone, fontsize=FONT + 1)
    figure.supylabel("skin tone", fontsize=FONT + 1)
    add_class_legend(figure, LABELS)
    return figure


def _by_tone(samples: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    if not samples:
        raise ValueError("There is no sample to draw: give rows with `skin_tone`, `photo_path` and `truth_path`.")
    tones: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        tones.setdefault(sample["skin_tone"] or "unknown", []).append(sample)
    return tones
