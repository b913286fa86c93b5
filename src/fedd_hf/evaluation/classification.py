"""Malignancy metrics of a set of scored images."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score


def auroc(benign_scores: np.ndarray, malignant_scores: np.ndarray) -> float:
    """Area under the ROC curve; NaN without scores of both classes."""
    if min(len(benign_scores), len(malignant_scores)) == 0:
        return float("nan")
    y_true = np.repeat([0, 1], [len(benign_scores), len(malignant_scores)])
    return float(roc_auc_score(y_true, np.concatenate([benign_scores, malignant_scores])))


def balanced_accuracy(benign_scores: np.ndarray, malignant_scores: np.ndarray) -> float:
    """Mean of sensitivity and specificity at 0.5; NaN without scores of both classes."""
    if min(len(benign_scores), len(malignant_scores)) == 0:
        return float("nan")
    y_true = np.repeat([0, 1], [len(benign_scores), len(malignant_scores)])
    return float(balanced_accuracy_score(y_true, np.concatenate([benign_scores, malignant_scores]) > 0.5))
