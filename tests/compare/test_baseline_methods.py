"""Baselines as methods: what they are called, what they depend on, and that each runs from end to end."""

import sys
from dataclasses import replace

import pytest
from accelerate import Accelerator
from datasets import DatasetDict
from pandas.testing import assert_frame_equal
from PIL import Image

from fedd_hf.baselines.recipes import FittingArguments
from fedd_hf.compare import baseline_methods, methods
from fedd_hf.compare.label_efficiency import LabelEfficiencyArguments, run_label_efficiency
from fedd_hf.compare.method_settings import MethodSettings
from fedd_hf.compare.methods import METHODS, PAPER_CNNS, make_method
from fedd_hf.compare.photo_sets import PhotoSets
from fedd_hf.compare.trial import Trial
from fedd_hf.data.painted import paint_dataset
from fedd_hf.training.arguments import ReadingArguments, SegmentationArguments

QUICK = FittingArguments(learning_rate=1e-3, batch_size=3, max_epochs=1, patience=1, plateau_patience=1)
BASELINES = [name for name in METHODS if name not in ("FEDD", "random UNet")]


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
def trial(photos):
    return Trial(
        train=photos, validation=photos, photos=photos, examples=photos.select([0]), label_fraction=0.05, seed=0
    )


@pytest.mark.parametrize("name", [*BASELINES[:3], "EfficientNetLite0"])
def test_a_baseline_segments(settings, trial, name, tmp_path):
    table = make_method(name, settings).segment(trial, tmp_path)

    assert set(table["image_id"]) == set(trial.photos["image_id"])
    assert Image.open(tmp_path / f"{trial.examples[0]['image_id']}.png").size == (64, 64)


@pytest.mark.parametrize("name", ["EfficientNetLite0", "DINOv2", "always benign"])
def test_a_baseline_scores_malignancy(settings, trial, name):
    table = make_method(name, settings).classify(trial)

    assert list(table["image_id"]) == list(trial.photos["image_id"])
    assert table["y_score"].between(0, 1).all()


@pytest.mark.parametrize("name", ["EfficientNetLite0", "frozen EfficientNetLite0"])
def test_random_weights_are_those_of_the_seed(settings, trial, name, tmp_path):
    method = make_method(name, settings)

    assert_frame_equal(method.segment(trial, tmp_path), method.segment(trial, tmp_path))
    if "classification" in method.tasks:
        assert_frame_equal(method.classify(trial), method.classify(trial))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PAPER_CNNS, "DINOv2"])
def test_baselines_whose_weights_are_on_the_hub_run_with_random_ones(settings, trial, name, tmp_path):
    method = make_method(name, settings)

    assert method.name == f"{name} (random weights: not a comparison)"
    assert len(method.segment(trial, tmp_path)) == 5 * len(trial.photos)
    assert len(method.classify(trial)) == len(trial.photos)


@pytest.mark.slow
def test_deepderm_learns_ham10000_once_and_then_each_trial(settings, trial, monkeypatch):
    larger = replace(settings, reading=replace(settings.reading, image_size=80), deepderm=QUICK, ham10000="ham")
    rows = trial.photos.remove_columns("disease").add_column("disease", ["mel", "nv"] * 3)
    loaded = []
    monkeypatch.setattr(
        baseline_methods, "load_splits", lambda *_: loaded.append(1) or DatasetDict(train=rows, validation=rows)
    )
    method = make_method("DeepDerm", larger)

    scores = [method.classify(trial) for _ in range(2)]

    assert len(loaded) == 1
    assert scores[0]["y_score"].tolist() == scores[1]["y_score"].tolist()
    longer = replace(larger, deepderm=replace(QUICK, max_epochs=2))
    with pytest.raises(ValueError, match="is of a run with other photos or arguments"):
        make_method("DeepDerm", longer).classify(trial)


def test_deepderm_without_ham10000_says_what_it_needs(settings, trial):
    with pytest.raises(ValueError, match="DeepDerm learns HAM10000 first: give `ham10000`, its folder"):
        make_method("DeepDerm", settings).classify(trial)


def test_a_deepderm_that_does_not_say_how_it_learned_is_refused_before_training(settings, trial):
    (settings.folder / "deepderm").mkdir()

    with pytest.raises(ValueError, match="deepderm does not say how it learned: diagnoses.json is absent. Delete it"):
        make_method("DeepDerm", replace(settings, ham10000="ham")).classify(trial)


def test_what_a_baseline_depends_on_is_told(settings):
    method = make_method("EfficientNetLite0", replace(settings, weights="imagenet"))

    told = method.describe("segmentation", 0.05)

    assert method.name == "EfficientNetLite0"
    assert told["reading"] == {"network": "EfficientNetLite0", "weights": "imagenet", "image_size": 32}
    assert told["training"]["learning_rate"] == 1e-3
    assert told["authors"]["learning_rate"] == 1e-4
    assert "seed" not in told["training"]


def test_all_that_is_benign_is_right_and_nothing_else(settings, trial):
    scores = make_method("always benign", settings).classify(trial)

    assert (scores["y_score"] < 1e-6).all()
    with pytest.raises(ValueError, match="'always benign' segments nothing"):
        make_method("always benign", settings).segment(trial, settings.folder)


def test_a_method_that_cannot_do_the_task_is_refused(settings, photos):
    named = [make_method(name, settings) for name in ("FEDD", "raw colour")]
    sets = PhotoSets(train={0.05: photos}, validation=photos, tests={"test": photos})
    arguments = LabelEfficiencyArguments(label_fractions=[0.05], num_seeds=1)

    with pytest.raises(ValueError, match=r"\['raw colour'\] cannot be compared in 'classification'"):
        run_label_efficiency("classification", named, sets, arguments, settings.folder, settings.accelerator)


def test_without_their_libraries_baselines_say_what_to_install(settings, monkeypatch):
    monkeypatch.delitem(sys.modules, "fedd_hf.compare.baseline_methods", raising=False)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    for name in [name for name in sys.modules if name.startswith("fedd_hf.baselines.")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(ImportError, match=r'pip install "fedd-hf\[baselines\]"'):
        methods.make_method("EfficientNetLite0", settings)
