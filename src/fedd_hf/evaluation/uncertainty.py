"""Whether a model knows when it errs: calibration, abstention, and the contrast of lesions, overall and by skin tone.

Each function takes either predictions table. Photos without a recorded tone count in `"all"` only; a tone without
photos has no rows. How often intervals hold the truth was simulated for the metrics of strata, but not for calibration
errors and areas under risk curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from .by_tone import groups_of, photos_of, sample_of
from .classification import THRESHOLD, check_scores, classification_metrics
from .coverage import flag_of
from .intervals import Metric, interval, ratio, value_of
from .segmentation import LESION, iou, segmentation_metrics, stack_counts

NUM_BINS = 15
KEPT_SHARE = 0.8
MAX_CURVE_POINTS = 200
_TEMPERATURES = (0.01, 100.0)
_SMALLEST = 1e-7  # a score of 0 or 1 has no finite logit


@dataclass(frozen=True)
class Bins:
    """Decisions sorted into bins of equal width by their confidence, each of shape `(num_photos, 15)`.

    Args:
        counts (`np.ndarray`):
            How many decisions are in each bin: pixels, or 1 in one bin for a malignancy score.
        correct (`np.ndarray`):
            How many of them are right.
        confidence (`np.ndarray`):
            The sum of their confidences.
    """

    counts: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    def select(self, members: np.ndarray) -> Bins:
        """Return those of some photos."""
        return Bins(self.counts[members], self.correct[members], self.confidence[members])


# --- calibration -----------------------------------------------------------------------------------------------------


def calibration_by_tone(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> dict[str, Any]:
    """Compare confidence with accuracy.

    A decision is the class of a pixel, whose confidence is the probability that the model gives to it, or whether a
    photo is malignant (score above 0.5), whose confidence is the larger of the score and 1 minus the score. The
    expected calibration error (ECE) is the mean distance of accuracy and mean confidence over 15 bins of equal width,
    weighted by the decisions in them. Of few photos it is too large: that of a perfect model is 0 only in the limit,
    and its interval need not reach down to 0.

    One temperature T for all tones, since nobody knows the tone of a new photo, is fitted on validation photos by
    negative log-likelihood. Scores become sigmoid(logit(score) / T). Of pixels only bins are left after inference, so
    theirs is a temperature of the confidence in the predicted class: the mean confidence c of each bin becomes
    sigmoid(logit(c) / T), and bins stay as they are.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table.
        validation (`pd.DataFrame`, *optional*):
            That of the validation photos.

    Returns:
        `dict`: `rows` by tone with `n` (photos), `ece`, `low`, `high`, `temperature`, `ece_with_temperature` and, for
        scores, `brier` (the last two with `_low` and `_high` too); and the reliability `curve`, rows of `skin_tone`,
        `confidence`, `accuracy` and `count` (decisions) for each bin that is not empty. Without validation photos
        temperature and what follows from it are NaN.

    Raises:
        ValueError: If a score is missing or not finite.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    photos = photos_of(predictions)
    bins = bin_decisions(predictions)
    temperature = float("nan") if validation is None else fit_temperature(validation)
    rows, curve = [], []
    for tone, members in groups_of(photos["skin_tone"].to_numpy()):
        of_tone = photos[members].reset_index(drop=True)
        value, low, high = _with_interval(calibration_error(bins.select(members)), of_tone)
        row = {"skin_tone": tone, "n": len(of_tone), "ece": value, "low": low, "high": high}
        metrics = {"ece_with_temperature": _calibration_error_at(temperature, bins.select(members), of_tone)}
        metrics |= {"brier": _brier(of_tone)} if "y_score" in of_tone else {}
        rows.append(row | {"temperature": temperature} | _named_intervals(metrics, of_tone))
        curve += [{"skin_tone": tone, **point} for point in _reliability(bins.select(members))]
    return {"rows": rows, "curve": curve}


