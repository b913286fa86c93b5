"""Whether a malignancy score hangs on pen marks and rulers: photos with these painted over, scored again."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from fedd_hf.compare.photo_sets import choose_examples
from fedd_hf.compare.results_cache import cache_json
from fedd_hf.data.schema import tone_labels
from fedd_hf.evaluation.by_tone import OVERALL, TONES, photos_of, sample_of
from fedd_hf.evaluation.intervals import interval, paired_difference, value_of
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.features import hash_json
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.modeling_fedd import FEDDForImageClassification
from fedd_hf.prediction import score_photos
from mean_metric import mean_metric
from painting_over import choose_skin, paint_over, widen

PAINTED = [SEGMENTATION_LABELS.index(label) for label in ("marker", "ruler")]
BACKGROUND, SKIN = (SEGMENTATION_LABELS.index(label) for label in ("background", "skin"))
VERSIONS = {"y_score": "photo", "y_score_without": "without", "y_score_control": "control"}


def probe_markers(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    photos: Dataset,
    output_dir: Path,
    accelerator: Accelerator,
    seed: int = 0,
) -> dict[str, Any]:
    """Score photos as they are and with pen marks and rulers painted over with the skin, or the cloth, around them.

    Painting over changes a photo by itself. As a control, as much skin is painted over in the same way.

    What a photo gave is kept: a run that was killed goes on with the next one.

    Args:
        model ([`FEDDForImageClassification`]):
            Malignancy classifier.
        processor ([`FEDDImageProcessor`]):
            Its image processor.
        photos (`datasets.Dataset`):
            Photos, of which those with a mask that shows skin and marker or ruler are probed.
        output_dir (`Path`):
            Existing folder, which gets `photos/`, `examples/` and `report.json`.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; each of them does all.
        seed (`int`, *optional*, defaults to 0):
            Seed of the places of the control.

    Returns:
        `dict`: the report. `rows` has `shift` (score with marks painted over minus score of the photo) of all photos
        and of each skin tone with `low`, `high`, `p_value` (paired) and `mean_absolute_shift`; the same of the
        control with the prefix `control_`; and `excess_mean_absolute_shift` (how much more the marks shift the score
        than the control, in size) with its interval and p-value. `photos` has the scores of each photo, `examples`
        one photo of each skin tone in its three versions.

    Raises:
        ValueError: If no photo can be probed.
    """
    start = time.perf_counter()
    probed = photos.select([row for row, mask in enumerate(_masks(photos)) if _can_be_probed(mask)])
    if not len(probed):
        raise ValueError(f"None of {len(photos)} photos has a mask that shows skin, and a marker or a ruler.")
    settings = {"model": _identify(model), "seed": seed}
    shown = list(choose_examples(probed)["image_id"])
    results, examples = [], []
    for row, tone in tqdm(
        zip(probed, tone_labels(probed), strict=True),
        desc="Marker probe",
        total=len(probed),
        unit="photo",
        disable=not accelerator.is_main_process,
    ):
        name = row["image_id"]
        pictures = output_dir / "examples" / name if name in shown and accelerator.is_main_process else None
        compute = partial(_probe_photo, model, processor, row, seed, pictures)
        told = settings | {"photo": name, "is_shown": name in shown}
        result = cache_json(output_dir / "photos", name, told, compute, accelerator)
        results.append({"image_id": name, "group_id": row["group_id"], "skin_tone": tone, **result})
        if name in shown:
            paths = {f"{version}_path": f"examples/{name}/{version}.png" for version in VERSIONS.values()}
            examples.append({"image_id": name, "skin_tone": tone, **paths})
    report = {
        "experiment": "marker_probe",
        "settings": settings,
        "rows": tabulate_shifts(pd.DataFrame(results)),
        "photos": results,
        "left_out": len(photos) - len(probed),
        "examples": examples,
        "seconds": {"marker_probe": round(time.perf_counter() - start, 1)},
        "machine": describe_machine(),
    }
    if accelerator.is_main_process:
        write_report(report, output_dir / "report.json")
    accelerator.wait_for_everyone()
    return read_report(output_dir / "report.json")


def tabulate_shifts(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Tabulate shifts of all photos and of each skin tone.

    Args:
        scores (`pd.DataFrame`):
            One row per photo: `image_id`, `group_id`, `skin_tone`, `y_score`, `y_score_without`, `y_score_control`.
    """
    photos = photos_of(scores)
    groups = [(OVERALL, photos), *((tone, photos[photos["skin_tone"] == tone]) for tone in TONES)]
    return [_row(tone, members.reset_index(drop=True)) for tone, members in groups if len(members)]


