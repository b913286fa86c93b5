"""Bars of each metric by skin tone, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from fedd_hf.evaluation.report import HEADLINES
from fedd_hf.evaluation.titles import TITLES

from .style import FONT, TONE_COLOURS, add_caption, darker, flag_notes, is_flagged, number, plain_axis

COLUMNS = 3
PANEL = 2.4  # inches
OUTLINE = [withStroke(linewidth=2.5, foreground="white")]  # a black whisker is not seen on a dark bar


def draw_by_tone(rows: list[dict[str, Any]], title: str, metrics: Sequence[str] | None = None) -> Figure:
    """Draw one panel per metric, bars from 0 to 1.

    Args:
        rows (`list[dict]`):
            Rows of a report: `metric`, `skin_tone`, `n`, `value`, `low`, `high` and, where the interval is not to be
            trusted, `flag`. Flagged bars are hollow.
        title (`str`):
            What is drawn.
        metrics (`Sequence[str]`, *optional*):
            Metrics to draw, in this order; by default mean IoU, lesion IoU and Dice, AUROC and balanced accuracy, or
            all where there is none of these.

    Raises:
        ValueError: If there is no row of a metric that was asked for.
    """
    present = list(dict.fromkeys(row["metric"] for row in rows))
    chosen = list(metrics or [metric for metric in present if metric in HEADLINES] or present)
    if not chosen or not set(chosen) <= set(present):
        raise ValueError(f"`metrics` must be of {present}, the metrics of the rows, got {chosen}.")
    columns, num_rows = min(COLUMNS, len(chosen)), -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(PANEL * columns, 0.7 + 2.6 * num_rows), layout="constrained")
    figure.suptitle(title, fontsize=FONT + 2)
    panels = figure.subplots(num_rows, columns, sharey=True, squeeze=False)
    for axis in panels.flat[len(chosen) :]:
        axis.remove()
    for axis, metric in zip(panels.flat, chosen, strict=False):
        _draw_metric(axis, [row for row in rows if row["metric"] == metric])
        axis.set_title(TITLES.get(metric, metric), fontsize=FONT + 1)
    shown = [row for row in rows if row["metric"] in chosen]
    add_caption(figure, ["Whiskers: 95 % intervals.", *flag_notes(shown)])
    return figure


def _draw_metric(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for position, row in enumerate(rows):
        value, low, high = (number(row[name]) for name in ("value", "low", "high"))
        colour = TONE_COLOURS.get(row["skin_tone"], "0.6")
        face, edge = ("white", darker(colour)) if is_flagged(row) else (colour, "none")
        axis.bar(position, value, facecolor=face, edgecolor=edge, linewidth=1.8, width=0.75)
        if np.isfinite([value, low, high]).all():
            errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
            whisker = axis.errorbar(position, value, yerr=errors, color="black", capsize=3, linewidth=1)
            for line in (*whisker[1], *whisker[2]):
                line.set_path_effects(OUTLINE)
    axis.set_xticks(range(len(rows)), [_name(row) for row in rows])
    axis.set_ylim(0, 1)
    plain_axis(axis)
    axis.tick_params(axis="x", labelsize=FONT - 1)


def _name(row: dict[str, Any]) -> str:
    return f"{row['skin_tone'].replace(' of ', ' of' + chr(10))}\nn={row['n']}"
