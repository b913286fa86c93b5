"""Train the malignancy classifier of FEDD on the labelled photos of any dataset.

Usage:
    python scripts/train_classification.py --output-dir runs/painted-malignancy
    python scripts/train_classification.py --dataset pad-ufes-20 --root pad_ufes_20 --output-dir runs/pad-malignancy
    python scripts/train_classification.py --dataset ddi --root ddi --label-fraction 0.05 --paper-reading \
        --backbone adm-256 --output-dir runs/ddi-malignancy-05
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from huggingface_hub import HfApi
from torch import Tensor
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf import FEDDForImageClassification, FEDDImageProcessor
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos
from fedd_hf.evaluation.report import describe_machine
from fedd_hf.features import FeatureStore, pool_labelled
from fedd_hf.hub.trained_model import push_trained_model
from fedd_hf.training.arguments import ClassificationArguments, FeatureArguments, ReadingArguments, RunArguments
from fedd_hf.training.malignancy_heads import paper_reading, train_malignancy_classifier
from fedd_hf.training.run import save_run, start_accelerator


def train(
    data: DataArguments,
    reading: ReadingArguments,
    features: FeatureArguments,
    training: ClassificationArguments,
    run: RunArguments,
    preset: Namespace,
) -> None:
    accelerator = start_accelerator(run)
    splits = load_splits(data, "classification")
    accelerator.print(count_photos(splits).to_string(index=False))
    photos = need_split(splits, "train")
    unseen_photos = need_split(splits, "validation")  # whose loss says when to stop
    chosen = choose_paper_reading(data, reading) if preset.paper_reading else {}
    model = FEDDForImageClassification.from_backbone(reading.backbone, **(reading.given() | chosen))
    processor = FEDDImageProcessor(size=model.config.image_size)
    seen, unseen = pool_photos(model, processor, [photos, unseen_photos], features, accelerator)
    arguments = {"data": asdict(data), "reading": asdict(reading) | chosen, "training": asdict(training)}
    arguments["features"] = {"dtype": features.dtype}
    losses = train_malignancy_classifier(model, seen, unseen, training, accelerator)
    result = {"photos": len(photos), "validation_loss": min(losses), "machine": describe_machine()}
    save_run(model, processor, arguments | result, run, accelerator)
    if run.push_to_hub is not None and accelerator.is_main_process:
        push_trained_model(Path(run.output_dir), run.push_to_hub, HfApi())
    accelerator.end_training()
    accelerator.print(f"Trained on {len(photos)} photos, validation loss {min(losses):.3f}: {run.output_dir}")


def choose_paper_reading(data: DataArguments, reading: ReadingArguments) -> dict[str, list[int]]:
    if reading.blocks is not None or reading.timesteps is not None:
        raise ValueError("--paper-reading chooses block and timestep; leave --blocks and --timesteps out.")
    return paper_reading(data.label_fraction)


def pool_photos(
    model: FEDDForImageClassification,
    processor: FEDDImageProcessor,
    sets: list[Dataset],
    arguments: FeatureArguments,
    accelerator: Accelerator,
) -> list[tuple[Tensor, Tensor]]:
    root, pooled_size = Path(arguments.features), model.config.pooled_size
    store = FeatureStore(root, model, processor, pooled_size=pooled_size, **arguments.of_store())
    accelerator.print(store.describe(sum(map(len, sets))))
    pooled = [pool_labelled(store, photos, accelerator) for photos in sets]
    return [(features[:, 0], labels) for features, labels in pooled]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(
        [DataArguments, ReadingArguments, FeatureArguments, ClassificationArguments, RunArguments], description=__doc__
    )
    parser.add_argument(
        "--paper-reading", action="store_true", help="the paper's block and timestep for this --label-fraction"
    )
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        train(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"train_classification: {error}")


if __name__ == "__main__":
    main()
