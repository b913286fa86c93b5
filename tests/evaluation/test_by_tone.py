import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import jaccard_score, roc_auc_score

from fedd_hf.evaluation.by_tone import classification_by_tone, segmentation_by_tone
from fedd_hf.skin_tone import SkinTone

TONES = [tone.label for tone in SkinTone]
COLUMNS = ["metric", "skin_tone", "n", "value", "low", "high"]


def segmentation_table(maps, tones):
    """Predictions table of pairs of maps (truth, prediction) with the classes background, lesion, skin."""
    rows = []
    for index, ((truth, said), tone) in enumerate(zip(maps, tones, strict=True)):
        for label, name in enumerate(["background", "lesion", "skin"]):
            is_true, is_said = np.asarray(truth) == label, np.asarray(said) == label
            counts = {
                "tp": int((is_true & is_said).sum()),
                "fp": int((~is_true & is_said).sum()),
                "fn": int((is_true & ~is_said).sum()),
                "tn": int((~is_true & ~is_said).sum()),
            }
            rows.append({"image_id": f"{index}", "skin_tone": tone, "label": name, **counts, "uncertainty": 0.1})
    return pd.DataFrame(rows)


def classification_table(tones, y_true, y_score):
    return pd.DataFrame(
        {"image_id": [f"{index}" for index in range(len(tones))], "skin_tone": tones}
        | {"y_true": y_true, "y_score": y_score}
    )


def value_of(table, metric, tone, column="value"):
    (value,) = table.loc[(table["metric"] == metric) & (table["skin_tone"] == tone), column]
    return value


@pytest.fixture
def random_maps():
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 3, (12, 10, 10))
    return [(truth, np.where(rng.random((10, 10)) < 0.6, truth, rng.integers(0, 3, (10, 10)))) for truth in truths]


def test_segmentation_of_two_images_by_hand():
    right, half = ([1, 1, 2, 2], [1, 1, 2, 2]), ([1, 1, 2, 2], [1, 2, 2, 2])

    table = segmentation_by_tone(segmentation_table([right, half], ["I-II", "V-VI"]))

    assert value_of(table, "lesion_iou", "I-II") == 1.0
    assert value_of(table, "lesion_iou", "V-VI") == pytest.approx(1 / 2)
    assert value_of(table, "lesion_iou", "all") == pytest.approx(3 / 4)
    assert value_of(table, "lesion_dice", "V-VI") == pytest.approx(2 / 3)
    assert value_of(table, "lesion_dice", "all") == pytest.approx(6 / 7)
    assert value_of(table, "mean_iou", "V-VI") == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert value_of(table, "mean_iou", "all") == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_values_pool_the_pixels_of_a_group(random_maps):
    tones = ["I-II", "III-IV", "V-VI"] * 4

    table = segmentation_by_tone(segmentation_table(random_maps, tones))

    for tone in ("all", *TONES):
        pairs = [pair for pair, of in zip(random_maps, tones, strict=True) if tone in ("all", of)]
        truth, said = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
        assert value_of(table, "mean_iou", tone) == pytest.approx(jaccard_score(truth, said, average="macro"))
        lesion = jaccard_score(truth == 1, said == 1)
        assert value_of(table, "lesion_iou", tone) == pytest.approx(lesion)
        assert value_of(table, "lesion_dice", tone) == pytest.approx(2 * lesion / (1 + lesion))


def test_rows_are_all_images_first_and_then_the_tones_in_their_order(random_maps):
    table = segmentation_by_tone(segmentation_table(random_maps, ["V-VI", "III-IV", "I-II"] * 4))

    assert list(table) == COLUMNS
    assert table["skin_tone"].tolist() == [tone for tone in ("all", *TONES) for _ in range(3)]
    assert table["metric"].tolist() == ["mean_iou", "lesion_iou", "lesion_dice"] * 4


def test_every_number_says_of_how_many_images_it_is(random_maps):
    tones = ["I-II"] * 7 + ["V-VI"] * 3 + [None] * 2

    table = segmentation_by_tone(segmentation_table(random_maps, tones))

    assert {tone: value_of(table, "mean_iou", tone, "n") for tone in ("all", "I-II", "V-VI")} == {
        "all": 12,
        "I-II": 7,
        "V-VI": 3,
    }


