"""Reports of the benchmark as Markdown; nothing is computed here."""

from __future__ import annotations

from typing import Any

from fedd_hf.evaluation.text_tables import markdown_table

RESULT_COLUMNS = ("section", "quantity", "ours", "original", "outcome", "rule", "met")
WORDS = {None: "", True: "yes", False: "NO"}


def results_as_markdown(report: dict[str, Any]) -> str:
    """Format the comparison, what was skipped, and how the original's numbers came about."""
    machine, arguments = report["machine"], report["arguments"]
    title = "# Ours against the original way\n"
    quick = "QUICK RUN: sizes are shrunk, and the numbers say nothing.\n" if report["quick"] else ""
    where = f"{machine['processor']}, {arguments['num_threads']} threads, torch {machine['torch']}.\n"
    rows = [[_cell(row[column]) for column in RESULT_COLUMNS] for row in report["results"]]
    table = markdown_table(RESULT_COLUMNS, rows)
    return "\n".join(filter(None, [title, quick, where, table, _notes(report["notes"] + _skipped(report))]))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return WORDS[value]
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _skipped(report: dict[str, Any]) -> list[str]:
    parts = [(section, name, part) for section, parts in report["sections"].items() for name, part in parts.items()]
    return [f"{section}, {name}: {part['skipped']}" for section, name, part in parts if "skipped" in part]


def _notes(notes: list[str]) -> str:
    return "".join(f"- {note}\n" for note in notes)
