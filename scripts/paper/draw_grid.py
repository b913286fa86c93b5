"""Figure 6: what each block of the UNet is worth to a malignancy classifier, against the timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.evaluation.titles import TITLES
from fedd_hf.figures.style import FONT, WIDTH, add_caption, add_legend, number, per_cent, plain_axis

COLUMNS = 2
MARKERS = "osD^vP*X<>hp"
CHANCE = 0.5
DODGE = 0.6  # of the distance between two timesteps, over which blocks are spread


@dataclass(frozen=True)
class BlockStyle:
    """Colour and marker of a block, and by how much it is drawn beside its timestep."""

    colour: str
    marker: str
    shift: float


@dataclass(frozen=True)
class Choice:
    """Ring around a chosen point: its names in the legend and above a panel, and how it looks."""

    label: str
    short: str
    marker: str
    size: float
    colour: str


CHOICES = {
    "best": Choice("chosen on validation", "validation", "o", 10.0, "#D55E00"),
    "paper": Choice("choice of the paper", "paper", "s", 8.0, "black"),
}


def draw_grid(report: dict[str, Any], metric: str = "accuracy") -> Figure:
    """Draw a panel per label fraction: a line per block, and the points that validation photos and the paper choose.

    Args:
        report (`dict`):
            Report of blocks and timesteps: rows `points`, `best` and `paper` of `label_fraction`, `block`, `timestep`,
            the metric and its standard deviation over seeds (`accuracy_std`).
        metric (`str`, *optional*, defaults to `"accuracy"`):
            Metric of the test photos.

    Raises:
        ValueError: If there is no point.
    """
    points = report["points"]
    if not points:
        raise ValueError("The report has no `points` to draw.")
    fractions = sorted({point["label_fraction"] for point in points})
    styles = _style_blocks(points)
    columns, num_rows = min(COLUMNS, len(fractions)), -(-len(fractions) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.2 + 2.5 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in panels.flat[len(fractions) :]:
        axis.set_axis_off()
    for axis, fraction in zip(panels.flat, fractions, strict=False):
        _draw_panel(axis, [point for point in points if point["label_fraction"] == fraction], metric, styles)
        _mark_choices(axis, _choices_at(report, fraction), metric, styles)
    for axis in panels[:, 0]:
        axis.set_ylabel(f"{TITLES.get(metric, metric)} on test photos", fontsize=FONT)
    for axis in panels.flat[len(fractions) - columns : len(fractions)]:
        axis.set_xlabel("timestep t", fontsize=FONT)
        axis.tick_params(labelbottom=True)
    add_legend(figure, _handles(styles, [name for name in CHOICES if report.get(name)]), ncols=5)
    add_caption(figure, [_describe(report)])
    return figure


def _style_blocks(points: list[dict[str, Any]]) -> dict[int, BlockStyle]:
    """Return the style of each block: the later it is in the decoder, the lighter, and the further to the right."""
    blocks = sorted({point["block"] for point in points})
    step = min(np.diff(sorted({point["timestep"] for point in points})), default=1.0)
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(blocks)))
    shifts = DODGE * step * ((np.arange(len(blocks)) + 0.5) / len(blocks) - 0.5)
    return {
        block: BlockStyle(to_hex(shade), MARKERS[rank % len(MARKERS)], float(shift))
        for rank, (block, shade, shift) in enumerate(zip(blocks, shades, shifts, strict=True))
    }


def _draw_panel(axis: Axes, points: list[dict[str, Any]], metric: str, styles: dict[int, BlockStyle]) -> None:
    for block, style in styles.items():
        of_block = sorted((point for point in points if point["block"] == block), key=lambda point: point["timestep"])
        x = np.array([point["timestep"] for point in of_block]) + style.shift
        y = np.array([number(point[metric]) for point in of_block])
        spread = np.nan_to_num([number(point.get(f"{metric}_std")) for point in of_block])
        axis.vlines(x, y - spread, y + spread, color=style.colour, alpha=0.5, linewidth=0.7)
        axis.plot(x, y, color=style.colour, marker=style.marker, markersize=3.2, linewidth=0.8, label=f"block {block}")
    axis.axhline(CHANCE, color="0.35", linestyle="--", linewidth=0.9, zorder=1.5)
    axis.set_title(f"{per_cent(points[0]['label_fraction'])} labelled, {points[0]['photos']} photos", fontsize=FONT)
    plain_axis(axis)


def _choices_at(report: dict[str, Any], fraction: float) -> dict[str, dict[str, Any]]:
    return {name: row for name in CHOICES for row in report.get(name, []) if row["label_fraction"] == fraction}


def _mark_choices(axis: Axes, chosen: dict[str, dict[str, Any]], metric: str, styles: dict[int, BlockStyle]) -> None:
    """Put a ring around what was chosen, and say in the title of the panel what it is."""
    lines = [axis.get_title()]
    for name, row in chosen.items():
        x, y = row["timestep"] + styles[row["block"]].shift, number(row[metric])
        axis.add_line(_ring(name, [x], [y]))
        lines.append(f"{CHOICES[name].short}: block {row['block']}, t = {row['timestep']} ({y:.2f})")
    axis.set_title("\n".join(lines), fontsize=FONT)


def _ring(name: str, x: list[float], y: list[float]) -> Line2D:
    choice = CHOICES[name]
    return Line2D(
        x,
        y,
        linestyle="none",
        marker=choice.marker,
        markersize=choice.size,
        markerfacecolor="none",
        markeredgecolor=choice.colour,
        markeredgewidth=1.5,
        zorder=5,
        label=choice.label,
    )


def _handles(styles: dict[int, BlockStyle], choices: list[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=4, linewidth=1, label=f"block {block}")
        for block, style in styles.items()
    ]
    chance = Line2D([], [], color="0.35", linestyle="--", linewidth=0.9, label=f"chance ({CHANCE})")
    return [*lines, *(_ring(name, [], []) for name in choices), chance]


def _describe(report: dict[str, Any]) -> str:
    n = len(report.get("photos", {}).get("test", []))
    seeds = report.get("num_seeds")
    return (
        f"Mean over {seeds or 'the'} seeds on {f'n = {n}' if n else 'the'} test photos; thin bars: standard deviation "
        "over seeds, which does not hold the uncertainty from having so few photos. Blocks are drawn slightly side by "
        "side."
    )
