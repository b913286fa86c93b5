import numpy as np
import pandas as pd
import pytest

from fedd_hf.evaluation.by_tone import classification_by_tone, classification_gaps
from fedd_hf.evaluation.classification import THRESHOLD, check_scores, classification_metrics, youden_threshold

DECISIONS = ["accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity"]


def table_of(y_true, y_score, tone="I-II"):
    names = [f"photo-{index:02d}" for index in range(len(y_true))]
    return pd.DataFrame({"image_id": names, "skin_tone": tone, "y_true": y_true, "y_score": y_score})


def values_of(y_true, y_score, thresholds=None):
    metrics = classification_metrics(table_of(y_true, y_score), thresholds)
    return {name: metric(np.ones((1, len(y_true)))).item() for name, metric in metrics.items()}


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_every_metric_of_seven_photos_by_hand():
    values = values_of(y_true=[1, 1, 1, 0, 0, 0, 0], y_score=[0.9, 0.6, 0.3, 0.7, 0.6, 0.2, 0.1])

    # Of 12 pairs, .9 wins 4, .6 wins 2 and draws 1, .3 wins 2.
    # Ranked .9 | .7 | .6 .6 | .3: precision 1, 2 / 4 and 3 / 5 at the malignant ones.
    # Above .5: tp 2, fp 2, fn 1, tn 2.
    assert values == pytest.approx(
        {
            "auroc": 8.5 / 12,
            "auprc": (1 + 2 / 4 + 3 / 5) / 3,
            "accuracy": 4 / 7,
            "balanced_accuracy": (2 / 3 + 2 / 4) / 2,
            "f1": 2 * 2 / (2 * 2 + 2 + 1),
            "sensitivity": 2 / 3,
            "specificity": 2 / 4,
        }
    )


def test_metrics_at_further_thresholds_have_their_name_as_a_suffix():
    y_true, y_score = [1, 1, 0, 0], [0.9, 0.3, 0.4, 0.2]

    values = values_of(y_true, y_score, {"validation_youden": 0.25, "test_youden": 0.8})

    assert list(values)[7:] == [
        f"{name}_{rule}" for rule in ("validation_youden", "test_youden") for name in DECISIONS
    ]
    assert [values[f"sensitivity{rule}"] for rule in ("", "_validation_youden", "_test_youden")] == [0.5, 1.0, 0.5]
    assert [values[f"specificity{rule}"] for rule in ("", "_validation_youden", "_test_youden")] == [1.0, 0.5, 1.0]


def test_a_score_of_one_half_is_benign():
    values = values_of([0, 1], [0.5, 0.5])

    assert (values["sensitivity"], values["specificity"]) == (0.0, 1.0)


def test_the_youden_threshold_by_hand():
    # Above .35: sensitivity 2 / 3, specificity 1; above .15: 1 and 1 / 2; above .65: 1 / 3 and 1.
    assert youden_threshold(np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.4, 0.2, 0.3, 0.1])) == pytest.approx(0.35)


@pytest.mark.parametrize("y_true", [[0, 0, 0], [1, 1, 1]], ids=["benign", "malignant"])
def test_without_photos_of_both_classes_the_threshold_is_one_half(y_true):
    assert youden_threshold(np.array(y_true), np.array([0.1, 0.2, 0.3])) == THRESHOLD


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("label", "undefined"),
    [
        (0, {"auroc", "auprc", "balanced_accuracy", "sensitivity"}),
        (1, {"auroc", "balanced_accuracy", "specificity"}),
    ],
    ids=["benign", "malignant"],
)
def test_photos_of_one_class_have_only_the_metrics_that_do_not_need_the_other(label, undefined):
    values = values_of([label] * 3, [0.7, 0.2, 0.4])

    assert {name for name, value in values.items() if np.isnan(value)} == undefined


# --- scores that cannot be used --------------------------------------------------------------------------------------


def with_bad_score(score):
    return table_of([0, 1, 0, 1], [0.2, score, 0.3, 0.9])


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf, None], ids=str)
@pytest.mark.parametrize("use", [check_scores, classification_metrics, classification_by_tone, classification_gaps])
def test_photos_without_a_finite_score_are_named(use, score):
    with pytest.raises(ValueError, match=r"1 photos have no finite `y_score`: \['photo-01'\]"):
        use(with_bad_score(score))


@pytest.mark.parametrize("label", [2, -1, np.nan, None], ids=str)
def test_photos_whose_malignancy_is_unknown_are_named(label):
    with pytest.raises(ValueError, match=r"1 photos have a `y_true` that is neither.*\['photo-02'\]"):
        classification_metrics(table_of([0, 1, label], [0.1, 0.9, 0.5]))
