"""Risk of the photos that are kept when the most uncertain ones are left to a physician, by skin tone."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import (
    FONT,
    TONE_COLOURS,
    TONE_LINES,
    TONE_MARKERS,
    WIDTH,
    add_caption,
    darker,
    draw_point,
    number,
    per_cent,
    plain_axis,
)

KEPT_SHARE = 0.8
POINTS = {
    "aurc": ("area under the curve (AURC)", ("aurc", "low", "high")),
    "risk_at_80": ("risk of the kept photos", ("risk_at_80", "risk_at_80_low", "risk_at_80_high")),
    "coverage_at_80": ("share of photos kept", ("coverage_at_80", "coverage_at_80_low", "coverage_at_80_high")),
}


def draw_coverage_risk(coverage_risk: dict[str, Any]) -> Figure:
    """Draw risk against coverage, and what one threshold for all skin tones does to each of them.

    Args:
        coverage_risk (`dict`):
            What [`~fedd_hf.evaluation.uncertainty.coverage_risk_by_tone`] returns: `rows` with `skin_tone`, `n`,
            `aurc`, `low`, `high`, `risk_at_80` and `coverage_at_80`, each with `_low` and `_high`; and the `curve`
            with `skin_tone`, `coverage` and `risk`.

    Raises:
        ValueError: If there is no row.
    """
    rows = coverage_risk["rows"]
    if not rows:
        raise ValueError("There are no `rows` of coverage and risk to draw.")
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    grid = figure.add_gridspec(len(POINTS), 2, width_ratios=(1.35, 1))
    curves = figure.add_subplot(grid[:, 0])
    _draw_curves(curves, rows, coverage_risk["curve"])
    for place, (title, names) in enumerate(POINTS.values()):
        _draw_points(figure.add_subplot(grid[place, 1]), rows, title, names)
    handles, labels = curves.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(rows), frameon=False, fontsize=FONT)
    kept = (
        f"Kept photos: at one threshold for all skin tones, which keeps {per_cent(KEPT_SHARE)} of all photos or more."
    )
    add_caption(
        figure, [kept, "Whiskers: 95 % intervals. Curves have none; at small coverage they stand on few photos."]
    )
    return figure


def _draw_curves(axis: Axes, rows: list[dict[str, Any]], curve: list[dict[str, Any]]) -> None:
    for row in rows:
        tone = row["skin_tone"]
        points = [point for point in curve if point["skin_tone"] == tone]
        axis.plot(
            [point["coverage"] for point in points],
            [number(point["risk"]) for point in points],
            color=darker(TONE_COLOURS.get(tone, "0.4")),
            linestyle=TONE_LINES.get(tone, "-"),
            marker=TONE_MARKERS.get(tone, "o"),
            markersize=4.5,
            markevery=(0.15, 0.2),
            linewidth=1.4,
            label=f"{tone} (n = {row['n']})",
        )
    axis.axvline(KEPT_SHARE, color="0.6", linewidth=0.8, zorder=1)
    axis.set_xlim(0, 1.02)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("coverage (share of photos kept, the most certain first)", fontsize=FONT)
    axis.set_ylabel("risk of the kept photos", fontsize=FONT)
    plain_axis(axis, grid="both")


def _draw_points(axis: Axes, rows: list[dict[str, Any]], title: str, names: tuple[str, str, str]) -> None:
    for place, row in enumerate(rows):
        tone = row["skin_tone"]
        look = (TONE_COLOURS.get(tone, "0.4"), TONE_MARKERS.get(tone, "o"))
        draw_point(axis, place, row, *look, names=names, is_horizontal=True)
    axis.set_yticks(range(len(rows)), [row["skin_tone"] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title(title, fontsize=FONT)
    plain_axis(axis, grid="x")