def _row(tone: str, photos: pd.DataFrame) -> dict[str, Any]:
    sample = sample_of(photos)
    shifts = {
        prefix: (photos[column] - photos["y_score"]).to_numpy(float)
        for prefix, column in (("", "y_score_without"), ("control_", "y_score_control"))
    }
    row: dict[str, Any] = {"skin_tone": tone, "n": len(photos)}
    nothing = mean_metric(np.zeros(len(photos)))
    for prefix, shift in shifts.items():
        found = paired_difference(nothing, mean_metric(shift), sample)
        numbers = {"shift": found.value, "low": found.low, "high": found.high, "p_value": found.p_value}
        size = mean_metric(np.abs(shift))
        bounds = dict(zip(("low", "high"), interval(size, sample), strict=True))
        numbers |= {"mean_absolute_shift": value_of(size, sample)}
        numbers |= {f"mean_absolute_shift_{name}": bound for name, bound in bounds.items()}
        row |= {f"{prefix}{name}": number for name, number in numbers.items()}
    of_control, of_marks = (mean_metric(np.abs(shifts[prefix])) for prefix in ("control_", ""))
    excess = paired_difference(of_control, of_marks, sample)
    name = "excess_mean_absolute_shift"
    row |= {name: excess.value, f"{name}_low": excess.low, f"{name}_high": excess.high}
    return row | {f"{name}_p_value": excess.p_value}


def _masks(photos: Dataset) -> Sequence[np.ndarray | None]:
    rows = photos.select_columns("mask")
    return [None if row["mask"] is None else np.asarray(row["mask"]) for row in rows]


def _can_be_probed(mask: np.ndarray | None) -> bool:
    return mask is not None and bool(np.isin(mask, PAINTED).any()) and bool((mask == SKIN).any())


def _probe_photo(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    row: dict[str, Any],
    seed: int,
    pictures: Path | None,
) -> dict[str, Any]:
    """Score the three versions of a photo, and write them where they are wanted."""
    mask = np.asarray(row["mask"])
    pixels = np.moveaxis(processor.process_image(row["image"]), 0, -1)
    if pixels.shape[:2] != mask.shape:
        sizes = f"{mask.shape} and {pixels.shape[:2]}"
        raise ValueError(f"Photo {row['image_id']!r}: mask and photo must be of one size, got {sizes}.")
    surroundings = [mask == SKIN, mask == BACKGROUND]
    marks = widen(np.isin(mask, PAINTED), surroundings)
    rng = np.random.default_rng([seed, zlib.crc32(row["image_id"].encode())])
    control = choose_skin((mask == SKIN) & ~marks, int(marks.sum()), rng)
    unmarked = [(mask == SKIN) & ~marks]
    versions = [pixels, paint_over(pixels, marks, surroundings), paint_over(pixels, control, unmarked)]
    images = [Image.fromarray(version) for version in versions]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for name, image in zip(VERSIONS.values(), images, strict=True):
            image.save(pictures / f"{name}.png")
    scores = dict(zip(VERSIONS, score_photos(model, processor, images), strict=True))
    shares = {"share_of_pixels": float(marks.mean()), "share_of_pixels_control": float(control.mean())}
    return scores | shares


def _identify(model: FEDDForImageClassification) -> dict[str, Any]:
    """Return what scores depend on besides the photo, as JSON."""
    names = ("backbone_sha256", "blocks", "timesteps", "image_size", "noise_seed")
    classifier = {name: tensor.tolist() for name, tensor in model.classifier.state_dict().items()}
    return {name: getattr(model.config, name) for name in names} | {"classifier": hash_json(classifier)}
