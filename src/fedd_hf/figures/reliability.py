"""Reliability curves: accuracy against confidence, overall and by skin tone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from .style import FONT, TONE_COLOURS, TONE_MARKERS, WIDTH, add_caption, darker, number, plain_axis

BAR = 0.8 / 15  # of the 15 bins of confidence


def draw_reliability(calibration: dict[str, Any]) -> Figure:
    """Draw accuracy against confidence, a panel per skin tone, above the share of decisions in each bin.

    Args:
        calibration (`dict`):
            What [`~fedd_hf.evaluation.uncertainty.calibration_by_tone`] returns: `rows` with `skin_tone`, `n`, `ece`,
            `low`, `high`, `temperature`, `ece_with_temperature` (with `_low` and `_high`), and the `curve` with
            `skin_tone`, `confidence`, `accuracy`, `count`. Bins of malignancy scores, whose rows have a `brier`, get
            intervals.

    Raises:
        ValueError: If there is no row.
    """
    rows = calibration["rows"]
    if not rows:
        raise ValueError("There are no `rows` of calibration to draw.")
    figure = Figure(figsize=(max(0.5, len(rows) / 4) * WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(2, len(rows), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    is_of_photos = any("brier" in row for row in rows)
    for (curve, shares), row in zip(panels.T, rows, strict=True):
        bins = [point for point in calibration["curve"] if point["skin_tone"] == row["skin_tone"]]
        _draw_curve(curve, row, bins, is_of_photos)
        _draw_shares(shares, row, bins)
    panels[0, 0].set_xlim(0.48 if is_of_photos else -0.02, 1.02)  # a score decides with a confidence of at least 0.5
    panels[0, 0].set_ylabel("accuracy", fontsize=FONT)
    panels[1, 0].set_ylabel("share of\ndecisions", fontsize=FONT)
    add_caption(figure, [_describe(rows[0], is_of_photos)])
    return figure


def _draw_curve(axis: Axes, row: dict[str, Any], bins: list[dict[str, Any]], is_of_photos: bool) -> None:
    colour = darker(TONE_COLOURS.get(row["skin_tone"], "0.4"))
    confidence, accuracy = ([point[name] for point in bins] for name in ("confidence", "accuracy"))
    axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.9, zorder=1)
    axis.plot(
        confidence, accuracy, color=colour, marker=TONE_MARKERS.get(row["skin_tone"], "o"), markersize=4, linewidth=1.2
    )
    if is_of_photos:
        ends = np.array([_interval(point) for point in bins]).reshape(-1, 2)
        axis.vlines(confidence, ends[:, 0], ends[:, 1], color=colour, linewidth=0.9)
    axis.set_ylim(-0.02, 1.02)
    axis.set_title(_title(row), fontsize=FONT - 0.5)
    plain_axis(axis, grid="both")


def _draw_shares(axis: Axes, row: dict[str, Any], bins: list[dict[str, Any]]) -> None:
    counts = np.array([point["count"] for point in bins], dtype=float)
    colour = TONE_COLOURS.get(row["skin_tone"], "0.6")
    axis.bar([point["confidence"] for point in bins], counts / max(1.0, counts.sum()), width=BAR, color=colour)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("confidence", fontsize=FONT)
    plain_axis(axis)


def _interval(point: dict[str, Any]) -> tuple[float, float]:
    right = round(point["accuracy"] * point["count"])
    found = binomtest(right, point["count"]).proportion_ci(method="wilson")
    return found.low, found.high


def _title(row: dict[str, Any]) -> str:
    scaled = _say_error(row, ("ece_with_temperature", "ece_with_temperature_low", "ece_with_temperature_high"))
    lines = {"ECE": _say_error(row, ("ece", "low", "high")), "scaled": scaled}
    said = [f"{name} {text}" for name, text in lines.items() if text]
    return "\n".join([f"{row['skin_tone']}, n = {row['n']}", *said])


def _say_error(row: dict[str, Any], names: tuple[str, str, str]) -> str:
    value, low, high = (number(row.get(name)) for name in names)
    if not np.isfinite(value):
        return ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite([low, high]).all() else f"{value:.3f}"


def _describe(row: dict[str, Any], is_of_photos: bool) -> str:
    bins = (
        "Whiskers: 95 % Wilson intervals of the photos in a bin."
        if is_of_photos
        else "Decisions are pixels; those of one photo depend on each other, so that bins have no intervals."
    )
    temperature = number(row.get("temperature"))
    scaled = f" Scaled: at the temperature {temperature:.3g}, fitted on validation photos."
    errors = " ECE: expected calibration error, with the 95 % interval over photos."
    return f"{bins}{errors}{scaled if np.isfinite(temperature) else ''}"
