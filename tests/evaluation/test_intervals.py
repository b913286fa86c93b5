import numpy as np
import pytest
from scipy.stats import kstest, norm, t, ttest_rel

from fedd_hf.evaluation.classification import auroc
from fedd_hf.evaluation.intervals import (
    NUM_DRAWS,
    Difference,
    Sample,
    degrees_of_freedom,
    draw_weights,
    gap,
    holm,
    interval,
    jackknife,
    paired_difference,
)


def sample_of(tones, clusters=None, kinds=None):
    number = len(tones)
    clusters = [f"p{index:03d}" for index in range(number)] if clusters is None else clusters
    return Sample(np.array(clusters), np.array(tones), np.array([""] * number if kinds is None else kinds))


def mean_of(values, members=None):
    """The mean of numbers, as a function of photo weights."""
    values = np.asarray(values, dtype=float)
    members = np.ones(len(values)) if members is None else np.asarray(members, dtype=float)

    def metric(weights):
        total = weights @ members
        return np.where(total > 0, weights @ (values * members) / np.where(total > 0, total, 1), np.nan)

    return metric


@pytest.fixture
def normal():
    return np.random.default_rng(0).normal(3.0, 2.0, 100)


@pytest.fixture
def mixed():
    """Twelve photos of seven patients, two tones and two kinds; no patient has two tones or kinds."""
    return sample_of(
        tones=["I-II"] * 7 + ["V-VI"] * 5,
        clusters=["a", "a", "a", "b", "c", "d", "d", "e", "f", "f", "g", "g"],
        kinds=["0", "0", "0", "0", "1", "1", "1", "0", "0", "0", "1", "1"],
    )


# --- draws -----------------------------------------------------------------------------------------------------------


def test_draws_keep_the_number_of_patients_of_each_stratum_and_draw_their_photos_together(mixed):
    weights = draw_weights(mixed)
    first_photos = np.unique(mixed.clusters, return_index=True)[1]

    for cluster in np.unique(mixed.clusters):
        of_patient = weights[:, mixed.clusters == cluster]
        assert (of_patient == of_patient[:, :1]).all()
    for tone, kind, patients in (("I-II", "0", 2), ("I-II", "1", 2), ("V-VI", "0", 2), ("V-VI", "1", 1)):
        chosen = [photo for photo in first_photos if (mixed.tones[photo], mixed.kinds[photo]) == (tone, kind)]
        assert set(weights[:, chosen].sum(axis=1)) == {patients}


def test_every_photo_is_drawn_once_on_average_and_left_out_as_often_as_chance_has_it():
    weights = draw_weights(sample_of(["I-II"] * 20), num_draws=5000)

    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.06)
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.005)


def test_a_patient_whose_photos_differ_in_tone_or_kind_is_drawn_whole_in_the_stratum_of_the_first():
    sample = sample_of(
        tones=["I-II", "V-VI", "I-II", "V-VI", "V-VI"],
        clusters=["a", "a", "b", "c", "d"],
        kinds=["0", "1", "0", "0", "0"],
    )

    weights = draw_weights(sample)

    assert (weights[:, 0] == weights[:, 1]).all()
    assert set(weights[:, 0]) == {0, 1, 2}
    assert set(weights[:, [0, 2]].sum(axis=1)) == {2}
    assert set(weights[:, [3, 4]].sum(axis=1)) == {2}


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_about_that_of_the_t_distribution(normal):
    low, high = interval(mean_of(normal), sample_of(["I-II"] * 100))

    half_width = t.ppf(0.975, 99) * normal.std(ddof=1) / 10
    assert low == pytest.approx(normal.mean() - half_width, abs=0.06)
    assert high == pytest.approx(normal.mean() + half_width, abs=0.06)


def test_the_interval_of_few_photos_is_wider_than_percentiles():
    values = np.random.default_rng(0).normal(size=10)
    sample = sample_of(["I-II"] * 10)

    low, high = interval(mean_of(values), sample)

    inner_low, inner_high = np.quantile(mean_of(values)(draw_weights(sample)), [0.025, 0.975])
    assert low < inner_low < inner_high < high
    assert (high - low) / (inner_high - inner_low) == pytest.approx(
        np.sqrt(10 / 9) * t.ppf(0.975, 9) / norm.ppf(0.975), rel=0.1
    )


