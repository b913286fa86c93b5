"""All sections of the benchmark, and the report that is written after each measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import measure_extraction
import measure_growth
import measure_prediction
import measure_processes
import measure_quality
import measure_training
from benchmark_results import compare
from benchmark_size import BenchmarkArguments, BenchmarkSize
from benchmark_tables import results_as_markdown
from fedd_hf.evaluation.report import read_report, write_report
from gauges import describe_hardware

Measurements = dict[str, Callable[[], dict[str, Any]]]
SECTIONS: dict[str, Callable[[BenchmarkArguments], Measurements]] = {
    "extraction": measure_extraction.parts,
    "training": measure_training.parts,
    "quality": measure_quality.parts,
    "prediction": measure_prediction.parts,
    "growth": measure_growth.parts,
    "processes": measure_processes.parts,
}
NOTES = [
    "Memory is resident memory at its peak, less what the process held before: imports, and weights if there are any. "
    "Each measurement has a process of its own.",
    "The original's extraction is the pass of its network alone; to write features out for every pixel comes on top.",
    "The original's training time is computed: its measured pixels per second, on the photos whose matrix fits into "
    "memory, times the pixels that its stop rule demands at least, of five classifiers one after another. To build "
    "the matrix comes on top.",
    "The original's training memory is computed: one copy of its matrix, 4 bytes a channel and pixel. While it is "
    "built there are more copies; `copies_at_peak` is how many were measured.",
    "Features of the timed trainings are random numbers: time and memory do not depend on them.",
    "Growth: loading reads the whole table of HAM10000, however many of its photos are used.",
]


def run_benchmark(
    arguments: BenchmarkArguments, names: list[str], path: Path | None = None, again: bool = False
) -> dict[str, Any]:
    """Measure sections, and write the report after each measurement, so that a benchmark that was killed goes on.

    Args:
        arguments ([`BenchmarkArguments`]):
            What is measured.
        names (`list[str]`):
            Sections to measure, of [`SECTIONS`].
        path (`Path`, *optional*):
            The report, to begin or to go on with; a table of the same name is written beside it.
        again (`bool`, *optional*, defaults to `False`):
            Whether to measure anew what the report holds already.

    Returns:
        `dict`: the report.

    Raises:
        OSError: If a measurement is killed, or the system does not tell its memory.
        ValueError: If the report at `path` was made on another machine or with other arguments, and not `again`.
    """
    report = _open_report(arguments, path, again)
    progress = tqdm(names, desc="Benchmark", unit="section", leave=False)
    for section in progress:
        measured = report["sections"].setdefault(section, {})
        for name, measure in SECTIONS[section](arguments).items():
            if name in measured and "skipped" not in measured[name] and not again:
                continue
            progress.set_postfix_str(f"{section}, {name}")
            measured[name] = measure()
            _save(report, path)
    _save(report, path)
    return report


def _open_report(arguments: BenchmarkArguments, path: Path | None, again: bool) -> dict[str, Any]:
    """Return the report that is gone on with, or a new one."""
    made_with = {"size": asdict(arguments.size), "num_threads": arguments.num_threads}
    new: dict[str, Any] = {
        "experiment": "benchmark",
        "quick": arguments.size != BenchmarkSize(),
        "machine": describe_hardware(),
        "arguments": made_with,
        "notes": NOTES,
        "results": [],
        "sections": {},
    }
    if path is None or not path.is_file():
        return new
    old = read_report(path)
    if all(_as_json(new[name]) == old[name] for name in ("machine", "arguments")):
        return new | {"sections": old["sections"]}
    if again:
        return new
    raise ValueError(
        f"{path} was made on another machine, with other versions or with other arguments. Give another --output to "
        "keep it, or --again to begin it anew."
    )


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a report, tuples as lists."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _save(report: dict[str, Any], path: Path | None) -> None:
    report["results"] = compare(report["sections"])
    if path is not None:
        write_report(report, path)
        path.with_suffix(".md").write_text(results_as_markdown(report))
