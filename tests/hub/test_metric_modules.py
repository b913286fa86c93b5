"""The metrics of hub_cards/metrics, loaded by path as users of `evaluate` load them, say what fedd_hf says."""

from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
import pytest
from card_rules import check_card

from fedd_hf.evaluation.by_tone import (
    classification_by_tone,
    classification_gaps,
    segmentation_by_tone,
    segmentation_gaps,
)
from fedd_hf.hub.cards import render_metric_pages
from fedd_hf.labels import SkinTone
from fedd_hf.prediction import count_pixels

METRICS = Path(__file__).parents[2] / "hub_cards" / "metrics"
TONES = [tone.label for tone in SkinTone]
LABELS = ["background", "lesion", "skin"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture
def load(cache):
    return lambda name: evaluate.load(str(METRICS / name), cache_dir=str(cache))


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, (9, 6, 7), dtype=np.uint8)
    predicted = np.where(rng.random(true.shape) < 0.7, true, rng.integers(0, 3, true.shape)).astype(np.uint8)
    true[0, 0] = 255
    return predicted, true


def rows_of(table):
    return table.astype(object).where(table.notna(), None).to_dict("records")


def same_rows(found, expected):
    return rows_of(pd.DataFrame(found)) == rows_of(expected)


def test_mean_iou_by_group_is_that_of_the_package(load, maps):
    predicted, true = maps

    result = load("mean_iou_by_group").compute(
        predictions=predicted.tolist(), references=true.tolist(), groups=TONES * 3, labels=LABELS
    )

    counts = [
        {"image_id": f"{number:08d}", "skin_tone": tone, "label": label} | of_class
        for number, tone in enumerate(TONES * 3)
        for label, of_class in zip(LABELS, count_pixels(true[number], predicted[number], 3), strict=True)
    ]
    assert same_rows(result["by_group"], segmentation_by_tone(pd.DataFrame(counts)))
    assert same_rows(result["gaps"], segmentation_gaps(pd.DataFrame(counts)))


def test_photos_of_unknown_tone_count_in_all_alone(load, maps):
    predicted, true = maps

    result = load("mean_iou_by_group").compute(
        predictions=predicted.tolist(), references=true.tolist(), groups=["I-II"] * 4 + [""] * 5, labels=LABELS
    )

    of_mean = {row["skin_tone"]: row["n"] for row in result["by_group"] if row["metric"] == "mean_iou"}
    assert of_mean == {"all": 9, "I-II": 4, "mean of tones": 4}


def test_classification_by_group_is_that_of_the_package(load):
    rng = np.random.default_rng(1)
    references, predictions = rng.integers(0, 2, 30).tolist(), rng.random(30).tolist()

    result = load("classification_by_group").compute(predictions=predictions, references=references, groups=TONES * 10)

    names = [f"{number:08d}" for number in range(30)]
    table = pd.DataFrame({"image_id": names, "skin_tone": TONES * 10, "y_true": references, "y_score": predictions})
    assert same_rows(result["by_group"], classification_by_tone(table))
    assert same_rows(result["gaps"], classification_gaps(table))


def test_a_mask_of_another_size_is_refused(load):
    with pytest.raises(ValueError, match="one size"):
        load("mean_iou_by_group").compute(
            predictions=[[[0, 1]]], references=[[[0, 1], [1, 1]]], groups=["I-II"], labels=LABELS
        )


@pytest.mark.parametrize("name", sorted(path.name for path in METRICS.iterdir()))
def test_the_card_of_a_metric_follows_the_rules_of_the_hub(load, name):
    metric = load(name)
    parts = ("description", "inputs_description", "citation")
    assert "Args:" in metric.inputs_description
    assert "Returns:" in metric.inputs_description
    told = {"repo_id": f"fedd/{name}"} | {part: getattr(metric, part) for part in parts}

    card, _ = render_metric_pages(metric.name.replace("_", " "), told)

    assert check_card(card, "space", [f"{name}.py", "index.html"]) == []
