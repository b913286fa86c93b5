"""Intervals and tests by resampling photos: stratified, with all photos of a patient kept together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm, t

NUM_DRAWS = 1000
CONFIDENCE_LEVEL = 0.95
POWER = 0.80
_ROWS_AT_ONCE = 256
_ROUNDING = 1e-12  # what varies less does not vary

Metric = Callable[[np.ndarray], np.ndarray]
"""A metric as a function of photo weights: `(num_draws, num_photos)` to `(num_draws,)`, NaN where it is undefined."""


@dataclass(frozen=True)
class Sample:
    """What resampling has to know of photos.

    Args:
        clusters (`np.ndarray` of shape `(num_photos,)`):
            Patient or lesion; photos of one are drawn together.
        tones (`np.ndarray` of shape `(num_photos,)`):
            Skin tone, `"unknown"` where there is none; the number of photos of each is kept.
        kinds (`np.ndarray` of shape `(num_photos,)`):
            What else is kept, such as malignancy.
    """

    clusters: np.ndarray
    tones: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.clusters)

    @cached_property
    def members(self) -> np.ndarray:
        """Number of the cluster of each photo, counted from 0."""
        return np.unique(self.clusters, return_inverse=True)[1]

    @cached_property
    def strata(self) -> np.ndarray:
        """Number of the stratum of each cluster, tone and kind; that of its first photo where they differ."""
        labels = np.array([f"{tone}/{kind}" for tone, kind in zip(self.tones, self.kinds, strict=True)])
        first = np.unique(self.members, return_index=True)[1]
        return np.unique(labels[first], return_inverse=True)[1]

    @cached_property
    def drawn(self) -> dict[tuple[int, int], np.ndarray]:
        """What [`draw_weights`] drew last: many metrics of the same photos need the same draws."""
        return {}


@dataclass(frozen=True)
class Difference:
    """A difference with what can be said of it.

    Args:
        value (`float`):
            The difference.
        low (`float`):
            Lower end of its 95 % interval.
        high (`float`):
            Upper end.
        p_value (`float`):
            Two-sided.
        standard_error (`float`):
            From the jackknife.
    """

    value: float
    low: float
    high: float
    p_value: float
    standard_error: float

    @property
    def minimum_detectable(self) -> float:
        """The smallest true difference that a sample like this shows at the 5 % level in 80 % of cases."""
        return float((norm.ppf(0.5 + CONFIDENCE_LEVEL / 2) + norm.ppf(POWER)) * self.standard_error)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, and return NaN where there is nothing to divide by."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def value_of(metric: Metric, sample: Sample) -> float:
    """Return a metric of the photos as they are."""
    return float(metric(np.ones((1, len(sample))))[0])


def draw_weights(sample: Sample, num_draws: int = NUM_DRAWS, seed: int = 0) -> np.ndarray:
    """Draw clusters with replacement within their strata.

    Returns:
        `np.ndarray` of shape `(num_draws, num_photos)`: how often each photo is drawn; not to be written to.
    """
    if (num_draws, seed) not in sample.drawn:
        sample.drawn.clear()
        sample.drawn[num_draws, seed] = _draw_clusters(sample.strata, num_draws, seed)[:, sample.members]
        sample.drawn[num_draws, seed].setflags(write=False)
    return sample.drawn[num_draws, seed]


def interval(metric: Metric, sample: Sample, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric: percentiles of the bootstrap, moved outwards for few effective photos.

    The percentiles are those of a t distribution instead of a normal one, with as many degrees of freedom as the
    metric has effective clusters: a pooled IoU hangs on the few photos with large lesions, an AUROC on the few that
    are malignant. The number of these is read from the jackknife. How often such intervals hold the truth is
    simulated: [`~fedd_hf.evaluation.coverage`].

    Args:
        metric ([`Metric`]):
            Function of photo weights.
        sample ([`Sample`]):
            Clusters and strata of the photos.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.

    Returns:
        `tuple[float, float]`: low and high; NaN where the sample is too small or too even to say.

    Source: Hesterberg, "What teachers should know about the bootstrap" (2015), section 3.3, expanded percentile
    interval; its degrees of freedom after Satterthwaite (1946), with the variance of the variance from the jackknife.
    """
    deviations = jackknife(metric, sample)
    draws = metric(draw_weights(sample, seed=seed))
    if not np.isfinite(deviations).all() or np.isnan(draws).mean() > 0.5 or np.nanstd(draws) < _ROUNDING:
        return float("nan"), float("nan")
    degrees = degrees_of_freedom(deviations, sample.strata)
    reach = np.sqrt((degrees + 1) / degrees) * t.ppf(0.5 + CONFIDENCE_LEVEL / 2, degrees)
    low, high = np.nanquantile(draws, norm.cdf([-reach, reach]))
    return float(low), float(high)


def jackknife(metric: Metric, sample: Sample) -> np.ndarray:
    """Return how a metric deviates when each cluster is left out, so that the squares sum to its variance."""
    left_out = np.concatenate([metric(weights) for weights in _leave_out(sample)])
    deviations = np.zeros(len(left_out))
    for stratum in range(sample.strata.max(initial=-1) + 1):
        (clusters,) = np.nonzero(sample.strata == stratum)
        spread = left_out[clusters] - left_out[clusters].mean()  # of one alone 0, or NaN if nothing can be said
        deviations[clusters] = spread * np.sqrt((len(clusters) - 1) / len(clusters))
    return deviations


