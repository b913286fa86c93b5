"""Tables of a report as text, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .report import HEADLINES, choose_rows, describe_flags, format_interval
from .titles import TITLES

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


def as_markdown(table: Table) -> str:
    """Return a table with its title and note."""
    body = markdown_table(table.header, table.rows)
    return f"**{table.title}**\n\n{body}" + (f"\n{table.note}\n" if table.note else "")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table without title and note."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def markdown_by_tone(rows: list[dict[str, Any]], metrics: Sequence[str] = HEADLINES) -> str:
    """Format rows by tone as a Markdown table, one column per metric, with a line on flagged rows below it.

    Args:
        rows (`list[dict]`):
            Rows of [`~fedd_hf.evaluation.by_tone`].
        metrics (`Sequence[str]`, *optional*):
            What is shown of the metrics that the rows have.
    """
    rows = choose_rows(rows, metrics)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    header, lines = ["skin tone", "photos", *(TITLES[metric] for metric in metrics)], []
    for tone in dict.fromkeys(row["skin_tone"] for row in rows):
        of_tone = {row["metric"]: row for row in rows if row["skin_tone"] == tone}
        lines.append([tone, str(of_tone[metrics[0]]["n"]), *(format_interval(of_tone[metric]) for metric in metrics)])
    table, note = markdown_table(header, lines), describe_flags(rows)
    return f"{table}\n{note}\n" if note else table


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
            format_number(row["ratio"], ".2f"),
            format_number(row["p_value"], ".3f"),
            format_number(row["p_holm"], ".3f"),
            format_number(row["minimum_detectable_gap"], ".3f"),
        ]
        for row in rows
    ]
    note = "Smallest detectable gap: what a sample like this one shows in 80 % of cases at the 5 % level."
    return Table(f"Gaps between skin tones: {task}", header, body, f"{note} {describe_flags(rows)}".strip())


def format_number(value: float | None, form: str) -> str:
    """Format a number, with a dash for what cannot be said."""
    return NOTHING if value is None or pd.isna(value) else format(value, form)
