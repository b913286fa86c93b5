"""Bootstrap intervals with images as units."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import bootstrap

NUM_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95


def bootstrap_interval(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., float], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic (bias-corrected and accelerated bootstrap).

    Args:
        samples (`tuple[np.ndarray, ...]`):
            One array per stratum whose first axis is images; each stratum is resampled on its own.
        statistic (`Callable`):
            Function of such arrays.
        seed (`int`, *optional*, defaults to 0):
            Seed of the resampling.

    Returns:
        `tuple[float, float]`: low and high; NaN where the sample is too small or too even to say.
    """
    if min(len(sample) for sample in samples) < 2:
        return float("nan"), float("nan")
    indices = tuple(np.arange(len(sample)) for sample in samples)

    def of_images(*resampled: np.ndarray) -> float:
        return statistic(*(sample[index] for sample, index in zip(samples, resampled, strict=True)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of degenerate samples, whose interval is NaN already
        result = bootstrap(
            indices,
            of_images,
            n_resamples=NUM_RESAMPLES,
            vectorized=False,
            confidence_level=CONFIDENCE_LEVEL,
            rng=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
