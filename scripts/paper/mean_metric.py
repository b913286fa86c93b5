"""The mean of a number that each photo has, as a metric of which intervals can be made."""

from __future__ import annotations

import numpy as np

from fedd_hf.evaluation.intervals import Metric


def mean_metric(values: np.ndarray) -> Metric:
    """Return the weighted mean of the values of photos as a function of their weights; photos with NaN do not count.

    Args:
        values (`np.ndarray` of shape `(num_photos,)`):
            Value of each photo.
    """
    is_defined = ~np.isnan(values)
    filled = np.where(is_defined, values, 0.0)

    def metric(weights: np.ndarray) -> np.ndarray:
        total = weights @ is_defined.astype(float)
        return np.where(total > 0, weights @ filled / np.where(total > 0, total, 1), np.nan)

    return metric
