"""What the paper published, value by value with its source, and ours beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fedd_hf.compare.methods import PAPER_BASELINES

PUBLISHED = Path(__file__).with_name("published.json")
KEYS = ["method", "label_fraction", "test", "metric", "skin_tone"]


def published_results() -> pd.DataFrame:
    """Return what the paper says of its methods.

    Returns:
        `pd.DataFrame`: one row per `table`, `metric`, `skin_tone`, `test`, `method` and `label_fraction`: `published`,
        `tolerance` (half a printed digit, or how exactly a figure could be read) and `source`.
    """
    return pd.DataFrame(
        [
            {name: group[name] for name in ("table", "metric", "skin_tone", "test", "tolerance", "source")}
            | {"method": method, "label_fraction": label_fraction, "published": value}
            for group in _read()["results"]
            for method, values in group["values"].items()
            for label_fraction, value in zip(group["label_fractions"], values, strict=True)
        ]
    )


def published_gains() -> pd.DataFrame:
    """Return by how much FEDD is published to lead the next best method: supplement, Table 3."""
    return pd.DataFrame(
        [
            {name: group[name] for name in ("table", "metric", "skin_tone", "test", "tolerance", "source")}
            | {"method": "FEDD minus the next best", "label_fraction": label_fraction, "published": value}
            for group in _read()["gains"]
            for label_fraction, value in zip(group["label_fractions"], group["values"], strict=True)
        ]
    )


def published_grid() -> pd.DataFrame:
    """Return the test accuracy of each block at timestep 0: Figure 6."""
    return pd.DataFrame(
        [
            {name: group[name] for name in ("table", "metric", "timestep", "tolerance", "source")}
            | {"method": "FEDD", "block": int(block), "label_fraction": label_fraction, "published": value}
            for group in _read()["grid"]
            for block, values in group["values"].items()
            for label_fraction, value in zip(group["label_fractions"], values, strict=True)
        ]
    )


def published_references() -> pd.DataFrame:
    """Return what others measured on all of DDI, dermatologists among them."""
    return pd.DataFrame(
        [
            {name: group[name] for name in ("table", "metric", "skin_tone", "tolerance", "source")}
            | {"method": method, "published": value}
            for group in _read()["references"]
            for method, value in group["values"].items()
        ]
    )


def published_run_times() -> list[dict[str, Any]]:
    """Return `quantity`, `published` and `source` of the run-time line of the supplement."""
    return list(_read()["run_time"])


def dermatologists(metric: str, skin_tone: str = "all") -> float:
    """Return what the dermatologist ensemble of Daneshjou et al. (2022) reached on all of DDI."""
    rows = published_references()
    chosen = rows[(rows["method"] == "Dermatologists") & (rows["metric"] == metric) & (rows["skin_tone"] == skin_tone)]
    return float(chosen["published"].item())


def compare_with_published(
    curves: list[dict[str, Any]], points: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Put our values beside the published ones.

    Args:
        curves (`list[dict]`):
            `curves` of the label-efficiency reports: `method`, `label_fraction`, `test`, `metric`, `skin_tone`,
            `value`, `low`, `high`.
        points (`list[dict]`, *optional*):
            `points` of the report of blocks and timesteps.

    Returns:
        `list[dict]`: a row for each published value with `ours`, `low`, `high`, and `difference`, ours minus theirs;
        NaN where we have no value.
    """
    ours = pd.DataFrame([*curves, *_gains(curves)], columns=[*KEYS, "value", "low", "high"])
    theirs = pd.concat([published_results(), published_gains()], ignore_index=True)
    rows = theirs.merge(ours.drop_duplicates(KEYS), on=KEYS, how="left")
    if points:
        keys = ["label_fraction", "block", "timestep"]
        of_grid = published_grid().merge(pd.DataFrame(points)[[*keys, "accuracy"]], on=keys, how="left")
        rows = pd.concat([rows, of_grid.rename(columns={"accuracy": "value"})], ignore_index=True)
    rows = rows.rename(columns={"value": "ours"}).assign(difference=rows["value"].astype(float) - rows["published"])
    return list(rows.to_dict("records"))


def _gains(curves: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Compute the lead of FEDD over the best of the paper's other methods."""
    table = pd.DataFrame(curves, columns=[*KEYS, "value"])
    for keys, group in table.groupby([name for name in KEYS if name != "method"]):
        fedd = group.loc[group["method"] == "FEDD", "value"].astype(float)
        rivals = group.loc[group["method"].isin(PAPER_BASELINES), "value"].astype(float)
        if len(fedd) and len(rivals):
            names = dict(zip((name for name in KEYS if name != "method"), keys, strict=True))
            yield names | {"method": "FEDD minus the next best", "value": fedd.iloc[0] - rivals.max()}


def _read() -> dict[str, Any]:
    return dict(json.loads(PUBLISHED.read_text()))
