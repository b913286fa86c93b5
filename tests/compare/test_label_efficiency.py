"""Methods x label fractions x seeds: made-up methods whose results are known, and FEDD on the tiny backbone."""

from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fedd_hf.compare import label_efficiency
from fedd_hf.compare import run as runs
from fedd_hf.compare.label_efficiency import run_label_efficiency
from fedd_hf.compare.photo_sets import PhotoSets, choose_examples, lesion_areas
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import tone_labels
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.prediction import count_pixels

SKIN = SEGMENTATION_LABELS.index("skin")


class MadeUpMethod:
    """A method that knows the truth, or calls everything skin and benign; a seed may change what it says."""

    tasks = ("segmentation", "classification")

    def __init__(self, name, knows, version=1):
        self.name, self.knows, self.version = name, knows, version
        self.trained = []
        self.allowed = None

    def describe(self, task, label_fraction):
        return {"version": self.version}

    def train(self, run):
        if len(self.trained) == self.allowed:
            raise KeyboardInterrupt
        self.trained.append((run.label_fraction, run.seed, len(run.train)))
        return SimpleNamespace(knows=self.knows(run), config=SimpleNamespace(image_size=32)), None

    def read_features(self, run, photos):
        return None


def draw_map(knows, row):
    mask = np.asarray(row["mask"])
    return mask if knows else np.full_like(mask, SKIN)


@pytest.fixture(autouse=True)
def made_up_predictions(monkeypatch):
    """What is predicted with the model of a made-up method."""

    def segment(model, processor, photos, features=None):
        rows = []
        for row, tone in zip(photos, tone_labels(photos), strict=True):
            counts = count_pixels(np.asarray(row["mask"]), draw_map(model.knows, row), len(SEGMENTATION_LABELS))
            photo = {"image_id": row["image_id"], "group_id": None, "skin_tone": tone}
            rows += [photo | {"label": label} | counts[index] for index, label in enumerate(SEGMENTATION_LABELS)]
        return pd.DataFrame(rows)

    def classify(model, processor, photos, features=None):
        truth = np.array(photos["malignant"], dtype=int)
        scores = np.where(truth == 1, 0.9, 0.1) if model.knows else np.full(len(truth), 0.1)
        table = {"image_id": photos["image_id"][:], "group_id": None, "skin_tone": tone_labels(photos)}
        return pd.DataFrame(table | {"y_true": truth, "y_score": scores})

    monkeypatch.setattr(runs, "predict_segmentation", segment)
    monkeypatch.setattr(runs, "predict_classification", classify)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def photos():
    """Nested training sets of 3 and 6 photos, 6 to validate, tests of 6 and of 12 that hold them."""
    train, test = paint_dataset(2, seed=0, size=32), paint_dataset(4, seed=2, size=32)
    return PhotoSets(
        train={0.05: train.select(range(3)), 0.10: train},
        validation=paint_dataset(2, seed=1, size=32),
        tests={"test": test.select(range(6)), "large_test": test},
    )


@pytest.fixture(scope="module")
def few_photos(photos):
    """The same training sets, 3 photos to validate and one test of 3: statistics take most of the time."""
    return PhotoSets(
        train=photos.train,
        validation=photos.validation.select(range(3)),
        tests={"test": photos.tests["test"].select(range(3))},
    )


@pytest.fixture
def run(photos, tmp_path, accelerator):
    def run(methods, task="segmentation", num_seeds=1, name="run", photos=photos, examples_per_tone=0, **options):
        (tmp_path / name).mkdir(exist_ok=True)
        options = {"num_seeds": num_seeds, "examples_per_tone": examples_per_tone} | options
        return run_label_efficiency(task, methods, photos, tmp_path / name, accelerator, **options)

    return run


@pytest.fixture
def pair():
    """The truth, and a baseline that sees nothing but skin."""
    return [MadeUpMethod("FEDD", knows=lambda run: True), MadeUpMethod("only skin", knows=lambda run: False)]


@pytest.fixture
def without_statistics(monkeypatch):
    """They take most of the time, and are tested apart."""
    nothing = {name: [] for name in ("curves", "differences", "gaps")}
    monkeypatch.setattr(label_efficiency, "measure_curves", lambda *_: nothing)


