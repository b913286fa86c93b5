"""Every metric against other libraries on 300 random small cases; photo weights against repeated photos.

Cases share one predictions table: the weights choose the photos of each, as they choose those of a skin tone.
"""

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.stats import bootstrap
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    recall_score,
    roc_auc_score,
)
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.segmentation import mean_iou as mean_iou_by_photo

from fedd_hf.evaluation.by_tone import classification_gaps, photos_of, sample_of
from fedd_hf.evaluation.classification import classification_metrics, youden_threshold
from fedd_hf.evaluation.intervals import draw_weights
from fedd_hf.evaluation.segmentation import COUNTS, segmentation_metrics

NUM_CASES = 300
LABELS = ["background", "lesion", "marker", "skin"]
NUM_LABELS = len(LABELS)
MAPS = (4, 24)  # photos of a case, pixels of a photo
TONES = np.repeat(["I-II", "III-IV", "V-VI"], [4, 5, 6])  # of the scored photos of a case
NUM_DRAWS = 4000


def segmentation_table(truth, said):
    """Predictions table of maps `(num_photos, num_pixels)`."""
    classes = np.arange(NUM_LABELS)[:, None, None]
    is_true, is_said = truth == classes, said == classes
    cells = [is_true & is_said, ~is_true & is_said, is_true & ~is_said, ~is_true & ~is_said]
    counts = np.stack([cell.sum(axis=2) for cell in cells], axis=-1).reshape(-1, 4)  # class by class
    names = [f"{photo:06d}" for photo in range(len(truth))] * NUM_LABELS
    return pd.DataFrame(counts, columns=COUNTS).assign(
        image_id=names, label=np.repeat(LABELS, len(truth)), skin_tone="I-II"
    )


def score_table(y_true, y_score, tones="I-II"):
    names = [f"{photo:06d}" for photo in range(len(y_true))]
    return pd.DataFrame({"image_id": names, "skin_tone": tones, "y_true": y_true, "y_score": y_score})


def apply(metrics, weights):
    """Return a table of values: a row per draw, a column per metric."""
    return pd.DataFrame({name: metric(weights) for name, metric in metrics.items()})


def blocks(num_cases, num_photos):
    """Weights that choose the photos of one case after the other."""
    return np.kron(np.eye(num_cases), np.ones(num_photos))


@pytest.fixture(scope="module", autouse=True)
def _fast_sklearn():
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        yield


# --- segmentation ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps():
    """True and predicted maps `(NUM_CASES, photos, pixels)`; in many cases classes are rare or absent."""
    rng = np.random.default_rng(0)
    truth, other = np.zeros((2, NUM_CASES, *MAPS), dtype=int)
    for case in range(NUM_CASES):
        shares = rng.dirichlet(np.full(NUM_LABELS, 0.3))
        truth[case], other[case] = rng.choice(NUM_LABELS, (2, *MAPS), p=shares)
    return truth, np.where(rng.random(truth.shape) < rng.random((NUM_CASES, 1, 1)), truth, other)


@pytest.fixture(scope="module")
def segmented(maps):
    """The value of every metric of every case."""
    table = segmentation_table(*(part.reshape(-1, MAPS[1]) for part in maps))
    return apply(segmentation_metrics(table), blocks(NUM_CASES, MAPS[0]))


def test_cases_have_absent_classes_and_lesions_in_some_photos_only(maps, segmented):
    has_lesion = (maps[0] == 1).any(axis=2)

    assert 0.05 < segmented["lesion_iou"].isna().mean() < 0.5
    assert (segmented["iou_lesion"] == 0).any()
    assert (segmented["iou_skin"] == 1).any()
    assert (has_lesion.any(axis=1) & ~has_lesion.all(axis=1)).sum() > 30


@pytest.mark.parametrize(("name", "score"), [("iou", jaccard_score), ("dice", f1_score)])
def test_iou_and_dice_are_those_of_scikit_learn(maps, segmented, name, score):
    truth, said = (part.reshape(NUM_CASES, -1) for part in maps)
    of_classes = {}
    for index, label in enumerate(LABELS):
        is_true, is_said = (truth == index).T, (said == index).T
        expected = score(is_true, is_said, average=None, zero_division=0)  # each case is a label of scikit-learn
        of_classes[label] = np.where(is_true.any(axis=0) | is_said.any(axis=0), expected, np.nan)

    for label, expected in of_classes.items():
        assert segmented[f"{name}_{label}"].tolist() == pytest.approx(expected.tolist(), nan_ok=True)
    assert segmented[f"lesion_{name}"].equals(segmented[f"{name}_lesion"])
    means = np.nanmean(list(of_classes.values()), axis=0)
    assert segmented[f"mean_{name}"].tolist() == pytest.approx(means.tolist())


