"""How long training and prediction take on this machine, beside what the paper says of its own."""

from __future__ import annotations

import time
from typing import Any

from datasets import Dataset

from fedd_hf.compare.fedd_method import FEDDMethod
from fedd_hf.compare.run import Run
from fedd_hf.evaluation.report import describe_machine
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForSegmentation
from fedd_hf.prediction import stream_segmentations
from published import published_run_times


def measure_run_time(method: FEDDMethod, run: Run, num_photos: int = 16) -> list[dict[str, Any]]:
    """Train the pixel classifiers of a run on stored features, then segment some photos from pixels to maps.

    Args:
        method ([`FEDDMethod`]):
            FEDD, which has the features of the training photos already; otherwise the time has them in it.
        run ([`Run`]):
            What to train on.
        num_photos (`int`, *optional*, defaults to 16):
            Photos to segment.

    Returns:
        `list[dict]`: `quantity`, `published`, `ours`, `source` and `machine`; of five classifiers trained at once, the
        time of one is a fifth.
    """
    start = time.perf_counter()
    model, processor = method.train(run)
    minutes = (time.perf_counter() - start) / 60 / model.config.ensemble_size
    photos = run.photos.select(range(min(num_photos, len(run.photos))))
    ours = (minutes, _photos_per_second(model, processor, photos))
    machine = f"ours: {describe_machine()['cores']} CPU cores, {model.config.image_size} pixels"
    return [row | {"ours": value, "machine": machine} for row, value in zip(published_run_times(), ours, strict=True)]


def _photos_per_second(model: FEDDForSegmentation, processor: FEDDImageProcessor, photos: Dataset) -> float:
    images = [row["image"] for row in photos.select_columns("image")]
    start = time.perf_counter()
    segmented = sum(1 for _ in stream_segmentations(model.eval(), processor, images))
    return segmented / (time.perf_counter() - start)