def bin_decisions(predictions: pd.DataFrame, temperature: float = 1.0) -> Bins:
    """Return the binned decisions of each photo, in the order of `image_id`; scores at a temperature."""
    if "y_score" not in predictions:
        _, of_row = np.unique(predictions["image_id"].to_numpy(str), return_inverse=True)
        return Bins(*(_sum_rows(predictions[f"bin_{name}"], of_row) for name in ("pixels", "correct", "confidence")))
    confidence, is_correct = _decide(predictions)
    confidence = with_temperature(confidence, temperature) if temperature != 1 else confidence
    chosen = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.eye(NUM_BINS)[chosen]
    return Bins(counts, counts * is_correct[:, None], counts * confidence[:, None])


def calibration_error(bins: Bins, temperature: float | None = None) -> Metric:
    """Return the ECE as a function of photo weights, with the mean confidence of bins at a temperature if it is given.

    It is NaN without decisions.
    """

    def metric(weights: np.ndarray) -> np.ndarray:
        counts, correct, confidence = (weights @ part for part in (bins.counts, bins.correct, bins.confidence))
        if temperature is not None:
            means = np.nan_to_num(ratio(confidence, counts), nan=0.5)
            confidence = counts * with_temperature(means, temperature)
        return ratio(np.abs(correct - confidence).sum(axis=-1), counts.sum(axis=-1))

    return metric


def fit_temperature(validation: pd.DataFrame) -> float:
    """Return the temperature in [0.01, 100] under which validation photos are most likely.

    It is above 1 for a model that is too sure. It ends at 0.01 where all decisions are right, is 1 where every
    confidence is 0.5, so that no temperature changes anything, and NaN without decisions.
    """
    if "y_score" in validation:
        confidence, correct = _decide(validation)
        counts = np.ones(len(correct))
    else:
        bins = bin_decisions(validation)
        counts, correct = bins.counts.sum(axis=0), bins.correct.sum(axis=0)
        confidence = np.nan_to_num(ratio(bins.confidence.sum(axis=0), counts), nan=0.5)
    if not counts.sum():
        return float("nan")
    logits = logit(np.clip(confidence, _SMALLEST, 1 - _SMALLEST))
    if not logits.any():
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((correct * np.logaddexp(0, -scaled) + (counts - correct) * np.logaddexp(0, scaled)).sum())

    ends = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(min((*ends, found.x), key=loss)))  # the search comes close to an end, but never there


