"""The report of a comparison of methods as Markdown: values, differences from the first method, gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fedd_hf.evaluation.report import describe_flags, format_interval
from fedd_hf.figures.style import TITLES

from .paper_tables import NOTHING, Table, tabulate_gaps

EVERYBODY = "all"


def describe_methods(report: dict[str, Any], test: str, metrics: Sequence[str], tones: Sequence[str]) -> str:
    """Return the tables of a label-efficiency report as Markdown.

    Args:
        report (`dict`):
            Report of [`~fedd_hf.experiments.label_efficiency.run_label_efficiency`].
        test (`str`):
            Name of the test whose rows are shown.
        metrics (`list[str]`):
            Metrics to show.
        tones (`list[str]`):
            Skin tones to show, `"all"` among them.
    """
    tables: list[Table] = []
    for metric in metrics:
        chosen = {
            name: [row for row in report[name] if row["test"] == test and row["metric"] == metric]
            for name in ("curves", "differences", "gaps")
        }
        tables += [_tabulate_values(chosen["curves"], metric, tone) for tone in tones]
        tables.append(_tabulate_differences(chosen["differences"], metric, report["methods"][0]))
        tables.append(_tabulate_gaps(chosen["gaps"], metric, tones))
    return "\n".join(as_markdown(table) for table in tables if table.rows)


def as_markdown(table: Table) -> str:
    """Return a table with its title and note."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    body = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"**{table.title}**\n\n{body}" + (f"\n{table.note}\n" if table.note else "")


def _tabulate_values(rows: list[dict[str, Any]], metric: str, tone: str) -> Table:
    of_tone = [row for row in rows if row["skin_tone"] == tone]
    photos = max((row["n"] for row in of_tone), default=0)
    who = "test photos" if tone == EVERYBODY else f"test photos of skin tone {tone}"
    title = f"{TITLES.get(metric, metric)}, {photos} {who}, mean over seeds"
    return _by_labelled(of_tone, title, format_interval)


def _tabulate_differences(rows: list[dict[str, Any]], metric: str, first: str) -> Table:
    title = f"{TITLES.get(metric, metric)}: {first} minus the method, on the same test photos"
    of_all = [row for row in rows if row["skin_tone"] == EVERYBODY]
    return _by_labelled(of_all, title, lambda row: format_interval(row | {"value": row["difference"]}))


def _by_labelled(rows: list[dict[str, Any]], title: str, show: Callable[[dict[str, Any]], str]) -> Table:
    """Put methods below one another and numbers of labelled photos side by side."""
    numbers = sorted({row["photos"] for row in rows})
    cells = {(row["method"], row["photos"]): show(row) for row in rows}
    body = [
        [method, *(cells.get((method, number), NOTHING) for number in numbers)]
        for method in dict.fromkeys(row["method"] for row in rows)
    ]
    return Table(title, ["method", *(f"{number} labelled" for number in numbers)], body, describe_flags(rows))


def _tabulate_gaps(rows: list[dict[str, Any]], metric: str, tones: Sequence[str]) -> Table:
    """Compare skin tones of each method at each number of labelled photos."""
    shown = [row for row in rows if {row["reference"], row["skin_tone"]} <= set(tones)]
    gaps = tabulate_gaps(shown, metric)
    body = [[row["method"], str(row["photos"]), *cells[1:]] for row, cells in zip(shown, gaps.rows, strict=True)]
    title = f"{TITLES.get(metric, metric)}: gaps between skin tones"
    return Table(title, ["method", "labelled", *gaps.header[1:]], body, gaps.note)
