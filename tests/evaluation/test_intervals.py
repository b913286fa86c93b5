import numpy as np
import pytest

from fedd_hf.evaluation.classification import auroc
from fedd_hf.evaluation.intervals import NUM_RESAMPLES, bootstrap_interval


def mean(sample):
    return float(sample.mean())


@pytest.fixture
def sample():
    return np.random.default_rng(0).normal(3.0, 2.0, 100)


def test_the_interval_contains_the_value(sample):
    low, high = bootstrap_interval((sample,), mean)

    assert low < sample.mean() < high


def test_the_interval_of_a_mean_is_about_that_of_the_normal_distribution(sample):
    low, high = bootstrap_interval((sample,), mean)

    half_width = 1.96 * sample.std(ddof=1) / 10
    assert low == pytest.approx(sample.mean() - half_width, abs=0.1)
    assert high == pytest.approx(sample.mean() + half_width, abs=0.1)


def test_the_interval_is_deterministic(sample):
    assert bootstrap_interval((sample,), mean) == bootstrap_interval((sample,), mean)


def test_the_interval_does_not_touch_the_global_generator(sample):
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002

    bootstrap_interval((sample,), mean)

    assert np.random.random() == expected  # noqa: NPY002


def test_another_seed_gives_almost_the_same_interval(sample):
    first, second = (bootstrap_interval((sample,), mean, seed=seed) for seed in (0, 1))

    assert first != second
    assert first == pytest.approx(second, abs=0.1)


def test_each_stratum_keeps_its_size():
    sizes = set()

    def record(benign, malignant):
        sizes.add((len(benign), len(malignant)))
        return float(benign.mean() + malignant.mean())

    bootstrap_interval((np.arange(12.0), np.arange(5.0)), record)

    # the bias correction leaves out one image at a time; all else are whole strata
    assert sizes == {(12, 5), (11, 5), (12, 4)}


def test_resamples_never_mix_strata():
    benign, malignant = np.zeros(10), np.ones(6)
    seen = []

    def record(first, second):
        seen.append((set(first.tolist()), set(second.tolist())))
        return 0.5

    bootstrap_interval((benign, malignant), record)

    assert len(seen) >= NUM_RESAMPLES
    assert all(pair == ({0.0}, {1.0}) for pair in seen)


def test_images_are_resampled_whole():
    """Rows of a two-dimensional sample stay together."""
    sample = np.column_stack([np.arange(20.0), 100 + np.arange(20.0)])

    def record(rows):
        assert np.array_equal(rows[:, 1], rows[:, 0] + 100)
        return float(rows[:, 0].mean())

    low, high = bootstrap_interval((sample,), record)

    assert low < 9.5 < high


@pytest.mark.parametrize("sizes", [(1,), (0,), (30, 1), (0, 30), (1, 1)], ids=str)
def test_a_single_image_has_no_interval(sizes):
    samples = tuple(np.linspace(0, 1, size) for size in sizes)

    low, high = bootstrap_interval(samples, lambda *parts: float(np.concatenate(parts).mean()))

    assert np.isnan(low)
    assert np.isnan(high)


@pytest.mark.filterwarnings("error")
def test_a_sample_without_spread_has_no_interval():
    low, high = bootstrap_interval((np.full(20, 0.5),), mean)

    assert np.isnan(low)
    assert np.isnan(high)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 0.5 + 1 / 6  # P(m > b) for b uniform on [0, 1], m with density 2 m: E[m] = 2/3

    covered = 0
    for _ in range(40):
        benign, malignant = rng.random(30), np.sqrt(rng.random(30))
        low, high = bootstrap_interval((benign, malignant), fast_auroc)
        covered += low <= truth <= high

    assert covered >= 33  # 38 expected; fewer than 33 of 40 would be a chance of 1 in 200


def fast_auroc(benign, malignant):
    return float((malignant[:, None] > benign).mean() + 0.5 * (malignant[:, None] == benign).mean())


def test_the_interval_of_an_auroc_lies_within_0_and_1():
    rng = np.random.default_rng(2)
    scores = rng.random(20), rng.random(20) + 0.4

    low, high = bootstrap_interval(scores, auroc)

    assert 0 <= low < auroc(*scores) < high <= 1
