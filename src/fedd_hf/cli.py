"""The `fedd` command, for people who use a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

NOTICE = "Research only. Not a medical device, not for diagnosis."
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

app = typer.Typer(
    help=f"FEDD: lesion segmentation and malignancy classification, reported by skin tone. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = Console(highlight=False, soft_wrap=True)

# torch, transformers and diffusers take seconds to import, so commands import what they need: `--help` stays instant.


@app.callback()
def main() -> None:
    """Keep the libraries quiet: what matters is printed by the commands."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@app.command()
def quickstart(
    output_dir: Annotated[Path, typer.Option(help="Folder for models, pictures and the report.")] = Path("quickstart"),
) -> None:
    """Train FEDD on 30 painted photos, segment, classify and report by skin tone: offline, in three minutes."""
    from fedd_hf.experiments.quickstart import run_quickstart

    if output_dir.exists() and any(output_dir.iterdir()) and not (output_dir / "report.json").is_file():
        raise typer.BadParameter(f"{output_dir} exists and is no quickstart. Choose another --output-dir.")
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    report = run_quickstart(partial)
    _draw_quickstart(report, partial)
    shutil.rmtree(output_dir, ignore_errors=True)
    partial.rename(output_dir)
    _print_quickstart(report, output_dir)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos, or folders of them.")],
    model: Annotated[list[str], typer.Option(help="Folder or repository id of a model; may be given twice.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for maps, overlays and predictions.jsonl.")],
) -> None:
    """Segment photos, score their malignancy, or both: a map, an overlay and a line of JSON for each."""
    from fedd_hf.pipelines import open_model

    try:
        models = [open_model(name) for name in model]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    output_dir.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    lines: list[dict[str, Any]] = []
    names = _output_names(list(_find_images(images)))
    for path, name in tqdm(names.items(), desc="Predicting", unit="photo"):
        try:
            lines.append({"image": str(path)} | _predict_photo(path, models, output_dir, name))
        except (OSError, ValueError) as error:
            failures.append(str(error))
    _write_lines(lines, output_dir / "predictions.jsonl")
    console.print(f"{len(lines)} of {len(names)} photos predicted, written to {output_dir}. {NOTICE}")
    for failure in failures:
        console.print(f"Failed: {failure}", markup=False)
    if failures or not names:
        raise typer.Exit(code=1)


def _find_images(paths: list[Path]) -> Iterator[Path]:
    """Yield files as given, and every image below folders."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        else:
            yield path


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """Name each photo's files after it; a second photo of one name gets a number."""
    names: dict[Path, str] = {}
    for path in paths:
        name, number = path.stem, 2
        while name in names.values():
            name, number = f"{path.stem}-{number}", number + 1
        names[path] = name
    return names


def _predict_photo(path: Path, models: list[Any], output_dir: Path, name: str) -> dict[str, Any]:
    from fedd_hf.image_processing_fedd import read_image
    from fedd_hf.inference import score_photos
    from fedd_hf.modeling_fedd import FEDDForSegmentation

    photo = read_image(path)
    line: dict[str, Any] = {}
    for model, processor in models:
        if isinstance(model, FEDDForSegmentation):
            line |= _segment_photo(photo, model, processor, output_dir, name)
        else:
            (score,) = score_photos(model, processor, [photo])
            line |= {"malignancy": round(score, 6), "malignancy_uncertainty": round(_binary_entropy(score), 6)}
        line["outside_share"] = processor.outside_share((photo.height, photo.width))
    return line


def _segment_photo(photo: Image.Image, model: Any, processor: Any, output_dir: Path, name: str) -> dict[str, Any]:
    from fedd_hf.figures.overlays import colour_map, overlay
    from fedd_hf.inference import segment_photos

    (segmented,) = segment_photos(model, processor, [photo])
    labels = model.config.id2label
    pictures = {
        "map": colour_map(segmented.segmentation_map, labels),
        "overlay": overlay(photo, segmented.segmentation_map, labels),
    }
    for kind, picture in pictures.items():
        picture.save(output_dir / f"{name}_{kind}.png")
    areas = np.bincount(segmented.segmentation_map.flatten(), minlength=len(labels)) / segmented.segmentation_map.size
    return {
        **{kind: f"{name}_{kind}.png" for kind in pictures},
        "area": {label: round(float(areas[index]), 6) for index, label in labels.items()},
        "uncertainty": round(segmented.uncertainty, 6),
    }


def _binary_entropy(score: float) -> float:
    """Entropy in nats of a malignancy score, from 0 to log(2)."""
    from scipy.special import entr

    return float(entr(score) + entr(1 - score))


def _write_lines(lines: list[dict[str, Any]], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def _draw_quickstart(report: dict[str, Any], folder: Path) -> None:
    from fedd_hf.figures.by_tone import draw_by_tone
    from fedd_hf.figures.overlays import draw_overlays

    rows = report["segmentation"]["by_tone"] + report["malignancy"]["by_tone"]
    title = f"FEDD on painted photos, {3 * report['data']['train_per_tone']} labelled, by skin tone (95 % intervals)"
    draw_by_tone(rows, title).savefig(folder / "by_tone.png", dpi=150)
    labels = dict(enumerate(("background", "lesion", "marker", "ruler", "skin")))
    names = sorted(file.name for file in (folder / "photos").iterdir())[:6]
    photos = [Image.open(folder / "photos" / name) for name in names]
    truths, maps = ([np.array(Image.open(folder / kind / name)) for name in names] for kind in ("masks", "maps"))
    titles = [f"tone {tone}" for tone in ("I-II", "III-IV", "V-VI") * 2]
    draw_overlays(photos, truths, maps, labels, titles).savefig(folder / "overlays.png", dpi=150)


def _print_quickstart(report: dict[str, Any], folder: Path) -> None:
    for task in ("segmentation", "malignancy"):
        console.print(_tone_table(report[task]["by_tone"]))
    console.print(
        f"Painted photos, 95 % bootstrap intervals. Pictures: {folder / 'overlays.png'}, {folder / 'by_tone.png'}; "
        f"all numbers: {folder / 'report.json'}. {NOTICE}\n"
    )
    photo = sorted((folder / "photos").iterdir())[0]
    console.print(
        "import fedd_hf; from transformers import pipeline\n"
        f'pipeline("image-segmentation", model="{folder / "segmentation"}")("{photo}")\n'
        f'pipeline("image-classification", model="{folder / "malignancy"}")("{photo}")',
        markup=False,
    )


def _tone_table(rows: list[dict[str, Any]]) -> Table:
    from fedd_hf.evaluation.report import format_interval
    from fedd_hf.figures.by_tone import TITLES

    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    table = Table("skin tone", "photos", *(TITLES[metric] for metric in metrics))
    for tone in dict.fromkeys(row["skin_tone"] for row in rows):
        of_tone = {row["metric"]: row for row in rows if row["skin_tone"] == tone}
        cells = [format_interval(of_tone[metric]) for metric in metrics]
        table.add_row(tone, str(of_tone[metrics[0]]["n"]), *cells)
    return table
