"""Bars of each metric by skin tone, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import TONE_COLOURS

TITLES = {
    "mean_iou": "mean IoU over classes",
    "lesion_iou": "lesion IoU",
    "lesion_dice": "lesion Dice",
    "auroc": "malignancy AUROC",
    "balanced_accuracy": "balanced accuracy",
}


def draw_by_tone(rows: list[dict[str, Any]], title: str) -> Figure:
    """Draw the rows of a report (`metric`, `skin_tone`, `n`, `value`, `low`, `high`) as one panel per metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    figure = Figure(figsize=(2.6 * len(metrics), 3.6), layout="constrained")
    figure.suptitle(title)
    for axis, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        _draw_metric(axis, [row for row in rows if row["metric"] == metric])
        axis.set_title(TITLES.get(metric, metric), fontsize=10)
    return figure


def _draw_metric(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for position, row in enumerate(rows):
        value, low, high = (np.nan if row[name] is None else row[name] for name in ("value", "low", "high"))
        axis.bar(position, value, color=TONE_COLOURS[row["skin_tone"]], width=0.75)
        if np.isfinite([value, low, high]).all():
            errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axis.errorbar(position, value, yerr=errors, color="black", capsize=3, linewidth=1)
    axis.set_xticks(range(len(rows)), [f"{row['skin_tone']}\nn={row['n']}" for row in rows], fontsize=9)
    axis.set_ylim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
