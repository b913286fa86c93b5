"""k-means on activations: scores by hand on toy maps, and the experiment on the tiny backbone."""

import json

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

import clustering
from clustering import (
    ClusteringArguments,
    cluster_activation,
    cluster_blocks,
    score_clusters,
    score_silhouette,
)
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.report import read_report
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.training.arguments import ReadingArguments

BACKGROUND, LESION, _, _, SKIN = range(len(SEGMENTATION_LABELS))

FEW_STARTS = ClusteringArguments(num_restarts=2)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def photos():
    return paint_dataset(2, seed=5, size=32)


@pytest.fixture
def run(tiny_backbone, photos, tmp_path, accelerator):
    def run(name="clusters", photos=photos, arguments=FEW_STARTS, **fields):
        (tmp_path / name).mkdir(exist_ok=True)
        given = {"timesteps": [50], "image_size": 32} | fields
        reading = ReadingArguments(backbone=str(tiny_backbone), **given)
        return cluster_blocks(photos, reading, arguments, tmp_path / name, accelerator)

    return run


@pytest.fixture
def clustered(monkeypatch):
    """The photos that are clustered, by their sizes; with `allowed`, the next one after so many is a kill."""
    record = {"photos": [], "allowed": None}
    compute = clustering.compute_features

    def compute_or_die(model, pixel_values, batch_size):
        if len(record["photos"]) == record["allowed"]:
            raise KeyboardInterrupt
        record["photos"].append(tuple(pixel_values.shape))
        return compute(model, pixel_values, batch_size)

    monkeypatch.setattr(clustering, "compute_features", compute_or_die)
    return record


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine")}


# --- scores ----------------------------------------------------------------------------------------------------------


def test_clusters_that_are_the_mask_score_one():
    mask = np.array([[SKIN, SKIN, LESION], [SKIN, BACKGROUND, LESION]], dtype=np.uint8)
    clusters = np.array([[0, 0, 1], [0, 2, 1]], dtype=np.uint8)

    assert score_clusters(clusters, mask) == {"adjusted_rand": 1.0, "best_match_iou": 1.0, "lesion_iou": 1.0}


def test_clusters_are_matched_one_to_one_so_that_the_sum_is_largest():
    mask = np.array([[SKIN] * 6 + [LESION] * 2], dtype=np.uint8)
    clusters = np.array([[0, 0, 0, 1, 1, 1, 1, 1]], dtype=np.uint8)

    # cluster 1 is nearest to the skin (3/8) by less than what cluster 0 gains there (3/6), and takes the lesion (2/5)
    assert score_clusters(clusters, mask)["best_match_iou"] == pytest.approx((3 / 6 + 2 / 5) / 2)


def test_coarse_clusters_are_compared_at_the_size_of_the_mask():
    mask = np.repeat(np.repeat([[SKIN, LESION], [SKIN, BACKGROUND]], 4, axis=0), 4, axis=1).astype(np.uint8)

    assert score_clusters(np.array([[0, 1], [0, 2]], dtype=np.uint8), mask)["adjusted_rand"] == 1.0


def test_pixels_that_do_not_count_change_nothing():
    mask = np.array([[SKIN, SKIN, LESION, 255]], dtype=np.uint8)

    scores = score_clusters(np.array([[0, 0, 1, 0]], dtype=np.uint8), mask)

    assert scores == {"adjusted_rand": 1.0, "best_match_iou": 1.0, "lesion_iou": 1.0}


def test_clusters_are_found_and_numbered_by_their_size():
    values = np.repeat([5.0, 0.0, 10.0], [10, 50, 4]).reshape(8, 8, 1)
    activation = values + np.random.default_rng(0).normal(scale=0.1, size=(8, 8, 2))

    clusters = cluster_activation(activation.astype(np.float32), ClusteringArguments())

    assert np.array_equal(clusters.ravel(), np.repeat([1, 0, 2], [10, 50, 4]))


def test_the_silhouette_is_that_of_its_definition():
    activation = np.array([0.0, 1.0, 10.0, 12.0]).reshape(2, 2, 1)

    # (b - a) / max(a, b) of each: (11 - 1) / 11, (10 - 1) / 10, (9.5 - 2) / 9.5, (11.5 - 2) / 11.5
    expected = np.mean([10 / 11, 9 / 10, 7.5 / 9.5, 9.5 / 11.5])
    clusters = np.array([[0, 0], [1, 1]], dtype=np.uint8)
    assert score_silhouette(activation, clusters, 100, seed=0) == pytest.approx(expected)
    assert np.isnan(score_silhouette(activation, np.zeros((2, 2), np.uint8), 100, seed=0))


# --- the experiment --------------------------------------------------------------------------------------------------


def test_every_block_is_scored_with_intervals_over_photos(run, tmp_path):
    report = run()

    assert [(row["block"], row["timestep"]) for row in report["points"]] == [(b, 50) for b in (2, 4, 6, 8)]
    for row in report["points"]:
        for score in ("silhouette", "adjusted_rand", "best_match_iou", "lesion_iou"):
            assert -1 <= row[score] <= 1
            assert row[f"{score}_low"] <= row[score] <= row[f"{score}_high"]
    assert report["photos"] == 6
    assert set(report["chosen"]) == {"by silhouette", "by adjusted rand"}
    assert json.loads(json.dumps(report)) == report == read_report(tmp_path / "clusters" / "report.json")


def test_one_photo_of_each_tone_is_shown(run, tmp_path):
    report = run(blocks=[4, 8])

    assert len(report["examples"]) == 3
    for row in report["examples"]:
        assert [block["block"] for block in row["blocks"]] == [4, 8]
        assert Image.open(tmp_path / "clusters" / row["photo_path"]).size == (32, 32)
        for block, size in zip(row["blocks"], (16, 32), strict=True):
            grey = np.asarray(Image.open(tmp_path / "clusters" / block["activation_path"]))
            assert grey.shape == (size, size)
            assert (grey.min(), grey.max()) == (0, 255)
            clusters = Image.open(tmp_path / "clusters" / block["clusters_path"])
            assert clusters.mode == "P"
            assert set(np.unique(np.asarray(clusters))) == {0, 1, 2}


def test_a_run_that_was_killed_goes_on_with_the_next_photo(run, clustered):
    wanted = run("whole")
    clustered["photos"].clear()
    clustered["allowed"] = 2
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    clustered["allowed"] = None

    report = run("killed")

    assert len(clustered["photos"]) == 6
    assert without_times(report) == without_times(wanted)


def test_other_arguments_are_clustered_beside_those_that_are_there(run):
    wanted = run(blocks=[4])

    assert len(run(blocks=[4, 8])["points"]) > len(wanted["points"])
    assert without_times(run(blocks=[4])) == without_times(wanted)


def test_a_photo_without_a_mask_is_named(run, photos):
    blank = photos.from_list([photos[0] | {"mask": None}], features=photos.features)

    with pytest.raises(ValueError, match=f"{photos[0]['image_id']}.*has no mask"):
        run(photos=blank)


@pytest.mark.parametrize("fields", [{"num_clusters": 1}, {"num_clusters": 7}, {"fitted_positions": 3}])
def test_arguments_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        ClusteringArguments(**fields)
