"""`fedd quickstart`: the whole sentence of the package on painted photos, with pictures and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.table import Table

from .console import NOTICE, console, say


def quickstart(
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder for models, pictures and the report.")] = (
        Path("quickstart")
    ),
) -> None:
    """Train FEDD on 30 painted photos, segment, classify and report by skin tone: offline, in three minutes."""
    from .quickstart_run import run_quickstart

    if not _is_replaceable(output_dir):
        raise typer.BadParameter(f"{output_dir} exists and is no quickstart. Choose another --output-dir.")
    with _replaced_content(output_dir) as folder:
        report = run_quickstart(folder)
        _draw_quickstart(report, folder)
    _print_quickstart(report, output_dir)


def _is_replaceable(folder: Path) -> bool:
    """Return whether a folder is new, empty but for hidden files, or an earlier quickstart."""
    from fedd_hf.evaluation.report import read_report

    if not folder.exists() or all(child.name.startswith(".") for child in folder.iterdir()):
        return True
    try:
        return read_report(folder / "report.json").get("experiment") == "quickstart"
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def _replaced_content(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files replace those of the same name in `folder`, unless something fails before."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        old, new = Path(temporary, "old"), Path(temporary, "new")
        old.mkdir()
        new.mkdir()
        yield new
        for child in list(new.iterdir()):
            if (folder / child.name).exists():
                (folder / child.name).rename(old / child.name)
            child.rename(folder / child.name)


def _draw_quickstart(report: dict[str, Any], folder: Path) -> None:
    from fedd_hf.figures.overlays import draw_overlays
    from fedd_hf.figures.tone_bars import draw_by_tone
    from fedd_hf.labels import PixelClass, SkinTone

    rows = report["segmentation"]["by_tone"] + report["classification"]["by_tone"]
    title = f"FEDD on painted photos, {3 * report['data']['train_per_tone']} labelled, by skin tone (95 % intervals)"
    draw_by_tone(rows, title).savefig(folder / "by_tone.png", dpi=100, metadata={"Software": None})
    labels = {int(kind): kind.label for kind in PixelClass}
    names = sorted(file.name for file in (folder / "photos").iterdir())[:6]
    photos = [Image.open(folder / "photos" / name) for name in names]
    truths, maps = ([np.array(Image.open(folder / kind / name)) for name in names] for kind in ("masks", "maps"))
    titles = [f"tone {tone.label}" for tone in 2 * list(SkinTone)]
    sheet = draw_overlays(photos, truths, maps, labels, titles)
    sheet.savefig(folder / "overlays.png", dpi=100, metadata={"Software": None})


def _print_quickstart(report: dict[str, Any], folder: Path) -> None:
    for task in ("segmentation", "classification"):
        console.print(_tone_table(report[task]["by_tone"]))
    say(
        f"Painted photos, 95 % bootstrap intervals. Pictures: {folder / 'overlays.png'}, {folder / 'by_tone.png'}; "
        f"all numbers: {folder / 'report.json'}. {NOTICE}\n"
    )
    photo = sorted((folder / "photos").iterdir())[0]
    say(
        "import fedd_hf; from transformers import pipeline\n"
        f'pipeline("image-segmentation", model="{folder / "segmentation"}")("{photo}")\n'
        f'pipeline("image-classification", model="{folder / "classification"}")("{photo}")'
    )


def _tone_table(rows: list[dict[str, Any]]) -> Table:
    from fedd_hf.evaluation.report import choose_rows, describe_flags, format_interval
    from fedd_hf.evaluation.titles import TITLES

    rows = choose_rows(rows)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    caption = describe_flags(rows) or None
    table = Table("skin tone", "photos", *(TITLES[metric] for metric in metrics), caption=caption)
    for tone in dict.fromkeys(row["skin_tone"] for row in rows):
        of_tone = {row["metric"]: row for row in rows if row["skin_tone"] == tone}
        cells = [format_interval(of_tone[metric]) for metric in metrics]
        table.add_row(tone, str(of_tone[metrics[0]]["n"]), *cells)
    return table
