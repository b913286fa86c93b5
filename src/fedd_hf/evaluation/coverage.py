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


def flag_of(metric: str, num_photos: int, is_gap: bool = False) -> str:
    """Return `"coverage < 90 %"` if so few photos gave such intervals in the simulation, else `""`.

    The next smaller simulated number of photos counts, and the worst of its scenarios; fewer photos than were
    simulated are flagged.

    Args:
        metric (`str`):
            Name of the metric.
        num_photos (`int`):
            Photos, or patients where they are known; of the smaller group for a gap.
        is_gap (`bool`, *optional*, defaults to `False`):
            Whether it is a difference between two groups.
    """
    chosen = [row for row in simulated_coverage() if (row["metric"], row["is_gap"]) == (kind_of(metric), is_gap)]
    known = [row["n"] for row in chosen if row["n"] <= num_photos]
    if not known:
        return FLAG
    return FLAG if min(row["coverage"] for row in chosen if row["n"] == max(known)) < LEAST_COVERAGE else ""


@cache
def simulated_coverage() -> list[dict[str, Any]]:
    """Return the simulated coverage: rows of `scenario`, `metric`, `is_gap`, `n` (photos of a tone), `coverage`."""
    return list(json.loads(COVERAGE.read_text())["rows"])
