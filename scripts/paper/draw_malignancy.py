"""Figure 7: ROC-AUC and accuracy of malignancy by method and label fraction."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.evaluation.titles import TITLES
from fedd_hf.figures.style import (
    FONT,
    WIDTH,
    MethodStyle,
    add_caption,
    add_legend,
    draw_point,
    flag_notes,
    has_intervals,
    is_flagged,
    method_handles,
    number,
    per_cent,
    plain_axis,
    say_photos,
    style_methods,
)

PANELS = {
    "auroc": (TITLES["auroc"], ""),
    "accuracy": ("accuracy, threshold 0.5", ""),
    "accuracy_test_youden": ("accuracy, Youden point of test (the paper's; optimistic)", "////"),
}
DERMATOLOGISTS = 0.72  # ROC-AUC of the ensemble on all of DDI: Daneshjou et al. (2022)
CHANCE = 0.5
NOTE = "Whiskers: 95 % intervals over the test photos."
FILLED = 0.82  # of the distance between two label fractions


def draw_malignancy(
    curves: list[dict[str, Any]],
    test: str = "test",
    dermatologists: float = DERMATOLOGISTS,
    always_benign: float | None = None,
) -> Figure:
    """Draw bars with intervals, a panel for ROC-AUC and one for accuracy by each rule that chose the threshold.

    Args:
        curves (`list[dict]`):
            `curves` of a label-efficiency report: `method`, `label_fraction`, `photos`, `test`, `metric`, `skin_tone`,
            `n`, `value`, `low`, `high`, `flag`. Drawn are all photos of `auroc`, `accuracy` (at 0.5) and
            `accuracy_test_youden`.
        test (`str`, *optional*, defaults to `"test"`):
            Name of the test whose rows are drawn.
        dermatologists (`float`, *optional*, defaults to 0.72):
            ROC-AUC of dermatologists, by default that of the ensemble of Daneshjou et al. (2022) on all 656 photos of
            DDI.
        always_benign (`float`, *optional*):
            Accuracy of calling every photo benign: the share of benign photos in the test.

    Raises:
        ValueError: If there is no such row.
    """
    rows = [row for row in curves if row["test"] == test and row["skin_tone"] == "all" and row["metric"] in PANELS]
    if not rows:
        raise ValueError(f"No curve of the test {test!r} is of all photos and of a metric of {list(PANELS)}.")
    metrics = [metric for metric in PANELS if any(row["metric"] == metric for row in rows)]
    styles = style_methods(row["method"] for row in rows)
    photos = {row["label_fraction"]: row.get("photos") for row in sorted(rows, key=lambda row: row["label_fraction"])}
    figure = Figure(figsize=(WIDTH, 1.2 + 1.75 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, metric in zip(panels, metrics, strict=True):
        _draw_panel(axis, [row for row in rows if row["metric"] == metric], styles, list(photos), PANELS[metric][1])
        axis.set_title(_title(metric, rows), fontsize=FONT)
        if metric == "auroc":
            axis.axhline(dermatologists, color="black", linestyle="--", linewidth=1.1, zorder=1.5)
        elif always_benign is not None:
            axis.axhline(always_benign, color="black", linestyle="-.", linewidth=1.1, zorder=1.5)
    panels[-1].set_xticks(range(len(photos)), [_name_fraction(*fraction) for fraction in photos.items()])
    panels[-1].set_xlabel("photos labelled", fontsize=FONT)
    add_legend(figure, [*method_handles(styles), *_line_handles(dermatologists, always_benign)], ncols=4)
    add_caption(figure, [NOTE if has_intervals(rows) else "", *flag_notes(rows)])
    return figure


def _draw_panel(
    axis: Axes, rows: list[dict[str, Any]], styles: dict[str, MethodStyle], fractions: list[float], hatch: str
) -> None:
    width = FILLED / len(styles)
    for row in rows:
        style, rank = styles[row["method"]], list(styles).index(row["method"])
        place = fractions.index(row["label_fraction"]) + (rank - (len(styles) - 1) / 2) * width
        value = number(row["value"])
        face = "white" if is_flagged(row) else style.colour
        axis.bar(
            place, value, 0.9 * width, facecolor=face, edgecolor=style.colour, linewidth=1, alpha=0.55, hatch=hatch
        )
        draw_point(axis, place, row, style.colour, style.marker, size=4)
    axis.axhline(CHANCE, color="black", linestyle=":", linewidth=1.1, zorder=1.5)
    axis.set_ylim(0, 1.02)
    plain_axis(axis)


def _title(metric: str, rows: list[dict[str, Any]]) -> str:
    n = say_photos(row.get("n") for row in rows if row["metric"] == metric)
    return f"{PANELS[metric][0]}, {n}" if n else PANELS[metric][0]


def _name_fraction(fraction: float, photos: int | None) -> str:
    return per_cent(fraction) if photos is None else f"{photos} ({per_cent(fraction)})"


def _line_handles(dermatologists: float, always_benign: float | None) -> list[Line2D]:
    def line(label: str, **look: Any) -> Line2D:
        return Line2D([], [], color="black", linewidth=1.1, label=label, **look)

    dashed = line(f"dermatologists, all of DDI ({dermatologists:.2f})", linestyle="--")
    dotted = line(f"chance ({CHANCE})", linestyle=":")
    benign = [] if always_benign is None else [line(f"always benign ({always_benign:.2f})", linestyle="-.")]
    return [dashed, dotted, *benign]