def with_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Return sigmoid(logit(probability) / temperature); 0 and 1 are first moved inwards by 1e-7."""
    return expit(logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST)) / temperature)


# --- abstention ------------------------------------------------------------------------------------------------------


def coverage_risk_by_tone(predictions: pd.DataFrame) -> dict[str, Any]:
    """Follow the risk of the photos that are kept when the model abstains from the most uncertain ones.

    The risk of a photo is 1 minus its lesion IoU, or whether its malignancy is misjudged at 0.5. AURC is the mean over
    photos of the risk of those that are kept when a photo is the most uncertain one to be kept; equally uncertain ones
    are kept together. Photos without a lesion, true or predicted, have no IoU and are left out.

    One threshold for all tones, the smallest uncertainty that keeps at least 80 % of all photos, tells on whom a
    model that abstains leaves more of the work to people. Photos that are as uncertain as the threshold are kept.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table.

    Returns:
        `dict`: `rows` by tone with `n` (photos), `aurc`, `low`, `high`, and at the joint threshold `risk_at_80` (mean
        risk of the kept photos) and `coverage_at_80` (share of the photos that are kept), both with `_low` and
        `_high`; and the `curve`, at most 200 rows by tone of `skin_tone`, `coverage` and `risk`.

    Raises:
        ValueError: If a score is missing or not finite.

    Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks (2017); AURC of Geifman et al.,
    Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers (2019).
    """
    photos = photos_of(predictions)
    photos = photos.assign(risk=_risks(predictions)).dropna(subset=["risk", "uncertainty"]).reset_index(drop=True)
    is_kept = photos["uncertainty"] <= joint_threshold(photos["uncertainty"].to_numpy())
    photos = photos.assign(kept=is_kept.astype(float))
    rows, curve = [], []
    for tone, members in groups_of(photos["skin_tone"].to_numpy()):
        of_tone = photos[members].reset_index(drop=True)
        uncertainty, risk, kept = (of_tone[name].to_numpy(float) for name in ("uncertainty", "risk", "kept"))
        value, low, high = _with_interval(area_under_risk(uncertainty, risk), of_tone)
        at_80 = {"risk_at_80": _mean(risk, kept), "coverage_at_80": _mean(kept, np.ones(len(kept)))}
        row = {"skin_tone": tone, "n": len(of_tone), "aurc": value, "low": low, "high": high}
        rows.append(row | _named_intervals(at_80, of_tone))
        curve += [{"skin_tone": tone, **point} for point in _risk_curve(uncertainty, risk)]
    return {"rows": rows, "curve": curve}


def joint_threshold(uncertainty: np.ndarray) -> float:
    """Return the smallest uncertainty at or below which lie at least 80 % of the photos; NaN without photos."""
    if not len(uncertainty):
        return float("nan")
    return float(np.quantile(uncertainty, KEPT_SHARE, method="inverted_cdf"))


def area_under_risk(uncertainty: np.ndarray, risk: np.ndarray) -> Metric:
    """Return AURC as a function of photo weights: a photo of weight 2 counts as two that are equally uncertain."""
    order = np.argsort(uncertainty, kind="stable")
    ranked = uncertainty[order]
    last = np.searchsorted(ranked, ranked, side="right") - 1  # of those that are kept with a photo

    def metric(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, order]
        kept, risks = np.cumsum(weights, axis=1)[:, last], np.cumsum(weights * risk[order], axis=1)[:, last]
        return ratio((weights * np.nan_to_num(ratio(risks, kept))).sum(axis=1), weights.sum(axis=1))

    return metric


# --- contrast --------------------------------------------------------------------------------------------------------


def contrast_strata(predictions: pd.DataFrame, num_strata: int = 3) -> dict[str, Any]:
    """Tabulate metrics by the contrast of lesion and skin, since contrast and not tone may be what a model fails on.

    Strata are as equal as ties allow, over the photos of all tones; a contrast on an edge is in the lower one.

    Args:
        predictions (`pd.DataFrame`):
            Predictions table.
        num_strata (`int`, *optional*, defaults to 3):
            Number of strata.

    Returns:
        `dict`: `edges`, `num_strata + 1` contrasts from the least to the largest; `without_contrast`, the number of
        photos that are left out because they have no lesion, no skin or no mask; and `rows` of `stratum` (1 has the
        least contrast), `skin_tone`, `n`, `metric` (`lesion_iou` and `lesion_iou_per_image`, or `auroc`), `value`,
        `low`, `high` and `flag`. Without any contrast there are no edges and no rows.

    Raises:
        ValueError: If a score is missing or not finite.
    """
    photos = photos_of(predictions)
    known = photos.dropna(subset=["contrast"]).reset_index(drop=True)
    without = len(photos) - len(known)
    if known.empty:
        return {"edges": [], "without_contrast": without, "rows": []}
    edges = np.quantile(known["contrast"], np.linspace(0, 1, num_strata + 1))
    strata = 1 + np.searchsorted(edges[1:-1], known["contrast"], side="left")
    rows = [
        {"stratum": stratum, "skin_tone": tone, **row}
        for stratum in range(1, num_strata + 1)
        for tone, members in groups_of(known["skin_tone"].to_numpy())
        for row in _stratum_rows(predictions, known[members & (strata == stratum)].reset_index(drop=True))
    ]
    return {"edges": edges.tolist(), "without_contrast": without, "rows": rows}


def _stratum_rows(predictions: pd.DataFrame, photos: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = ("auroc",) if "y_score" in photos else ("lesion_iou", "lesion_iou_per_image")
    metrics = {} if photos.empty else _find_metrics(predictions[predictions["image_id"].isin(photos["image_id"])])
    clusters = len(np.unique(sample_of(photos).clusters))
    for name in names:
        value, low, high = _with_interval(metrics.get(name, _undefined), photos)
        numbers = {"value": value, "low": low, "high": high, "flag": flag_of(name, clusters)}
        yield {"n": len(photos), "metric": name, **numbers}


def _find_metrics(predictions: pd.DataFrame) -> dict[str, Metric]:
    return classification_metrics(predictions) if "y_score" in predictions else segmentation_metrics(predictions)


# --- what the three share --------------------------------------------------------------------------------------------


def _with_interval(metric: Metric, photos: pd.DataFrame) -> tuple[float, float, float]:
    if photos.empty:
        return (float("nan"),) * 3
    sample = sample_of(photos)
    value = value_of(metric, sample)
    return (value, *interval(metric, sample)) if np.isfinite(value) else (value, float("nan"), float("nan"))


def _named_intervals(metrics: dict[str, Metric], photos: pd.DataFrame) -> dict[str, float]:
    named = {}
    for name, metric in metrics.items():
        named[name], named[f"{name}_low"], named[f"{name}_high"] = _with_interval(metric, photos)
    return named


def _calibration_error_at(temperature: float, bins: Bins, photos: pd.DataFrame) -> Metric:
    if np.isnan(temperature):
        return _undefined
    if "y_score" in photos:
        return calibration_error(bin_decisions(photos, temperature))
    return calibration_error(bins, temperature)


def _decide(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness of scored photos, in the order of `image_id`."""
    photos = photos_of(predictions)
    check_scores(photos)
    scores = photos["y_score"].to_numpy(float)
    return np.maximum(scores, 1 - scores), ((scores > THRESHOLD) == (photos["y_true"] == 1)).to_numpy(float)


