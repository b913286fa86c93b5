"""Every metric overall and by skin tone, with its number of images, its interval, and the gaps between tones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from fedd_hf.labels import SkinTone

from .classification import check_scores, classification_metrics, youden_threshold
from .coverage import flag_of
from .intervals import Metric, Sample, gap, holm, interval, value_of
from .segmentation import segmentation_metrics

OVERALL, MEAN_OF_TONES, UNKNOWN = "all", "mean of tones", "unknown"
TONES = [tone.label for tone in SkinTone]


def segmentation_by_tone(predictions: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the metrics of [`~fedd_hf.evaluation.segmentation.segmentation_metrics`].

    Args:
        predictions (`pd.DataFrame`):
            Predictions table with one row per image and class.

    Returns:
        `pd.DataFrame`: one row per metric and skin tone: `metric`, `skin_tone` (`"all"`, the tones, and `"mean of
        tones"`, the paper's unweighted mean of their values), `n` (images), `clusters` (patients or lesions, images
        where none are known), `value`, `low`, `high` (95 % interval) and `flag` (why not to trust the interval).
    """
    return tabulate_by_tone(segmentation_metrics(predictions), photos_of(predictions))


def classification_by_tone(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> pd.DataFrame:
    """Tabulate the metrics of [`~fedd_hf.evaluation.classification.classification_metrics`].

    Decisions are taken at 0.5; at the Youden point of these very photos, as the paper does, which is optimistic
    (`..._test_youden`); and at that of validation photos, where there are any (`..._validation_youden`).

    Args:
        predictions (`pd.DataFrame`):
            Predictions table with one row per image.
        validation (`pd.DataFrame`, *optional*):
            That of the validation photos.

    Returns:
        `pd.DataFrame`: columns as in [`segmentation_by_tone`]; resampling keeps the number of malignant images.
    """
    thresholds = choose_thresholds(predictions, validation)
    return tabulate_by_tone(classification_metrics(predictions, thresholds), photos_of(predictions))


def choose_thresholds(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> dict[str, float]:
    """Return the Youden thresholds of test photos and, where there are any, of validation photos.

    Raises:
        ValueError: As [`~fedd_hf.evaluation.classification.check_scores`].
    """
    tables = {"test_youden": predictions} | ({} if validation is None else {"validation_youden": validation})
    for table in tables.values():
        check_scores(table)
    return {
        name: youden_threshold(table["y_true"].to_numpy(), table["y_score"].to_numpy())
        for name, table in tables.items()
    }


def segmentation_gaps(predictions: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the gaps between skin tones of segmentation metrics, as [`tabulate_gaps`] does."""
    return tabulate_gaps(segmentation_metrics(predictions), photos_of(predictions))


def classification_gaps(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> pd.DataFrame:
    """Tabulate the gaps between skin tones of malignancy metrics, as [`tabulate_gaps`] does."""
    thresholds = choose_thresholds(predictions, validation)
    return tabulate_gaps(classification_metrics(predictions, thresholds), photos_of(predictions))


def tabulate_by_tone(metrics: dict[str, Metric], photos: pd.DataFrame) -> pd.DataFrame:
    """Tabulate metrics overall and by skin tone.

    Args:
        metrics (`dict[str, Metric]`):
            Functions of weights of the photos.
        photos (`pd.DataFrame`):
            What [`photos_of`] returns.
    """
    sample = sample_of(photos)
    groups, has_tone = dict(groups_of(sample.tones)), np.isin(sample.tones, TONES)
    if has_tone.any():
        groups[MEAN_OF_TONES] = has_tone
    return pd.DataFrame(
        [
            _row(name, metric, tone, sample, members)
            for tone, members in groups.items()
            for name, metric in metrics.items()
        ]
    )


def tabulate_gaps(metrics: dict[str, Metric], photos: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the gap of each metric between each two skin tones.

    Args:
        metrics (`dict[str, Metric]`):
            Functions of weights of the photos.
        photos (`pd.DataFrame`):
            What [`photos_of`] returns.

    Returns:
        `pd.DataFrame`: `metric`, `reference`, `skin_tone`, `n_reference`, `n`; `difference` (`skin_tone` minus
        `reference`), `low`, `high`; `ratio`; `p_value` (permutation of tones), `p_holm` (corrected for the pairs of
        tones of one metric); `minimum_detectable_gap` (shown in 80 % of cases at the 5 % level) and `flag`.
    """
    sample = sample_of(photos)
    counts = {tone: int((sample.tones == tone).sum()) for tone in TONES}
    pairs = [pair for pair in combinations(TONES, 2) if all(counts[tone] for tone in pair)]
    rows = []
    for name, metric in metrics.items():
        of_metric = [_gap_row(name, metric, sample, *pair) for pair in pairs]
        corrected = holm(np.array([row["p_value"] for row in of_metric]))
        rows += [row | {"p_holm": p_value} for row, p_value in zip(of_metric, corrected, strict=True)]
    return pd.DataFrame(rows, columns=GAP_COLUMNS)


GAP_COLUMNS = ["metric", "reference", "skin_tone", "n_reference", "n", "difference", "low", "high", "ratio"]
GAP_COLUMNS += ["p_value", "p_holm", "minimum_detectable_gap", "flag"]


def worst_by_tone(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the skin tone with the lowest value of each metric."""
    of_tones = rows[rows["skin_tone"].isin(TONES) & rows["value"].notna()]
    return rows.loc[of_tones.groupby("metric", sort=False)["value"].idxmin()].reset_index(drop=True)


def photos_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image in the order of `image_id`, with `skin_tone` and `group_id` where they are known."""
    photos = predictions.drop_duplicates("image_id").sort_values("image_id", kind="stable").reset_index(drop=True)
    missing = {name: None for name in ("group_id",) if name not in photos}
    return photos.assign(**missing)


def sample_of(photos: pd.DataFrame) -> Sample:
    """Return what resampling has to know of photos: patients, skin tones, and malignancy where it is a column."""
    kinds = photos["y_true"] if "y_true" in photos else pd.Series("", index=photos.index)
    alone = "photo " + photos["image_id"].astype(str)
    return Sample(
        clusters=photos["group_id"].where(photos["group_id"].notna(), alone).to_numpy(str),
        tones=photos["skin_tone"].where(photos["skin_tone"].notna(), UNKNOWN).to_numpy(str),
        kinds=kinds.to_numpy(str),
    )


def within(metric: Metric, members: np.ndarray) -> Metric:
    """Return a metric of some photos only, as a function of the weights of all."""
    return lambda weights: metric(weights * members)


def mean_of_tones(metric: Metric, sample: Sample) -> Metric:
    """Return the unweighted mean of the values of the skin tones that occur; NaN if one of them is undefined."""
    parts = [within(metric, sample.tones == tone) for tone in TONES if (sample.tones == tone).any()]
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def groups_of(tones: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the photos of all together, and of each skin tone that has any."""
    yield OVERALL, np.ones(len(tones), dtype=bool)
    for tone in TONES:
        if (tones == tone).any():
            yield tone, tones == tone


def _row(name: str, metric: Metric, tone: str, sample: Sample, members: np.ndarray) -> dict[str, object]:
    of_group = mean_of_tones(metric, sample) if tone == MEAN_OF_TONES else within(metric, members)
    low, high = interval(of_group, sample)
    clusters = _count_clusters(sample, members)
    of_tones = [_count_clusters(sample, sample.tones == other) for other in np.unique(sample.tones[members])]
    smallest = min(of_tones) if tone == MEAN_OF_TONES else clusters
    facts = {"metric": name, "skin_tone": tone, "n": int(members.sum()), "clusters": clusters}
    return facts | {"value": value_of(of_group, sample), "low": low, "high": high, "flag": flag_of(name, smallest)}


def _count_clusters(sample: Sample, members: np.ndarray) -> int:
    return len(np.unique(sample.clusters[members]))


def _gap_row(name: str, metric: Metric, sample: Sample, reference: str, tone: str) -> dict[str, object]:
    found = gap(metric, sample, reference, tone)
    values = [value_of(within(metric, sample.tones == group), sample) for group in (reference, tone)]
    numbers = [int((sample.tones == group).sum()) for group in (reference, tone)]
    smallest = min(_count_clusters(sample, sample.tones == group) for group in (reference, tone))
    return {
        "metric": name,
        "reference": reference,
        "skin_tone": tone,
        "n_reference": numbers[0],
        "n": numbers[1],
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "ratio": values[1] / values[0] if values[0] else float("nan"),
        "p_value": found.p_value,
        "minimum_detectable_gap": found.minimum_detectable,
        "flag": flag_of(name, smallest, is_gap=True),
    }
