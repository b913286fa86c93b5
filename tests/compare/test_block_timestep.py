"""The grid of blocks, timesteps and label fractions, on painted photos and the tiny backbone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fedd_hf import features as feature_store
from fedd_hf.compare import block_timestep
from fedd_hf.compare.block_timestep import (
    BLOCKS,
    TIMESTEPS,
    GridArguments,
    choose_points,
    measure_regret,
    open_backbone,
    run_grid,
    tabulate_accuracies,
    tabulate_choices,
)
from fedd_hf.compare.photo_sets import PhotoSets, draw_labelled
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.report import read_report
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments

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
        grid = GridArguments(num_seeds=num_seeds)
        return run_grid(photos, make_reading(**reading), training, grid, folder, features, accelerator)

    return run


@pytest.fixture
def trainings(monkeypatch):
    """Number of classifiers in each training; with `allowed`, the next one after so many is a kill."""
    record = {"sizes": [], "allowed": None}
    train = block_timestep.train_classifiers

    def train_or_die(classifier, seen, unseen, seeds, *others):
        if len(record["sizes"]) == record["allowed"]:
            raise KeyboardInterrupt
        record["sizes"].append(len(seeds))
        return train(classifier, seen, unseen, seeds, *others)

    monkeypatch.setattr(block_timestep, "train_classifiers", train_or_die)
    return record


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine")}


# --- the grid --------------------------------------------------------------------------------------------------------


def test_the_grid_is_that_of_figure_6():
    assert BLOCKS == [2, 4, 6, 8, 10, 12, 14]
    assert len(TIMESTEPS) == 21
    assert (TIMESTEPS[0], TIMESTEPS[1], TIMESTEPS[-1]) == (0, 50, 1000)
    assert GridArguments().label_fractions == [0.05, 0.10, 0.15, 0.20]
    assert GridArguments().num_seeds >= 3


def test_a_grid_scores_every_block_timestep_and_label_fraction(run, trainings, tmp_path):
    report = run()

    points = [(row["label_fraction"], row["timestep"], row["block"]) for row in report["points"]]
    assert points == [(fraction, t, block) for fraction in (0.05, 0.1) for t in (0, 1000) for block in (4, 6)]
    assert [row["photos"] for row in report["points"]] == [30] * 4 + [60] * 4
    assert trainings["sizes"] == [8, 8]  # all points and seeds of a fraction at once
    for row in report["points"]:
        for metric in ("accuracy", "balanced_accuracy", "auroc", "validation_auroc"):
            assert 0 <= row[metric] <= 1
            assert row[f"{metric}_std"] >= 0
        assert row["validation_loss"] > 0
        assert 1 <= row["epochs"] <= 4
    assert read_report(tmp_path / "grid" / "report.json") == report
    assert report["seconds"].keys() == {"features", "heads, 5%", "heads, 10%"}


def test_the_last_timestep_is_read_at_index_999_and_called_1000(make_reading):
    model = open_backbone(make_reading(blocks=None, timesteps=None))

    assert model.config.timesteps == [*range(0, 1000, 50), 999]


def test_by_default_a_grid_reads_the_papers_blocks_that_the_backbone_has(make_reading):
    assert open_backbone(make_reading(blocks=None)).config.blocks == [2, 4, 6, 8]


def test_by_default_a_block_that_is_too_small_to_pool_is_left_out(make_reading):
    assert open_backbone(make_reading(blocks=None, image_size=64)).config.block_size(2) * 16 == 512
    with pytest.raises(ValueError, match="too small to pool"):
        open_backbone(make_reading(blocks=[0, 4]))


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


def test_seeds_of_a_point_differ(run):
    report = run()

    assert max(row["validation_loss_std"] for row in report["points"]) > 1e-3


def test_a_single_seed_has_no_spread(run):
    report = run(num_seeds=1)

    assert {row["accuracy_std"] for row in report["points"]} == {None}
    assert "±" not in tabulate_accuracies(report)


# --- resume ----------------------------------------------------------------------------------------------------------


def test_a_grid_that_was_killed_after_a_label_fraction_ends_in_the_same_report(run, trainings):
    wanted = run("whole")
    trainings["sizes"].clear()
    trainings["allowed"] = 1
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    trainings["allowed"] = None

    report = run("killed")

    assert trainings["sizes"] == [8, 8]  # one before the kill, one after it
    assert without_times(report) == without_times(wanted)


def test_a_finished_grid_is_read_not_trained_again(run, trainings):
    wanted = run()
    trainings["allowed"] = len(trainings["sizes"])

    assert without_times(run()) == without_times(wanted)


def test_a_folder_of_another_grid_is_refused(run, photos, test):
    run(num_seeds=1)

    with pytest.raises(ValueError, match="other photos or arguments"):
        run(num_seeds=2)
    fewer = replace(photos, tests={"test": test.select(range(6))})
    with pytest.raises(ValueError, match="other photos or arguments"):
        run(num_seeds=1, photos=fewer)


# --- choice ----------------------------------------------------------------------------------------------------------


def point(label_fraction, block, validation_auroc, validation_loss, auroc=0.5):
    return {
        "label_fraction": label_fraction,
        "block": block,
        "validation_auroc": validation_auroc,
        "validation_loss": validation_loss,
        "auroc": auroc,
    }


def test_validation_chooses_whatever_test_says():
    points = [point(0.05, 2, 0.9, 0.5, auroc=0.1), point(0.05, 4, 0.8, 0.1, auroc=1.0), point(0.1, 4, 0.6, 0.6)]

    assert [row["block"] for row in choose_points(points)] == [2, 4]


def test_the_better_loss_chooses_among_equal_aurocs():
    points = [point(0.05, 2, 1.0, 0.5), point(0.05, 4, 1.0, 0.3), point(0.05, 6, 0.9, 0.1)]

    assert [row["block"] for row in choose_points(points)] == [4]


def test_the_loss_chooses_where_validation_photos_are_of_one_class():
    points = [point(0.05, 2, None, 0.5), point(0.05, 4, None, 0.3)]

    assert [row["block"] for row in choose_points(points)] == [4]


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


def test_a_choice_that_is_the_best_has_no_regret(test):
    points = [point(0.05, 2, 0.9, 0.5) | {"timestep": 0}, point(0.05, 4, 0.8, 0.5) | {"timestep": 0}]
    is_malignant = np.array(test["malignant"])

    rows = measure_regret(points, [scores_of(is_malignant, 0), scores_of(is_malignant, 3)], test)

    assert [(row["best_block"], row["regret"]) for row in rows] == [(2, 0.0), (2, 0.0)]
    assert np.isnan([row["p_value"] for row in rows]).all()


def test_a_grid_reports_the_regret_of_each_fraction(run):
    report = run()

    points = {(row["label_fraction"], row["block"], row["timestep"]): row for row in report["points"]}
    found = [(row["label_fraction"], row["metric"]) for row in report["regret"]]
    assert found == [(fraction, metric) for fraction in (0.05, 0.1) for metric in ("accuracy", "auroc")]
    for row in report["regret"]:
        chosen = points[row["label_fraction"], row["block"], row["timestep"]]
        values = [point[row["metric"]] for key, point in points.items() if key[0] == row["label_fraction"]]
        assert row["value"] == pytest.approx(chosen[row["metric"]])
        assert row["best_value"] == pytest.approx(max(values))
        assert row["regret"] == pytest.approx(max(values) - chosen[row["metric"]])


def test_the_reading_of_the_paper_is_reported_beside_the_choice(run):
    report = run()

    assert [(row["label_fraction"], row["block"], row["timestep"]) for row in report["paper"]] == [
        (0.05, 4, 0),
        (0.10, 6, 0),
    ]
    assert [row["label_fraction"] for row in report["best"]] == [0.05, 0.10]


def test_tables_show_the_choice_and_every_accuracy(run):
    report = run()

    choices, accuracies = tabulate_choices(report).splitlines(), tabulate_accuracies(report)
    assert len(choices) == 2 + 4
    assert choices[2].startswith("| 5% | 30 | validation |")
    assert choices[4].startswith("| 5% | 30 | the paper | 4 | 0 |")
    assert accuracies.count("| 1000 |") == 2
    assert "| t | block 4 | block 6 |" in accuracies
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("fields", [{"label_fractions": [0.5]}, {"num_seeds": 0}])
def test_a_grid_that_the_paper_has_not_is_refused(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        GridArguments(**fields)
