"""`fedd predict`: photos in, maps, overlays and scores out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from tqdm.auto import tqdm

from .console import NOTICE, say

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FAILURES = (OSError, ValueError, RuntimeError)  # torch: out of memory
HELD_PIXELS = 50_000_000  # photos of a batch wait for their overlays in memory: 150 MB


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
    say(f"{len(names) - len(failures)} of {len(names)} photos predicted, written to {output_dir}. {NOTICE}")
    for failure in failures:
        say(f"Failed: {failure}")
    if not names:
        say(f"Failed: there is no photo ({', '.join(SUFFIXES)}) in {', '.join(map(str, images))}.")
    if failures or not names:
        raise typer.Exit(code=1)


def _open_models(names: list[str]) -> list[Any]:
    from fedd_hf.prediction import open_model

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
