"""Figure 4: metrics against the number of labelled photos, by skin tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedd_hf.evaluation.titles import TITLES

from .style import (
    FONT,
    WIDTH,
    MethodStyle,
    add_caption,
    add_legend,
    draw_point,
    flag_notes,
    has_intervals,
    method_handles,
    number,
    per_cent,
    plain_axis,
    say_photos,
    style_methods,
)

TONE_NAMES = {"all": "all photos", "mean of tones": "mean of the skin tones"}
NOTE = "Whiskers: 95 % intervals over the test photos. Methods are drawn slightly side by side."
DODGE = 0.5  # of the distance between two label fractions, over which methods are spread


def draw_label_efficiency(
    curves: list[dict[str, Any]],
    test: str,
    metrics: Sequence[str] = ("mean_iou", "lesion_iou"),
    tones: Sequence[str] = ("mean of tones", "I-II", "V-VI"),
) -> Figure:
    """Draw a line per method with its intervals: a row of panels per metric, a column per skin tone.

    Args:
        curves (`list[dict]`):
            `curves` of a label-efficiency report: `method`, `label_fraction`, `photos`, `test`, `metric`, `skin_tone`,
            `n`, `value`, `low`, `high`, `flag`.
        test (`str`):
            Name of the test whose rows are drawn.
        metrics (`Sequence[str]`, *optional*, defaults to `("mean_iou", "lesion_iou")`):
            Metrics to draw, downwards.
        tones (`Sequence[str]`, *optional*, defaults to `("mean of tones", "I-II", "V-VI")`):
            Skin tones to draw, to the right.

    Raises:
        ValueError: If there is no such row.
    """
    rows = [row for row in curves if row["test"] == test and row["metric"] in metrics and row["skin_tone"] in tones]
    if not rows:
        raise ValueError(f"No curve of the test {test!r} is of {list(metrics)} and of the skin tones {list(tones)}.")
    styles = style_methods(row["method"] for row in rows)
    is_narrow = len(_photos_by_fraction(rows)) * len(tones) == 1
    figure = Figure(figsize=(WIDTH / 2 if is_narrow else WIDTH, 1.0 + 2.3 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), len(tones), sharex=True, sharey="row", squeeze=False)
    for of_metric, metric in zip(panels, metrics, strict=True):
        for axis, tone in zip(of_metric, tones, strict=True):
            chosen = [row for row in rows if row["metric"] == metric and row["skin_tone"] == tone]
            _draw_panel(axis, chosen, styles, _photos_by_fraction(rows))
        of_metric[0].set_ylabel(TITLES.get(metric, metric), fontsize=FONT)
        of_metric[0].set_ylim(_limits([row for row in rows if row["metric"] == metric]))
    add_legend(figure, method_handles(styles), ncols=min(len(styles), 2 if is_narrow else 4))
    for of_tone, tone in zip(panels.T, tones, strict=True):
        _name_column(of_tone[0], tone, [row for row in rows if row["skin_tone"] == tone])
        of_tone[-1].set_xlabel("photos labelled", fontsize=FONT)
    add_caption(figure, [NOTE if has_intervals(rows) else "", *flag_notes(rows)])
    return figure


def _draw_panel(
    axis: Axes, rows: list[dict[str, Any]], styles: dict[str, MethodStyle], photos: dict[float, int | None]
) -> None:
    places = _places(photos)
    step = min(np.diff(sorted(places.values())), default=1.0) * DODGE / max(1, len(styles))
    for rank, (method, style) in enumerate(styles.items()):
        of_method = sorted((row for row in rows if row["method"] == method), key=lambda row: row["label_fraction"])
        shift = (rank - (len(styles) - 1) / 2) * step
        x = [places[row["label_fraction"]] + shift for row in of_method]
        axis.plot(
            x,
            [number(row["value"]) for row in of_method],
            color=style.colour,
            linewidth=style.linewidth,
            zorder=style.zorder,
            label=method,
        )
        for place, row in zip(x, of_method, strict=True):
            draw_point(axis, place, row, style.colour, style.marker, size=4.5, zorder=style.zorder + 0.5)
    axis.set_xticks(list(places.values()), [_name_fraction(fraction, photos[fraction]) for fraction in places])
    plain_axis(axis)


def _name_column(axis: Axes, tone: str, rows: list[dict[str, Any]]) -> None:
    name = TONE_NAMES.get(tone, f"skin tone {tone}")
    n = say_photos(row.get("n") for row in rows)
    axis.set_title(f"{name}, {n}" if n else name, fontsize=FONT)


def _limits(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the ends of an axis: whole tenths that hold all values and intervals, a bit more at 0 and 1."""
    values = [number(row[name]) for row in rows for name in ("value", "low", "high")]
    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    lowest, highest = np.floor(10 * min(known)) / 10, np.ceil(10 * max(known)) / 10
    return lowest - 0.02, highest + 0.02


def _photos_by_fraction(rows: list[dict[str, Any]]) -> dict[float, int | None]:
    return {row["label_fraction"]: row.get("photos") for row in sorted(rows, key=lambda row: row["label_fraction"])}


def _places(photos: dict[float, int | None]) -> dict[float, float]:
    """Return where label fractions lie: at their numbers of photos where all are known, else in per cent."""
    numbers = [count for count in photos.values() if count is not None]
    if len(set(numbers)) == len(photos):
        return dict(zip(photos, map(float, numbers), strict=True))
    return {fraction: 100 * fraction for fraction in photos}


def _name_fraction(fraction: float, photos: int | None) -> str:
    return per_cent(fraction) if photos is None else f"{photos}\n{per_cent(fraction)}"
