import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from fedd_hf.evaluation.report import read_report, write_report
from fedd_hf.evaluation.uncertainty import (
    area_under_risk,
    calibration_by_tone,
    contrast_strata,
    coverage_risk_by_tone,
    fit_temperature,
    joint_threshold,
)

TONES = ["I-II", "III-IV", "V-VI"]


def score_table(y_true, y_score, tones=None, uncertainty=None, contrast=None):
    number = len(y_true)
    scores = np.asarray(y_score, float)
    return pd.DataFrame(
        {
            "image_id": [f"photo-{index:03d}" for index in range(number)],
            "group_id": None,
            "skin_tone": ["I-II"] * number if tones is None else tones,
            "y_true": y_true,
            "y_score": scores,
            "uncertainty": -np.abs(scores - 0.5) if uncertainty is None else uncertainty,
            "contrast": np.arange(number, dtype=float) if contrast is None else contrast,
        }
    )


def pixel_table(photos):
    """Predictions table of photos: dicts of confidence, said, truth (per pixel, classes 0 and 1) and their facts."""
    rows = []
    for index, photo in enumerate(photos):
        confidence, said, truth = (np.asarray(photo[name]) for name in ("confidence", "said", "truth"))
        bins = np.minimum((confidence * 15).astype(int), 14)
        for label, name in enumerate(["skin", "lesion"]):
            is_said, is_true = said == label, truth == label
            rows.append(
                {
                    "image_id": f"photo-{index:03d}",
                    "group_id": None,
                    "skin_tone": photo.get("tone", "I-II"),
                    "label": name,
                    "tp": int((is_said & is_true).sum()),
                    "fp": int((is_said & ~is_true).sum()),
                    "fn": int((~is_said & is_true).sum()),
                    "tn": int((~is_said & ~is_true).sum()),
                    "uncertainty": photo.get("uncertainty", 0.1),
                    "contrast": photo.get("contrast", 10.0),
                    "bin_pixels": np.bincount(bins[is_said], minlength=15),
                    "bin_correct": np.bincount(bins[is_said & is_true], minlength=15),
                    "bin_confidence": np.bincount(bins[is_said], confidence[is_said], minlength=15),
                }
            )
    return pd.DataFrame(rows)


def lesion_photo(right, wrong, **facts):
    """A photo whose lesion of `right + wrong` pixels is found in part: its IoU is right / (right + wrong)."""
    truth = np.ones(right + wrong, int)
    said = np.array([1] * right + [0] * wrong)
    return {"confidence": np.full(right + wrong, 0.9), "said": said, "truth": truth, **facts}


def random_pixels(number=6, seed=0):
    rng = np.random.default_rng(seed)
    photos = []
    for index in range(number):
        probability = rng.random(200)
        truth = (rng.random(200) < probability**2).astype(int)
        said = (probability > 0.5).astype(int)
        confidence = np.maximum(probability, 1 - probability)
        photos.append({"confidence": confidence, "said": said, "truth": truth, "tone": TONES[index % 3]})
    return photos


def random_scores(number=60, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.random(number)
    return score_table((rng.random(number) < probability).astype(int), probability**2, (TONES * number)[:number])


def row_of(rows, tone, **wanted):
    (row,) = [
        row for row in rows if row["skin_tone"] == tone and all(row[name] == value for name, value in wanted.items())
    ]
    return row


def tones_of(rows):
    return list(dict.fromkeys(row["skin_tone"] for row in rows))


# --- calibration of scores -------------------------------------------------------------------------------------------


def test_ece_and_brier_of_four_scores_by_hand():
    # Confidences .9 (right), .9 (wrong), .6 (right), .7 (right): three bins, [.867, .933), [.6, .667), [.667, .733).
    table = score_table([1, 0, 0, 1], [0.9, 0.9, 0.4, 0.7])

    found = calibration_by_tone(table)

    row = row_of(found["rows"], "all")
    assert row["n"] == 4
    assert row["ece"] == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(1 - 0.7)) / 4)
    assert row["brier"] == pytest.approx((0.01 + 0.81 + 0.16 + 0.09) / 4)
    curve = [(point["confidence"], point["accuracy"], point["count"]) for point in found["curve"]]
    assert curve[:3] == [(pytest.approx(c), a, n) for c, a, n in [(0.6, 1, 1), (0.7, 1, 1), (0.9, 0.5, 2)]]


