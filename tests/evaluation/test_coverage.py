import json

import numpy as np
import pytest

from fedd_hf.evaluation import coverage
from fedd_hf.evaluation.classification import DECISIONS
from fedd_hf.evaluation.coverage import COVERAGE, FLAG, flag_of, kind_of

SHIPPED = json.loads(COVERAGE.read_text())
KINDS = ["lesion_iou", "lesion_iou_per_image", "auroc", "balanced_accuracy"]
ROW = {"scenario", "metric", "is_gap", "n", "clusters", "truth", "coverage", "undefined", "width"}


def simulated(metric, is_gap, covered, scenario="first"):
    """Rows of a scenario: patients, with four photos each, and how often the interval held the truth."""
    facts = {"scenario": scenario, "metric": metric, "is_gap": is_gap}
    return [facts | {"n": 4 * number, "clusters": number, "coverage": share} for number, share in covered.items()]


@pytest.fixture
def table(monkeypatch):
    """Replace what was simulated."""

    def replace(*parts):
        monkeypatch.setattr(coverage, "simulated_coverage", lambda: [row for part in parts for row in part])

    return replace


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "flag"), [(1, FLAG), (9, FLAG), (10, FLAG), (19, FLAG), (20, ""), (35, ""), (50, ""), (5000, "")]
)
def test_the_next_smaller_number_that_was_simulated_counts(table, number, flag):
    table(simulated("auroc", False, {10: 0.85, 20: 0.91, 50: 0.95}))

    assert flag_of("auroc", number) == flag


@pytest.mark.parametrize(("share", "flag"), [(0.9, ""), (0.899, FLAG)])
def test_less_than_nine_in_ten_is_too_rare(table, share, flag):
    table(simulated("auroc", False, {10: share}))

    assert flag_of("auroc", 10) == flag


def test_each_scenario_has_its_own_next_smaller_number(table):
    """Ten photos of four patients are no evidence on ten patients: in a clustered scenario numbers are smaller."""
    table(simulated("auroc", False, {10: 0.8, 20: 0.95}, "photos"), simulated("auroc", False, {4.2: 0.95}, "patients"))

    assert [flag_of("auroc", number) for number in (4, 5, 10, 20)] == [FLAG, FLAG, FLAG, ""]


@pytest.mark.parametrize(
    ("kind", "metrics"),
    {
        "lesion_iou": ["mean_iou", "lesion_iou", "lesion_dice", "mean_dice", "iou_skin", "dice_lesion"],
        "lesion_iou_per_image": ["mean_iou_per_image", "lesion_iou_per_image", "lesion_dice_per_image"],
        "auroc": ["auroc", "auprc"],
        "balanced_accuracy": [f"{name}{rule}" for name in DECISIONS for rule in ("", "_validation_youden")],
    }.items(),
)
def test_one_simulated_metric_stands_for_all_of_its_kind(kind, metrics):
    assert {kind_of(metric) for metric in metrics} == {kind}


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_every_kind_and_every_number_of_photos_was_simulated_with_and_without_gaps():
    cells = {(row["metric"], row["is_gap"], row["n"]) for row in SHIPPED["rows"]}

    needed = {(kind, is_gap, n) for kind in KINDS for is_gap in (False, True) for n in (10, 50, 66, 200)}
    assert needed <= cells


def test_the_shipped_simulation_is_of_a_thousand_data_sets_a_cell_and_says_how_it_was_made():
    assert set(SHIPPED) >= {"settings", "rows", "machine"}
    assert SHIPPED["settings"]["num_sets"] >= 1000
    assert {row["scenario"] for row in SHIPPED["rows"]} == {item["name"] for item in SHIPPED["settings"]["scenarios"]}


def test_the_shipped_rows_are_whole():
    for row in SHIPPED["rows"]:
        assert set(row) >= ROW
        assert 0 <= row["coverage"] <= 1 - row["undefined"] <= 1
        assert 0 < row["clusters"] <= row["n"]
        assert np.isfinite([row["truth"], row["width"]]).all()


def test_every_scenario_was_simulated_for_every_number_of_photos_once():
    cells = [(row["scenario"], row["metric"], row["is_gap"], row["n"]) for row in SHIPPED["rows"]]
    numbers = {n for *_, n in cells}

    assert len(set(cells)) == len(cells)
    assert len(cells) == len({cell[:3] for cell in cells}) * len(numbers)
