"""The report: one JSON file that figures, tables and cards only format."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedd_hf.files import write_whole

HEADLINES = ("mean_iou", "lesion_iou", "lesion_dice", "auroc", "balanced_accuracy")
DAGGER = "†"
NOT_A_COMPARISON = "random weights: not a comparison"  # in the name of a method
PACKAGES = ("fedd-hf", "torch", "transformers", "diffusers", "accelerate")


def describe_machine() -> dict[str, str | int | None]:
    """Return the versions and the number of cores that a run had."""
    versions: dict[str, str | int | None] = {package: version(package) for package in PACKAGES}
    return versions | {"python": platform.python_version(), "cores": os.cpu_count()}


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all; tables become lists of rows, NaN becomes null."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(_plain(report), indent=2, allow_nan=False) + "\n")


def read_report(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is not a JSON object.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a report: {error}. Run the experiment again.") from error


def format_interval(row: dict[str, Any]) -> str:
    """Format a row as `0.612 [0.540, 0.671]`, with a dash for what cannot be said, and a dagger if it has a flag."""
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return "–"
    mark = f" {DAGGER}" if row.get("flag") else ""
    if low is None or math.isnan(low):
        return f"{value:.3f} [–]{mark}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]{mark}"


def describe_flags(rows: list[dict[str, Any]]) -> str:
    """Say what the daggers of [`format_interval`] mean; `""` if no row has a flag."""
    flags = sorted({row["flag"] for row in rows if row.get("flag")})
    return f"{DAGGER} {'; '.join(flags)}, by simulation: too few photos to trust the interval." if flags else ""


def choose_rows(rows: list[dict[str, Any]], metrics: Sequence[str] = HEADLINES) -> list[dict[str, Any]]:
    """Return the rows of some metrics, by default of those that come first in every table."""
    return [row for row in rows if row["metric"] in metrics]


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
