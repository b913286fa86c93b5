"""The report of a reproduction as a page to read: one self-contained HTML file, and Markdown."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedd_hf.files import write_whole
from fedd_hf.hub.cards import render_card
from paper_tables import paper_tables

RULE = (
    "A claim about a difference is reproduced if its 95 % interval lies wholly on the claimed side, not reproduced if "
    "wholly on the other, and undecidable at this sample size otherwise; a claim about several label fractions is "
    "reproduced if it is at all of them."
)
PAINTED = (
    "These photos are painted: they show that the chain works from photos to verdicts, and say nothing of patients. "
    "The verdicts below are about paint."
)
REAL = "Scores are not calibrated for any clinic; DDI is a set of photos of lesions that were biopsied."


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Args:
        name (`str`):
            Stem of its files.
        title (`str`):
            Caption.
        png (`Path`):
            The picture.
        vector (`Path`):
            The same as a vector graphic.
    """

    name: str
    title: str
    png: Path
    vector: Path


def write_pages(report: dict[str, Any], pictures: list[Picture], folder: Path) -> tuple[Path, Path]:
    """Write `report.html`, which needs no other file, and `report.md`, beside the pictures' folder.

    Args:
        report (`dict`):
            Report of [`~reproduction.run_reproduction`].
        pictures (`list[Picture]`):
            Its figures, in a folder below `folder`.
        folder (`Path`):
            Where to write.
    """
    fields = describe_reproduction(report)
    shown = [
        {
            "name": picture.name,
            "title": picture.title,
            "path": picture.png.relative_to(folder).as_posix(),
            "vector": picture.vector.relative_to(folder).as_posix(),
            "data": f"data:image/png;base64,{base64.b64encode(picture.png.read_bytes()).decode()}",
        }
        for picture in pictures
    ]
    paths = []
    for suffix in ("html", "md"):
        path = folder / f"report.{suffix}"
        text = render_card(
            f"reproduction.{suffix}.j2",
            folder=Path(__file__).parent,
            autoescape=suffix == "html",
            pictures=shown,
            **fields,
        )
        with write_whole(path) as partial:
            partial.write_text(text)
        paths.append(path)
    return paths[0], paths[1]


def describe_reproduction(report: dict[str, Any]) -> dict[str, Any]:
    """Return what both pages say besides the figures."""
    verdicts = Counter(row["verdict"] for row in report["claims"])
    photos = sum(row["photos"] for row in report["counts"]["by_malignancy"])
    return {
        "title": f"FEDD on {report['data']['name']}",
        "summary": (
            f"{photos} photos; methods: {', '.join(report['segmentation']['methods'])}; trainings of each: "
            f"{report['segmentation']['seeds']} for segmentation, {report['classification']['seeds']} for malignancy. "
            "Intervals are of 95 %, over photos; pixels are pooled over the photos of a group unless a metric says "
            "otherwise."
        ),
        "caution": PAINTED if report["data"]["painted"] else REAL,
        "verdict_counts": ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items())) + ".",
        "rule": RULE,
        "claims": report["claims"],
        "tables": paper_tables(report),
        "run": _describe_run(report),
    }


def _describe_run(report: dict[str, Any]) -> dict[str, str]:
    seconds = {name: f"{value:.0f} s" for name, value in report["seconds"].items()}
    total = {"in all, by the last command": f"{sum(report['seconds'].values()) / 60:.1f} minutes"}
    reading = {name: str(value) for name, value in report["data"].items()}
    machine = {name: str(value) for name, value in report["machine"].items() if value is not None}
    return reading | seconds | total | machine
