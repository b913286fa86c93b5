import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from fedd_hf.evaluation.classification import auroc, balanced_accuracy


def share_of_pairs(benign, malignant):
    """AUROC as the chance that a malignant photo scores above a benign one."""
    pairs = [(m > b) + 0.5 * (m == b) for b in benign for m in malignant]
    return sum(pairs) / len(pairs)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return rng.random(25).round(1), (rng.random(17) * 0.8 + 0.2).round(1)  # rounded, so that there are ties


def test_auroc_is_the_share_of_pairs_in_the_right_order(scores):
    assert auroc(*scores) == pytest.approx(share_of_pairs(*scores))


def test_auroc_is_that_of_scikit_learn(scores):
    truth = [0] * 25 + [1] * 17

    assert auroc(*scores) == pytest.approx(roc_auc_score(truth, np.concatenate(scores)))


def test_auroc_by_hand():
    assert auroc(np.array([0.1, 0.4]), np.array([0.3, 0.9])) == pytest.approx(3 / 4)


def test_balanced_accuracy_is_the_mean_of_sensitivity_and_specificity(scores):
    benign, malignant = scores

    value = balanced_accuracy(benign, malignant)

    sensitivity = accuracy_score([True] * 17, malignant > 0.5)
    specificity = accuracy_score([False] * 25, benign > 0.5)
    assert value == pytest.approx((sensitivity + specificity) / 2)


def test_a_score_of_one_half_is_benign():
    assert balanced_accuracy(np.array([0.5]), np.array([0.5])) == 0.5


@pytest.mark.parametrize("metric", [auroc, balanced_accuracy])
@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_scores_of_one_class_only_give_nan(metric, counts):
    assert np.isnan(metric(*(np.full(count, 0.7) for count in counts)))
