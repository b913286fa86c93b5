import numpy as np
import pandas as pd
import pytest

from fedd_hf.evaluation import by_tone
from fedd_hf.evaluation.by_tone import (
    GAP_COLUMNS,
    choose_thresholds,
    classification_by_tone,
    classification_gaps,
    photos_of,
    segmentation_by_tone,
    tabulate_by_tone,
    tabulate_gaps,
    worst_by_tone,
)
from fedd_hf.evaluation.coverage import FLAG
from fedd_hf.evaluation.intervals import holm
from fedd_hf.labels import SkinTone

TONES = [tone.label for tone in SkinTone]
GROUPS = ["all", *TONES, "mean of tones"]
COLUMNS = ["metric", "skin_tone", "n", "clusters", "value", "low", "high", "flag"]
LABELS = ["background", "lesion", "skin"]


def segmentation_table(maps, tones, **columns):
    """Predictions table of pairs of maps (truth, prediction)."""
    rows = []
    for index, ((truth, said), tone) in enumerate(zip(maps, tones, strict=True)):
        facts = {"image_id": f"{index:02d}", "skin_tone": tone}
        facts |= {name: values[index] for name, values in columns.items()}
        for label, name in enumerate(LABELS):
            is_true, is_said = np.asarray(truth) == label, np.asarray(said) == label
            counts = {
                "tp": int((is_true & is_said).sum()),
                "fp": int((~is_true & is_said).sum()),
                "fn": int((is_true & ~is_said).sum()),
                "tn": int((~is_true & ~is_said).sum()),
            }
            rows.append(facts | {"label": name, **counts})
    return pd.DataFrame(rows)


def classification_table(tones, y_true, y_score, **columns):
    names = [f"{index:03d}" for index in range(len(tones))]
    return pd.DataFrame({"image_id": names, "skin_tone": tones, "y_true": y_true, "y_score": y_score, **columns})


def cell(table, metric, tone, column="value"):
    (value,) = table.loc[(table["metric"] == metric) & (table["skin_tone"] == tone), column]
    return value


def mean_metric(values):
    """The mean of numbers as a metric, NaN without photos."""
    values = np.asarray(values, dtype=float)
    return lambda weights: np.where(
        weights.sum(axis=1) > 0, weights @ values / np.maximum(weights.sum(axis=1), 1e-9), np.nan
    )


def photos_table(tones, **columns):
    return photos_of(
        pd.DataFrame({"image_id": [f"{i:03d}" for i in range(len(tones))], "skin_tone": tones, **columns})
    )


@pytest.fixture(autouse=True)
def _trusted(monkeypatch):
    """Flags are tested by themselves."""
    monkeypatch.setattr(by_tone, "flag_of", lambda *_, **__: "")


@pytest.fixture
def random_maps():
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 3, (12, 10, 10))
    return [(truth, np.where(rng.random((10, 10)) < 0.6, truth, rng.integers(0, 3, (10, 10)))) for truth in truths]


# --- values ----------------------------------------------------------------------------------------------------------


