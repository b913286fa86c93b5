"""Training of five pixel classifiers at the paper's size, on random features: time and memory are the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset

from benchmark_size import BenchmarkArguments, BenchmarkSize
from fedd_hf.data.painted import paint_dataset
from fedd_hf.features import read_maps
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import SkinTone
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from gauges import peak_memory, time_passes
from isolation import run_alone
from measure_extraction import count_bytes
from networks import make_heads, paper_config, write_random_features
from original_recipe import fewest_pixels, make_classifier
from original_way import PixelDataset, build_matrix, train_for

SEED = 500  # of the painted photos


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    numbers = arguments.size.training_photos
    return {
        "original": partial(_alone, measure_original, arguments.size.original_photos, arguments),
        **{f"ours_{number}": partial(_alone, measure_ours, number, arguments) for number in numbers},
    }


def _alone(measure: Callable[..., dict[str, Any]], num_photos: int, arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measure in a process of its own, for which features and masks lie on disk."""
    size, config = arguments.size, paper_config(arguments.size)
    photos = paint_dataset(num_photos // len(SkinTone), SEED, size.image_size)
    with TemporaryDirectory(dir=arguments.work_dir) as folder:
        files = write_random_features(Path(folder), config, num_photos)
        return run_alone(measure, size, files, photos, num_threads=arguments.num_threads)


def measure_original(size: BenchmarkSize, files: list[Path], photos: Dataset) -> dict[str, Any]:
    """Measure the pixels per second of one classifier, and compute from them what whole trainings take.

    The time of building the matrix is left out. Memory follows the linear law of the matrix: measured is how many
    copies of it there are at the peak.
    """
    config = paper_config(size)
    features = StoredFeatures(files, photos, FEDDImageProcessor(size=size.image_size))
    with peak_memory() as memory:
        maps = [[feature_map.movedim(-1, 0) for feature_map in read_maps(file)] for file in files]
        labels = torch.stack([features.labels(photo) for photo in range(len(files))])
        matrix, classes = build_matrix(maps, labels)
    classifier = make_classifier(matrix.shape[1], config.num_labels)
    pixels, seconds = train_for(size.original_seconds, classifier, PixelDataset(matrix, classes))
    rate, matrix_bytes = pixels / seconds, count_bytes(config)["original"]
    copies = memory.used / (len(files) * matrix_bytes)
    trainings = []
    for number in size.training_photos:
        num_pixels = config.ensemble_size * fewest_pixels(number, size.image_size)
        matrix = number * matrix_bytes
        sizes = {"matrix_bytes": matrix, "peak_bytes": round(copies * matrix)}
        trainings.append({"photos": number, "pixels": num_pixels, "seconds": num_pixels / rate} | sizes)
    measured = {"measured_seconds": seconds, "pixels_per_second": rate, "copies_at_peak": copies}
    return {"photos": len(files), **measured, "trainings": trainings}


def measure_ours(size: BenchmarkSize, files: list[Path], photos: Dataset) -> dict[str, Any]:
    """Train five members by the default recipe and measure all of it."""
    model, accelerator = make_heads(paper_config(size)), Accelerator()
    features = StoredFeatures(files, photos, FEDDImageProcessor(size=size.image_size))
    arguments = recipe(size)
    with peak_memory() as memory:
        (seconds,) = time_passes(lambda: train_pixel_classifiers(model, features, arguments, accelerator), passes=1)
    return {"photos": len(files), "seconds": seconds, "peak_bytes": memory.used, "steps": arguments.num_steps}


def recipe(size: BenchmarkSize, **fields: Any) -> SegmentationArguments:
    """Return the arguments of a training: the defaults, but for a benchmark's own number of steps."""
    steps = {} if size.num_steps is None else {"num_steps": size.num_steps}
    return SegmentationArguments(**(steps | fields))
