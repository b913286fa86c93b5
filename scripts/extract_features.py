"""Compute the features of the photos of any dataset once, and keep them on disk.

Usage:
    python scripts/extract_features.py --dataset pad-ufes-20 --root pad_ufes_20 --features features
    python scripts/extract_features.py --pooled --task classification
    torchrun --nproc_per_node 2 scripts/extract_features.py --num-threads 1
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from datasets import concatenate_datasets, disable_progress_bars
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.compare.blocks_and_timesteps import open_backbone
from fedd_hf.data.loading import DataArguments, load_splits
from fedd_hf.data.schema import count_photos
from fedd_hf.features import FeatureStore
from fedd_hf.training.arguments import FeatureArguments, ReadingArguments
from fedd_hf.training.run import open_accelerator

TASKS = ("segmentation", "classification")


def extract(data: DataArguments, reading: ReadingArguments, features: FeatureArguments, kept: Namespace) -> None:
    accelerator = open_accelerator()
    splits = load_splits(data, kept.task)
    accelerator.print(count_photos(splits).to_string(index=False))
    photos = concatenate_datasets(list(splits.values()))
    if kept.pooled:
        model = open_backbone(reading)
    else:
        model = FEDDForSegmentation.from_backbone(reading.backbone, **reading.given())
    processor = FEDDImageProcessor(size=model.config.image_size)
    pooled_size = model.config.pooled_size if kept.pooled else None
    store = FeatureStore(Path(features.features), model, processor, pooled_size=pooled_size, **features.of_store())
    accelerator.print(store.describe(len(photos)))
    files = store.extract(photos, accelerator)
    accelerator.print(f"{len(set(files))} files for {len(files)} photos: {store.folder}")
    accelerator.end_training()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser([DataArguments, ReadingArguments, FeatureArguments], description=__doc__)
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help="whose splits")
    parser.add_argument(
        "--pooled",
        action="store_true",
        help="of all even blocks and 21 timesteps, unless given, keep 512 max-pooled numbers each",
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        extract(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"extract_features: {error}")


if __name__ == "__main__":
    main()
