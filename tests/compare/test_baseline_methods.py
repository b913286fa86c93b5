"""Baselines as methods: what they are called, what they depend on, and that each runs from end to end."""

import sys
from dataclasses import replace
from functools import partial

import pytest
from accelerate import Accelerator
from datasets import DatasetDict
from pandas.testing import assert_frame_equal
from PIL import Image

from fedd_hf.baselines.recipes import FittingArguments
from fedd_hf.compare import baseline_methods, methods
from fedd_hf.compare.label_efficiency import run_label_efficiency
from fedd_hf.compare.methods import PAPER_CNNS, make_method
from fedd_hf.compare.photo_sets import PhotoSets
from fedd_hf.compare.run import MethodSettings, Run, predict_run, read_predictions
from fedd_hf.data.painted import paint_dataset
from fedd_hf.prediction import score_photos, segment_photos
from fedd_hf.training.arguments import ReadingArguments, SegmentationArguments

QUICK = FittingArguments(learning_rate=1e-3, batch_size=3, max_epochs=1, patience=1, plateau_patience=1)


@pytest.fixture(scope="module")
def photos():
    return paint_dataset(num_per_tone=2, seed=3, size=64)


@pytest.fixture
def settings(tmp_path, tiny_backbone):
    return MethodSettings(
        folder=tmp_path,
        accelerator=Accelerator(),
        reading=ReadingArguments(backbone=str(tiny_backbone), blocks=[4], timesteps=[50], image_size=32),
        segmentation=SegmentationArguments(num_steps=2, images_per_step=2, pixels_per_image=8),
        weights="random",
        unet=QUICK,
        classifier=QUICK,
    )


@pytest.fixture
def make_run(photos):
    sets = dict.fromkeys(("train", "validation", "photos"), photos)
    return partial(Run, **sets, examples=photos.select([0]), label_fraction=0.05, seed=0)


@pytest.fixture
def predict(settings, make_run, tmp_path):
    def predict(name, task, folder="runs"):
        method = make_method(name, settings)
        return predict_run(method, make_run(task=task), tmp_path / folder, settings.accelerator)

    return predict


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_baseline_runs_from_end_to_end_as_its_seed_says(predict, make_run, task):
    first, second = (predict("EfficientNetLite0", task, folder) for folder in ("first", "second"))

    assert_frame_equal(read_predictions(first), read_predictions(second))
    assert set(read_predictions(first)["image_id"]) == set(make_run(task=task).photos["image_id"])
    maps = [Image.open(path).size for path in (first / "maps").glob("*.png")]
    assert maps == [(64, 64)] * (task == "segmentation")


@pytest.mark.parametrize("name", ["raw colour", "colour and position", "frozen EfficientNetLite0"])
def test_heads_on_another_frozen_network_take_a_step(settings, make_run, name):
    model, processor = make_method(name, settings).train(make_run(task="segmentation"))

    assert len(segment_photos(model, processor, [make_run(task="segmentation").photos[0]["image"]])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PAPER_CNNS, "DINOv2"])
def test_baselines_whose_weights_are_on_the_hub_take_a_step_with_random_ones(settings, make_run, name):
    method = make_method(name, settings)

    assert method.name == f"{name} (random weights: not a comparison)"
    for task in method.tasks:
        method.train(make_run(task=task))


@pytest.mark.slow
def test_deepderm_learns_ham10000_once_and_then_each_run(settings, make_run, monkeypatch):
    larger = replace(settings, reading=replace(settings.reading, image_size=80), deepderm=QUICK, ham10000="ham")
    run = make_run(task="classification")
    rows = run.photos.remove_columns("disease").add_column("disease", ["mel", "nv"] * 3)
    loaded = []
    monkeypatch.setattr(
        baseline_methods, "load_splits", lambda *_: loaded.append(1) or DatasetDict(train=rows, validation=rows)
    )
    method = make_method("DeepDerm", larger)

    scores = [score_photos(*method.train(run), [run.photos[0]["image"]]) for _ in range(2)]

    assert len(loaded) == 1
    assert scores[0] == scores[1]


def test_deepderm_without_ham10000_says_what_it_needs(settings, make_run):
    with pytest.raises(ValueError, match="DeepDerm learns HAM10000 first: give `ham10000`, its folder"):
        make_method("DeepDerm", settings).train(make_run(task="classification"))


def test_what_a_baseline_depends_on_is_told(settings):
    method = make_method("EfficientNetLite0", replace(settings, weights="imagenet"))

    told = method.describe("segmentation", 0.05)

    assert method.name == "EfficientNetLite0"
    assert told["reading"] == {"network": "EfficientNetLite0", "weights": "imagenet", "image_size": 32}
    assert told["training"]["learning_rate"] == 1e-3
    assert told["authors"]["learning_rate"] == 1e-4
    assert "seed" not in told["training"]


def test_all_that_is_benign_is_right_and_nothing_else(predict):
    assert (read_predictions(predict("always benign", "classification"))["y_score"] < 1e-6).all()


def test_a_method_that_cannot_do_the_task_is_refused(settings, photos):
    named = [make_method(name, settings) for name in ("FEDD", "raw colour")]
    sets = PhotoSets(train={0.05: photos}, validation=photos, tests={"test": photos})

    with pytest.raises(ValueError, match=r"\['raw colour'\] cannot be compared in 'classification'"):
        run_label_efficiency("classification", named, sets, settings.folder, settings.accelerator)


def test_without_their_libraries_baselines_say_what_to_install(settings, monkeypatch):
    monkeypatch.delitem(sys.modules, "fedd_hf.compare.baseline_methods", raising=False)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    for name in [name for name in sys.modules if name.startswith("fedd_hf.baselines.")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(ImportError, match=r'pip install "fedd-hf\[baselines\]"'):
        methods.make_method("EfficientNetLite0", settings)
