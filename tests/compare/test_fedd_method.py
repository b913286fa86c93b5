"""FEDD as a method that is compared, on the tiny backbone."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from fedd_hf import FEDDForSegmentation, features
from fedd_hf.compare import fedd_method, label_efficiency
from fedd_hf.compare.fedd_method import draw_random_backbone
from fedd_hf.compare.label_efficiency import run_label_efficiency
from fedd_hf.compare.methods import make_method
from fedd_hf.compare.photo_sets import PhotoSets
from fedd_hf.compare.run import MethodSettings, Run, predict_run, read_predictions
from fedd_hf.data.painted import paint_dataset
from fedd_hf.prediction import predict_classification, predict_segmentation
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.unet_files_fedd import read_backbone_config


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def photos():
    """Nested training sets of 3 and 6 photos, 3 to validate and a test of 3: statistics take most of the time."""
    train = paint_dataset(2, seed=0, size=32)
    validation, test = paint_dataset(1, seed=1, size=32), paint_dataset(1, seed=2, size=32)
    return PhotoSets(train={0.05: train.select(range(3)), 0.10: train}, validation=validation, tests={"test": test})


@pytest.fixture
def settings(tiny_backbone, tmp_path, accelerator):
    return MethodSettings(
        folder=tmp_path,
        accelerator=accelerator,
        reading=ReadingArguments(backbone=str(tiny_backbone), blocks=[4, 7], timesteps=[50], image_size=64),
        malignancy_readings={0.05: (4, 50), 0.10: (6, 1000)},
        segmentation=SegmentationArguments(num_steps=3, images_per_step=3, pixels_per_image=50),
        classification=ClassificationArguments(max_epochs=3),
    )


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Of features, which are filled up to one size."""
    monkeypatch.setattr(features, "default_batch_size", lambda image_size: 3)


@pytest.fixture
def make_run(photos):
    sets = {"train": photos.train[0.05], "validation": photos.validation, "photos": photos.photos}
    return partial(Run, **sets, examples=photos.photos.select([0]), label_fraction=0.05, seed=0)


@pytest.fixture
def passes(monkeypatch):
    """How many photos have gone through a backbone."""
    counted = Counter()

    def count(store, dataset, rows, original=fedd_method.FeatureStore._extract_batch):
        before = set(store.folder.glob("*/*.safetensors"))
        names = original(store, dataset, rows)
        counted["photos"] += len(set(store.folder.glob("*/*.safetensors")) - before)
        return names

    monkeypatch.setattr(fedd_method.FeatureStore, "_extract_batch", count)
    return counted


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_fedd_and_a_random_unet_run_from_end_to_end(settings, task, passes, photos, tmp_path, monkeypatch):
    nothing = {name: [] for name in ("curves", "differences", "gaps")}
    monkeypatch.setattr(label_efficiency, "measure_curves", lambda *_: nothing)
    methods = [make_method(name, settings) for name in ("FEDD", "random UNet")]

    report = run_label_efficiency(task, methods, photos, tmp_path, settings.accelerator, num_seeds=2)

    assert report["methods"] == ["FEDD", "random UNet"]
    assert passes["photos"] == 2 * (6 + 6)  # each photo once for each method, whatever is trained
    assert json.loads(json.dumps(report)) == report
    read = [report["settings"]["methods"]["FEDD"][fraction]["reading"] for fraction in ("0.05", "0.1")]
    expected = [([4, 7], [50])] * 2 if task == "segmentation" else [([4], [50]), ([6], [999])]
    assert [(fields["blocks"], fields["timesteps"]) for fields in read] == expected
    assert [row["skin_tone"] for row in report["examples"]] == ["I-II", "III-IV", "V-VI"] * (task == "segmentation")
    for row in report["examples"]:
        assert np.asarray(Image.open(tmp_path / row["truth_path"])).shape == (32, 32)
        maps = [np.asarray(Image.open(tmp_path / found["map_path"])) for found in row["maps"]]
        assert [segmentation_map.shape for segmentation_map in maps] == [(32, 32)] * 4


def test_stored_features_give_the_maps_and_scores_of_the_model_itself(settings, make_run, tmp_path):
    fedd = make_method("FEDD", settings)
    tables = {}
    for task, predict in (("segmentation", predict_segmentation), ("classification", predict_classification)):
        run = make_run(task=task)
        folder = predict_run(fedd, run, tmp_path / "runs", settings.accelerator, save_model=True)
        tables[task] = read_predictions(folder), predict(*fedd.train(run), run.photos)

    stored, own = (table[["tp", "fp", "fn", "tn"]].to_numpy() for table in tables["segmentation"])
    assert np.abs(stored - own).max() <= 0.02 * 32 * 32  # features are stored as float16
    stored, own = (table["y_score"] for table in tables["classification"])
    np.testing.assert_allclose(stored, own, atol=1e-4)
    assert stored.nunique() > 1
    saved = {path.parent.name: path for path in (tmp_path / "runs").glob("*/model")}
    assert len(saved) == 2


def test_without_a_choice_the_papers_blocks_are_read(tmp_path, accelerator):
    fedd = make_method("FEDD", MethodSettings(folder=tmp_path, accelerator=accelerator))

    read = [fedd.describe("classification", fraction)["reading"]["blocks"] for fraction in (0.05, 0.10, 0.15, 0.20)]

    assert read == [[4], [6], [12], [14]]
    with pytest.raises(ValueError, match="label_fraction"):
        fedd.describe("classification", 0.3)


def test_a_fraction_without_a_block_and_timestep_and_an_unknown_method_are_named(settings):
    with pytest.raises(ValueError, match=r"not for 0\.15"):
        make_method("FEDD", settings).describe("classification", 0.15)
    with pytest.raises(ValueError, match="'U-Net'"):
        make_method("U-Net", settings)


def test_the_random_unet_differs_from_the_backbone_in_its_weights_only(tiny_backbone, tmp_path, accelerator):
    draw = partial(draw_random_backbone, str(tiny_backbone), tmp_path, accelerator)

    folder = draw(seed=1)

    assert read_backbone_config(folder) == read_backbone_config(tiny_backbone)
    given = {"blocks": [4], "timesteps": [50], "image_size": 16}
    weights, drawn, others = (
        FEDDForSegmentation.from_backbone(str(backbone), **given).backbone.state_dict()
        for backbone in (tiny_backbone, folder, draw(seed=2))
    )
    assert torch.equal(weights["noise"], drawn["noise"])
    first, second, third = (tensors["unet.conv_in.weight"] for tensors in (weights, drawn, others))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert draw(seed=1) == folder