def test_images_without_a_tone_count_only_overall(random_maps):
    with_tone = segmentation_by_tone(segmentation_table(random_maps[:6], ["I-II"] * 6))

    table = segmentation_by_tone(segmentation_table(random_maps, ["I-II"] * 6 + [None] * 6))

    assert table["skin_tone"].unique().tolist() == ["all", "I-II"]
    assert value_of(table, "mean_iou", "I-II") == value_of(with_tone, "mean_iou", "I-II")
    assert value_of(table, "mean_iou", "all") != value_of(with_tone, "mean_iou", "all")


def test_intervals_contain_their_values_and_come_out_the_same_again(random_maps):
    predictions = segmentation_table(random_maps, ["I-II", "III-IV", "V-VI"] * 4)

    table = segmentation_by_tone(predictions)

    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    pd.testing.assert_frame_equal(segmentation_by_tone(predictions), table)


def test_a_single_image_of_a_tone_has_a_value_and_no_interval(random_maps):
    table = segmentation_by_tone(segmentation_table(random_maps, ["I-II"] * 11 + ["V-VI"]))

    row = table[(table["metric"] == "lesion_iou") & (table["skin_tone"] == "V-VI")].iloc[0]
    assert row["n"] == 1
    assert np.isfinite(row["value"])
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


def test_a_tone_without_any_lesion_pixel_has_no_lesion_iou():
    no_lesion = ([0, 2, 2, 0], [0, 2, 0, 0])
    lesion = ([1, 1, 2, 0], [1, 2, 2, 0])

    table = segmentation_by_tone(segmentation_table([no_lesion] * 3 + [lesion] * 3, ["I-II"] * 3 + ["V-VI"] * 3))

    assert np.isnan(value_of(table, "lesion_iou", "I-II"))
    assert value_of(table, "mean_iou", "I-II") == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert value_of(table, "lesion_iou", "V-VI") == pytest.approx(1 / 2)


def test_auroc_of_each_tone_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    tones, y_true, y_score = TONES * 20, rng.integers(0, 2, 60), rng.random(60)

    table = classification_by_tone(classification_table(tones, y_true, y_score))

    assert value_of(table, "auroc", "all") == pytest.approx(roc_auc_score(y_true, y_score))
    for index, tone in enumerate(TONES):
        assert value_of(table, "auroc", tone) == pytest.approx(roc_auc_score(y_true[index::3], y_score[index::3]))


def test_malignancy_of_four_images_by_hand():
    table = classification_by_tone(
        classification_table(["I-II"] * 4, y_true=[0, 0, 1, 1], y_score=[0.1, 0.7, 0.6, 0.9])
    )

    assert value_of(table, "auroc", "I-II") == pytest.approx(3 / 4)
    assert value_of(table, "balanced_accuracy", "I-II") == pytest.approx(3 / 4)
    assert value_of(table, "auroc", "I-II", "n") == 4


def test_a_tone_without_a_malignant_photo_has_no_auroc_but_is_shown():
    rng = np.random.default_rng(2)
    tones = ["I-II"] * 10 + ["V-VI"] * 10
    y_true = [0, 1] * 5 + [0] * 10

    table = classification_by_tone(classification_table(tones, y_true, rng.random(20)))

    for metric in ("auroc", "balanced_accuracy"):
        assert np.isnan(value_of(table, metric, "V-VI"))
        assert np.isnan(value_of(table, metric, "V-VI", "low"))
        assert value_of(table, metric, "V-VI", "n") == 10


def test_a_tone_with_one_malignant_photo_has_a_value_and_no_interval():
    rng = np.random.default_rng(3)

    table = classification_by_tone(classification_table(["V-VI"] * 9, [1] + [0] * 8, rng.random(9)))

    assert np.isfinite(value_of(table, "auroc", "V-VI"))
    assert np.isnan(value_of(table, "auroc", "V-VI", "low"))


def test_malignancy_intervals_contain_their_values():
    rng = np.random.default_rng(4)
    y_true = rng.integers(0, 2, 90)

    table = classification_by_tone(classification_table(TONES * 30, y_true, rng.random(90) + 0.3 * y_true))

    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
