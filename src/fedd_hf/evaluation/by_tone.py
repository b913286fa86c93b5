"""Every metric overall and by skin tone, each with its number of images and its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from fedd_hf.skin_tone import SkinTone

from .classification import auroc, balanced_accuracy
from .intervals import bootstrap_interval
from .segmentation import mean_iou, pooled_dice, pooled_iou, stack_counts

OVERALL = "all"
LESION = "lesion"


def segmentation_by_tone(predictions: pd.DataFrame) -> pd.DataFrame:
    """Tabulate mean IoU over classes, lesion IoU and lesion Dice, pooled over the pixels of each group.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table with one row per image and class.

    Returns:
        `pd.DataFrame` with the columns `metric`, `skin_tone` (`"all"` first), `n` (images), `value`, `low`, `high`.
    """
    rows = []
    for tone, group in _groups(predictions):
        labels, counts = stack_counts(group)
        lesion_counts = counts[:, labels.index(LESION)]
        rows.append(_row("mean_iou", tone, (counts,), mean_iou))
        rows.append(_row("lesion_iou", tone, (lesion_counts,), pooled_iou))
        rows.append(_row("lesion_dice", tone, (lesion_counts,), pooled_dice))
    return pd.DataFrame(rows)


def classification_by_tone(predictions: pd.DataFrame) -> pd.DataFrame:
    """Tabulate AUROC and balanced accuracy at 0.5 of each group; the bootstrap keeps the number of malignant ones.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table with one row per image.

    Returns:
        `pd.DataFrame` with the columns `metric`, `skin_tone` (`"all"` first), `n` (images), `value`, `low`, `high`.
    """
    rows = []
    for tone, group in _groups(predictions):
        scores = tuple(group.loc[group["y_true"] == label, "y_score"].to_numpy() for label in (0, 1))
        for name, metric in {"auroc": auroc, "balanced_accuracy": balanced_accuracy}.items():
            rows.append(_row(name, tone, scores, metric))
    return pd.DataFrame(rows)


def _groups(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield OVERALL, predictions
    for tone in SkinTone:
        group = predictions[predictions["skin_tone"] == tone.label]
        if not group.empty:
            yield tone.label, group


def _row(name: str, tone: str, samples: tuple[np.ndarray, ...], metric: Callable[..., float]) -> dict[str, object]:
    low, high = bootstrap_interval(samples, metric)
    count = sum(len(sample) for sample in samples)
    return {"metric": name, "skin_tone": tone, "n": count, "value": metric(*samples), "low": low, "high": high}