def test_the_interval_of_photos_of_few_patients_is_wider():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 5)
    tones = ["I-II"] * 100

    alone = interval(mean_of(values), sample_of(tones))
    of_patients = interval(mean_of(values), sample_of(tones, clusters=np.repeat(np.arange(20), 5).astype(str)))

    assert (of_patients[1] - of_patients[0]) / (alone[1] - alone[0]) == pytest.approx(np.sqrt(5), rel=0.2)


@pytest.mark.filterwarnings("error")
def test_one_photo_has_no_interval():
    assert np.isnan(interval(mean_of([0.7]), sample_of(["I-II"]))).all()


def test_a_metric_that_is_undefined_in_most_draws_has_no_interval():
    values = np.random.default_rng(0).normal(size=30)
    sample = sample_of(["I-II"] * 30)

    def undefined_above(most):
        return lambda weights: np.where((weights > most).any(axis=1), np.nan, mean_of(values)(weights))

    shares = [np.isnan(undefined_above(most)(draw_weights(sample))).mean() for most in (2, 3)]
    assert shares[0] > 0.5 > shares[1] > 0.2

    assert np.isnan(interval(undefined_above(2), sample)).all()
    assert np.isfinite(interval(undefined_above(3), sample)).all()


@pytest.mark.filterwarnings("error")
def test_a_metric_that_is_undefined_has_no_interval():
    assert np.isnan(interval(mean_of([1, 2, 3], members=[0, 0, 0]), sample_of(["I-II"] * 3))).all()


@pytest.mark.filterwarnings("error")
def test_an_auroc_that_hangs_on_one_malignant_photo_has_no_interval():
    """Alone in its stratum it is in every draw, so that the draws vary, and say nothing of other malignant photos."""
    is_malignant, scores = np.arange(9) == 0, np.linspace(0.9, 0.1, 9)[[4, 0, 1, 2, 3, 5, 6, 7, 8]]
    sample = sample_of(["I-II"] * 9, kinds=np.where(is_malignant, "1", "0"))
    draws = auroc(is_malignant, scores)(draw_weights(sample))
    assert draws.std() > 0

    assert np.isnan(interval(auroc(is_malignant, scores), sample)).all()


# --- the jackknife ---------------------------------------------------------------------------------------------------


def test_the_variance_of_the_jackknife_is_the_textbook_one_of_a_mean(normal):
    deviations = jackknife(mean_of(normal), sample_of(["I-II"] * 100))

    assert (deviations**2).sum() == pytest.approx(normal.var(ddof=1) / 100)


def test_the_variance_of_patients_is_that_of_their_means():
    of_patients = np.random.default_rng(0).normal(size=20)
    sample = sample_of(["I-II"] * 60, clusters=[f"p{index:02d}" for index in np.repeat(np.arange(20), 3)])

    deviations = jackknife(mean_of(np.repeat(of_patients, 3)), sample)

    assert len(deviations) == 20
    assert (deviations**2).sum() == pytest.approx(of_patients.var(ddof=1) / 20)


def test_two_strata_have_the_degrees_of_freedom_of_welch_s_test():
    few, many = np.random.default_rng(0).choice([-1.0, 1.0], 5), np.random.default_rng(1).choice([-0.2, 0.2], 200)
    deviations = [values / np.sqrt(len(values) * (len(values) - 1)) for values in (few, many)]
    variances = [(values**2).sum() for values in deviations]
    welch = sum(variances) ** 2 / (variances[0] ** 2 / 4 + variances[1] ** 2 / 199)

    found = degrees_of_freedom(np.concatenate(deviations), np.repeat([0, 1], [5, 200]))

    assert found == pytest.approx(welch)
    assert 4 < found < 5


# --- differences -----------------------------------------------------------------------------------------------------


def test_the_paired_difference_of_means_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    first = rng.normal(size=40)
    second = first + rng.normal(0.2, 0.5, 40)

    found = paired_difference(mean_of(first), mean_of(second), sample_of(["I-II"] * 40))

    expected = ttest_rel(second, first)
    assert found.standard_error == pytest.approx((second - first).std(ddof=1) / np.sqrt(40))
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.1)  # degrees of freedom are estimated


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", [0.0, 0.1])
def test_a_difference_that_is_the_same_in_every_photo_has_neither_interval_nor_p_value(change):
    values = np.full(11, 0.3)

    found = paired_difference(mean_of(values), mean_of(values + change), sample_of(["I-II"] * 11))

    assert found.value == pytest.approx(change)
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_the_minimum_detectable_difference_is_2_80_standard_errors():
    found = Difference(value=0.1, low=-0.1, high=0.3, p_value=0.3, standard_error=0.05)

    assert found.minimum_detectable == pytest.approx(2.80 * 0.05, rel=1e-3)
    # the power at this difference: how often an estimate around it is beyond 1.96 standard errors
    power = norm.sf(norm.ppf(0.975) - found.minimum_detectable / found.standard_error)
    assert power == pytest.approx(0.80)


