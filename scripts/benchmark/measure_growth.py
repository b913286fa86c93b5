"""How time and memory grow with the number of photos: extraction, training and prediction of HAM10000."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from benchmark_size import BenchmarkArguments
from fedd_hf.data.sources import load_ham10000
from fedd_hf.features import FeatureStore
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForSegmentation
from fedd_hf.prediction import predict_segmentation
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from gauges import peak_memory, resident_bytes, time_passes
from isolation import run_alone
from measure_training import recipe


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    alone = partial(run_alone, num_threads=arguments.num_threads)
    numbers = arguments.size.growth_photos
    return {f"photos_{number}": partial(alone, measure_photos, arguments, number) for number in numbers}


def measure_photos(arguments: BenchmarkArguments, num_photos: int) -> dict[str, Any]:
    """Measure seconds and peak memory of each stage over the first photos of HAM10000."""
    if arguments.ham_root is None:
        return {"skipped": "HAM10000 is needed; give its folder as --ham-root."}
    imports = resident_bytes()
    with TemporaryDirectory(dir=arguments.work_dir) as root:
        stages = _measure_stages(arguments, arguments.ham_root, num_photos, Path(root))
    peak = max(stage["resident_bytes_at_peak"] for stage in stages.values())
    return {"photos": num_photos, "peak_bytes_above_imports": round(peak - imports), "stages": stages}


def _measure_stages(
    arguments: BenchmarkArguments, ham_root: Path, num_photos: int, root: Path
) -> dict[str, dict[str, float]]:
    model = FEDDForSegmentation.from_backbone(image_size=arguments.size.small_size)
    accelerator, processor = Accelerator(), FEDDImageProcessor(size=model.config.image_size)
    store = FeatureStore(root, model, processor)
    loaded: list[Dataset] = []
    files: list[Path] = []

    def train() -> None:
        features = StoredFeatures(files, loaded[0], processor)
        train_pixel_classifiers(model, features, recipe(arguments.size), accelerator)

    stages: dict[str, Callable[[], Any]] = {
        "loading": lambda: loaded.append(load_ham10000(ham_root).select(range(num_photos))),
        "extraction": lambda: files.extend(store.extract(loaded[0], accelerator)),
        "training": train,
        "prediction": lambda: predict_segmentation(model, processor, loaded[0]),
    }
    return {name: _measure(run) for name, run in stages.items()}


def _measure(run: Callable[[], Any]) -> dict[str, float]:
    with peak_memory() as memory:
        (seconds,) = time_passes(run, passes=1)
    return {"seconds": seconds, "peak_bytes": memory.used, "resident_bytes_at_peak": memory.peak}
