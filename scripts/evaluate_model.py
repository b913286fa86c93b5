"""Evaluate a model on one split of any dataset, overall and by skin tone.

Usage:
    python scripts/evaluate_model.py --model runs/painted --output-dir runs/painted/test
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import Dataset, disable_progress_bars
from transformers import HfArgumentParser

from fedd_hf import FEDDForSegmentation
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos, tone_labels
from fedd_hf.evaluation.by_tone import classification_by_tone, segmentation_by_tone
from fedd_hf.evaluation.report import describe_machine, markdown_by_tone, write_report
from fedd_hf.figures.by_tone import TITLES
from fedd_hf.inference import predict_classification, predict_segmentation
from fedd_hf.pipelines import open_model


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments:
    """What is evaluated."""

    model: str = field(metadata={"help": "folder or repository id of a model"})
    output_dir: str = field(metadata={"help": "folder for predictions.parquet and report.json"})
    split: str = field(default="test", metadata={"help": "split to evaluate on"})


def load_photos(data: DataArguments, task: str, split: str) -> Dataset:
    photos = need_split(load_splits(data, task), split)
    print(count_photos({split: photos}).to_string(index=False))
    return photos


def evaluate(data: DataArguments, arguments: EvaluationArguments) -> None:
    model, processor = open_model(arguments.model)
    folder = Path(arguments.output_dir)
    if isinstance(model, FEDDForSegmentation):
        photos = load_photos(data, "segmentation", arguments.split)
        predictions = predict_segmentation(model, processor, photos)
        rows = segmentation_by_tone(predictions).to_dict("records")
    else:
        photos = load_photos(data, "classification", arguments.split)
        predictions = predict_classification(model, processor, photos)
        rows = classification_by_tone(predictions).to_dict("records")
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / "predictions.parquet")
    unknown = tone_labels(photos).count(None)
    report = {"data": asdict(data), "evaluation": asdict(arguments), "by_tone": rows, "photos_without_tone": unknown}
    write_report(report | {"machine": describe_machine()}, folder / "report.json")
    print(markdown_by_tone(rows, TITLES))
    print(f"{unknown} photos have no recorded skin tone and count in `all` only. {folder / 'report.json'}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser([DataArguments, EvaluationArguments], description=__doc__)
    disable_progress_bars()
    try:
        evaluate(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"evaluate_model: {error}")


if __name__ == "__main__":
    main()
