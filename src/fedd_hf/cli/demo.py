"""`fedd demo`: the page on which the models of a quickstart look at a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say


def demo(
    quickstart: Annotated[Path, typer.Option(file_okay=False, help="Folder that `fedd quickstart` left.")] = (
        Path("quickstart")
    ),
    port: Annotated[int | None, typer.Option(help="Port of the page; by default the first from 7860 on.")] = None,
) -> None:
    """Serve a page on which the models of a quickstart look at a photo, and keep nothing of it."""
    try:
        from fedd_hf.demo import Examiner, build_demo, launch
    except ImportError as error:
        say(f'Failed: the demo needs gradio ({error}). Type `pip install "fedd-hf[demo]"`.')
        raise typer.Exit(code=1) from error
    from fedd_hf.evaluation.report import read_report
    from fedd_hf.prediction import open_model

    try:
        report = read_report(quickstart / "report.json")
        segmenter, classifier = (open_model(str(quickstart / task)) for task in ("segmentation", "classification"))
        examiner = Examiner(segmenter, classifier, report)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{error} Type `fedd quickstart` first.", param_hint="--quickstart") from error
    launch(build_demo(examiner, sorted((quickstart / "photos").iterdir())[:3]), port)
