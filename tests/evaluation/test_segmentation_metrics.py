import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

from fedd_hf.evaluation.segmentation import dice, iou, mean_iou, stack_counts

NAMES = ["tp", "fp", "fn", "tn"]


def counts_of(truth, said, num_labels=5):
    """Counts of shape (num_labels, 4), one class after the other."""
    return np.array(
        [
            [
                ((truth == label) & (said == label)).sum(),
                ((truth != label) & (said == label)).sum(),
                ((truth == label) & (said != label)).sum(),
                ((truth != label) & (said != label)).sum(),
            ]
            for label in range(num_labels)
        ]
    )


@pytest.fixture
def maps():
    """Truth and prediction of four images, right in about half of the pixels."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (4, 30, 20))
    said = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 5, truth.shape))
    return truth, said


def test_iou_and_dice_of_two_pixels_by_hand():
    truth, said = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 0]])

    counts = counts_of(truth, said, num_labels=2)

    assert iou(counts).tolist() == pytest.approx([2 / 3, 1 / 2])
    assert dice(counts).tolist() == pytest.approx([4 / 5, 2 / 3])
    assert mean_iou(counts[None]) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_iou_is_that_of_scikit_learn(maps):
    truth, said = maps

    values = iou(counts_of(truth, said))

    assert values.tolist() == pytest.approx(jaccard_score(truth.flatten(), said.flatten(), average=None).tolist())


def test_iou_is_that_of_torchmetrics(maps):
    truth, said = map(torch.from_numpy, maps)

    values = iou(counts_of(*maps))

    expected = MulticlassJaccardIndex(num_classes=5, average="none")(said, truth)
    assert values.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_dice_is_the_f1_of_scikit_learn_and_torchmetrics(maps):
    truth, said = maps

    values = dice(counts_of(truth, said))

    assert values.tolist() == pytest.approx(f1_score(truth.flatten(), said.flatten(), average=None).tolist())
    expected = MulticlassF1Score(num_classes=5, average="none")(*map(torch.from_numpy, (said, truth)))
    assert values.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_mean_iou_pools_pixels_and_does_not_average_images():
    """A large image that is all wrong and a small one that is all right."""
    large = counts_of(np.zeros((10, 10), int), np.ones((10, 10), int), num_labels=2)
    small = counts_of(np.array([[0, 1]]), np.array([[0, 1]]), num_labels=2)

    value = mean_iou(np.stack([large, small]))

    assert value == pytest.approx((1 / 101 + 1 / 101) / 2)
    assert np.mean([mean_iou(large[None]), mean_iou(small[None])]) == pytest.approx(0.5)


def test_mean_iou_is_that_of_all_pixels_together(maps):
    truth, said = maps

    value = mean_iou(np.stack([counts_of(*pair) for pair in zip(truth, said, strict=True)]))

    assert value == pytest.approx(jaccard_score(truth.flatten(), said.flatten(), average="macro"))


def test_a_class_that_is_neither_there_nor_predicted_is_nan_and_left_out_of_the_mean():
    truth, said = np.array([[1, 1, 4, 4]]), np.array([[1, 4, 4, 4]])

    counts = counts_of(truth, said)

    assert np.isnan(iou(counts)).tolist() == [True, False, True, True, False]
    assert np.isnan(dice(counts)).tolist() == [True, False, True, True, False]
    assert mean_iou(counts[None]) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_class_that_is_only_predicted_or_only_there_scores_0():
    counts = counts_of(np.array([[1, 1]]), np.array([[4, 4]]))

    assert iou(counts)[[1, 4]].tolist() == [0.0, 0.0]
    assert dice(counts)[[1, 4]].tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("error")
def test_images_without_a_pixel_that_counts_have_no_mean_iou():
    assert np.isnan(mean_iou(np.zeros((2, 5, 4), int)))


def test_counts_are_stacked_by_image_and_class():
    rows = [
        {"image_id": image, "label": label, **dict(zip(NAMES, [10 * i + j, 1, 2, 3], strict=True))}
        for i, image in enumerate(["b", "a"])
        for j, label in enumerate(["skin", "lesion", "background"])
    ]

    labels, counts = stack_counts(pd.DataFrame(rows))

    assert labels == ["skin", "lesion", "background"]
    assert counts.shape == (2, 3, 4)
    assert sorted(counts[:, :, 0].tolist()) == [[0, 1, 2], [10, 11, 12]]


def test_the_order_of_the_rows_does_not_matter():
    """A table that was sorted, filtered or joined on the way must not mix classes."""
    rng = np.random.default_rng(1)
    rows = [
        {"image_id": f"{image}", "label": label, **dict(zip(NAMES, rng.integers(0, 99, 4), strict=True))}
        for image in range(5)
        for label in ("background", "lesion", "skin")
    ]
    table = pd.DataFrame(rows)
    shuffled = table.sample(frac=1, random_state=0)

    labels, counts = stack_counts(shuffled)

    for index, label in enumerate(labels):
        expected = table.loc[table["label"] == label, NAMES].sum().tolist()
        assert counts[:, index].sum(axis=0).tolist() == expected
    images = sorted(image[np.argsort(labels)].tolist() for image in counts)
    assert images == sorted(table[NAMES].to_numpy().reshape(5, 3, 4).tolist())
