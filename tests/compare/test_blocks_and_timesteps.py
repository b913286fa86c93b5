"""The grid of blocks, timesteps and label fractions, on painted photos and the tiny backbone."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fedd_hf import features as feature_store
from fedd_hf.compare import blocks_and_timesteps
from fedd_hf.compare.blocks_and_timesteps import (
    BLOCKS,
    TIMESTEPS,
    choose_points,
    compare_pixel_features,
    measure_regret,
    open_backbone,
    run_grid,
    tabulate_accuracies,
    tabulate_choices,
)
from fedd_hf.compare.photo_sets import PhotoSets, draw_labelled
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.report import read_report
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments

FEW_EPOCHS = ClassificationArguments(max_epochs=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def train():
    """Painted photos: 10 of each tone and kind."""
    return paint_dataset(20, seed=0, size=32)


@pytest.fixture(scope="module")
def test():
    """Painted photos: 2 of each tone and kind."""
    return paint_dataset(4, seed=2, size=32)


@pytest.fixture(scope="module")
def photos(train, test):
    """30 and 60 painted photos to train, 12 to validate and 12 to test."""
    labelled = {fraction: train.select(draw_labelled(train, fraction)) for fraction in (0.05, 0.10)}
    return PhotoSets(train=labelled, validation=paint_dataset(4, seed=1, size=32), tests={"test": test})


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Of features, which are filled up to one size."""
    monkeypatch.setattr(feature_store, "default_batch_size", lambda image_size: 6)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def make_reading(tiny_backbone):
    def make(**fields):
        given = {"blocks": [4, 6], "timesteps": [0, 1000], "image_size": 64} | fields
        return ReadingArguments(backbone=str(tiny_backbone), **given)

    return make


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder of feature stores that all grids share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def run(photos, make_reading, features, tmp_path, accelerator):
    """Run a grid of 2 blocks, 2 timesteps and 2 label fractions into a folder."""

    def run(name="grid", num_seeds=2, training=FEW_EPOCHS, photos=photos, **reading):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return run_grid(photos, make_reading(**reading), training, num_seeds, folder, features, accelerator)

    return run


@pytest.fixture
def trainings(monkeypatch):
    """Number of classifiers in each training; with `allowed`, the next one after so many is an interrupt."""
    record = {"sizes": [], "allowed": None}
    train = blocks_and_timesteps.train_classifiers

    def train_or_interrupt(classifier, seen, unseen, seeds, *others):
        if len(record["sizes"]) == record["allowed"]:
            raise KeyboardInterrupt
        record["sizes"].append(len(seeds))
        return train(classifier, seen, unseen, seeds, *others)

    monkeypatch.setattr(blocks_and_timesteps, "train_classifiers", train_or_interrupt)
    return record


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine")}


# --- the grid --------------------------------------------------------------------------------------------------------


def test_the_grid_is_that_of_figure_6():
    assert BLOCKS == [2, 4, 6, 8, 10, 12, 14]
    assert len(TIMESTEPS) == 21
    assert (TIMESTEPS[0], TIMESTEPS[1], TIMESTEPS[-1]) == (0, 50, 1000)


