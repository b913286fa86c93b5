"""Segmentation metrics as functions of photo weights: pooled over pixels, or averaged over images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .intervals import Metric, ratio

COUNTS = ["tp", "fp", "fn", "tn"]
LESION = "lesion"


def stack_counts(predictions: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the class labels and the pixel counts, of shape `(num_images, num_labels, 4)`: tp, fp, fn, tn.

    Images are in the order of `image_id`, labels in that of the table.

    Raises:
        ValueError: If an image has no row of some class; up to 10 images are named.
    """
    labels = list(dict.fromkeys(predictions["label"]))
    table = predictions.pivot(index="image_id", columns="label", values=COUNTS)
    incomplete = list(table.index[table.isna().any(axis=1)])
    if incomplete:
        raise ValueError(
            f"{len(incomplete)} photos lack the counts of some class: {incomplete[:10]}. Each photo needs one row of "
            f"each class: {', '.join(labels)}."
        )
    return labels, np.stack([table[name][labels] for name in COUNTS], axis=-1).astype(np.int64)


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of counts of shape `(..., 4)`; NaN for a class that is neither there nor predicted."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return ratio(tp, tp + fp + fn)


def dice(counts: np.ndarray) -> np.ndarray:
    """Dice coefficient of counts of shape `(..., 4)`; NaN for a class that is neither there nor predicted."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return ratio(2 * tp, 2 * tp + fp + fn)


def segmentation_metrics(predictions: pd.DataFrame) -> dict[str, Metric]:
    """Return every segmentation metric as a function of photo weights.

    Pooled over pixels, as the paper does: `mean_iou` and `mean_dice` over the classes that occur, `lesion_iou`,
    `lesion_dice`, `iou_<label>` and `dice_<label>`. Means over the images in which they are defined:
    `mean_iou_per_image`, `lesion_iou_per_image`, `lesion_dice_per_image`. Lesion metrics need a class of this name.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table with one row per image and class.

    Returns:
        `dict[str, Metric]`: functions of weights of the images in the order of `image_id`.
    """
    labels, counts = stack_counts(predictions)
    metrics = {"mean_iou": _pooled(counts, iou)}
    if LESION in labels:
        lesion = counts[:, [labels.index(LESION)]]
        metrics |= {"lesion_iou": _pooled(lesion, iou), "lesion_dice": _pooled(lesion, dice)}
        metrics |= {"lesion_iou_per_image": _averaged(lesion, iou), "lesion_dice_per_image": _averaged(lesion, dice)}
    metrics |= {"mean_dice": _pooled(counts, dice), "mean_iou_per_image": _averaged(counts, iou)}
    for index, label in enumerate(labels):
        metrics |= {f"iou_{label}": _pooled(counts[:, [index]], iou)}
        metrics |= {f"dice_{label}": _pooled(counts[:, [index]], dice)}
    return metrics


def _pooled(counts: np.ndarray, score: Metric) -> Metric:
    """Score pixels that are pooled over images, and average over the classes that occur."""

    def metric(weights: np.ndarray) -> np.ndarray:
        return _nanmean(score(np.tensordot(weights, counts, axes=1)))

    return metric


def _averaged(counts: np.ndarray, score: Metric) -> Metric:
    """Score each image, averaged over the classes that occur in it, and average over images."""
    of_images = _nanmean(score(counts))
    is_defined = ~np.isnan(of_images)
    filled = np.where(is_defined, of_images, 0.0)

    def metric(weights: np.ndarray) -> np.ndarray:
        return ratio(weights @ filled, weights @ is_defined.astype(float))

    return metric


def _nanmean(values: np.ndarray) -> np.ndarray:
    is_defined = ~np.isnan(values)
    return ratio(np.where(is_defined, values, 0.0).sum(axis=-1), is_defined.sum(axis=-1))
