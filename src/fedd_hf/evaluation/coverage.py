"""How often intervals hold the truth, as it was simulated: the flag on rows of too few photos."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

LEAST_COVERAGE = 0.90
FLAG = "coverage < 90 %"
COVERAGE = Path(__file__).with_name("coverage.json")


def kind_of(metric: str) -> str:
    """Return the simulated metric that stands for one: of pixels, of images, of ranks, or of decisions."""
    if metric in ("auroc", "auprc"):
        return "auroc"
    if metric.endswith("_per_image"):
        return "lesion_iou_per_image"
    return "lesion_iou" if "iou" in metric or "dice" in metric else "balanced_accuracy"


def flag_of(metric: str, num_clusters: int, is_gap: bool = False) -> str:
    """Return `"coverage < 90 %"` if so few photos gave such intervals in the simulation, else `""`.

    In each scenario the next smaller simulated number counts, and of the scenarios the worst. Fewer photos than any
    that were simulated are flagged.

    Args:
        metric (`str`):
            Name of the metric.
        num_clusters (`int`):
            Patients, or photos where patients are not known; of the smaller group for a gap.
        is_gap (`bool`, *optional*, defaults to `False`):
            Whether it is a difference between two groups.
    """
    chosen = [row for row in simulated_coverage() if (row["metric"], row["is_gap"]) == (kind_of(metric), is_gap)]
    scenarios = {row["scenario"] for row in chosen}
    least = min(_coverage_at([row for row in chosen if row["scenario"] == name], num_clusters) for name in scenarios)
    return FLAG if least < LEAST_COVERAGE else ""


def _coverage_at(rows: list[dict[str, Any]], num_clusters: int) -> float:
    known = [row for row in rows if row["clusters"] <= num_clusters]
    return float(max(known, key=lambda row: row["clusters"])["coverage"]) if known else 0.0


@cache
def simulated_coverage() -> list[dict[str, Any]]:
    """Return rows of `scenario`, `metric`, `is_gap`, `n` (photos of a tone), `clusters` (its patients), `coverage`."""
    return list(json.loads(COVERAGE.read_text())["rows"])