def one(rows, **found):
    (row,) = (row for row in rows if all(row[name] == value for name, value in found.items()))
    return row


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine", "runs")}


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_methods_have_curves_differences_on_the_same_photos_and_gaps(run, pair, photos):
    report = run(pair)

    found = Counter((row["method"], row["label_fraction"], row["test"]) for row in report["curves"])
    names = ("FEDD", "only skin")
    assert found.keys() == set(product(names, (0.05, 0.10), ("validation", "test", "large_test")))
    of_fedd = {"method": "FEDD", "label_fraction": 0.05, "test": "large_test"}
    row = one(report["curves"], **of_fedd, metric="mean_iou", skin_tone="V-VI")
    assert (row["n"], row["value"], row["seed_std"]) == (4, 1.0, None)
    row = one(report["gaps"], **of_fedd, metric="lesion_iou", reference="I-II", skin_tone="V-VI")
    assert (row["n_reference"], row["n"], row["difference"]) == (4, 4, 0.0)
    truth = np.concatenate([np.asarray(row["mask"]).ravel() for row in photos.tests["test"]])
    row = one(report["differences"], label_fraction=0.1, test="test", metric="mean_iou", skin_tone="all")
    assert row["method"] == "only skin"
    assert row["difference"] == pytest.approx(1 - np.mean(truth == SKIN) / len(np.unique(truth)))
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["p_value"] < 0.05
    assert {row["test"] for row in report["differences"]} == {"test", "large_test"}
    assert report["settings"]["label_fractions"] == {"0.05": 3, "0.1": 6}


def test_scores_have_means_over_seeds_thresholds_and_a_roc_curve(run, photos):
    half_blind = MadeUpMethod("FEDD", knows=lambda run: run.seed == 0)
    photos = replace(photos, train={0.05: photos.train[0.05]}, tests={"test": photos.tests["test"]})

    report = run([half_blind], task="classification", num_seeds=2, photos=photos)

    row = one(report["curves"], test="test", metric="auroc", skin_tone="all")
    assert row["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert row["seed_std"] == pytest.approx(np.std([1.0, 0.5], ddof=1))
    assert report["choices"][0]["validation_youden"] == pytest.approx(0.5)
    metrics = {test: {row["metric"] for row in report["curves"] if row["test"] == test} for test in photos.scored}
    assert {"accuracy", "accuracy_validation_youden", "accuracy_test_youden"} <= metrics["test"]
    assert "accuracy_validation_youden" not in metrics["validation"]
    (row,) = report["roc"]
    assert (row["fpr"], row["tpr"]) == ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_statistics")
def test_a_run_that_was_interrupted_resumes_with_the_next_training(run, pair, few_photos):
    wanted = run(pair, name="whole", photos=few_photos)
    interrupted = [MadeUpMethod("FEDD", knows=lambda run: True), MadeUpMethod("only skin", knows=lambda run: False)]
    interrupted[1].allowed = 1
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, name="interrupted", photos=few_photos)
    interrupted[1].allowed = None

    report = run(interrupted, name="interrupted", photos=few_photos)

    assert [method.trained for method in interrupted] == [[(0.05, 0, 3), (0.1, 0, 6)]] * 2
    assert without_times(report) == without_times(wanted)


@pytest.mark.usefixtures("without_statistics")
def test_the_time_left_is_told_once_every_method_was_trained(run, pair, few_photos, capsys):
    run(pair, num_seeds=2, photos=few_photos)

    assert "6 trainings are left: at most about 0.0 hours on a machine like this." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "different names"),
        ({"methods": ["FEDD", "FEDD"]}, "different names"),
        ({"task": "malignancy"}, "`task` must be one of"),
        ({"num_seeds": 0}, "`num_seeds` must be at least 1"),
        ({"examples_per_tone": -1}, "`examples_per_tone` must not be negative"),
    ],
)
def test_what_cannot_be_compared_is_refused(run, change, message):
    names = change.pop("methods", ["FEDD"])

    with pytest.raises(ValueError, match=message):
        run([MadeUpMethod(name, knows=lambda run: True) for name in names], **change)


@pytest.mark.usefixtures("without_statistics")
def test_what_is_finished_is_read_again_and_other_seeds_methods_or_arguments_are_trained_beside_it(
    run, pair, few_photos, tmp_path
):
    run(pair[:1], photos=few_photos)

    report = run(pair, num_seeds=2, photos=few_photos)

    assert pair[0].trained == [(0.05, 0, 3), (0.1, 0, 6), (0.05, 1, 3), (0.1, 1, 6)]
    assert len(report["runs"]) == 8
    other = MadeUpMethod("FEDD", knows=lambda run: False, version=2)
    changed = run([other], photos=few_photos)
    assert len(other.trained) == 2
    paths = [[row["predictions_path"] for row in told["runs"][:1]] for told in (report, changed)]
    assert paths[0] != paths[1]
    assert set(pd.read_parquet(tmp_path / "run" / paths[0][0])["image_id"]) == set(few_photos.photos["image_id"])


# --- examples --------------------------------------------------------------------------------------------------------


def test_examples_are_chosen_by_the_area_of_the_lesion():
    photos = paint_dataset(5, seed=4, size=32)

    chosen = choose_examples(photos, per_tone=1)

    areas = dict(zip(photos["image_id"], lesion_areas(photos), strict=True))
    tones = np.array(tone_labels(photos))
    for name, tone in zip(chosen["image_id"], tone_labels(chosen), strict=True):
        of_tone = sorted(areas[photo] for photo in np.array(photos["image_id"])[tones == tone])
        assert areas[name] == of_tone[3]  # the fourth of five
