"""Malignancy metrics of a set of scored images."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auroc(benign_scores: np.ndarray, malignant_scores: np.ndarray) -> float:
    """Area under the ROC curve, from the ranks of the malignant scores; NaN without scores of both classes."""
    if min(len(benign_scores), len(malignant_scores)) == 0:
        return float("nan")
    ranks = rankdata(np.concatenate([benign_scores, malignant_scores]))[len(benign_scores) :]
    return float((ranks.mean() - (len(malignant_scores) + 1) / 2) / len(benign_scores))


def balanced_accuracy(benign_scores: np.ndarray, malignant_scores: np.ndarray) -> float:
    """Mean of sensitivity and specificity at 0.5; NaN without scores of both classes."""
    if min(len(benign_scores), len(malignant_scores)) == 0:
        return float("nan")
    return float(((benign_scores <= 0.5).mean() + (malignant_scores > 0.5).mean()) / 2)
