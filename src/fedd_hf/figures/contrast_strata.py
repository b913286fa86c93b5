"""Metrics by the contrast of lesion and skin, since contrast and not tone may be what a model fails on."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.evaluation.titles import TITLES

from .style import (
    FONT,
    TONE_COLOURS,
    TONE_MARKERS,
    WIDTH,
    add_caption,
    add_legend,
    darker,
    draw_point,
    flag_notes,
    plain_axis,
)

DODGE = 0.8  # of the distance between two strata, over which skin tones are spread


def draw_contrast(contrast: dict[str, Any]) -> Figure:
    """Draw a panel per metric: points with intervals by stratum of contrast and by skin tone.

    Args:
        contrast (`dict`):
            What [`~fedd_hf.evaluation.uncertainty.contrast_strata`] returns: `edges` of the strata, `rows` with
            `stratum`, `skin_tone`, `n`, `metric`, `value`, `low`, `high` and `flag`, and the number of photos
            `without_contrast`.
    """
    rows, edges = contrast["rows"], contrast["edges"]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    tones = [tone for tone in TONE_COLOURS if any(row["skin_tone"] == tone for row in rows)]
    width = WIDTH if len(metrics) > 1 else 0.65 * WIDTH
    figure = Figure(figsize=(width, 3.3), layout="constrained")
    if not rows:
        figure.text(0.5, 0.5, "no photo has a known contrast", ha="center", fontsize=FONT)
        return figure
    for axis, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        _draw_metric(axis, [row for row in rows if row["metric"] == metric], tones, edges)
        axis.set_title(TITLES.get(metric, metric), fontsize=FONT)
    add_legend(figure, _handles(tones))
    without = contrast.get("without_contrast", 0)
    left_out = f"Left out, without lesion, skin or mask: n = {without}." if without else ""
    whiskers = "Whiskers: 95 % intervals; numbers below: photos. Contrast: CIEDE2000 of the mean colours."
    add_caption(figure, [whiskers, left_out, *flag_notes(rows)])
    return figure


def _draw_metric(axis: Axes, rows: list[dict[str, Any]], tones: list[str], edges: list[float]) -> None:
    places = {}
    for row in rows:
        tone = row["skin_tone"]
        place = row["stratum"] + DODGE * ((tones.index(tone) + 0.5) / len(tones) - 0.5)
        draw_point(axis, place, row, TONE_COLOURS[tone], TONE_MARKERS[tone])
        places[place] = str(row["n"])
    axis.xaxis.remove_overlapping_locs = False  # the number of a point in the middle of a stratum is to stay
    axis.set_xticks(list(places), list(places.values()), minor=True)
    strata = range(1, len(edges))
    axis.set_xticks(strata, [f"{edges[stratum - 1]:.1f} to {edges[stratum]:.1f}" for stratum in strata])
    for stratum in strata[1:]:
        axis.axvline(stratum - 0.5, color="0.85", linewidth=0.8)
    axis.set_xlabel("contrast of lesion and skin (colour difference)", fontsize=FONT)
    axis.set_xlim(0.5, len(edges) - 0.5)
    axis.set_ylim(-0.02, 1.02)
    plain_axis(axis)
    axis.tick_params(axis="x", which="minor", length=2, labelsize=FONT - 1, colors="0.35")
    axis.tick_params(axis="x", which="major", length=0, pad=14)


def _handles(tones: list[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=darker(TONE_COLOURS[tone]),
            markerfacecolor=TONE_COLOURS[tone],
            marker=TONE_MARKERS[tone],
            markersize=5,
            linewidth=1,
            label=tone,
        )
        for tone in tones
    ]