@pytest.mark.parametrize("seed", range(3))
def test_ece_of_scores_is_that_of_torchmetrics(seed):
    table = random_scores(seed=seed)
    confidence = torch.tensor(np.maximum(table["y_score"], 1 - table["y_score"]).to_numpy())
    correct = torch.tensor(((table["y_score"] > 0.5) == table["y_true"]).to_numpy().astype(int))

    expected = binary_calibration_error(confidence, correct, n_bins=15, norm="l1")

    assert row_of(calibration_by_tone(table)["rows"], "all")["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_a_score_that_is_missing_is_refused():
    table = score_table([1, 0], [0.5, np.nan])

    for evaluate in (calibration_by_tone, coverage_risk_by_tone, contrast_strata):
        with pytest.raises(ValueError, match=r"1 photos have no finite `y_score`: \['photo-001'\]"):
            evaluate(table)


# --- calibration of pixels -------------------------------------------------------------------------------------------


def test_ece_of_pixels_pools_photos_and_classes():
    photos = [
        {"confidence": [0.9, 0.9, 0.6], "said": [1, 1, 0], "truth": [1, 0, 0], "tone": "I-II"},
        {"confidence": [0.9, 0.9], "said": [0, 0], "truth": [1, 0], "tone": "V-VI"},
    ]

    rows = calibration_by_tone(pixel_table(photos))["rows"]

    assert row_of(rows, "all")["ece"] == pytest.approx((4 * abs(0.5 - 0.9) + abs(1 - 0.6)) / 5)
    assert row_of(rows, "I-II")["ece"] == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.6)) / 3)
    assert row_of(rows, "V-VI")["ece"] == pytest.approx(0.4)
    assert [row["n"] for row in rows] == [2, 1, 1]
    assert "brier" not in rows[0]


@pytest.mark.parametrize("seed", range(3))
def test_ece_of_pixels_is_that_of_torchmetrics(seed):
    photos = random_pixels(seed=seed)
    said, truth, confidence = (
        np.concatenate([photo[name] for photo in photos]) for name in ("said", "truth", "confidence")
    )
    probabilities = np.where(said[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None])

    ece = row_of(calibration_by_tone(pixel_table(photos))["rows"], "all")["ece"]

    expected = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(truth), 2, n_bins=15, norm="l1")
    assert ece == pytest.approx(float(expected), abs=1e-6)


# --- temperature -----------------------------------------------------------------------------------------------------


def test_temperature_of_equal_scores_by_hand():
    # 3 of 4 are right: the most likely confidence is 3/4, so logit(.9) / T = log(3).
    table = score_table([1, 1, 1, 0], [0.9] * 4)

    assert fit_temperature(table) == pytest.approx(np.log(9) / np.log(3), rel=1e-4)
    row = row_of(calibration_by_tone(table, validation=table)["rows"], "all")
    assert row["temperature"] == pytest.approx(2.0, rel=1e-4)
    assert row["ece"] == pytest.approx(0.15)
    assert row["ece_with_temperature"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_temperature_of_scores_is_the_most_likely_one(seed):
    table = random_scores(200, seed)

    def loss(temperature):
        scores = expit(logit(table["y_score"]) / temperature)
        return -np.log(np.where(table["y_true"] == 1, scores, 1 - scores)).mean()

    expected = minimize_scalar(loss, bounds=(0.01, 100), method="bounded").x
    assert fit_temperature(table) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("y_true", "scores", "temperature"),
    [
        ([1, 0], [0.9, 0.1], 0.01),
        ([0, 1], [0.9, 0.1], 100),
        ([1, 0], [0.5, 0.5], 1),
        ([1, 0], [1.0, 0.0], 0.01),
    ],
    ids=["all right", "all wrong", "undecided", "all right and sure"],
)
def test_temperature_stays_between_its_bounds(y_true, scores, temperature):
    assert fit_temperature(score_table(y_true, scores)) == pytest.approx(temperature, rel=1e-3)


# --- abstention ------------------------------------------------------------------------------------------------------


def slow_area(uncertainty, risk):
    """The mean over the numbers of kept photos of their mean risk, of photos that are not equally uncertain."""
    order = np.argsort(uncertainty)
    return np.mean([risk[order[:kept]].mean() for kept in range(1, len(risk) + 1)])


@pytest.mark.parametrize("seed", range(2))
def test_area_under_risk_is_that_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    uncertainty, risk = rng.random(12), rng.random(12)

    expected = slow_area(uncertainty, risk)

    assert area_under_risk(uncertainty, risk)(np.ones((1, 12))) == pytest.approx(expected)


