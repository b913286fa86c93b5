import numpy as np
import pandas as pd
import pytest

from fedd_hf.evaluation.segmentation import COUNTS, dice, iou, segmentation_metrics

LABELS = ["background", "lesion", "skin"]


def counts_of(truth, said, num_labels=3):
    """Counts of shape (num_labels, 4), one class after the other."""
    truth, said = np.asarray(truth), np.asarray(said)
    classes = [(truth == label, said == label) for label in range(num_labels)]
    cells = [(t & s, ~t & s, t & ~s, ~t & ~s) for t, s in classes]
    return np.array([[cell.sum() for cell in of_class] for of_class in cells])


def table_of(*photos):
    """Predictions table of pairs of maps: truth, prediction."""
    return pd.DataFrame(
        [
            {"image_id": f"{index}", "label": label, **dict(zip(COUNTS, of_class.tolist(), strict=True))}
            for index, pair in enumerate(photos)
            for label, of_class in zip(LABELS, counts_of(*pair), strict=True)
        ]
    )


def values_of(table, weights=None):
    """Every metric of a table, of photos as they are or with weights."""
    weights = np.ones(table["image_id"].nunique()) if weights is None else np.array(weights, dtype=float)
    return {name: metric(weights[None]).item() for name, metric in segmentation_metrics(table).items()}


# Lesion of 2 pixels, all found, beside skin; lesion of 4 pixels, of which 1 is found and the rest is called skin.
SMALL_AND_RIGHT = [1, 1, 2, 2], [1, 1, 2, 2]
LARGE_AND_MISSED = [1, 1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 2, 2, 2, 2]


def test_every_metric_of_two_photos_by_hand():
    values = values_of(table_of(SMALL_AND_RIGHT, LARGE_AND_MISSED))

    # pooled: lesion tp 3, fp 0, fn 3; skin tp 6, fp 3, fn 0
    assert values.pop("iou_lesion") == values["lesion_iou"] == pytest.approx(3 / 6)
    assert values.pop("dice_lesion") == values["lesion_dice"] == pytest.approx(6 / 9)
    assert values.pop("iou_skin") == pytest.approx(6 / 9)
    assert values.pop("dice_skin") == pytest.approx(12 / 15)
    assert np.isnan([values.pop("iou_background"), values.pop("dice_background")]).all()
    assert values == pytest.approx(
        {
            "lesion_iou": 3 / 6,
            "lesion_dice": 6 / 9,
            "mean_iou": (3 / 6 + 6 / 9) / 2,
            "mean_dice": (6 / 9 + 12 / 15) / 2,
            # one by one: 1 and 1; lesion 1 / 4, skin 4 / 7
            "lesion_iou_per_image": (1 + 1 / 4) / 2,
            "lesion_dice_per_image": (1 + 2 / 5) / 2,
            "mean_iou_per_image": (1 + (1 / 4 + 4 / 7) / 2) / 2,
        }
    )


def test_a_class_that_is_neither_there_nor_predicted_is_nan_and_left_out_of_the_mean():
    truth, said = [1, 1, 2, 2], [1, 2, 2, 2]

    assert np.isnan(iou(counts_of(truth, said))).tolist() == [True, False, False]
    assert np.isnan(dice(counts_of(truth, said))).tolist() == [True, False, False]
    assert values_of(table_of((truth, said)))["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert values_of(table_of((truth, said)))["mean_iou_per_image"] == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.filterwarnings("error")
def test_photos_without_any_lesion_have_no_lesion_metric_but_a_mean_over_classes():
    values = values_of(table_of(([0, 2, 2, 0], [0, 2, 0, 0]), ([0, 2], [0, 2])))

    undefined = [name for name, value in values.items() if np.isnan(value)]
    assert sorted(undefined) == sorted(
        ["lesion_iou", "lesion_dice", "lesion_iou_per_image", "lesion_dice_per_image", "iou_lesion", "dice_lesion"]
    )
    assert values["mean_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_a_model_without_a_lesion_class_has_no_lesion_metric():
    table = table_of(SMALL_AND_RIGHT)

    metrics = segmentation_metrics(table[table["label"] != "lesion"])

    assert list(metrics) == [
        "mean_iou", "mean_dice", "mean_iou_per_image", "iou_background", "dice_background", "iou_skin", "dice_skin"
    ]  # fmt: skip


def test_a_photo_that_lacks_a_class_is_named():
    table = table_of(SMALL_AND_RIGHT, LARGE_AND_MISSED).drop(index=4)

    with pytest.raises(ValueError, match=r"1 photos lack the counts of some class: \['1'\].*background, lesion, skin"):
        segmentation_metrics(table)
