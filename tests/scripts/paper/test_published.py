"""Published values come with their sources, and a method that reaches exactly them differs by nothing."""

import numpy as np
import pandas as pd
import pytest

from fedd_hf.compare.methods import PAPER_BASELINES
from published import (
    compare_with_published,
    dermatologists,
    published_gains,
    published_grid,
    published_references,
    published_results,
)

FRACTIONS = [0.05, 0.10, 0.15, 0.20]


def as_curves(published):
    return published.assign(value=published["published"], low=np.nan, high=np.nan).to_dict("records")


def test_the_published_values_as_results_differ_by_nothing():
    points = published_grid().assign(accuracy=lambda grid: grid["published"]).to_dict("records")

    rows = pd.DataFrame(compare_with_published(as_curves(published_results()), points))

    of_methods = rows[rows["table"] != "Supplement, Table 3"]
    assert len(of_methods) == len(published_results()) + len(published_grid())
    assert of_methods["difference"].tolist() == [0.0] * len(of_methods)


def test_the_lead_in_mean_iou_follows_from_the_published_values():
    rows = pd.DataFrame(compare_with_published(as_curves(published_results())))

    leads = rows[(rows["table"] == "Supplement, Table 3") & (rows["metric"] == "mean_iou")]
    assert leads["ours"].round(3).tolist() == [0.176, 0.130, 0.058, 0.070]
    assert (leads["difference"].abs() < 0.01).all()


def test_a_difference_is_ours_minus_theirs_and_keeps_our_interval():
    row = {"method": "FEDD", "label_fraction": 0.05, "test": "large_test", "metric": "mean_iou", "skin_tone": "V-VI"}

    rows = pd.DataFrame(compare_with_published([row | {"value": 0.7, "low": 0.6, "high": 0.8}]))

    (ours,) = rows[rows["ours"].notna()].to_dict("records")
    assert (ours["table"], ours["published"], ours["low"], ours["high"]) == ("Figure 4", 0.675, 0.6, 0.8)
    assert ours["difference"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    "table", [published_results(), published_gains(), published_grid(), published_references()], ids=lambda t: len(t)
)
def test_each_value_is_a_share_with_a_tolerance_and_a_source(table):
    assert table["published"].between(0, 1).all()
    assert table["tolerance"].between(0.005, 0.01).all()
    assert table["source"].str.contains("FEDD|Daneshjou").all()


@pytest.mark.parametrize(
    ("metric", "method", "skin_tone", "values"),
    [
        ("mean_iou", "FEDD", "mean of tones", [0.703, 0.756, 0.771, 0.778]),
        ("lesion_iou", "FEDD", "V-VI", [0.392, 0.471, 0.503, 0.545]),
        ("lesion_iou", "EfficientNetB0", "I-II", [0.211, 0.374, 0.518, 0.485]),
        ("f1_test_youden", "FEDD", "V-VI", [0.80, 0.83, 0.75, 0.89]),
        ("accuracy_test_youden", "FEDD", "all", [0.80, 0.80, 0.77, 0.87]),
    ],
)
def test_values_stand_where_the_paper_has_them(metric, method, skin_tone, values):
    rows = published_results().query("metric == @metric and method == @method and skin_tone == @skin_tone")

    assert rows["label_fraction"].tolist() == FRACTIONS
    assert rows["published"].tolist() == values


def test_every_rival_of_the_paper_has_values():
    assert set(PAPER_BASELINES) == set(published_results()["method"]) - {"FEDD"}


def test_dermatologists_are_those_of_daneshjou():
    assert (dermatologists("auroc"), dermatologists("sensitivity", "V-VI")) == (0.72, 0.40)
