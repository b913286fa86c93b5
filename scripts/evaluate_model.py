"""Evaluate a model on one split of any dataset, overall and by skin tone.

Usage:
    python scripts/evaluate_model.py --model runs/painted --output-dir runs/painted/test
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers import HfArgumentParser

from fedd_hf import FEDDForSegmentation
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.schema import count_photos, tone_labels
from fedd_hf.evaluation.report import describe_machine, write_report
from fedd_hf.evaluation.summary import evaluate_classification, evaluate_segmentation
from fedd_hf.evaluation.text_tables import markdown_by_tone
from fedd_hf.prediction import open_model, predict_classification, predict_segmentation

VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments:
    """What is evaluated."""

    model: str = field(metadata={"help": "folder or repository id of a model"})
    output_dir: str = field(metadata={"help": "folder for predictions.parquet and report.json"})
    split: str = field(default="test", metadata={"help": "split to evaluate on"})


def predict(model: Any, processor: Any, photos: Dataset) -> pd.DataFrame:
    if isinstance(model, FEDDForSegmentation):
        return predict_segmentation(model, processor, photos)
    return predict_classification(model, processor, photos)


def predict_validation(model: Any, processor: Any, splits: DatasetDict, split: str) -> pd.DataFrame | None:
    """Validation photos choose a threshold and a temperature, unless they are what is evaluated."""
    return predict(model, processor, splits[VALIDATION]) if VALIDATION in splits and split != VALIDATION else None


def evaluate(data: DataArguments, arguments: EvaluationArguments) -> None:
    model, processor = open_model(arguments.model)
    is_segmenter = isinstance(model, FEDDForSegmentation)
    splits = load_splits(data, "segmentation" if is_segmenter else "classification")
    photos = need_split(splits, arguments.split)
    print(count_photos({arguments.split: photos}).to_string(index=False))
    predictions = predict(model, processor, photos)
    validation = predict_validation(model, processor, splits, arguments.split)
    report = (evaluate_segmentation if is_segmenter else evaluate_classification)(predictions, validation)
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / "predictions.parquet")
    unknown = tone_labels(photos).count(None)
    facts = {"data": asdict(data), "evaluation": asdict(arguments), "photos_without_tone": unknown}
    write_report(facts | report | {"machine": describe_machine()}, folder / "report.json")
    print(markdown_by_tone(report["by_tone"]))
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
