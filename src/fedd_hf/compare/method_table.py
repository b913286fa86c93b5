"""The report of a comparison of methods as Markdown: values, differences from the first method, gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fedd_hf.evaluation.report import NOT_A_COMPARISON, describe_flags, format_interval
from fedd_hf.evaluation.text_tables import NOTHING, Table, as_markdown, tabulate_gaps
from fedd_hf.evaluation.titles import TITLES

EVERYBODY = "all"
ROWS = ("curves", "differences", "gaps")


def choose_shown(report: dict[str, Any], test: str, metrics: Sequence[str], tones: Sequence[str]) -> dict[str, Any]:
    """Keep of a label-efficiency report what its tables and figure show, a tenth of its size.

    A method with random weights keeps its values alone: it is compared with nothing. Where the first one has them,
    values of skin tones are left out too.

    Args:
        report (`dict`):
            Report of [`~fedd_hf.compare.label_efficiency.run_label_efficiency`].
        test (`str`):
            Name of the test whose rows are shown.
        metrics (`list[str]`):
            Metrics to show.
        tones (`list[str]`):
            Skin tones to show, `"all"` among them.
    """
    tables = {name: [row for row in report[name] if row["test"] == test and row["metric"] in metrics] for name in ROWS}
    known = [tone for tone in tones if any(row["skin_tone"] == tone for row in tables["curves"])]
    if NOT_A_COMPARISON in report["methods"][0]:
        known, tables["differences"] = [EVERYBODY], []
    for name in ("differences", "gaps"):
        tables[name] = [row for row in tables[name] if NOT_A_COMPARISON not in row["method"]]
    chosen = {
        "curves": [row for row in tables["curves"] if row["skin_tone"] in known],
        "differences": [row for row in tables["differences"] if row["skin_tone"] in known],
        "gaps": [row for row in tables["gaps"] if {row["reference"], row["skin_tone"]} <= set(known)],
    }
    told = {name: report[name] for name in ("task", "methods", "seeds", "settings", "seconds", "machine")}
    return {**told, "shown": {"test": test, "metrics": list(metrics), "tones": known}, **chosen}


def describe_methods(shown: dict[str, Any]) -> str:
    """Return the tables of a comparison as Markdown.

    Args:
        shown (`dict`):
            What [`choose_shown`] keeps.
    """
    return "\n".join(as_markdown(table) for table in tabulate_methods(shown))


def tabulate_methods(shown: dict[str, Any]) -> list[Table]:
    """Return for each metric its values by skin tone, the differences from the first method, and the gaps."""
    return [table for metric in shown["shown"]["metrics"] for table in _tabulate_metric(shown, metric) if table.rows]


def _tabulate_metric(shown: dict[str, Any], metric: str) -> list[Table]:
    rows = {name: [row for row in shown[name] if row["metric"] == metric] for name in ROWS}
    return [
        *(tabulate_values(rows["curves"], metric, tone) for tone in shown["shown"]["tones"]),
        tabulate_differences(rows["differences"], metric, shown["methods"][0]),
        _tabulate_gaps(rows["gaps"], metric),
    ]


def tabulate_values(rows: list[dict[str, Any]], metric: str, tone: str) -> Table:
    """Tabulate a metric of a skin tone: methods downwards, numbers of labelled photos to the right."""
    of_tone = [row for row in rows if row["skin_tone"] == tone]
    photos = max((row["n"] for row in of_tone), default=0)
    who = "test photos" if tone == EVERYBODY else f"test photos of skin tone {tone}"
    title = f"{TITLES.get(metric, metric)}, {photos} {who}, mean over seeds"
    return _by_labelled(of_tone, title, format_interval)


def tabulate_differences(rows: list[dict[str, Any]], metric: str, first: str) -> Table:
    """Tabulate in the same way by how much the first method is better than each other one."""
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


def _tabulate_gaps(rows: list[dict[str, Any]], metric: str) -> Table:
    """Compare skin tones of each method at each number of labelled photos."""
    gaps = tabulate_gaps(rows, metric)
    body = [[row["method"], str(row["photos"]), *cells[1:]] for row, cells in zip(rows, gaps.rows, strict=True)]
    title = f"{TITLES.get(metric, metric)}: gaps between skin tones"
    return Table(title, ["method", "labelled", *gaps.header[1:]], body, gaps.note)
