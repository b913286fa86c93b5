import json
from dataclasses import asdict

import numpy as np
import pytest

import coverage_simulation
from coverage_simulation import (
    PIXELS,
    SCENARIOS,
    TONES,
    MalignancyScenario,
    SegmentationScenario,
    simulate_coverage,
)
from fedd_hf.evaluation.by_tone import photos_of, sample_of
from fedd_hf.evaluation.coverage import COVERAGE

LESIONS = SegmentationScenario(name="lesions")
SCORES = MalignancyScenario(name="scores")
SHIPPED = json.loads(COVERAGE.read_text())
SHIPPED_SCENARIOS = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture
def _small(monkeypatch):
    """Two numbers of photos, and truths from fewer photos."""
    monkeypatch.setattr(coverage_simulation, "NUM_PHOTOS", (8, 30))
    monkeypatch.setattr(coverage_simulation, "POPULATION", 20_000)
    coverage_simulation._find_truths.cache_clear()
    yield
    coverage_simulation._find_truths.cache_clear()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Forty data sets of each task and number of photos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage_simulation, "NUM_PHOTOS", (8, 30))
        patch.setattr(coverage_simulation, "POPULATION", 20_000)
        coverage_simulation._find_truths.cache_clear()
        path = tmp_path_factory.mktemp("simulation") / "coverage.json"
        simulate_coverage(path, 40, (LESIONS, SCORES))
        coverage_simulation._find_truths.cache_clear()
    return path


def rows_of(path):
    return json.loads(path.read_text())["rows"]


# --- data sets -------------------------------------------------------------------------------------------------------


def draw(scenario, num_photos=200, seed=0):
    return scenario.draw(num_photos, np.random.default_rng(seed))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_data_set_has_as_many_photos_of_each_tone_as_asked_for(scenario):
    table = draw(scenario, 10)

    assert table["skin_tone"].value_counts().to_dict() == dict.fromkeys(TONES, 10)
    assert table["image_id"].is_unique
    assert (table.groupby("group_id")["skin_tone"].nunique() == 1).all()
    assert table.groupby("group_id").size().max() <= scenario.photos_per_patient


def test_lesions_are_as_large_as_those_of_ddi():
    areas = draw(LESIONS, 20_000).eval("tp + fn") / PIXELS

    assert areas.median() == pytest.approx(0.0061, rel=0.05)
    assert areas.quantile(0.95) == pytest.approx(0.071, rel=0.1)
    assert areas.quantile(0.05) < 0.0008  # the small ones are a little smaller than the released ones


def test_photos_of_a_patient_are_alike_and_share_their_diagnosis():
    table = draw(MalignancyScenario(name="patients", photos_per_patient=4), 2000)

    by_patient = table.groupby("group_id")
    assert by_patient.ngroups / 2 == pytest.approx(2000 / 2.5, rel=0.1)
    assert (by_patient["y_true"].nunique() == 1).all()
    within = by_patient["y_score"].transform("mean")
    assert (table["y_score"] - within).var() < 0.5 * table["y_score"].var()


@pytest.mark.parametrize("scenario", [LESIONS, SCORES], ids=lambda scenario: scenario.name)
def test_the_metrics_that_are_tried_are_those_whose_truth_is_known(scenario):
    table = draw(scenario)
    truths = coverage_simulation.TRUTHS[type(scenario)](table)

    metrics = scenario.make_metrics(table)

    sample = sample_of(photos_of(table))
    values = {name: metric(np.ones((1, len(sample)))).item() for name, metric in metrics.items()}
    assert values == pytest.approx(truths)


# --- the simulation --------------------------------------------------------------------------------------------------


def test_a_report_has_a_row_per_scenario_number_and_metric_with_and_without_gap(report):
    cells = [(row["scenario"], row["n"], row["metric"], row["is_gap"]) for row in rows_of(report)]

    assert sorted(cells) == sorted(
        (scenario.name, n, metric, is_gap)
        for scenario in (LESIONS, SCORES)
        for n in (8, 30)
        for metric in scenario.metrics
        for is_gap in (False, True)
    )


def test_rows_say_how_often_intervals_hold_the_truth(report):
    for row in rows_of(report):
        assert 0 <= row["coverage"] <= 1 - row["undefined"]
        assert row["clusters"] == row["n"]
        assert row["width"] > 0
        if row["n"] == 30:  # 38 of 40 are expected; fewer than 32 would be a chance of 1 in 300
            assert row["coverage"] >= 0.8


@pytest.mark.usefixtures("_small")
def test_a_simulation_that_was_stopped_goes_on_where_it_was(report, tmp_path, monkeypatch):
    whole = json.loads(report.read_text())
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(whole | {"rows": whole["rows"][:8]}))  # the first scenario
    simulated = []
    simulate = coverage_simulation._simulate_cell

    def record(scenario, num_photos, *arguments):
        simulated.append((scenario.name, num_photos))
        return simulate(scenario, num_photos, *arguments)

    monkeypatch.setattr(coverage_simulation, "_simulate_cell", record)
    simulate_coverage(path, 40, (LESIONS, SCORES))

    assert simulated == [("scores", 8), ("scores", 30)]
    assert rows_of(path) == whole["rows"]


@pytest.mark.usefixtures("_small")
def test_a_finished_report_is_not_simulated_again(report, monkeypatch):
    before = report.read_bytes()
    monkeypatch.setattr(coverage_simulation, "_simulate_cell", None)

    again = simulate_coverage(report, 40, (LESIONS, SCORES))

    assert again["rows"] == rows_of(report)
    assert report.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"num_sets": 41},
        {"seed": 1},
        {"scenarios": (LESIONS,)},
        {"scenarios": (SegmentationScenario(name="lesions", spread=0.8), SCORES)},
    ],
    ids=str,
)
def test_the_report_of_another_run_is_refused_and_left_as_it_is(report, change):
    before = report.read_bytes()

    with pytest.raises(ValueError, match="was simulated with other settings. Give another `output`, or delete it"):
        simulate_coverage(report, **({"num_sets": 40, "scenarios": (LESIONS, SCORES)} | change))

    assert report.read_bytes() == before


def test_an_undefined_interval_counts_as_missed():
    intervals = np.array([[0.1, 0.5], [np.nan, np.nan], [0.4, 0.6], [0.2, 0.3]])

    row = coverage_simulation._count_hits(intervals, truth=0.3)

    assert row == {"truth": 0.3, "coverage": 0.5, "undefined": 0.25, "width": pytest.approx(0.2)}


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_the_shipped_report_is_of_the_scenarios_of_this_code():
    assert SHIPPED["settings"]["scenarios"] == json.loads(json.dumps([asdict(scenario) for scenario in SCENARIOS]))
    assert {row["n"] for row in SHIPPED["rows"]} == set(coverage_simulation.NUM_PHOTOS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [SCENARIOS[0].name, SCENARIOS[-1].name])
def test_other_data_sets_give_the_shipped_coverage(name, tmp_path, monkeypatch):
    monkeypatch.setattr(coverage_simulation, "NUM_PHOTOS", (50,))
    shipped = {
        (row["metric"], row["is_gap"]): row["coverage"]
        for row in SHIPPED["rows"]
        if (row["scenario"], row["n"]) == (name, 50)
    }

    report = simulate_coverage(tmp_path / "coverage.json", 200, (SHIPPED_SCENARIOS[name],), seed=1)

    variance = 1 / 200 + 1 / SHIPPED["settings"]["num_sets"]
    for row in report["rows"]:
        expected = shipped.pop((row["metric"], row["is_gap"]))
        assert row["coverage"] == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) * variance))
    assert not shipped
