"""From predictions tables of methods, label fractions and seeds to curves, differences and gaps by skin tone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve
from tqdm.auto import tqdm

from fedd_hf.evaluation.by_tone import (
    MEAN_OF_TONES,
    OVERALL,
    TONES,
    choose_thresholds,
    mean_of_tones,
    photos_of,
    sample_of,
    tabulate_by_tone,
    tabulate_gaps,
    within,
)
from fedd_hf.evaluation.classification import classification_metrics
from fedd_hf.evaluation.intervals import Metric, Sample, paired_difference, value_of
from fedd_hf.evaluation.segmentation import segmentation_metrics

from .photo_sets import VALIDATION
from .run import CLASSIFICATION, SEGMENTATION

# Of all metrics there are curves; methods and skin tones are compared by these.
COMPARED = {
    SEGMENTATION: ("mean_iou", "lesion_iou", "lesion_dice", "mean_iou_per_image", "lesion_iou_per_image"),
    CLASSIFICATION: (
        "auroc",
        "auprc",
        "accuracy",
        "accuracy_validation_youden",
        "accuracy_test_youden",
        "balanced_accuracy",
        "balanced_accuracy_validation_youden",
        "f1",
    ),
}

Key = tuple[str, float]  # method, label fraction
Predictions = Mapping[Key, Sequence[pd.DataFrame]]


def measure_curves(task: str, predictions: Predictions, tests: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Compare methods by skin tone on each test.

    Values are means over seeds; intervals are over photos, the same resampled photos for every seed.

    Args:
        task (`str`):
            `"segmentation"` or `"classification"`.
        predictions (`dict[tuple[str, float], list[pd.DataFrame]]`):
            Predictions tables of the seeds of each method and label fraction; the first method is the one that others
            are compared with.
        tests (`dict[str, list[str]]`):
            `image_id` of the photos of each test, `"validation"` among them, where methods are not compared.

    Returns:
        `dict`: rows `curves`, `differences` (the first method minus `method`, on the same photos) and `gaps` (between
        skin tones), and of malignancy `roc` (first seed) and `choices` (the threshold of each training).
    """
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("curves", "differences", "gaps", "roc")}
    first = next(iter(predictions))[0]
    plan = list(product(tests, predictions))
    for test, key in tqdm(plan, desc="Statistics", unit="curve", leave=False):
        scored = _Scored(task, predictions[key], tests, test)
        of_key = {"method": key[0], "label_fraction": key[1], "test": test}
        tables["curves"] += [of_key | row for row in _curve(scored)]
        if test == VALIDATION:
            continue
        compared = {name: metric for name, metric in scored.means.items() if name in COMPARED[task]}
        tables["gaps"] += [of_key | row for row in tabulate_gaps(compared, scored.photos).to_dict("records")]
        if key[0] != first:
            other = _Scored(task, predictions[first, key[1]], tests, test)
            tables["differences"] += [of_key | row for row in _differences(scored, other, list(compared))]
        if task == CLASSIFICATION:
            tables["roc"].append(of_key | _roc(scored.tables[0]))
    return tables | {"choices": list(_choices(predictions, tests)) if task == CLASSIFICATION else []}


class _Scored:
    """Predictions of some seeds on one test, as metrics of its photos."""

    def __init__(
        self, task: str, predictions: Sequence[pd.DataFrame], tests: Mapping[str, Sequence[str]], test: str
    ) -> None:
        self.tables = [_keep(table, tests[test]) for table in predictions]
        self.photos = photos_of(self.tables[0])
        self.sample = sample_of(self.photos)
        if task == SEGMENTATION:
            self.of_seeds = [segmentation_metrics(table) for table in self.tables]
        else:
            validation = [None if test == VALIDATION else _keep(table, tests[VALIDATION]) for table in predictions]
            self.of_seeds = [
                classification_metrics(table, choose_thresholds(table, of_seed))
                for table, of_seed in zip(self.tables, validation, strict=True)
            ]
        self.means = {name: _mean([metrics[name] for metrics in self.of_seeds]) for name in self.of_seeds[0]}


def _keep(table: pd.DataFrame, image_ids: Sequence[str]) -> pd.DataFrame:
    return table[table["image_id"].isin(image_ids)].reset_index(drop=True)


def _mean(metrics: Sequence[Metric]) -> Metric:
    """Return the mean of a metric over seeds, as one metric."""
    return lambda weights: np.mean([metric(weights) for metric in metrics], axis=0)


def _curve(scored: _Scored) -> Iterator[dict[str, Any]]:
    for row in tabulate_by_tone(scored.means, scored.photos).to_dict("records"):
        of_seeds = [
            value_of(_of_tone(metrics[row["metric"]], scored.sample, row["skin_tone"]), scored.sample)
            for metrics in scored.of_seeds
        ]
        spread = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else float("nan")
        yield {str(name): value for name, value in row.items()} | {"seed_std": spread}


def _differences(baseline: _Scored, first: _Scored, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the difference of each metric, the first method minus its baseline, for each group of photos."""
    sample = baseline.sample
    tones = [tone for tone in TONES if (sample.tones == tone).any()]
    for name, tone in product(names, [OVERALL, *tones, *([MEAN_OF_TONES] if tones else [])]):
        theirs, ours = (_of_tone(scored.means[name], sample, tone) for scored in (baseline, first))
        found = paired_difference(theirs, ours, sample)
        row = {"difference": found.value, "low": found.low, "high": found.high, "p_value": found.p_value}
        yield {"metric": name, "skin_tone": tone} | row


def _of_tone(metric: Metric, sample: Sample, tone: str) -> Metric:
    if tone == OVERALL:
        return metric
    return mean_of_tones(metric, sample) if tone == MEAN_OF_TONES else within(metric, sample.tones == tone)


def _roc(table: pd.DataFrame) -> dict[str, Any]:
    """Return the points of the ROC curve; none without photos of both classes."""
    n = {"n": len(table)}
    if table["y_true"].nunique() < 2:
        return n | {"fpr": [], "tpr": []}
    false_positives, true_positives, _ = roc_curve(table["y_true"], table["y_score"])
    return n | {"fpr": false_positives.tolist(), "tpr": true_positives.tolist()}


def _choices(predictions: Predictions, tests: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    for (method, label_fraction), of_seeds in predictions.items():
        for seed, table in enumerate(of_seeds):
            threshold = choose_thresholds(_keep(table, tests[VALIDATION]))["test_youden"]
            row = {"method": method, "label_fraction": label_fraction, "seed": seed}
            yield row | {"validation_youden": threshold}
