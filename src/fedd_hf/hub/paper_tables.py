"""The tables of the paper and of its reproduction: report in, rows of text out, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedd_hf.evaluation.report import describe_flags, format_interval
from fedd_hf.figures.style import TITLES

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title (`str`):
            What it shows.
        header (`list[str]`):
            Names of the columns.
        rows (`list[list[str]]`):
            Cells.
        note (`str`):
            What has to be known to read it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def paper_tables(report: dict[str, Any]) -> list[Table]:
    """Return every table of a reproduction report.

    Args:
        report (`dict`):
            Report of [`~fedd_hf.experiments.reproduction.run_reproduction`].
    """
    return [
        tabulate_counts(report["counts"]["by_split"]),
        *tabulate_comparison(report["comparison"]),
        tabulate_f1(report["malignancy"]["curves"]),
        tabulate_run_time(report["run_time"]),
        *(tabulate_evaluation(report["evaluation"][task], task) for task in ("segmentation", "malignancy")),
        *(tabulate_gaps(report["evaluation"][task]["gaps"], task) for task in ("segmentation", "malignancy")),
    ]


def tabulate_counts(rows: list[dict[str, Any]]) -> Table:
    """Count photos by task, split and skin tone: supplement, Table 1."""
    header = ["task", "split", "skin tone", "photos", "masks", "malignant", "benign"]
    names = ["task", "split", "skin_tone", *header[3:]]
    return Table("Photos by split (supplement, Table 1)", header, [[str(row[name]) for name in names] for row in rows])


def tabulate_comparison(rows: list[dict[str, Any]]) -> list[Table]:
    """Put ours beside the published values, a table for each of the paper's figures and tables."""
    header = ["metric", "skin tone", "method", "labelled", "published", "ours", "difference"]
    return [
        Table(f"Published and ours: {name}", header, [_compare(row) for row in group], group[0]["source"])
        for name, group in _group(rows, "table")
    ]


def tabulate_f1(curves: list[dict[str, Any]]) -> Table:
    """Tabulate F1 on light and dark skin at the threshold of the test photos: supplement, Table 2."""
    of_f1 = [row for row in curves if row["metric"] == "f1_test_youden" and row["skin_tone"] in ("I-II", "V-VI")]
    chosen = [row for row in of_f1 if row["test"] == "test"]
    fractions = sorted({row["label_fraction"] for row in chosen})
    cells = {(row["method"], row["skin_tone"], row["label_fraction"]): format_interval(row) for row in chosen}
    rows = [
        [method, tone, *(cells.get((method, tone, fraction), NOTHING) for fraction in fractions)]
        for method, tone in dict.fromkeys((row["method"], row["skin_tone"]) for row in chosen)
    ]
    note = "The threshold is chosen on the same photos, as the paper does: optimistic."
    header = ["method", "skin tone", *(f"{fraction:.0%} labelled" for fraction in fractions)]
    return Table("F1 of malignancy (supplement, Table 2)", header, rows, note)


def tabulate_run_time(rows: list[dict[str, Any]]) -> Table:
    """Put our run times beside the published ones."""
    header = ["quantity", "published", "ours", "machines"]
    cells = [
        [row["quantity"], f"{row['published']:g}", _number(row["ours"], ".2g"), f"{row['source']}; {row['machine']}"]
        for row in rows
    ]
    return Table("Run time (supplement)", header, cells)


def tabulate_evaluation(evaluation: dict[str, Any], task: str) -> Table:
    """Tabulate every metric by skin tone."""
    rows = evaluation["by_tone"]
    tones = list(dict.fromkeys(row["skin_tone"] for row in rows))
    cells = {(row["metric"], row["skin_tone"]): format_interval(row) for row in rows}
    photos = {row["skin_tone"]: row["n"] for row in rows}
    body = [
        [TITLES.get(metric, metric), *(cells.get((metric, tone), NOTHING) for tone in tones)]
        for metric in dict.fromkeys(row["metric"] for row in rows)
    ]
    header = ["metric", *(f"{tone} (n = {photos[tone]})" for tone in tones)]
    return Table(f"FEDD by skin tone: {task}", header, body, describe_flags(rows))


def tabulate_gaps(rows: list[dict[str, Any]], task: str) -> Table:
    """Tabulate the gaps between skin tones with the smallest gap that this sample could have shown."""
    header = ["metric", "gap", "n", "difference", "ratio", "p", "p (Holm)", "smallest detectable gap"]
    body = [
        [
            TITLES.get(row["metric"], row["metric"]),
            f"{row['skin_tone']} minus {row['reference']}",
            f"{row['n']} and {row['n_reference']}",
            format_interval(row | {"value": row["difference"]}),
            _number(row["ratio"], ".2f"),
            _number(row["p_value"], ".3f"),
            _number(row["p_holm"], ".3f"),
            _number(row["minimum_detectable_gap"], ".3f"),
        ]
        for row in rows
    ]
    note = "Smallest detectable gap: what a sample like this one shows in 80 % of cases at the 5 % level."
    return Table(f"Gaps between skin tones: {task}", header, body, f"{note} {describe_flags(rows)}".strip())


def _compare(row: dict[str, Any]) -> list[str]:
    block = "" if pd.isna(row.get("block")) else f", block {row['block']:.0f}, t = {row['timestep']:.0f}"
    tone = "all" if pd.isna(row["skin_tone"]) else row["skin_tone"]
    ours = format_interval({"value": row["ours"], "low": row["low"], "high": row["high"]})
    metric = TITLES.get(row["metric"], row["metric"])
    shown = f"{row['published']:.3f}" if row["tolerance"] > 0.005 else f"{row['published']:.2f}"
    difference = _number(row["difference"], "+.3f")
    return [metric, tone, f"{row['method']}{block}", f"{row['label_fraction']:.0%}", shown, ours, difference]


def _group(rows: list[dict[str, Any]], name: str) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for value in dict.fromkeys(row[name] for row in rows):
        yield value, [row for row in rows if row[name] == value]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None or pd.isna(value) else format(value, form)