def test_equally_uncertain_photos_are_kept_together():
    uncertainty, risk = np.array([1, 0, 1, 0, 1]), np.array([0.2, 0.9, 0.4, 0.1, 0.8])

    expected = (2 * np.mean([0.9, 0.1]) + 3 * risk.mean()) / 5

    assert area_under_risk(uncertainty, risk)(np.ones((1, 5))) == pytest.approx(expected)


def test_a_photo_of_weight_3_counts_as_three():
    uncertainty, risk = np.array([0.3, 0.1, 0.2]), np.array([1.0, 0.0, 0.5])
    repeated = area_under_risk(np.array([0.3, 0.1, 0.1, 0.1]), np.array([1.0, 0.0, 0.0, 0.0]))

    metric = area_under_risk(uncertainty, risk)

    assert metric(np.array([[1.0, 3.0, 0.0]])) == pytest.approx(repeated(np.ones((1, 4))))
    assert np.isnan(metric(np.zeros((1, 3)))).all()


@pytest.mark.parametrize("number", [1, 4, 5, 6, 39])
def test_the_joint_threshold_keeps_at_least_80_percent_and_not_one_more_than_needed(number):
    uncertainty = np.random.default_rng(number).permutation(number).astype(float)

    kept = (uncertainty <= joint_threshold(uncertainty)).sum()

    assert kept == -(-number * 4 // 5)


def test_risk_and_coverage_of_each_tone_at_the_joint_threshold_by_hand():
    # IoU .9, .8, .7, .4 and .2; the most uncertain one, of dark skin, is left to people.
    photos = [
        lesion_photo(9, 1, tone="I-II", uncertainty=0.1),
        lesion_photo(8, 2, tone="I-II", uncertainty=0.3),
        lesion_photo(7, 3, tone=None, uncertainty=0.2),
        lesion_photo(4, 6, tone="V-VI", uncertainty=0.4),
        lesion_photo(2, 8, tone="V-VI", uncertainty=0.5),
    ]

    found = coverage_risk_by_tone(pixel_table(photos))

    rows = found["rows"]
    assert tones_of(rows) == tones_of(found["curve"]) == ["all", "I-II", "V-VI"]
    assert [row["n"] for row in rows] == [5, 2, 2]
    assert [row["coverage_at_80"] for row in rows] == [0.8, 1.0, 0.5]
    assert [row["risk_at_80"] for row in rows] == pytest.approx([(0.1 + 0.2 + 0.3 + 0.6) / 4, 0.15, 0.6])
    assert [row["aurc"] for row in rows] == pytest.approx(
        [np.mean([0.1, 0.4 / 2, 0.6 / 3, 1.2 / 4, 2.0 / 5]), np.mean([0.1, 0.15]), np.mean([0.6, 0.7])]
    )
    curve = [(point["coverage"], point["risk"]) for point in found["curve"] if point["skin_tone"] == "V-VI"]
    assert curve == [(0.5, pytest.approx(0.6)), (1.0, pytest.approx(0.7))]


def test_the_risk_of_a_score_is_whether_it_misjudges():
    table = score_table([1, 0, 1, 0], [0.9, 0.2, 0.4, 0.8], uncertainty=[0.1, 0.2, 0.3, 0.4])

    row = row_of(coverage_risk_by_tone(table)["rows"], "all")

    assert row["aurc"] == pytest.approx(np.mean([0, 0, 1 / 3, 2 / 4]))
    assert row["coverage_at_80"] == 1.0
    assert row["risk_at_80"] == 0.5


def test_photos_without_any_lesion_are_left_out():
    empty = {"confidence": [0.9], "said": [0], "truth": [0]}

    found = coverage_risk_by_tone(pixel_table([lesion_photo(1, 1), empty]))

    assert row_of(found["rows"], "all")["n"] == 1
    assert row_of(found["rows"], "all")["aurc"] == 0.5


def test_one_photo_has_a_risk_without_an_interval():
    row = row_of(coverage_risk_by_tone(pixel_table([lesion_photo(3, 1)]))["rows"], "I-II")

    assert (row["n"], row["aurc"], row["coverage_at_80"]) == (1, 0.25, 1.0)
    assert np.isnan([row["low"], row["high"]]).all()


# --- contrast --------------------------------------------------------------------------------------------------------


def test_strata_are_thirds_of_all_photos_by_contrast():
    contrasts = [9.0, 1.0, 5.0, 3.0, 7.0, 2.0]
    tones = ["I-II", "V-VI", "I-II", "V-VI", None, "V-VI"]
    photos = [
        lesion_photo(8, 2 * index, contrast=contrast, tone=tone)
        for index, (contrast, tone) in enumerate(zip(contrasts, tones, strict=True))
    ]

    found = contrast_strata(pixel_table(photos))

    assert found["edges"] == pytest.approx([1, 1 + 5 / 3 - 5 / 3 + 1 + 2 / 3, 5 + 2 / 3, 9])
    assert found["without_contrast"] == 0
    pooled = [row_of(found["rows"], "all", stratum=s, metric="lesion_iou") for s in (1, 2, 3)]
    assert [row["n"] for row in pooled] == [2, 2, 2]
    assert pooled[0]["value"] == pytest.approx(16 / (10 + 18))  # contrasts 1 and 2: photos 1 and 5
    assert pooled[1]["value"] == pytest.approx(16 / (12 + 14))
    per_image = row_of(found["rows"], "all", stratum=1, metric="lesion_iou_per_image")
    assert per_image["value"] == pytest.approx((8 / 10 + 8 / 18) / 2)


def test_a_tone_without_photos_in_a_stratum_says_so():
    photos = [lesion_photo(1, 1, contrast=c, tone=t) for c, t in [(1.0, "V-VI"), (2.0, "V-VI"), (3.0, "I-II")]]

    row = row_of(contrast_strata(pixel_table(photos))["rows"], "V-VI", stratum=3, metric="lesion_iou")

    assert (row["n"], row["flag"]) == (0, "coverage < 90 %")
    assert np.isnan([row["value"], row["low"], row["high"]]).all()


def test_scores_of_a_stratum_are_judged_by_auroc():
    table = random_scores(90).assign(contrast=np.repeat([1.0, 2.0, 3.0], 30))

    rows = contrast_strata(table)["rows"]

    assert {row["metric"] for row in rows} == {"auroc"}
    for stratum in (1, 2, 3):
        part = table[table["contrast"] == stratum]
        expected = roc_auc_score(part["y_true"], part["y_score"])
        assert row_of(rows, "all", stratum=stratum)["value"] == pytest.approx(expected)


def test_a_stratum_without_malignant_photos_has_no_auroc():
    table = score_table([0, 0, 1, 0, 1, 0], [0.1, 0.2, 0.9, 0.3, 0.8, 0.4])

    row = row_of(contrast_strata(table)["rows"], "all", stratum=1)

    assert row["n"] == 2
    assert np.isnan([row["value"], row["low"], row["high"]]).all()


# --- all three -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pixels", "scores"])
def table(request):
    if request.param == "scores":
        return random_scores(45)
    rng = np.random.default_rng(0)
    facts = [{"uncertainty": rng.random(), "contrast": rng.uniform(0, 30)} for _ in range(15)]
    return pixel_table([photo | fact for photo, fact in zip(random_pixels(15), facts, strict=True)])


def test_intervals_hold_the_values(table):
    rows = [(row, "ece") for row in calibration_by_tone(table, table)["rows"]]
    rows += [(row, "aurc") for row in coverage_risk_by_tone(table)["rows"]]
    rows += [(row, "value") for row in contrast_strata(table)["rows"] if row["skin_tone"] == "all"]

    for row, name in rows:
        assert row["low"] < row["high"]
        if name != "ece":  # that of resampled photos is larger
            assert row["low"] <= row[name] <= row["high"]


def test_a_tone_without_photos_has_no_rows_and_unknown_tones_are_in_all_only(table):
    tones = table["skin_tone"].map({"I-II": "I-II", "III-IV": None, "V-VI": None}).astype(object)
    table = table.assign(skin_tone=tones.where(tones.notna(), None))

    for evaluate in (calibration_by_tone, coverage_risk_by_tone, contrast_strata):
        rows = evaluate(table)["rows"]
        assert tones_of(rows) == ["all", "I-II"]
    rows = calibration_by_tone(table)["rows"]
    assert row_of(rows, "all")["n"] == 3 * row_of(rows, "I-II")["n"]


def test_photos_of_a_patient_are_drawn_together():
    table = random_scores(45)

    alone = calibration_by_tone(table)["rows"][0]
    together = calibration_by_tone(table.assign(group_id=[f"patient-{index // 5}" for index in range(45)]))["rows"][0]

    assert alone["ece"] == together["ece"]
    assert (alone["low"], alone["high"]) != (together["low"], together["high"])


def test_rows_go_into_a_report_without_warnings(table, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = {
            "calibration": calibration_by_tone(table, table),
            "coverage_risk": coverage_risk_by_tone(table),
            "contrast": contrast_strata(table),
        }

    write_report(parts, tmp_path / "report.json")

    assert list(read_report(tmp_path / "report.json")) == list(parts)
