"""The `fedd` command, for people who use a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

NOTICE = "Research only. Not a medical device, not for diagnosis."
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FAILURES = (OSError, ValueError, RuntimeError)  # torch: out of memory
HELD_PIXELS = 50_000_000  # photos of a batch wait for their overlays in memory: 150 MB

app = typer.Typer(
    help=f"FEDD: lesion segmentation and malignancy classification, reported by skin tone. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = Console(highlight=False, soft_wrap=True)

# Commands import what they need when they run: datasets, accelerate and matplotlib would slow down every start.


@app.callback()
def main() -> None:
    """Keep the libraries quiet: what matters is printed by the commands."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@app.command()
def quickstart(
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder for models, pictures and the report.")] = (
        Path("quickstart")
    ),
) -> None:
    """Train FEDD on 30 painted photos, segment, classify and report by skin tone: offline, in three minutes."""
    from fedd_hf.experiments.quickstart import run_quickstart

    if not _is_replaceable(output_dir):
        raise typer.BadParameter(f"{output_dir} exists and is no quickstart. Choose another --output-dir.")
    with _replaced_content(output_dir) as folder:
        report = run_quickstart(folder)
        _draw_quickstart(report, folder)
    _print_quickstart(report, output_dir)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos, or folders of them.")],
    model: Annotated[list[str], typer.Option(help="Folder or repository id of a model; may be given twice.")],
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder for maps, overlays, predictions.jsonl.")],
) -> None:
    """Segment photos, score their malignancy, or both: a map, an overlay and a line of JSON for each."""
    models = _open_models(model)
    if any(path.resolve() == output_dir.resolve() for path in images):
        raise typer.BadParameter("Choose another folder than that of the photos.", param_hint="--output-dir")
    names = _output_names(list(_find_images(images, output_dir)))
    output_dir.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    predictions = _predict_photos(names, models, output_dir)
    with (output_dir / "predictions.jsonl").open("w", buffering=1) as lines:  # written line by line
        for line in tqdm(predictions, desc="Predicting", total=len(names), unit="photo"):
            if isinstance(line, str):
                failures.append(line)
            else:
                lines.write(json.dumps(line) + "\n")
    _print(f"{len(names) - len(failures)} of {len(names)} photos predicted, written to {output_dir}. {NOTICE}")
    for failure in failures:
        _print(f"Failed: {failure}")
    if not names:
        _print(f"Failed: there is no photo ({', '.join(SUFFIXES)}) in {', '.join(map(str, images))}.")
    if failures or not names:
        raise typer.Exit(code=1)


@app.command()
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
        _print(f'Failed: the demo needs gradio ({error}). Type `pip install "fedd-hf[demo]"`.')
        raise typer.Exit(code=1) from error
    from fedd_hf.evaluation.report import read_report
    from fedd_hf.pipelines import open_model

    try:
        report = read_report(quickstart / "report.json")
        segmenter, classifier = (open_model(str(quickstart / task)) for task in ("segmentation", "malignancy"))
        examiner = Examiner(segmenter, classifier, report)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{error} Type `fedd quickstart` first.", param_hint="--quickstart") from error
    launch(build_demo(examiner, sorted((quickstart / "photos").iterdir())[:3]), port)


def _open_models(names: list[str]) -> list[Any]:
    from fedd_hf.pipelines import open_model

    models = []
    for name in names:
        try:
            models.append(open_model(name))
        except (OSError, ValueError, RuntimeError) as error:  # torch: tensors of another shape than configured
            raise typer.BadParameter(f"{name}: {error}", param_hint="--model") from error
    if len({type(model) for model, _ in models}) < len(models):
        raise typer.BadParameter("Two models of one task would overwrite each other.", param_hint="--model")
    return models


def _find_images(paths: list[Path], output_dir: Path) -> Iterator[Path]:
    """Yield files as given, and every image below folders, but not what was written into `output_dir` inside them."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        is_inside = path.resolve() in output_dir.resolve().parents
        yield from (file for file in files if not (is_inside and output_dir.resolve() in file.resolve().parents))


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """Name each photo's files after it; a second photo of one name, but for its case, gets a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    copies: Counter[str] = Counter()
    for path in dict.fromkeys(paths):
        name = path.stem
        while name.casefold() in taken:
            copies[path.stem] += 1
            name = f"{path.stem}-{copies[path.stem] + 1}"
        taken.add(name.casefold())
        names[path] = name
    return names


