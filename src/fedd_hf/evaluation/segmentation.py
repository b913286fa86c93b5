"""Segmentation metrics, pooled over the pixels of a set of images."""

from __future__ import annotations

import numpy as np
import pandas as pd

COUNTS = ["tp", "fp", "fn", "tn"]


def stack_counts(predictions: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the class labels and the pixel counts, of shape `(num_images, num_labels, 4)`: tp, fp, fn, tn."""
    labels = list(dict.fromkeys(predictions["label"]))
    table = predictions.pivot(index="image_id", columns="label", values=COUNTS)
    return labels, np.stack([table[name][labels] for name in COUNTS], axis=-1).astype(np.int64)


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of counts of shape `(..., 4)`; NaN for a class that is neither there nor predicted."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return _ratio(tp, tp + fp + fn)


def dice(counts: np.ndarray) -> np.ndarray:
    """Dice coefficient of counts of shape `(..., 4)`; NaN for a class that is neither there nor predicted."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return _ratio(2 * tp, 2 * tp + fp + fn)


def pooled_iou(counts: np.ndarray) -> float:
    """IoU of one class, of counts `(num_images, 4)` pooled over all pixels."""
    return float(iou(counts.sum(axis=0)))


def pooled_dice(counts: np.ndarray) -> float:
    """Dice coefficient of one class, of counts `(num_images, 4)` pooled over all pixels."""
    return float(dice(counts.sum(axis=0)))


def mean_iou(counts: np.ndarray) -> float:
    """Mean IoU over the classes that occur, of counts `(num_images, num_labels, 4)` pooled over all pixels."""
    return float(pd.Series(iou(counts.sum(axis=0))).mean())


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