def test_segmentation_of_two_images_by_hand():
    right, half = ([1, 1, 2, 2], [1, 1, 2, 2]), ([1, 1, 2, 2], [1, 2, 2, 2])

    table = segmentation_by_tone(segmentation_table([right, half], ["I-II", "V-VI"]))

    assert [cell(table, "lesion_iou", tone) for tone in ("I-II", "V-VI")] == [1.0, pytest.approx(1 / 2)]
    assert cell(table, "lesion_iou", "all") == pytest.approx(3 / 4)
    assert cell(table, "lesion_iou", "mean of tones") == pytest.approx((1 + 1 / 2) / 2)
    assert cell(table, "lesion_iou_per_image", "all") == pytest.approx((1 + 1 / 2) / 2)
    assert cell(table, "lesion_dice", "V-VI") == pytest.approx(2 / 3)
    assert cell(table, "lesion_dice", "all") == pytest.approx(6 / 7)
    assert cell(table, "mean_iou", "V-VI") == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert cell(table, "mean_iou", "all") == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_thresholds_of_test_and_validation_photos_are_applied_side_by_side():
    test = classification_table(["I-II"] * 4, [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
    validation = classification_table(["I-II"] * 4, [0, 0, 1, 1], [0.1, 0.3, 0.36, 0.9])

    table = classification_by_tone(test, validation)

    assert choose_thresholds(test, validation) == pytest.approx({"test_youden": 0.25, "validation_youden": 0.33})
    rules = ("", "_test_youden", "_validation_youden")
    assert [cell(table, f"accuracy{rule}", "all") for rule in rules] == [0.5, 1.0, 0.75]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_are_all_images_first_then_the_tones_in_their_order_then_their_mean(random_maps):
    table = segmentation_by_tone(segmentation_table(random_maps, ["V-VI", "III-IV", "I-II"] * 4))

    metrics = table["metric"].unique().tolist()
    assert list(table) == COLUMNS
    assert metrics[:3] == ["mean_iou", "lesion_iou", "lesion_dice"]
    assert table["skin_tone"].tolist() == [tone for tone in GROUPS for _ in metrics]
    assert table["metric"].tolist() == metrics * 5


def test_photos_of_unknown_tone_count_in_all_only(random_maps):
    with_tone = segmentation_by_tone(segmentation_table(random_maps[:6], ["I-II"] * 6))

    table = segmentation_by_tone(segmentation_table(random_maps, ["I-II"] * 6 + [None] * 6))

    assert table["skin_tone"].unique().tolist() == ["all", "I-II", "mean of tones"]
    for tone in ("I-II", "mean of tones"):
        assert cell(table, "mean_iou", tone) == cell(with_tone, "mean_iou", tone)
    assert cell(table, "mean_iou", "all") != cell(with_tone, "mean_iou", "all")


def test_clusters_are_patients_where_they_are_known_and_photos_elsewhere():
    groups = ["a", "a", "b", None, None, "c"]

    table = classification_by_tone(
        classification_table(["I-II"] * 4 + ["V-VI"] * 2, [0, 1] * 3, [0.1, 0.8, 0.3, 0.9, 0.2, 0.7], group_id=groups)
    )

    numbers = {tone: cell(table, "auroc", tone, "clusters") for tone in ("all", "I-II", "V-VI", "mean of tones")}
    assert numbers == {"all": 5, "I-II": 3, "V-VI": 2, "mean of tones": 5}


# --- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_contain_their_values_and_come_out_the_same_again(random_maps):
    predictions = segmentation_table(random_maps, TONES * 4)

    table = segmentation_by_tone(predictions)

    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    pd.testing.assert_frame_equal(segmentation_by_tone(predictions), table)


def test_a_single_photo_of_a_tone_has_a_value_and_no_interval(random_maps):
    table = segmentation_by_tone(segmentation_table(random_maps, ["I-II"] * 11 + ["V-VI"]))

    row = table[(table["metric"] == "lesion_iou") & (table["skin_tone"] == "V-VI")].iloc[0]
    assert row["n"] == 1
    assert np.isfinite(row["value"])
    assert np.isnan([row["low"], row["high"]]).all()


@pytest.mark.filterwarnings("error")
def test_a_tone_without_any_lesion_pixel_has_no_lesion_iou_and_neither_has_the_mean_of_tones():
    no_lesion = ([0, 2, 2, 0], [0, 2, 0, 0])
    lesion = ([1, 1, 2, 0], [1, 2, 2, 0])

    table = segmentation_by_tone(segmentation_table([no_lesion] * 3 + [lesion] * 3, ["I-II"] * 3 + ["V-VI"] * 3))

    assert np.isnan([cell(table, "lesion_iou", tone) for tone in ("I-II", "mean of tones")]).all()
    assert cell(table, "mean_iou", "I-II") == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert cell(table, "lesion_iou", "V-VI") == cell(table, "lesion_iou", "all") == pytest.approx(1 / 2)


@pytest.mark.filterwarnings("error")
def test_a_tone_without_a_malignant_photo_has_no_auroc_but_is_shown():
    rng = np.random.default_rng(2)
    table = classification_by_tone(
        classification_table(["I-II"] * 10 + ["V-VI"] * 10, [0, 1] * 5 + [0] * 10, rng.random(20))
    )

    for metric in ("auroc", "auprc", "balanced_accuracy", "sensitivity"):
        assert np.isnan([cell(table, metric, "V-VI", column) for column in ("value", "low", "high")]).all()
        assert cell(table, metric, "V-VI", "n") == 10
    assert np.isfinite([cell(table, name, "V-VI") for name in ("accuracy", "specificity")]).all()


# --- the mean of tones -----------------------------------------------------------------------------------------------


def test_the_mean_of_tones_gives_every_tone_the_same_weight():
    values = [1.0] * 8 + [0.0] * 2 + [0.5] * 2
    photos = photos_table(["I-II"] * 8 + ["III-IV"] * 2 + ["V-VI"] * 2)

    table = tabulate_by_tone({"score": mean_metric(values)}, photos)

    assert cell(table, "score", "mean of tones") == pytest.approx(0.5)
    assert cell(table, "score", "all") == pytest.approx(9 / 12)


# --- gaps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gaps():
    values = np.r_[np.linspace(0.7, 0.9, 20), np.linspace(0.6, 0.7, 10), np.linspace(0.2, 0.4, 10), [5.0]]
    photos = photos_table(["I-II"] * 20 + ["III-IV"] * 10 + ["V-VI"] * 10 + [None])
    return tabulate_gaps({"first": mean_metric(values), "second": mean_metric(values[::-1].copy())}, photos)


def test_gaps_are_between_each_two_tones_the_darker_minus_the_lighter(gaps):
    first = gaps[gaps["metric"] == "first"]

    assert list(gaps) == GAP_COLUMNS
    pairs = list(zip(first["reference"], first["skin_tone"], strict=True))
    assert pairs == [("I-II", "III-IV"), ("I-II", "V-VI"), ("III-IV", "V-VI")]
    assert first["difference"].tolist() == pytest.approx([-0.15, -0.5, -0.35])
    assert first["ratio"].tolist() == pytest.approx([0.65 / 0.8, 0.3 / 0.8, 0.3 / 0.65])
    assert first[["n_reference", "n"]].to_numpy().tolist() == [[20, 10], [20, 10], [10, 10]]


def test_p_values_are_corrected_within_each_metric(gaps):
    assert gaps["metric"].tolist() == ["first"] * 3 + ["second"] * 3
    for _, of_metric in gaps.groupby("metric"):
        assert of_metric["p_holm"].tolist() == holm(of_metric["p_value"].to_numpy()).tolist()
        assert of_metric["p_holm"].min() == pytest.approx(3 * of_metric["p_value"].min())


def test_pairs_in_which_a_metric_is_undefined_are_shown_and_not_corrected_for():
    rng = np.random.default_rng(0)
    y_true = [0, 1] * 10 + [0] * 10 + [0, 1] * 5

    table = classification_gaps(
        classification_table(["I-II"] * 20 + ["III-IV"] * 10 + ["V-VI"] * 10, y_true, rng.random(40))
    )

    of_auroc = table[table["metric"] == "auroc"]
    assert of_auroc["difference"].isna().tolist() == [True, False, True]
    assert of_auroc["p_holm"].isna().tolist() == [True, False, True]
    assert of_auroc["p_holm"].iloc[1] == of_auroc["p_value"].iloc[1]


# --- the worst tone --------------------------------------------------------------------------------------------------


def test_the_worst_tone_has_the_lowest_value_of_each_metric_and_keeps_its_whole_row():
    photos = photos_table(["I-II", "I-II", "III-IV", "III-IV", "V-VI", "V-VI"])
    rows = tabulate_by_tone(
        {"first": mean_metric([0.9, 0.8, 0.2, 0.1, 0.5, 0.6]), "second": mean_metric([0.1, 0.2, 0.7, 0.6, 0.5, 0.6])},
        photos,
    )

    worst = worst_by_tone(rows)

    assert list(worst) == COLUMNS
    assert worst[["metric", "skin_tone", "n"]].to_numpy().tolist() == [["first", "III-IV", 2], ["second", "I-II", 2]]
    assert worst["value"].tolist() == pytest.approx([0.15, 0.15])


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Metrics, numbers and kinds of which the simulation was asked; more than three are enough."""
    asked = []

    def flag_of(metric, number, is_gap=False):
        asked.append((metric, number, is_gap))
        return "" if number > 3 else FLAG

    monkeypatch.setattr(by_tone, "flag_of", flag_of)
    return asked


def test_rows_are_flagged_by_their_patients_and_the_mean_of_tones_by_those_of_the_smallest(asked):
    photos = photos_table(["I-II"] * 6 + ["V-VI"] * 4 + [None], group_id=["a", "a", "b", "b", "c", "c", *"defgh"])

    table = tabulate_by_tone({"score": mean_metric(np.arange(11))}, photos)

    assert asked == [("score", 8, False), ("score", 3, False), ("score", 4, False), ("score", 3, False)]
    assert dict(zip(table["skin_tone"], table["flag"], strict=True)) == {
        "all": "",
        "I-II": FLAG,
        "V-VI": "",
        "mean of tones": FLAG,
    }


def test_a_gap_is_flagged_by_the_patients_of_the_smaller_group(asked):
    photos = photos_table(["I-II"] * 6 + ["V-VI"] * 4, group_id=["a", "a", "b", "b", "c", "c", *"defg"])

    table = tabulate_gaps({"score": mean_metric(np.arange(10))}, photos)

    assert asked == [("score", 3, True)]
    assert table["flag"].tolist() == [FLAG]
