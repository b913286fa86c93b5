"""How far malignancy scores move when pen marks and rulers are painted over, by skin tone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.figures.style import (
    FONT,
    TONE_COLOURS,
    TONE_MARKERS,
    WIDTH,
    add_caption,
    add_legend,
    draw_point,
    flag_notes,
    number,
    plain_axis,
    say_p,
    signed,
)

SHIFT = ("shift", "low", "high")
CONTROL = ("control_shift", "control_low", "control_high")
CONTROL_COLOUR, CONTROL_MARKER = "#767676", "x"
OFFSET = 0.16


def draw_marker_probe(rows: list[dict[str, Any]]) -> Figure:
    """Draw the mean shift of the score by skin tone and, where rows have it, that of the control.

    Args:
        rows (`list[dict]`):
            `rows` of the report of the probe: `skin_tone`, `n`, `shift` (painted over minus original), `low`, `high`
            and `p_value`; `control_shift`, `control_low` and `control_high` where as much skin was painted over
            elsewhere.

    Raises:
        ValueError: If there is no row.
    """
    if not rows:
        raise ValueError("There are no `rows` of the marker probe to draw.")
    has_control = any(np.isfinite(number(row.get("control_shift"))) for row in rows)
    offset = OFFSET if has_control else 0.0
    figure = Figure(figsize=(0.75 * WIDTH, 1.3 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        tone = row["skin_tone"]
        look = (TONE_COLOURS.get(tone, "0.4"), TONE_MARKERS.get(tone, "o"))
        draw_point(axis, place - offset, row, *look, names=SHIFT, is_horizontal=True, size=6)
        draw_point(axis, place + offset, row, CONTROL_COLOUR, CONTROL_MARKER, names=CONTROL, is_horizontal=True)
        axis.text(1.02, place, _say(row), transform=axis.get_yaxis_transform(), fontsize=FONT - 0.5, va="center")
    axis.axvline(0, color="black", linewidth=0.9, zorder=1)
    axis.set_yticks(range(len(rows)), [f"{row['skin_tone']} (n = {row['n']})" for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("shift of the malignancy score (painted over minus original)", fontsize=FONT)
    plain_axis(axis, grid="x")
    if has_control:
        add_legend(figure, _handles())
    add_caption(figure, ["Whiskers: 95 % intervals over photos.", *flag_notes(rows)])
    return figure


def _say(row: dict[str, Any]) -> str:
    shift = number(row["shift"])
    return f"{signed(shift)}  {say_p(row.get('p_value'))}".rstrip() if np.isfinite(shift) else "no value"


def _handles() -> list[Line2D]:
    looks = (
        ("0.3", "o", "pen marks and rulers painted over"),
        (CONTROL_COLOUR, CONTROL_MARKER, "control: as much skin painted over"),
    )
    return [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1, label=label)
        for colour, marker, label in looks
    ]