def degrees_of_freedom(deviations: np.ndarray, strata: np.ndarray) -> float:
    """Return the degrees of freedom of a variance that is the sum of squared deviations.

    They are few if few clusters carry it, or if a stratum of few clusters does.

    Source: Satterthwaite (1946), over single clusters and over strata; the fewer count.
    """
    squares, sizes = np.bincount(strata, deviations**2), np.bincount(strata)
    variance = squares.sum()
    if variance == 0:
        return max(float(len(strata) - 1), 1.0)
    of_clusters = 3 * variance**2 / (deviations**4).sum() - 1
    of_strata = variance**2 / (squares**2 / np.maximum(sizes - 1, 1)).sum()
    return float(max(min(of_clusters, of_strata), 1.0))


def paired_difference(metric: Metric, other: Metric, sample: Sample, seed: int = 0) -> Difference:
    """Compare two metrics of the same photos, such as one metric of two methods.

    Args:
        metric ([`Metric`]):
            What is subtracted.
        other ([`Metric`]):
            From what.
        sample ([`Sample`]):
            Clusters and strata of the photos.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.

    Returns:
        [`Difference`]: `other` minus `metric`; the p-value is that of a t test with the jackknife's standard error.
    """

    def difference(weights: np.ndarray) -> np.ndarray:
        return other(weights) - metric(weights)

    deviations = jackknife(difference, sample)
    standard_error = float(np.sqrt((deviations**2).sum()))
    value = value_of(difference, sample)
    degrees = degrees_of_freedom(deviations, sample.strata) if np.isfinite(standard_error) else np.nan
    p_value = 2 * t.sf(abs(value) / standard_error, degrees) if standard_error > _ROUNDING else np.nan
    return Difference(value, *interval(difference, sample, seed), float(p_value), standard_error)


def gap(metric: Metric, sample: Sample, reference: str, tone: str, seed: int = 0) -> Difference:
    """Compare a metric on two skin tones.

    Args:
        metric ([`Metric`]):
            Function of photo weights.
        sample ([`Sample`]):
            Clusters, tones and kinds of the photos.
        reference (`str`):
            Skin tone that is subtracted.
        tone (`str`):
            Skin tone from which.
        seed (`int`, *optional*, defaults to 0):
            Seed of draws and permutations.

    Returns:
        [`Difference`]: `tone` minus `reference`; the p-value is that of a permutation of tones among the clusters of
        the same kind, whose null hypothesis is that tones could be exchanged.
    """
    difference = difference_of_tones(metric, sample, reference, tone)
    standard_error = float(np.sqrt((jackknife(difference, sample) ** 2).sum()))
    value = value_of(difference, sample)
    permuted = np.concatenate(
        [metric(of_tone) - metric(of_reference) for of_reference, of_tone in _permute(sample, reference, tone, seed)]
    )
    p_value = _permutation_p(value, permuted)
    return Difference(value, *interval(difference, sample, seed), p_value, standard_error)


def difference_of_tones(metric: Metric, sample: Sample, reference: str, tone: str) -> Metric:
    """Return a metric of the photos of `tone` minus that of `reference`, as a function of the weights of all."""
    is_reference, is_tone = sample.tones == reference, sample.tones == tone
    return lambda weights: metric(weights * is_tone) - metric(weights * is_reference)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values of one family for their number; NaN stay NaN and do not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def _draw_clusters(strata: np.ndarray, num_draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = np.zeros((num_draws, len(strata)))
    for stratum in range(strata.max(initial=-1) + 1):
        (clusters,) = np.nonzero(strata == stratum)
        size = len(clusters)
        chosen = rng.integers(size, size=(num_draws, size)) + size * np.arange(num_draws)[:, None]
        drawn[:, clusters] = np.bincount(chosen.ravel(), minlength=num_draws * size).reshape(num_draws, size)
    return drawn


def _leave_out(sample: Sample) -> Iterator[np.ndarray]:
    """Yield weights of all photos but those of one cluster, some clusters at once."""
    for start in range(0, len(sample.strata), _ROWS_AT_ONCE):
        clusters = np.arange(start, min(start + _ROWS_AT_ONCE, len(sample.strata)))
        yield (sample.members[None] != clusters[:, None]).astype(float)


def _permute(sample: Sample, reference: str, tone: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield weights of two groups whose tones are exchanged at random, some permutations at once."""
    rng = np.random.default_rng(seed)
    first = np.unique(sample.members, return_index=True)[1]
    tones, kinds = sample.tones[first], sample.kinds[first]
    is_compared = (tones == reference) | (tones == tone)
    for start in range(0, NUM_DRAWS, _ROWS_AT_ONCE):
        is_tone = np.tile(tones == tone, (min(_ROWS_AT_ONCE, NUM_DRAWS - start), 1))
        for kind in np.unique(kinds[is_compared]):
            (clusters,) = np.nonzero(is_compared & (kinds == kind))
            is_tone[:, clusters] = rng.permuted(is_tone[:, clusters], axis=1)
        is_reference = is_compared & ~is_tone
        yield is_reference[:, sample.members].astype(float), is_tone[:, sample.members].astype(float)


def _permutation_p(value: float, permuted: np.ndarray) -> float:
    permuted = permuted[~np.isnan(permuted)]
    if np.isnan(value) or not len(permuted):
        return float("nan")
    at_least = (np.abs(permuted) >= abs(value) - 1e-12).sum()
    return float((at_least + 1) / (len(permuted) + 1))