def _predict_photos(names: dict[Path, str], models: list[Any], output_dir: Path) -> Iterator[dict[str, Any] | str]:
    """Predict in batches; yield a line for each photo, or what went wrong with it."""
    from fedd_hf.image_processing_fedd import read_image
    from fedd_hf.modeling_fedd import default_batch_size

    batch_size = min(default_batch_size(model.config.image_size) for model, _ in models)
    batch: dict[Path, Image.Image] = {}
    for path in names:
        try:
            batch[path] = read_image(path)
        except FAILURES as error:
            yield _failure(path, error)
        if len(batch) == batch_size or sum(photo.width * photo.height for photo in batch.values()) > HELD_PIXELS:
            yield from _predict_batch(batch, models, output_dir, names)
            batch = {}
    if batch:
        yield from _predict_batch(batch, models, output_dir, names)


def _predict_batch(
    batch: dict[Path, Image.Image], models: list[Any], output_dir: Path, names: dict[Path, str]
) -> Iterator[dict[str, Any] | str]:
    """Predict photos together or, where that fails, each by itself."""
    try:
        predictions = [_run_model(model, processor, list(batch.values())) for model, processor in models]
    except FAILURES as error:
        if len(batch) == 1:
            yield from (_failure(path, error) for path in batch)
        else:
            for path, photo in batch.items():
                yield from _predict_batch({path: photo}, models, output_dir, names)
        return
    for (path, photo), *of_photo in zip(batch.items(), *predictions, strict=True):
        try:
            line: dict[str, Any] = {"image": str(path)}
            for (model, processor), prediction in zip(models, of_photo, strict=True):
                line |= _describe(prediction, photo, model, output_dir, names[path])
                line["outside_share"] = processor.outside_share((photo.height, photo.width))
        except FAILURES as error:
            yield _failure(path, error)
        else:
            yield line


def _failure(path: Path, error: Exception) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _run_model(model: Any, processor: Any, photos: list[Image.Image]) -> list[Any]:
    from fedd_hf.modeling_fedd import FEDDForSegmentation
    from fedd_hf.prediction import score_photos, segment_photos

    run = segment_photos if isinstance(model, FEDDForSegmentation) else score_photos
    return run(model, processor, photos)


def _describe(prediction: Any, photo: Image.Image, model: Any, output_dir: Path, name: str) -> dict[str, Any]:
    """Say what a model predicted of a photo; write its map and overlay if there is one."""
    if isinstance(prediction, float):
        uncertainty = _binary_entropy(prediction)
        return {"malignancy": round(prediction, 6), "malignancy_uncertainty": round(uncertainty, 6)}
    labels, segmentation_map = model.config.id2label, prediction.segmentation_map
    areas = np.bincount(segmentation_map.flatten(), minlength=len(labels)) / segmentation_map.size
    return {
        **_draw_segmentation(photo, segmentation_map, labels, output_dir, name),
        "area": {label: round(float(areas[index]), 6) for index, label in labels.items()},
        "uncertainty": round(prediction.uncertainty, 6),
    }


def _draw_segmentation(
    photo: Image.Image, segmentation_map: np.ndarray, labels: dict[int, str], output_dir: Path, name: str
) -> dict[str, str]:
    from fedd_hf.figures.overlays import colour_map, overlay

    pictures = {
        "map": colour_map(segmentation_map, labels),
        "overlay": overlay(photo, segmentation_map, labels),
    }
    for kind, picture in pictures.items():
        picture.save(output_dir / f"{name}_{kind}.png")
    return {kind: f"{name}_{kind}.png" for kind in pictures}


def _binary_entropy(score: float) -> float:
    """Entropy in nats of a malignancy score, from 0 to log(2)."""
    from scipy.special import entr

    return float(entr(score) + entr(1 - score))


def _print(text: str) -> None:
    console.print(text, markup=False)  # a path may hold brackets


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is new, empty but for hidden files, or an earlier quickstart."""
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
    from fedd_hf.figures.by_tone import draw_by_tone
    from fedd_hf.figures.overlays import draw_overlays
    from fedd_hf.labels import PixelClass, SkinTone

    rows = report["segmentation"]["by_tone"] + report["malignancy"]["by_tone"]
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
    for task in ("segmentation", "malignancy"):
        console.print(_tone_table(report[task]["by_tone"]))
    _print(
        f"Painted photos, 95 % bootstrap intervals. Pictures: {folder / 'overlays.png'}, {folder / 'by_tone.png'}; "
        f"all numbers: {folder / 'report.json'}. {NOTICE}\n"
    )
    photo = sorted((folder / "photos").iterdir())[0]
    _print(
        "import fedd_hf; from transformers import pipeline\n"
        f'pipeline("image-segmentation", model="{folder / "segmentation"}")("{photo}")\n'
        f'pipeline("image-classification", model="{folder / "malignancy"}")("{photo}")'
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
