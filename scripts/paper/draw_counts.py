"""Figure 1: how many photos there are of each skin tone and diagnosis."""

from __future__ import annotations

from collections import Counter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedd_hf.evaluation.by_tone import TONES
from fedd_hf.figures.style import FONT, TONE_COLOURS, WIDTH
from fedd_hf.labels import MALIGNANCY_COLOURS

MAX_DISEASES = 25
LEGEND: dict[str, Any] = {"ncols": 3, "fontsize": FONT, "frameon": False, "columnspacing": 1}


def draw_counts(counts: dict[str, Any]) -> Figure:
    """Draw photos by diagnosis and skin tone, and the malignant ones by disease and skin tone.

    Args:
        counts (`dict`):
            Rows `by_malignancy` (`skin_tone`, `malignant`, `photos`) and `malignant_diseases` (`disease`,
            `skin_tone`, `photos`), as [`~photo_counts.describe_counts`] returns them. Beyond 25
            diseases the rarest are drawn together.
    """
    diseases = _count_diseases(counts["malignant_diseases"])
    figure = Figure(figsize=(WIDTH, max(2.6, 1.2 + 0.165 * len(diseases))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_diagnoses(left, counts["by_malignancy"])
    _draw_diseases(right, diseases)
    figure.legend(handles=left.containers, loc="outside lower left", **LEGEND)  # inside, they would hide bars
    figure.legend(handles=right.containers, loc="outside lower right", **LEGEND)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=FONT)
    return figure


def _draw_diagnoses(axis: Axes, rows: list[dict[str, Any]]) -> None:
    photos = Counter({(row["skin_tone"], bool(row["malignant"])): row["photos"] for row in rows})
    for offset, (name, colour) in zip((-0.2, 0.2), MALIGNANCY_COLOURS.items(), strict=True):
        heights = [photos[tone, name == "malignant"] for tone in TONES]
        bars = axis.bar([place + offset for place in range(len(TONES))], heights, width=0.38, color=colour, label=name)
        axis.bar_label(bars, fontsize=FONT, padding=1)
    totals = [photos[tone, False] + photos[tone, True] for tone in TONES]
    axis.set_xticks(range(len(TONES)), [f"{tone}\nn = {n}" for tone, n in zip(TONES, totals, strict=True)])
    axis.set_xlabel("skin tone", fontsize=FONT)
    axis.set_ylabel("photos", fontsize=FONT)
    axis.margins(y=0.1)
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axis.set_title(f"Diagnosis (n = {sum(totals)})", fontsize=FONT + 1)


def _draw_diseases(axis: Axes, diseases: list[tuple[str, Counter[str]]]) -> None:
    places = range(len(diseases))
    starts = [0] * len(diseases)
    for tone in TONES:
        widths = [photos[tone] for _, photos in diseases]
        label = f"{tone} (n = {sum(widths)})"
        axis.barh(places, widths, left=starts, color=TONE_COLOURS[tone], edgecolor="white", linewidth=0.5, label=label)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for place, total in zip(places, starts, strict=True):
        axis.annotate(str(total), (total, place), (2, 0), textcoords="offset points", fontsize=FONT - 1, va="center")
    axis.set_yticks(places, [name for name, _ in diseases])
    axis.set_ylim(len(diseases) - 0.4, -0.6)
    axis.margins(x=0.1)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axis.set_xlabel("photos", fontsize=FONT)
    axis.set_title(f"Malignant diseases (n = {sum(starts)})", fontsize=FONT + 1)


def _count_diseases(rows: list[dict[str, Any]]) -> list[tuple[str, Counter[str]]]:
    """Return name and photos by skin tone of each disease, the most frequent first, the rarest as one."""
    diseases: dict[str, Counter[str]] = {}
    for row in rows:
        name = str(row["disease"]).replace("-", " ")
        diseases.setdefault(name, Counter())[row["skin_tone"]] += row["photos"]
    ranked = sorted(diseases.items(), key=lambda disease: (-disease[1].total(), disease[0]))
    if len(ranked) <= MAX_DISEASES:
        return ranked
    shown, rare = ranked[: MAX_DISEASES - 1], ranked[MAX_DISEASES - 1 :]
    return [*shown, (f"{len(rare)} others", sum((photos for _, photos in rare), Counter()))]
