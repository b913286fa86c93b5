"""Malignancy metrics as functions of photo weights: of ranks, and of decisions at a threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from .intervals import Metric, ratio

THRESHOLD = 0.5
Decide = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def classification_metrics(photos: pd.DataFrame, thresholds: dict[str, float] | None = None) -> dict[str, Metric]:
    """Return every malignancy metric as a function of photo weights.

    `auroc` and `auprc` (average precision) of the scores; `accuracy`, `balanced_accuracy`, `f1`, `sensitivity` and
    `specificity` where a score above 0.5 is called malignant, and with the name of each further threshold as a suffix.

    Args:
        photos (`pd.DataFrame`):
            Predictions table with one row per image: `image_id`, `y_true` (1 malignant), `y_score`.
        thresholds (`dict[str, float]`, *optional*):
            Further thresholds, such as `{"validation_youden": 0.31}`.

    Returns:
        `dict[str, Metric]`: functions of weights of the images in the order of `image_id`; NaN without photos of a
        class that the metric needs.

    Raises:
        ValueError: If a score is missing or not finite, or a label is neither 0 nor 1; the images are named.
    """
    photos = photos.sort_values("image_id", kind="stable")
    check_scores(photos)
    is_malignant = photos["y_true"].to_numpy() == 1
    scores = photos["y_score"].to_numpy(dtype=float)
    metrics = {"auroc": auroc(is_malignant, scores), "auprc": average_precision(is_malignant, scores)}
    for suffix, threshold in {"": THRESHOLD, **(thresholds or {})}.items():
        for name, decide in DECISIONS.items():
            metric = _of_decisions(is_malignant, scores > threshold, decide)
            metrics[f"{name}_{suffix}" if suffix else name] = metric
    return metrics


def check_scores(photos: pd.DataFrame) -> None:
    """Refuse scores that are missing or not finite, and labels that are neither 0 nor 1.

    Raises:
        ValueError: If there are any; up to 10 images are named.
    """
    unusable = photos.loc[~np.isfinite(photos["y_score"].to_numpy(dtype=float)), "image_id"]
    if len(unusable):
        raise ValueError(
            f"{len(unusable)} photos have no finite `y_score`: {list(unusable[:10])}. Score them again, or leave them "
            "out."
        )
    unlabelled = photos.loc[~photos["y_true"].isin([0, 1]), "image_id"]
    if len(unlabelled):
        raise ValueError(
            f"{len(unlabelled)} photos have a `y_true` that is neither 0 (benign) nor 1 (malignant): "
            f"{list(unlabelled[:10])}. Leave out photos of unknown malignancy."
        )


def youden_threshold(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """Return the threshold with the largest sum of sensitivity and specificity; a score above it is malignant.

    Args:
        y_true (`np.ndarray` of shape `(num_images,)`):
            1 malignant, 0 benign.
        y_score (`np.ndarray` of shape `(num_images,)`):
            Malignancy scores.

    Returns:
        `float`: halfway between the scores on both sides, the largest of equally good ones; 0.5 without photos of
        both classes.

    Source: Youden, "Index for rating diagnostic tests" (1950).
    """
    if len(np.unique(y_true)) < 2:
        return THRESHOLD
    false_positives, true_positives, thresholds = roc_curve(y_true, y_score, drop_intermediate=False)
    best = int(np.argmax(true_positives - false_positives))
    if best == 0:
        return float(thresholds[1])
    return float((thresholds[best] + thresholds[best + 1]) / 2)


def auroc(is_malignant: np.ndarray, scores: np.ndarray) -> Metric:
    """Return the area under the ROC curve as a function of photo weights: ties count one half."""
    malignant, benign = np.flatnonzero(is_malignant), np.flatnonzero(~is_malignant)
    differences = scores[malignant][None] - scores[benign][:, None]
    wins = (differences > 0) + 0.5 * (differences == 0)  # (num_benign, num_malignant)

    def metric(weights: np.ndarray) -> np.ndarray:
        of_benign, of_malignant = weights[:, benign], weights[:, malignant]
        won = np.einsum("dm,dm->d", of_benign @ wins, of_malignant)
        return ratio(won, of_benign.sum(axis=1) * of_malignant.sum(axis=1))

    return metric


def average_precision(is_malignant: np.ndarray, scores: np.ndarray) -> Metric:
    """Return average precision as a function of photo weights; equal scores are one threshold.

    Source: scikit-learn, `average_precision_score`.
    """
    order = np.argsort(-scores, kind="stable")
    lasts = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))

    def metric(weights: np.ndarray) -> np.ndarray:
        ranked = weights[:, order]
        positives = np.cumsum(ranked * is_malignant[order], axis=1)[:, lasts]
        precision = ratio(positives, np.cumsum(ranked, axis=1)[:, lasts])
        gained = np.diff(positives, axis=1, prepend=0.0)
        return ratio((gained * np.nan_to_num(precision)).sum(axis=1), positives[:, -1])

    return metric


def _of_decisions(is_malignant: np.ndarray, is_called: np.ndarray, decide: Decide) -> Metric:
    cells = [
        is_malignant & is_called,
        ~is_malignant & is_called,
        is_malignant & ~is_called,
        ~is_malignant & ~is_called,
    ]
    table = np.stack(cells, axis=1).astype(float)

    def metric(weights: np.ndarray) -> np.ndarray:
        return decide(*(weights @ table).T)

    return metric


def _accuracy(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return ratio(tp + tn, tp + fp + fn + tn)


def _balanced_accuracy(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return (_sensitivity(tp, fp, fn, tn) + _specificity(tp, fp, fn, tn)) / 2


def _f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return ratio(2 * tp, 2 * tp + fp + fn)


def _sensitivity(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return ratio(tp, tp + fn)


def _specificity(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return ratio(tn, tn + fp)


DECISIONS: dict[str, Decide] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
}
