"""The supplement's Figure 1: activations of blocks and their clusters, and how well the clusters fit the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from PIL import Image

from fedd_hf.figures.overlays import open_overlay, open_photo, show
from fedd_hf.figures.style import FONT, WIDTH, add_caption, draw_point, number, plain_axis, say_photos

SCORES = {"silhouette": "silhouette", "adjusted_rand": "adjusted Rand index", "best_match_iou": "best-match IoU"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of timesteps; Okabe and Ito
MARKERS = "os^D"
PANEL = 0.85  # inches
MAX_EXAMPLES = 3
SCORE_HEIGHT = 2.1  # inches


def draw_clustering(report: dict[str, Any], folder: Path) -> Figure:
    """Draw activations and clusters of a photo of each skin tone, a column per block, and the scores of each block.

    Args:
        report (`dict`):
            Report of [`~clustering.cluster_blocks`]: `points` with `block`, `timestep`, the scores
            and their intervals, `chosen` blocks, and `examples` with paths of pictures.
        folder (`Path`):
            Folder to which the paths are relative.
    """
    examples = report["examples"][:MAX_EXAMPLES]
    heights = [2 * PANEL + 0.3] * len(examples) + [SCORE_HEIGHT]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, example in zip(parts, examples, strict=False):
        _draw_example(part, example, folder)
    _draw_scores(parts[-1], report["points"])
    add_caption(figure, _notes(report))
    return figure


def _draw_example(part: SubFigure, example: dict[str, Any], folder: Path) -> None:
    blocks = example["blocks"]
    axes = part.subplots(2, 1 + len(blocks), squeeze=False)
    photo_path = folder / example["photo_path"]
    show(axes[0, 0], open_photo(photo_path))
    axes[0, 0].set_title(_name(example), fontsize=FONT)
    if example.get("truth_path"):
        show(axes[1, 0], open_overlay(photo_path, folder / example["truth_path"]))
        axes[1, 0].set_xlabel("truth", fontsize=FONT)
    else:
        axes[1, 0].set_axis_off()
    for column, block in zip(axes[:, 1:].T, blocks, strict=True):
        for axis, kind in zip(column, ("activation", "clusters"), strict=True):
            with Image.open(folder / block[f"{kind}_path"]) as picture:
                side = picture.width
                show(axis, picture.convert("RGB"))
        column[0].set_title(f"block {block['block']}", fontsize=FONT)
        column[1].set_xlabel(f"{side} px", fontsize=FONT)
    for axis, name in zip(axes[:, 1], ("activation", "clusters"), strict=True):
        axis.set_ylabel(name, fontsize=FONT)


def _name(example: dict[str, Any]) -> str:
    return f"tone {example['skin_tone']}" if example.get("skin_tone") else "photo"


def _draw_scores(part: SubFigure, points: list[dict[str, Any]]) -> None:
    blocks = sorted({point["block"] for point in points})
    timesteps = sorted({point["timestep"] for point in points})
    axes = part.subplots(1, len(SCORES))
    for axis, (score, title) in zip(axes, SCORES.items(), strict=True):
        for rank, timestep in enumerate(timesteps):
            of_timestep = {point["block"]: point for point in points if point["timestep"] == timestep}
            _draw_curve(axis, score, [of_timestep.get(block, {}) for block in blocks], rank, len(timesteps))
        axis.set_xticks(range(len(blocks)), [str(block) for block in blocks])
        axis.set_xlim(-0.5, len(blocks) - 0.5)
        axis.set_title(title, fontsize=FONT + 1)
        axis.set_xlabel("block", fontsize=FONT)
        plain_axis(axis)
    if len(timesteps) > 1:
        part.legend(
            handles=[_handle(rank, timestep) for rank, timestep in enumerate(timesteps)],
            loc="outside upper center",
            ncols=len(timesteps),
            frameon=False,
            fontsize=FONT,
        )


def _draw_curve(axis: Axes, score: str, points: list[dict[str, Any]], rank: int, num_curves: int) -> None:
    colour, marker = _style(rank)
    places = np.arange(len(points)) + 0.12 * (rank - (num_curves - 1) / 2)  # whiskers side by side
    axis.plot(places, [number(point.get(score)) for point in points], color=colour, linewidth=1)
    for place, point in zip(places, points, strict=True):
        draw_point(axis, place, point, colour, marker, (score, f"{score}_low", f"{score}_high"))


def _handle(rank: int, timestep: int) -> Line2D:
    colour, marker = _style(rank)
    return Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1, label=f"t = {timestep}")


def _style(rank: int) -> tuple[str, str]:
    return COLOURS[rank % len(COLOURS)], MARKERS[rank % len(MARKERS)]


def _notes(report: dict[str, Any]) -> list[str]:
    """Say of what the means are and which blocks they choose."""
    timesteps = sorted({point["timestep"] for point in report["points"]})
    parts = ["Mean over photos" + "".join(f", {n}" for n in [say_photos([report.get("photos")])] if n)]
    parts += [f"95 % intervals; pictures at t = {timesteps[0]}"] if timesteps else []
    chosen = [
        f"block {block} {name.replace('rand', 'Rand')}"
        for name, block in report["chosen"].items()
        if block is not None
    ]
    colours = "Truth in the colours of the classes; those of clusters are arbitrary."
    return [f"{', '.join(parts)}. {colours}", f"Chosen: {', '.join(chosen)}." if chosen else ""]
