"""Train the pixel classifiers of FEDD on the labelled photos of any dataset.

Usage:
    python scripts/train_segmentation.py --output-dir runs/painted
    python scripts/train_segmentation.py --dataset ddi --root ddi --masks ddi-seg --label-fraction 0.05 \
        --output-dir runs/ddi-05
    torchrun --nproc_per_node 2 scripts/train_segmentation.py --output-dir runs/painted
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from huggingface_hub import HfApi
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos
from fedd_hf.evaluation.report import describe_machine
from fedd_hf.features import FeatureStore
from fedd_hf.hub.trained_model import push_trained_model
from fedd_hf.training.arguments import FeatureArguments, ReadingArguments, RunArguments, SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from fedd_hf.training.run import save_run, start_accelerator


def train(
    data: DataArguments,
    reading: ReadingArguments,
    features: FeatureArguments,
    training: SegmentationArguments,
    run: RunArguments,
) -> None:
    accelerator = start_accelerator(run)
    splits = load_splits(data, "segmentation")
    accelerator.print(count_photos(splits).to_string(index=False))
    photos = need_split(splits, "train")
    model = FEDDForSegmentation.from_backbone(reading.backbone, **reading.given())
    processor = FEDDImageProcessor(size=model.config.image_size)
    labelled = open_features(model, processor, photos, features, accelerator)
    arguments = {"data": asdict(data), "reading": asdict(reading), "training": asdict(training)}
    arguments["features"] = {"dtype": features.dtype}
    losses = train_pixel_classifiers(model, labelled, training, accelerator)
    result = {"photos": len(photos), "final_loss": losses[-1], "machine": describe_machine()}
    save_run(model, processor, arguments | result, run, accelerator)
    if run.push_to_hub is not None and accelerator.is_main_process:
        push_trained_model(Path(run.output_dir), run.push_to_hub, HfApi())
    accelerator.end_training()
    accelerator.print(f"Trained on {len(photos)} photos, final loss {losses[-1]:.3f}: {run.output_dir}")


def open_features(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    photos: Dataset,
    arguments: FeatureArguments,
    accelerator: Accelerator,
) -> StoredFeatures:
    store = FeatureStore(Path(arguments.features), model, processor, **arguments.of_store())
    accelerator.print(store.describe(len(photos)))
    return StoredFeatures(store.extract(photos, accelerator), photos, processor)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(
        [DataArguments, ReadingArguments, FeatureArguments, SegmentationArguments, RunArguments], description=__doc__
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        train(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"train_segmentation: {error}")


if __name__ == "__main__":
    main()