def test_mean_iou_is_that_of_torchmetrics(maps, segmented):
    truth, said = map(torch.from_numpy, maps)
    options = {"num_classes": NUM_LABELS, "validate_args": False}

    expected = [multiclass_jaccard_index(*pair, **options).item() for pair in zip(said, truth, strict=True)]

    assert segmented["mean_iou"].tolist() == pytest.approx(expected, rel=1e-5)


def test_means_over_photos_are_those_of_torchmetrics(maps, segmented):
    truth, said = (torch.from_numpy(part.reshape(-1, 4, 6)) for part in maps)
    options = {"num_classes": NUM_LABELS, "input_format": "index"}
    of_photos = mean_iou_by_photo(said, truth, **options).reshape(NUM_CASES, -1)
    of_lesions = mean_iou_by_photo(said, truth, per_class=True, **options)[:, 1].reshape(NUM_CASES, -1)
    known = torch.where(of_lesions < 0, torch.nan, of_lesions)  # -1 without lesion, true or predicted

    expected = {
        "mean_iou_per_image": of_photos.mean(dim=1),
        "lesion_iou_per_image": known.nanmean(dim=1),
        "lesion_dice_per_image": (2 * known / (1 + known)).nanmean(dim=1),
    }

    for name, values in expected.items():
        assert segmented[name].tolist() == pytest.approx(values.tolist(), rel=1e-5, nan_ok=True)


# --- malignancy ------------------------------------------------------------------------------------------------------


