"""Figure 2 of the supplement: ROC curves of malignancy."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.figures.style import (
    FONT,
    MethodStyle,
    add_caption,
    add_legend,
    method_handles,
    per_cent,
    plain_axis,
    say_photos,
    style_methods,
)

DERMATOLOGISTS = (1 - 0.67, 0.71)  # 1 - specificity and sensitivity on all of DDI: Daneshjou et al. (2022)
PANEL = 2.9  # inches
COLUMNS = 2
NOTE = "Curves are of the first seed and without intervals; those of their areas are in the figure of ROC-AUC."


def draw_roc(rows: list[dict[str, Any]], dermatologists: tuple[float, float] = DERMATOLOGISTS) -> Figure:
    """Draw a panel per label fraction with the curve of each method, the diagonal of chance and dermatologists.

    Args:
        rows (`list[dict]`):
            `roc` of a label-efficiency report: `method`, `label_fraction`, `fpr`, `tpr`, of one test; `n` where it is
            known. A curve that cannot be drawn has empty lists.
        dermatologists (`tuple[float, float]`, *optional*):
            False and true positive rate, by default those of the ensemble of Daneshjou et al. (2022) on all of DDI.

    Raises:
        ValueError: If there is no row.
    """
    fractions = sorted({row["label_fraction"] for row in rows})
    if not fractions:
        raise ValueError("There is no ROC curve to draw: give the rows `roc` of a label-efficiency report.")
    styles = style_methods(row["method"] for row in rows)
    columns, num_rows = min(COLUMNS, len(fractions)), -(-len(fractions) // COLUMNS)
    figure = Figure(figsize=(max(2, columns) * PANEL, num_rows * PANEL + 1.1), layout="constrained")
    panels = figure.subplots(num_rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in panels.flat[len(fractions) :]:
        axis.set_axis_off()
    for axis, fraction in zip(panels.flat, fractions, strict=False):
        chosen = [row for row in rows if row["label_fraction"] == fraction]
        _draw_panel(axis, chosen, styles, dermatologists)
        n = say_photos(row.get("n") for row in chosen)
        axis.set_title(f"{per_cent(fraction)} labelled{', ' if n else ''}{n}", fontsize=FONT)
    for axis in panels[:, 0]:
        axis.set_ylabel("true positive rate (sensitivity)", fontsize=FONT)
    for axis in panels.flat[len(fractions) - columns : len(fractions)]:
        axis.set_xlabel("false positive rate (1 - specificity)", fontsize=FONT)
        axis.tick_params(labelbottom=True)
    add_legend(figure, [*method_handles(styles), *_reference_handles()], ncols=4)
    add_caption(figure, [NOTE])
    return figure


def _draw_panel(
    axis: Axes, rows: list[dict[str, Any]], styles: dict[str, MethodStyle], dermatologists: tuple[float, float]
) -> None:
    of_method = {row["method"]: row for row in rows}
    for rank, (method, style) in enumerate(styles.items()):
        if method in of_method and of_method[method]["fpr"]:
            row = of_method[method]
            every = (0.03 + 0.17 * rank / len(styles), 0.2)  # so that markers of curves in one place do not coincide
            axis.plot(
                row["fpr"],
                row["tpr"],
                color=style.colour,
                linewidth=style.linewidth,
                marker=style.marker,
                markersize=4.5,
                markevery=every,
                zorder=style.zorder,
                label=method,
            )
    axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.9, zorder=1)
    axis.plot(*dermatologists, color="black", linestyle="none", marker="$\\oplus$", markersize=9, zorder=6)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    plain_axis(axis, grid="both")


def _reference_handles() -> list[Line2D]:
    point = Line2D(
        [], [], color="black", linestyle="none", marker="$\\oplus$", markersize=8, label="dermatologists, all of DDI"
    )
    return [point, Line2D([], [], color="0.5", linestyle="--", linewidth=0.9, label="chance")]
