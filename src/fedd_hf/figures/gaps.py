"""Forest plot of the gaps between skin tones, beside the smallest gaps that the sample could have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from fedd_hf.evaluation.titles import TITLES

from .style import FONT, WIDTH, add_caption, add_legend, draw_point, flag_notes, number, plain_axis, say_p, signed

COLOUR = "#0072B2"
BAND = "0.85"
NAMES = ("difference", "low", "high")
HEADER = "difference [95 % interval], p after Holm"


def draw_gaps(rows: list[dict[str, Any]], metrics: Sequence[str]) -> Figure:
    """Draw the gap of each pair of skin tones with its interval, p-value and numbers of photos.

    Args:
        rows (`list[dict]`):
            Rows of a report: `metric`, `reference`, `skin_tone`, `n_reference`, `n`, `difference` (`skin_tone` minus
            `reference`), `low`, `high`, `p_holm`, `minimum_detectable_gap` and `flag`.
        metrics (`Sequence[str]`):
            Metrics to draw, downwards; those without rows are left out.

    Raises:
        ValueError: If there is no row of any of the metrics.
    """
    groups = {metric: [row for row in rows if row["metric"] == metric] for metric in metrics}
    groups = {metric: of_metric for metric, of_metric in groups.items() if of_metric}
    if not groups:
        raise ValueError(f"No gap is of any of {list(metrics)}: two skin tones with photos are needed.")
    shown = [row for of_metric in groups.values() for row in of_metric]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.27 * len(shown) + 0.35 * len(groups)), layout="constrained")
    heights = [len(of_metric) for of_metric in groups.values()]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (metric, of_metric) in zip(panels, groups.items(), strict=True):
        _draw_metric(axis, of_metric)
        axis.set_title(TITLES.get(metric, metric), fontsize=FONT + 0.5, loc="left", fontweight="bold")
    reach = 1.08 * max(_reaches(shown), default=1.0)
    panels[-1].set_xlim(-reach, reach)
    panels[-1].set_xlabel("difference", fontsize=FONT)
    panels[0].text(1.02, 1.03, HEADER, transform=panels[0].transAxes, fontsize=FONT - 1, color="0.25")
    add_legend(figure, _handles())
    add_caption(
        figure, ["Band: what a sample like this one shows in 80 % of cases at the 5 % level.", *flag_notes(shown)]
    )
    return figure


def _draw_metric(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for place, row in enumerate(rows):
        smallest = number(row["minimum_detectable_gap"])
        if np.isfinite(smallest):
            axis.add_patch(Rectangle((-smallest, place - 0.38), 2 * smallest, 0.76, color=BAND, linewidth=0, zorder=1))
        draw_point(axis, place, row, COLOUR, "s", names=NAMES, is_horizontal=True)
        axis.text(1.02, place, _say(row), transform=axis.get_yaxis_transform(), fontsize=FONT - 0.5, va="center")
    axis.axvline(0, color="black", linewidth=0.9, zorder=2)
    axis.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    plain_axis(axis, grid="x")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _name(row: dict[str, Any]) -> str:
    return f"{row['skin_tone']} minus {row['reference']}  (n = {row['n']}, {row['n_reference']})"


def _say(row: dict[str, Any]) -> str:
    value, low, high = (number(row[name]) for name in NAMES)
    if not np.isfinite(value):
        return "no value"
    interval = f" [{signed(low)}, {signed(high)}]" if np.isfinite([low, high]).all() else ""
    return f"{signed(value)}{interval}  {say_p(row['p_holm'])}".rstrip()


def _reaches(rows: list[dict[str, Any]]) -> list[float]:
    values = [abs(number(row[name])) for row in rows for name in (*NAMES, "minimum_detectable_gap")]
    return [value for value in values if np.isfinite(value) and value > 0]


def _handles() -> list[Line2D | Patch]:
    marker = Line2D([], [], color=COLOUR, marker="s", markersize=5, linewidth=1, label="gap with 95 % interval")
    return [marker, Patch(facecolor=BAND, label="smaller than the smallest detectable gap")]