def test_a_point_is_scored_with_the_features_of_its_own_block_and_timestep(run, monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def only_the_last_is_informative(files):
        labels = torch.arange(len(files)) // 3 % 2  # of painted photos, in each split
        pooled = torch.randn(len(files), 4, 512, generator=generator)
        pooled[:, -1] += 3 * labels[:, None]
        return pooled

    monkeypatch.setattr(feature_store, "read_pooled", only_the_last_is_informative)

    report = run()

    aurocs = {(row["label_fraction"], row["timestep"], row["block"]): row["auroc"] for row in report["points"]}
    informative = {point for point, value in aurocs.items() if value == 1.0}
    assert informative == {(0.05, 1000, 6), (0.10, 1000, 6)}
    assert [(row["timestep"], row["block"]) for row in report["best"]] == [(1000, 6)] * 2


# --- resume ----------------------------------------------------------------------------------------------------------


def test_a_grid_that_was_interrupted_after_a_label_fraction_ends_in_the_same_report(run, trainings):
    wanted = run("whole")
    trainings["sizes"].clear()
    trainings["allowed"] = 1
    with pytest.raises(KeyboardInterrupt):
        run("interrupted")
    trainings["allowed"] = None

    report = run("interrupted")

    assert trainings["sizes"] == [8, 8]  # one before the interrupt, one after it
    assert without_times(report) == without_times(wanted)


# --- choice ----------------------------------------------------------------------------------------------------------


def point(label_fraction, block, validation_auroc, validation_loss, auroc=0.5):
    return {
        "label_fraction": label_fraction,
        "block": block,
        "validation_auroc": validation_auroc,
        "validation_loss": validation_loss,
        "auroc": auroc,
    }


def scores_of(is_malignant, wrong, seeds=1):
    """Scores of one point, of which the first so many are wrong."""
    scores = np.where(is_malignant, 0.9, 0.1)
    return [np.where(np.arange(len(scores)) < wrong, 1 - scores, scores).tolist()] * seeds


def test_regret_is_what_the_choice_on_validation_costs_on_the_same_test_photos(test):
    is_malignant = np.array(test["malignant"])
    points = [point(0.05, 2, 0.9, 0.5), point(0.05, 4, 0.8, 0.5), point(0.05, 6, 0.7, 0.5)]
    points = [row | {"timestep": 0} for row in points]

    rows = measure_regret(points, [scores_of(is_malignant, wrong) for wrong in (5, 6, 1)], test)

    (accuracy,) = (row for row in rows if row["metric"] == "accuracy")
    assert (accuracy["block"], accuracy["best_block"]) == (2, 6)
    assert accuracy["value"] == pytest.approx(7 / 12)
    assert accuracy["best_value"] == pytest.approx(11 / 12)
    assert accuracy["regret"] == pytest.approx(4 / 12)
    assert accuracy["low"] < 4 / 12 < accuracy["high"]
    assert accuracy["p_value"] < 0.05


def test_regret_is_a_mean_over_seeds(test):
    is_malignant = np.array(test["malignant"])
    points = [point(0.05, 2, 0.9, 0.5) | {"timestep": 0}, point(0.05, 4, 0.8, 0.5) | {"timestep": 50}]
    half = scores_of(is_malignant, 0) + scores_of(is_malignant, 6)

    rows = measure_regret(points, [half, scores_of(is_malignant, 0, seeds=2)], test)

    assert rows[0]["value"] == pytest.approx((12 / 12 + 6 / 12) / 2)
    assert (rows[0]["best_block"], rows[0]["best_timestep"], rows[0]["best_value"]) == (4, 50, 1.0)


def test_a_grid_scores_every_block_timestep_and_label_fraction(run, trainings, tmp_path):
    report = run()

    points = {(row["label_fraction"], row["timestep"], row["block"]): row for row in report["points"]}
    assert list(points) == [(fraction, t, block) for fraction in (0.05, 0.1) for t in (0, 1000) for block in (4, 6)]
    assert [row["photos"] for row in report["points"]] == [30] * 4 + [60] * 4
    assert trainings["sizes"] == [8, 8]  # all points and seeds of a fraction at once
    for row in report["points"]:
        for metric in ("accuracy", "balanced_accuracy", "auroc", "validation_auroc"):
            assert 0 <= row[metric] <= 1
            assert row[f"{metric}_std"] >= 0
        assert 1 <= row["epochs"] <= 4
    assert max(row["validation_loss_std"] for row in report["points"]) > 1e-3  # seeds differ
    assert read_report(tmp_path / "grid" / "report.json") == report
    paper = [(row["label_fraction"], row["block"], row["timestep"]) for row in report["paper"]]
    assert paper == [(0.05, 4, 0), (0.10, 6, 0)]
    for row in report["regret"]:
        chosen = points[row["label_fraction"], row["timestep"], row["block"]][row["metric"]]
        best = max(point[row["metric"]] for key, point in points.items() if key[0] == row["label_fraction"])
        assert (row["value"], row["best_value"], row["regret"]) == pytest.approx((chosen, best, best - chosen))
    choices, accuracies = tabulate_choices(report), tabulate_accuracies(report)
    assert "| 5% | 30 | validation |" in choices
    assert "| 5% | 30 | the paper | 4 | 0 |" in choices
    assert accuracies.count("| 1000 |") == 2
    assert "| t | block 4 | block 6 |" in accuracies


def test_other_arguments_are_computed_beside_those_that_are_there(run, trainings):
    report = run(num_seeds=1)

    assert {row["accuracy_std"] for row in report["points"]} == {None}
    assert "±" not in tabulate_accuracies(report)
    run(num_seeds=2)
    assert without_times(run(num_seeds=1)) == without_times(report)
    assert trainings["sizes"] == [4, 4, 8, 8]
    with pytest.raises(ValueError, match="`num_seeds` must be at least 1"):
        run(num_seeds=0)


def test_by_default_a_grid_reads_the_papers_blocks_that_can_be_pooled_at_21_timesteps(make_reading):
    config = open_backbone(make_reading(blocks=None, timesteps=None)).config

    assert config.blocks == [2, 4, 6, 8]
    assert config.timesteps == [*range(0, 1000, 50), 999]  # the paper's 1000
    with pytest.raises(ValueError, match="too small to pool"):
        open_backbone(make_reading(blocks=[0, 4]))


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([point(0.05, 2, 0.9, 0.5, auroc=0.1), point(0.05, 4, 0.8, 0.1, auroc=1.0), point(0.1, 4, 0.6, 0.6)], [2, 4]),
        ([point(0.05, 2, 1.0, 0.5), point(0.05, 4, 1.0, 0.3), point(0.05, 6, 0.9, 0.1)], [4]),
        ([point(0.05, 2, None, 0.5), point(0.05, 4, None, 0.3)], [4]),
    ],
    ids=["validation, whatever test says", "the loss of equal AUROCs", "the loss, of one class"],
)
def test_validation_chooses(points, chosen):
    assert [row["block"] for row in choose_points(points)] == chosen


def test_sets_of_blocks_are_compared_on_their_own_features(tiny_backbone, tmp_path, accelerator):
    train, validation = paint_dataset(2, seed=0, size=32), paint_dataset(1, seed=1, size=32)
    arguments = SegmentationArguments(num_steps=3, images_per_step=3, pixels_per_image=50)

    rows = list(
        compare_pixel_features(
            str(tiny_backbone), [[4], [4, 6]], [50], 32, train, validation, arguments, tmp_path, accelerator
        )
    )

    assert [(row["blocks"], row["timestep"]) for row in rows] == [([4], 50), ([4, 6], 50)]
    assert all(0 <= row["mean_iou"] <= 1 for row in rows)
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 9  # one file for each photo, whatever is read of it