def draw_labels(rng, tones=TONES):
    """Labels of which every tone has both."""
    parts = [rng.permutation(np.r_[0, 1, rng.integers(0, 2, (tones == tone).sum() - 2)]) for tone in np.unique(tones)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def scored():
    """Labels and scores `(NUM_CASES, photos)`, in many cases with ties, some at the threshold."""
    rng = np.random.default_rng(1)
    y_true = np.stack([draw_labels(rng) for _ in range(NUM_CASES)])
    y_score = np.clip(0.8 * rng.random(y_true.shape) + 0.2 * y_true, 0, 1)
    is_coarse = rng.random((NUM_CASES, 1)) < 0.5
    return y_true, np.where(is_coarse, y_score.round(1), y_score)


def classify(scored, members):
    """The value of every metric of every case, of some of its photos; a hundred cases share a table."""
    parts = []
    for start in range(0, NUM_CASES, 100):
        y_true, y_score = (part[start : start + 100].ravel() for part in scored)
        weights = np.kron(np.eye(100), members.astype(float))
        parts.append(apply(classification_metrics(score_table(y_true, y_score)), weights))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def classified(scored):
    """The value of every metric of every case, over all photos and by tone."""
    return {"all": classify(scored, TONES != "")} | {
        tone: classify(scored, tone == TONES) for tone in np.unique(TONES)
    }


def test_cases_have_ties_and_scores_at_the_threshold(scored):
    _, y_score = scored

    assert np.mean([len(set(scores)) < len(scores) for scores in y_score]) > 0.3
    assert (y_score == 0.5).any(axis=1).mean() > 0.1


def test_rank_metrics_are_those_of_scikit_learn(scored, classified):
    y_true, y_score = (part.T for part in scored)  # each case is a label of scikit-learn

    found = classified["all"]
    assert found["auroc"].tolist() == pytest.approx(roc_auc_score(y_true, y_score, average=None).tolist())
    assert found["auprc"].tolist() == pytest.approx(average_precision_score(y_true, y_score, average=None).tolist())


def test_metrics_of_decisions_are_those_of_scikit_learn(scored, classified):
    y_true, is_called = scored[0].T, scored[1].T > 0.5
    pairs = list(zip(*(part.T for part in (y_true, is_called)), strict=True))
    expected = {
        "sensitivity": recall_score(y_true, is_called, average=None),
        "specificity": recall_score(1 - y_true, ~is_called, average=None),
        "f1": f1_score(y_true, is_called, average=None, zero_division=0),
        "accuracy": np.array([accuracy_score(*pair) for pair in pairs]),
        "balanced_accuracy": np.array([balanced_accuracy_score(*pair) for pair in pairs]),
    }

    for name, values in expected.items():
        assert classified["all"][name].tolist() == pytest.approx(values.tolist())


def test_no_threshold_is_better_than_that_of_youden(scored):
    for y_true, y_score in zip(*scored, strict=True):

        def gained(threshold, y_true=y_true, y_score=y_score):
            is_called = y_score > threshold
            return is_called[y_true == 1].mean() - is_called[y_true == 0].mean()

        best = max(gained(threshold) for threshold in [*y_score, -1.0])
        assert gained(youden_threshold(y_true, y_score)) == pytest.approx(best)


def share_of_pairs(y_true, y_score):
    differences = y_score[y_true == 1][:, None] - y_score[y_true == 0]
    return ((differences > 0) + 0.5 * (differences == 0)).mean()


def mean_of_recalls(y_true, y_score):
    is_called = y_score > 0.5
    return (is_called[y_true == 1].mean() + (~is_called[y_true == 0]).mean()) / 2


@pytest.fixture(scope="module")
def frames(scored):
    """MetricFrame over all cases for each metric; a case is a control feature, as an age group would be."""
    y_true, y_score = (part.ravel() for part in scored)
    metrics = {"auroc": share_of_pairs, "balanced_accuracy": mean_of_recalls}
    features = {
        "sensitive_features": pd.Series(np.tile(TONES, NUM_CASES), name="tone"),
        "control_features": pd.Series(np.repeat(np.arange(NUM_CASES), len(TONES)), name="case"),
    }
    return fairlearn.metrics.MetricFrame(metrics=metrics, y_true=y_true, y_pred=y_score, **features)


@pytest.mark.parametrize("name", ["auroc", "balanced_accuracy"])
def test_values_overall_and_by_tone_are_those_of_metric_frame(frames, classified, name):
    by_group = frames.by_group[name].astype(float).unstack("tone")

    assert classified["all"][name].tolist() == pytest.approx(frames.overall[name].astype(float).tolist())
    for tone in np.unique(TONES):
        assert classified[tone][name].tolist() == pytest.approx(by_group[tone].tolist())


@pytest.mark.parametrize("name", ["auroc", "balanced_accuracy"])
def test_gaps_are_those_of_metric_frame(scored, frames, name):
    """MetricFrame has the largest difference between two groups, and the smallest ratio."""
    differences, ratios = (
        of_cases(method="between_groups")[name].astype(float) for of_cases in (frames.difference, frames.ratio)
    )

    for case in ratios.index[ratios > 0][:6]:  # of a tone without any success the ratio is undefined
        gaps = classification_gaps(score_table(*(part[case] for part in scored), TONES))
        of_metric = gaps[gaps["metric"] == name]
        assert of_metric["difference"].abs().max() == pytest.approx(differences[case])
        assert np.minimum(of_metric["ratio"], 1 / of_metric["ratio"]).min() == pytest.approx(ratios[case])


@pytest.mark.parametrize("name", ["auroc", "balanced_accuracy"])
def test_largest_differences_and_smallest_ratios_of_tones_are_those_of_metric_frame(frames, classified, name):
    ours = np.stack([classified[tone][name] for tone in np.unique(TONES)])

    differences, ratios = (
        of_cases(method="between_groups")[name].astype(float).tolist()
        for of_cases in (frames.difference, frames.ratio)
    )
    assert (ours.max(axis=0) - ours.min(axis=0)).tolist() == pytest.approx(differences)
    assert (ours.min(axis=0) / ours.max(axis=0)).tolist() == pytest.approx(ratios)


# --- weights ---------------------------------------------------------------------------------------------------------


def assert_weights_repeat_photos(make_metrics, make_table, columns):
    """Compare 300 random weights of some photos with photos that are there as often."""
    num_photos = len(columns[0])
    weights = np.random.default_rng(2).integers(0, 4, (NUM_CASES, num_photos))
    photos = np.concatenate([np.repeat(np.arange(num_photos), row) for row in weights])
    case = np.repeat(np.arange(NUM_CASES), weights.sum(axis=1))

    weighted = apply(make_metrics(make_table(*columns)), weights.astype(float))

    for start in range(0, NUM_CASES, 100):
        chosen = (case >= start) & (case < start + 100)
        of_cases = (case[chosen] == np.arange(start, start + 100)[:, None]).astype(float)
        repeated = apply(make_metrics(make_table(*(part[photos[chosen]] for part in columns))), of_cases)
        expected = weighted[start : start + 100].to_numpy()
        assert list(repeated) == list(weighted)
        assert repeated.to_numpy() == pytest.approx(expected, nan_ok=True)


def test_a_photo_of_weight_2_is_one_that_is_there_twice_for_every_segmentation_metric(maps):
    few = [part[:2].reshape(-1, MAPS[1]) for part in maps]

    assert_weights_repeat_photos(segmentation_metrics, segmentation_table, few)


def test_a_photo_of_weight_2_is_one_that_is_there_twice_for_every_malignancy_metric(scored):
    few = [part[0, :7] for part in scored]

    assert_weights_repeat_photos(lambda table: classification_metrics(table, {"low": 0.3}), score_table, few)


# --- the bootstrap ---------------------------------------------------------------------------------------------------


def assert_draws_agree(draws, data, statistic, vectorized=True):
    """By chance alone, standard deviations of 4,000 draws differ by 1.6 %, percentiles by a twentieth of them."""
    expected = bootstrap(
        data, statistic, n_resamples=NUM_DRAWS, method="percentile", vectorized=vectorized, axis=-1, rng=1
    )
    spread = expected.standard_error
    assert draws.std(ddof=1) == pytest.approx(spread, rel=0.05)
    assert np.quantile(draws, [0.025, 0.975]).tolist() == pytest.approx(
        list(expected.confidence_interval), abs=0.2 * spread
    )


@pytest.mark.parametrize(
    "name", ["lesion_iou", "mean_iou", "lesion_dice", "mean_iou_per_image", "lesion_iou_per_image"]
)
def test_draws_of_segmentation_metrics_spread_as_those_of_scipy(name):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, NUM_LABELS, (40, 60))
    said = np.where(rng.random(truth.shape) < rng.random((40, 1)), truth, rng.integers(0, NUM_LABELS, truth.shape))
    classes = np.arange(NUM_LABELS)
    both, either = (
        combine(truth[..., None] == classes, said[..., None] == classes).sum(axis=1)
        for combine in (np.logical_and, np.logical_or)
    )

    def statistic(photos, axis):
        """Score the chosen photos by their pixels, with nothing of the package."""
        kept = slice(1, 2) if "lesion" in name else slice(None)
        sums = [part[photos.astype(int)][..., kept] for part in (both, either)]
        if not name.endswith("per_image"):
            sums = [part.sum(axis=-2, keepdims=True) for part in sums]
        overlap = sums[0] / sums[1]
        return (2 * overlap / (1 + overlap) if "dice" in name else overlap).mean(axis=(-2, -1))

    table = segmentation_table(truth, said)
    draws = segmentation_metrics(table)[name](draw_weights(sample_of(photos_of(table)), NUM_DRAWS))

    assert_draws_agree(draws, (np.arange(40),), statistic)


