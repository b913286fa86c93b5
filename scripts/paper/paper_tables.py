"""The tables of the paper and of its reproduction: report in, rows of text out, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from fedd_hf.evaluation.report import format_interval
from fedd_hf.evaluation.text_tables import NOTHING, Table, format_number, tabulate_evaluation, tabulate_gaps
from fedd_hf.evaluation.titles import TITLES

TASK_NAMES = {"segmentation": "segmentation", "classification": "malignancy"}  # in titles and file names


def paper_tables(report: dict[str, Any]) -> list[Table]:
    """Return every table of a reproduction report.

    Args:
        report (`dict`):
            Report of [`~reproduction.run_reproduction`].
    """
    return [
        tabulate_counts(report["counts"]["by_split"]),
        *tabulate_comparison(report["comparison"]),
        tabulate_f1(report["classification"]["curves"]),
        tabulate_run_time(report["run_time"]),
        *(tabulate_evaluation(report["evaluation"][task], name) for task, name in TASK_NAMES.items()),
        *(tabulate_gaps(report["evaluation"][task]["gaps"], name) for task, name in TASK_NAMES.items()),
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
        [
            row["quantity"],
            f"{row['published']:g}",
            format_number(row["ours"], ".2g"),
            f"{row['source']}; {row['machine']}",
        ]
        for row in rows
    ]
    return Table("Run time (supplement)", header, cells)


def _compare(row: dict[str, Any]) -> list[str]:
    block = "" if pd.isna(row.get("block")) else f", block {row['block']:.0f}, t = {row['timestep']:.0f}"
    tone = "all" if pd.isna(row["skin_tone"]) else row["skin_tone"]
    ours = format_interval({"value": row["ours"], "low": row["low"], "high": row["high"]})
    metric = TITLES.get(row["metric"], row["metric"])
    shown = f"{row['published']:.3f}" if row["tolerance"] > 0.005 else f"{row['published']:.2f}"
    difference = format_number(row["difference"], "+.3f")
    return [metric, tone, f"{row['method']}{block}", f"{row['label_fraction']:.0%}", shown, ours, difference]


def _group(rows: list[dict[str, Any]], name: str) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for value in dict.fromkeys(row[name] for row in rows):
        yield value, [row for row in rows if row[name] == value]