def test_a_gap_is_the_tone_minus_the_reference(normal):
    tones = ["I-II"] * 50 + ["V-VI"] * 50
    values = normal + np.r_[np.zeros(50), np.full(50, 3.0)]

    found = gap(mean_of(values), sample_of(tones), "I-II", "V-VI")
    back = gap(mean_of(values), sample_of(tones), "V-VI", "I-II")

    assert found.value == pytest.approx(values[50:].mean() - values[:50].mean())
    assert found.low < found.value < found.high
    assert back.value == pytest.approx(-found.value)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.1)


def test_the_standard_error_of_a_gap_is_that_of_two_independent_groups(normal):
    found = gap(mean_of(normal), sample_of(["I-II"] * 40 + ["V-VI"] * 60), "I-II", "V-VI")

    assert found.standard_error == pytest.approx(np.sqrt(normal[:40].var(ddof=1) / 40 + normal[40:].var(ddof=1) / 60))


def test_the_p_value_is_the_share_of_permutations_with_as_large_a_gap():
    """Two against two: of the six ways to give out tones, two have a gap of 2, which is the largest."""
    found = gap(mean_of([0, 1, 2, 3]), sample_of(["I-II"] * 2 + ["V-VI"] * 2), "I-II", "V-VI")

    assert found.value == 2.0
    assert found.p_value == pytest.approx(2 / 6, abs=0.05)


def test_p_values_are_uniform_where_tones_do_not_matter():
    rng = np.random.default_rng(0)
    sample = sample_of(["I-II"] * 15 + ["V-VI"] * 10)

    p_values = [gap(mean_of(rng.normal(size=25)), sample, "I-II", "V-VI").p_value for _ in range(150)]

    assert kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) < 0.12


def test_patients_are_permuted_whole():
    """Photos of one patient are alike: permuting photos would find a gap in a third of such samples."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), 5)
    sample = sample_of(np.where(patients < 6, "I-II", "V-VI"), clusters=[f"p{patient:02d}" for patient in patients])

    p_values = [gap(mean_of(rng.normal(size=12)[patients]), sample, "I-II", "V-VI").p_value for _ in range(60)]

    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_permutations_keep_the_number_of_malignant_photos_of_each_tone():
    is_malignant = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    sample = sample_of(["I-II"] * 4 + ["V-VI"] * 4, kinds=np.where(is_malignant, "1", "0"))
    seen = []

    def metric(weights):
        seen.append(weights @ is_malignant)
        return mean_of(np.arange(8.0))(weights)

    gap(metric, sample, "I-II", "V-VI")

    permuted = [numbers for numbers in seen if len(numbers) in (256, NUM_DRAWS % 256)]
    assert sum(len(numbers) for numbers in permuted) >= 2 * NUM_DRAWS
    assert {number for numbers in permuted for number in numbers} == {1, 3}


@pytest.mark.filterwarnings("error")
def test_a_gap_to_a_tone_in_which_the_metric_is_undefined_is_nan_throughout():
    metric = mean_of([0.1, 0.2, 0.3, 0.4], members=[1, 1, 0, 0])

    found = gap(metric, sample_of(["I-II"] * 2 + ["V-VI"] * 2), "I-II", "V-VI")

    assert np.isnan([found.value, found.low, found.high, found.p_value, found.minimum_detectable]).all()


# --- many p-values ---------------------------------------------------------------------------------------------------


def test_holm_is_the_step_down_of_its_definition():
    """The rank-th smallest of m is multiplied by m - rank + 1; none is smaller than the one before, none above 1."""
    p_values = np.random.default_rng(0).random(12) ** 3
    expected, largest = {}, 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        largest = max(largest, (12 - rank) * p_values[place])
        expected[place] = min(1.0, largest)

    assert holm(p_values).tolist() == pytest.approx([expected[place] for place in range(12)])