def auroc_of(benign, malignant, axis):
    wins = malignant[..., None] > benign[..., None, :]
    return wins.mean(axis=(-2, -1))


def balanced_accuracy_of(benign, malignant, axis):
    return ((benign <= 0.5).mean(axis=axis) + (malignant > 0.5).mean(axis=axis)) / 2


def f1_of(benign, malignant, axis):
    found, wrong = (malignant > 0.5).sum(axis=axis), (benign > 0.5).sum(axis=axis)
    return 2 * found / (found + wrong + malignant.shape[axis])


@pytest.mark.parametrize(
    ("name", "statistic"), [("auroc", auroc_of), ("balanced_accuracy", balanced_accuracy_of), ("f1", f1_of)]
)
def test_stratified_draws_of_malignancy_metrics_spread_as_those_of_scipy(name, statistic):
    rng = np.random.default_rng(3)
    benign, malignant = rng.random(40), 0.2 + 0.8 * rng.random(20)
    table = score_table(np.repeat([0, 1], [40, 20]), np.r_[benign, malignant])

    draws = classification_metrics(table)[name](draw_weights(sample_of(photos_of(table)), NUM_DRAWS))

    assert_draws_agree(draws, (benign, malignant), statistic)


def test_draws_of_patients_spread_as_those_of_scipy_that_draws_patients():
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, 30, 80))
    is_right = rng.random(80) < rng.random(30)[patients]
    table = score_table(np.ones(80, dtype=int), np.where(is_right, 0.9, 0.1))
    table = table.assign(group_id=[f"p{patient:02d}" for patient in patients])
    right, photos = (np.bincount(patients, weights)[np.unique(patients)] for weights in (is_right, np.ones(80)))

    def statistic(drawn, axis):
        return right[drawn.astype(int)].sum(axis=axis) / photos[drawn.astype(int)].sum(axis=axis)

    draws = classification_metrics(table)["accuracy"](draw_weights(sample_of(photos_of(table)), NUM_DRAWS))

    assert_draws_agree(draws, (np.arange(len(right)),), statistic)
