"""Train the malignancy classifier of FEDD on the labelled photos of any dataset.

Usage:
    python scripts/train_classification.py --output-dir runs/painted-malignancy
    python scripts/train_classification.py --dataset pad-ufes-20 --root pad_ufes_20 --output-dir runs/pad-malignancy
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

from fedd_hf import FEDDForImageClassification, FEDDImageProcessor
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos
from fedd_hf.evaluation.report import describe_machine, write_report
from fedd_hf.training.arguments import ClassificationArguments, OutputArguments, ReadingArguments
from fedd_hf.training.feature_store import extract_pooled_features
from fedd_hf.training.heads import train_malignancy_classifier


def train(
    data: DataArguments, reading: ReadingArguments, training: ClassificationArguments, output: OutputArguments
) -> None:
    splits = load_splits(data, "classification")
    print(count_photos(splits).to_string(index=False))
    photos = need_split(splits, "train")
    unseen_photos = need_split(splits, "validation")  # whose loss says when to stop
    accelerator = Accelerator()
    model = FEDDForImageClassification.from_backbone(reading.backbone, **reading.given())
    processor = FEDDImageProcessor(size=model.config.image_size)
    seen, unseen = (extract_pooled_features(model, processor, rows, accelerator) for rows in (photos, unseen_photos))
    losses = train_malignancy_classifier(model, seen, unseen, training, accelerator)
    folder = Path(output.output_dir)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    arguments = {"data": asdict(data), "reading": asdict(reading), "training": asdict(training)}
    result = {"photos": len(photos), "validation_loss": min(losses), "machine": describe_machine()}
    write_report(arguments | result, folder / "run.json")
    print(f"Trained on {len(photos)} photos, validation loss {min(losses):.3f}: {folder}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(
        [DataArguments, ReadingArguments, ClassificationArguments, OutputArguments], description=__doc__
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        train(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"train_classification: {error}")


if __name__ == "__main__":
    main()
