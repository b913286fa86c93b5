"""The numbers of the README, from the reports that hold them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedd_hf.compare.method_table import EVERYBODY, ROWS, tabulate_differences, tabulate_values
from fedd_hf.evaluation.text_tables import as_markdown, markdown_by_tone, markdown_table
from fedd_hf.evaluation.titles import TITLES

FEDD, LESION_IOU = "FEDD", "lesion_iou"
KINDS = {False: "each photo of another patient", True: "one to four photos of a patient"}


def fill_readme(readme: str, quickstart: dict[str, Any], coverage: dict[str, Any], comparison: dict[str, Any]) -> str:
    """Put numbers between their marks in the README.

    Args:
        readme (`str`):
            Its text.
        quickstart (`dict`):
            Report of [`~fedd_hf.cli.quickstart_run.run_quickstart`].
        coverage (`dict`):
            Report of [`~coverage_simulation.simulate_coverage`].
        comparison (`dict`):
            What [`~fedd_hf.compare.method_table.choose_shown`] keeps of the comparison on clinical photos.

    Raises:
        ValueError: If a mark is missing.
    """
    readme = _fill(readme, "quickstart table", _describe_quickstart(quickstart))
    readme = _fill(readme, "comparison table", _describe_comparison(comparison))
    return _fill(readme, "coverage table", _describe_coverage(coverage))


def _fill(readme: str, mark: str, text: str) -> str:
    before, start, rest = readme.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (start and end):
        raise ValueError(f"The README lacks the marks <!-- {mark} --> and <!-- /{mark} -->.")
    return before + start + text + end + after


def _describe_quickstart(report: dict[str, Any]) -> str:
    tables = [markdown_by_tone(report[task]["by_tone"]) for task in ("segmentation", "classification")]
    data, seconds = report["data"], sum(report["seconds"].values())
    return (
        f"{3 * data['train_per_tone']} labelled photos ({data['train_per_tone']} of each skin tone), "
        f"{3 * data['test_per_tone']} held out, 95 % bootstrap intervals; {seconds:.0f} seconds on "
        f"{report['machine']['cores']} cores. Pixels are pooled over the photos of a group; `all` pools the "
        "groups.\n\n" + "\n".join(tables)
    )


def _describe_comparison(shown: dict[str, Any]) -> str:
    """Return the lesion IoU of all photos, and by how much FEDD differs."""
    curves, differences = ([row for row in shown[name] if row["metric"] == LESION_IOU] for name in ROWS[:2])
    tables = [tabulate_values(curves, LESION_IOU, EVERYBODY), tabulate_differences(differences, LESION_IOU, FEDD)]
    return "\n".join(as_markdown(table) for table in tables)


def _describe_coverage(report: dict[str, Any]) -> str:
    """Return a table of the worst scenario of each metric, by the number of photos of a skin tone."""
    shares_patients = {row["name"]: row["photos_per_patient"] > 1 for row in report["settings"]["scenarios"]}
    rows = pd.DataFrame(report["rows"])
    rows["photos"] = rows["scenario"].map(shares_patients)
    worst = rows.pivot_table(index=["photos", "metric", "is_gap"], columns="n", values="coverage", aggfunc="min")
    lines = []
    for (photos, metric, is_gap), shares in worst.iterrows():
        name = f"{TITLES[metric]}{', gap of two tones' if is_gap else ''}"
        lines.append([KINDS[photos], name, *(f"{share:.3f}" for share in shares)])
    return markdown_table(["photos", "metric", *(f"n = {n}" for n in worst.columns)], lines)
