"""Train the pixel classifiers of FEDD on the labelled photos of any dataset.

Usage:
    python scripts/train_segmentation.py --output-dir runs/painted
    python scripts/train_segmentation.py --dataset ddi --root ddi --masks ddi-seg --label-fraction 0.05 \
        --output-dir runs/ddi-05
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from datasets import disable_progress_bars
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos
from fedd_hf.evaluation.report import describe_machine, write_report
from fedd_hf.training.arguments import OutputArguments, ReadingArguments, SegmentationArguments
from fedd_hf.training.feature_store import extract_feature_maps
from fedd_hf.training.heads import train_pixel_classifiers


def train(
    data: DataArguments, reading: ReadingArguments, training: SegmentationArguments, output: OutputArguments
) -> None:
    splits = load_splits(data, "segmentation")
    print(count_photos(splits).to_string(index=False))
    photos = need_split(splits, "train")
    accelerator = Accelerator()
    model = FEDDForSegmentation.from_backbone(reading.backbone, **reading.given())
    processor = FEDDImageProcessor(size=model.config.image_size)
    features = extract_feature_maps(model, processor, photos, accelerator)
    losses = train_pixel_classifiers(model, features, training, accelerator)
    folder = Path(output.output_dir)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    arguments = {"data": asdict(data), "reading": asdict(reading), "training": asdict(training)}
    result = {"photos": len(photos), "final_loss": losses[-1], "machine": describe_machine()}
    write_report(arguments | result, folder / "run.json")
    print(f"Trained on {len(photos)} photos, final loss {losses[-1]:.3f}: {folder}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(
        [DataArguments, ReadingArguments, SegmentationArguments, OutputArguments], description=__doc__
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        train(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"train_segmentation: {error}")


if __name__ == "__main__":
    main()
