"""What a trained segmentation model leaves of a trial."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.prediction import PhotoModel, predict_segmentation, stream_segmentations

from .trial import Trial


def segment_trial(model: PhotoModel, processor: FEDDImageProcessor, trial: Trial, maps_dir: Path) -> pd.DataFrame:
    """Write the map of each example to `maps_dir/<image_id>.png`, and return predictions of `trial.photos`."""
    segmented = stream_segmentations(model, processor, (row["image"] for row in trial.examples))
    for name, example in zip(trial.examples["image_id"], segmented, strict=True):
        Image.fromarray(example.segmentation_map).save(maps_dir / f"{name}.png")
    return predict_segmentation(model, processor, trial.photos)