def _brier(photos: pd.DataFrame) -> Metric:
    errors = (photos["y_score"] - photos["y_true"]).to_numpy(float) ** 2
    return _mean(errors, np.ones(len(errors)))


def _reliability(bins: Bins) -> Iterator[dict[str, float]]:
    totals = (part.sum(axis=0) for part in (bins.counts, bins.correct, bins.confidence))
    for count, correct, confidence in zip(*totals, strict=True):
        if count:
            yield {"confidence": confidence / count, "accuracy": correct / count, "count": int(count)}


def _risks(predictions: pd.DataFrame) -> np.ndarray:
    """Return the risk of each photo in the order of `image_id`, NaN where it is undefined."""
    if "y_score" in predictions:
        return 1 - _decide(predictions)[1]
    labels, counts = stack_counts(predictions)
    return 1 - iou(counts[:, labels.index(LESION)]) if LESION in labels else np.full(len(counts), np.nan)


def _risk_curve(uncertainty: np.ndarray, risk: np.ndarray) -> Iterator[dict[str, float]]:
    order = np.argsort(uncertainty, kind="stable")
    ends = 1 + np.flatnonzero(np.diff(uncertainty[order], append=np.inf))
    means = np.cumsum(risk[order])[ends - 1] / ends
    for index in np.unique(np.linspace(0, len(ends) - 1, min(len(ends), MAX_CURVE_POINTS)).round().astype(int)):
        yield {"coverage": float(ends[index] / len(order)), "risk": float(means[index])}


def _mean(values: np.ndarray, members: np.ndarray) -> Metric:
    """Return the weighted mean over the photos of which `members` is 1, as a function of photo weights."""
    return lambda weights: ratio(weights @ (values * members), weights @ members)


def _undefined(weights: np.ndarray) -> np.ndarray:
    return np.full(len(weights), np.nan)


def _sum_rows(column: pd.Series, of_row: np.ndarray) -> np.ndarray:
    """Add the bins of the classes of each photo."""
    total = np.zeros((of_row.max(initial=-1) + 1, NUM_BINS))
    np.add.at(total, of_row, np.array(column.to_list()).reshape(-1, NUM_BINS))
    return total
