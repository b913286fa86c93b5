"""Extraction by one process and by two: photos per second, and whether the files are the same bytes.

Usage:
    torchrun --nproc_per_node 2 scripts/benchmark/measure_processes.py PHOTOS STORE RESULT
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import Accelerator
from datasets import load_from_disk

from benchmark_size import BenchmarkArguments
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.report import read_report, write_report
from fedd_hf.features import FeatureStore
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import SkinTone
from fedd_hf.modeling_fedd import FEDDForSegmentation
from gauges import time_passes

NUMBERS = (1, 2)
NUM_THREADS = 1  # of each process
SEED = 700  # of the painted photos


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    return {"embedded": partial(compare_processes, arguments)}


def compare_processes(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Extract the same painted photos with one process and with two, each of one thread."""
    size = arguments.size
    with TemporaryDirectory(dir=arguments.work_dir) as name:
        folder = Path(name)
        painted = paint_dataset(size.process_photos // len(SkinTone), SEED, size.painted_size)
        painted.save_to_disk(folder / "photos")
        runs = [_run(folder, number) for number in NUMBERS]
        files = [_hash_files(folder / f"store-{number}") for number in NUMBERS]
    return {
        "photos": size.process_photos,
        "threads_of_each": NUM_THREADS,
        "runs": runs,
        "files": len(files[0]),
        "same_bytes": all(of_run == files[0] for of_run in files),
    }


def _run(folder: Path, num_processes: int) -> dict[str, Any]:
    """Start the processes and return what the first of them wrote.

    Raises:
        OSError: If one of them fails.
    """
    result = folder / f"result-{num_processes}.json"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    paths = [str(folder / "photos"), str(folder / f"store-{num_processes}"), str(result)]
    environment = os.environ | {"OMP_NUM_THREADS": str(NUM_THREADS)}
    command = [*launcher, __file__, *paths]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise OSError(f"Extraction by {num_processes} processes failed:\n{process.stderr[-3000:]}")
    return read_report(result)


def extract(photos: Path, root: Path, result: Path) -> None:
    """Extract as one of the processes; the first writes down how long it took."""
    dataset, accelerator = load_from_disk(str(photos)), Accelerator(cpu=True)
    model = FEDDForSegmentation.from_backbone(image_size=dataset[0]["image"].height)
    store = FeatureStore(root, model, FEDDImageProcessor(size=model.config.image_size), num_threads=NUM_THREADS)
    accelerator.wait_for_everyone()
    (seconds,) = time_passes(lambda: store.extract(dataset, accelerator), passes=1)
    if accelerator.is_main_process:
        rate = len(dataset) / seconds
        write_report({"processes": accelerator.num_processes, "seconds": seconds, "photos_per_second": rate}, result)
    accelerator.end_training()


def _hash_files(root: Path) -> dict[str, str]:
    files = root.rglob("*.safetensors")
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


if __name__ == "__main__":
    extract(*map(Path, sys.argv[1:]))
