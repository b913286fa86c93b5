"""Methods x label fractions x seeds: made-up methods whose results are known, and FEDD on the tiny backbone."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import DatasetDict
from PIL import Image

from fedd_hf import FEDDForSegmentation
from fedd_hf.compare import feature_method, photo_sets
from fedd_hf.compare.label_efficiency import LabelEfficiencyArguments, run_label_efficiency
from fedd_hf.compare.method_settings import MethodSettings
from fedd_hf.compare.methods import make_method
from fedd_hf.compare.photo_sets import (
    PhotoSets,
    choose_examples,
    lesion_areas,
    load_numbered_sets,
    load_photo_sets,
)
from fedd_hf.compare.random_backbone import write_random_backbone
from fedd_hf.compare.trial import Trial
from fedd_hf.compare.units import unit_of
from fedd_hf.data import loading
from fedd_hf.data.loading import DataArguments, load_splits
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import SPLITS, tone_labels
from fedd_hf.evaluation.report import read_report
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.prediction import count_pixels, predict_classification, predict_segmentation
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.unet_files_fedd import read_backbone_config

SKIN = SEGMENTATION_LABELS.index("skin")
ONE_SEED = LabelEfficiencyArguments(label_fractions=[0.05, 0.10], num_seeds=1)
TWO_SEEDS = LabelEfficiencyArguments(label_fractions=[0.05, 0.10], num_seeds=2)


class MadeUpMethod:
    """A method that knows the truth, or calls everything skin and benign; a seed may change what it says."""

    tasks = ("segmentation", "classification")

    def __init__(self, name, knows, version=1):
        self.name, self.knows, self.version = name, knows, version
        self.trials = []
        self.allowed = None

    def describe(self, task, label_fraction):
        return {"version": self.version}

    def _begin(self, trial):
        if len(self.trials) == self.allowed:
            raise KeyboardInterrupt
        self.trials.append((trial.label_fraction, trial.seed, len(trial.train)))

    def segment(self, trial, maps_dir):
        self._begin(trial)
        for row in trial.examples:
            Image.fromarray(self._map(row)).save(maps_dir / f"{row['image_id']}.png")
        rows = []
        for row, tone in zip(trial.photos, tone_labels(trial.photos), strict=True):
            counts = count_pixels(np.asarray(row["mask"]), self._map(row), len(SEGMENTATION_LABELS))
            photo = {"image_id": row["image_id"], "group_id": None, "skin_tone": tone}
            rows += [photo | {"label": label} | counts[index] for index, label in enumerate(SEGMENTATION_LABELS)]
        return pd.DataFrame(rows)

    def _map(self, row):
        mask = np.asarray(row["mask"])
        return mask if self.knows else np.full_like(mask, SKIN)

    def classify(self, trial):
        self._begin(trial)
        truth = np.array(trial.photos["malignant"], dtype=int)
        scores = np.where(truth == 1, 0.9, 0.1) if self.knows(trial) else np.full(len(truth), 0.1)
        ids, tones = trial.photos["image_id"][:], tone_labels(trial.photos)
        table = {"image_id": ids, "group_id": None, "skin_tone": tones, "y_true": truth, "y_score": scores}
        return pd.DataFrame(table)


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
    def run(methods, task="segmentation", arguments=ONE_SEED, name="run", photos=photos):
        (tmp_path / name).mkdir(exist_ok=True)
        return run_label_efficiency(task, methods, photos, arguments, tmp_path / name, accelerator)

    return run


@pytest.fixture
def pair():
    """The truth, and a rival that sees nothing but skin."""
    return [MadeUpMethod("FEDD", knows=True), MadeUpMethod("only skin", knows=False)]


def one(rows, **found):
    (row,) = (row for row in rows if all(row[name] == value for name, value in found.items()))
    return row


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine")}


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_every_method_fraction_test_and_tone_has_a_curve(run, pair, photos):
    report = run(pair)

    found = Counter((row["method"], row["label_fraction"], row["test"]) for row in report["curves"])
    assert found.keys() == {
        (method, fraction, test)
        for method in ("FEDD", "only skin")
        for fraction in (0.05, 0.10)
        for test in ("validation", "test", "large_test")
    }
    row = one(
        report["curves"],
        method="FEDD",
        label_fraction=0.05,
        test="large_test",
        metric="mean_iou",
        skin_tone="V-VI",
    )
    assert (row["n"], row["value"], row["seed_std"]) == (4, 1.0, None)
    assert report["settings"]["label_fractions"] == {"0.05": 3, "0.1": 6}


def test_a_rival_is_compared_with_the_first_method_on_the_same_photos(run, pair, photos):
    report = run(pair)

    truth = [np.asarray(row["mask"]) for row in photos.tests["test"]]
    skin = np.mean(np.concatenate([mask.ravel() for mask in truth]) == SKIN)
    row = one(report["differences"], label_fraction=0.1, test="test", metric="mean_iou", skin_tone="all")
    classes = len(np.unique(np.concatenate([mask.ravel() for mask in truth])))
    assert row["method"] == "only skin"
    assert row["difference"] == pytest.approx(1 - skin / classes)
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["p_value"] < 0.05
    assert {row["test"] for row in report["differences"]} == {"test", "large_test"}


def test_gaps_between_tones_are_those_of_one_method_and_fraction(run, pair):
    report = run(pair)

    row = one(
        report["gaps"],
        method="FEDD",
        label_fraction=0.05,
        test="large_test",
        metric="lesion_iou",
        reference="I-II",
        skin_tone="V-VI",
    )
    assert (row["n_reference"], row["n"], row["difference"]) == (4, 4, 0.0)


def test_a_value_is_the_mean_over_seeds_and_the_spread_is_that_of_seeds(run):
    half_blind = MadeUpMethod("FEDD", knows=lambda trial: trial.seed == 0)

    report = run([half_blind], task="classification", arguments=TWO_SEEDS)

    row = one(report["curves"], label_fraction=0.05, test="large_test", metric="auroc", skin_tone="all")
    assert row["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert row["seed_std"] == pytest.approx(np.std([1.0, 0.5], ddof=1))


def test_thresholds_come_from_validation_photos_and_from_the_test(run, photos):
    report = run([MadeUpMethod("FEDD", knows=lambda trial: True)], task="classification")

    assert [row["validation_youden"] for row in report["choices"]] == pytest.approx([0.5, 0.5])
    metrics = {row["metric"] for row in report["curves"] if row["test"] == "test"}
    assert {"accuracy", "accuracy_validation_youden", "accuracy_test_youden"} <= metrics
    assert "accuracy_validation_youden" not in {r["metric"] for r in report["curves"] if r["test"] == "validation"}


def test_a_perfect_score_has_the_roc_curve_of_the_upper_left_corner(run):
    report = run([MadeUpMethod("FEDD", knows=lambda trial: True)], task="classification")

    row = one(report["roc"], method="FEDD", label_fraction=0.05, test="large_test")
    assert (row["fpr"], row["tpr"]) == ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])


# --- resume ----------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_trained_again(run, pair, few_photos):
    wanted = run(pair, arguments=TWO_SEEDS, photos=few_photos)
    trained = [len(method.trials) for method in pair]

    report = run(pair, arguments=TWO_SEEDS, photos=few_photos)

    assert trained == [4, 4]
    assert [len(method.trials) for method in pair] == [4, 4]
    assert without_times(report) == without_times(wanted)


def test_a_run_that_was_killed_goes_on_with_the_next_training(run, pair, few_photos):
    wanted = run(pair, name="whole", photos=few_photos)
    killed = [MadeUpMethod("FEDD", knows=True), MadeUpMethod("only skin", knows=False)]
    killed[1].allowed = 1
    with pytest.raises(KeyboardInterrupt):
        run(killed, name="killed", photos=few_photos)
    killed[1].allowed = None

    report = run(killed, name="killed", photos=few_photos)

    assert [method.trials for method in killed] == [[(0.05, 0, 3), (0.1, 0, 6)]] * 2
    assert without_times(report) == without_times(wanted)


def test_the_time_left_is_told_once_every_method_was_trained(run, pair, few_photos, capsys):
    run(pair, arguments=TWO_SEEDS, photos=few_photos)

    assert "6 trainings are left: at most about 0.0 hours on a machine like this." in capsys.readouterr().out


def test_another_seed_or_method_keeps_what_is_there(run, pair, few_photos):
    run(pair[:1], photos=few_photos)

    run(pair, arguments=TWO_SEEDS, photos=few_photos)

    assert pair[0].trials == [(0.05, 0, 3), (0.1, 0, 6), (0.05, 1, 3), (0.1, 1, 6)]


def test_a_folder_of_other_photos_or_arguments_is_refused(run, pair, photos, few_photos):
    run(pair, photos=few_photos)

    with pytest.raises(ValueError, match="other photos or arguments"):
        run(pair)
    with pytest.raises(ValueError, match="other photos or arguments"):
        run([MadeUpMethod("FEDD", knows=True, version=2)], photos=few_photos)


@pytest.mark.parametrize("names", [[], ["FEDD", "FEDD"]])
def test_methods_must_have_different_names(run, names):
    with pytest.raises(ValueError, match="different names"):
        run([MadeUpMethod(name, knows=True) for name in names])


def test_an_unknown_task_and_a_missing_fraction_are_named(run, pair):
    with pytest.raises(ValueError, match="`task` must be one of"):
        run(pair, task="malignancy")
    with pytest.raises(ValueError, match=r"label fractions \[0.2\]"):
        run(pair, arguments=LabelEfficiencyArguments(label_fractions=[0.05, 0.2], num_seeds=1))


@pytest.mark.parametrize("fields", [{"label_fractions": []}, {"num_seeds": 0}, {"examples_per_tone": -1}])
def test_arguments_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        LabelEfficiencyArguments(**fields)


# --- examples --------------------------------------------------------------------------------------------------------


def test_maps_of_one_photo_of_each_tone_are_kept(run, pair, photos, tmp_path):
    report = run(pair)

    assert [row["skin_tone"] for row in report["examples"]] == ["I-II", "III-IV", "V-VI"]
    for row in report["examples"]:
        truth = np.asarray(Image.open(tmp_path / "run" / row["truth_path"]))
        assert Image.open(tmp_path / "run" / row["photo_path"]).size == (32, 32)
        maps = {
            (m["method"], m["label_fraction"]): np.asarray(Image.open(tmp_path / "run" / m["map_path"]))
            for m in row["maps"]
        }
        assert len(maps) == 4
        assert np.array_equal(maps["FEDD", 0.05], truth)
        assert np.all(maps["only skin", 0.1] == SKIN)


def test_examples_are_chosen_by_the_area_of_the_lesion():
    photos = paint_dataset(5, seed=4, size=32)

    chosen = choose_examples(photos, per_tone=1)

    areas = dict(zip(photos["image_id"], lesion_areas(photos), strict=True))
    tones = np.array(tone_labels(photos))
    for name, tone in zip(chosen["image_id"], tone_labels(chosen), strict=True):
        of_tone = sorted(areas[photo] for photo in np.array(photos["image_id"])[tones == tone])
        assert areas[name] == of_tone[3]  # the fourth of five


# --- FEDD ------------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def trial(photos):
    return Trial(
        train=photos.train[0.05],
        validation=photos.validation,
        photos=photos.photos,
        examples=photos.photos.select([0]),
        label_fraction=0.05,
        seed=0,
    )


@pytest.fixture
def passes(monkeypatch):
    """How many photos have gone through a backbone."""
    counted = Counter()

    def count(store, dataset, rows, original=feature_method.FeatureStore._extract_batch):
        before = set(store.folder.glob("*/*.safetensors"))
        names = original(store, dataset, rows)
        counted["photos"] += len(set(store.folder.glob("*/*.safetensors")) - before)
        return names

    monkeypatch.setattr(feature_method.FeatureStore, "_extract_batch", count)
    return counted


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_fedd_and_a_random_unet_run_from_end_to_end(run, settings, task, passes, few_photos):
    methods = [make_method(name, settings) for name in ("FEDD", "random UNet")]

    report = run(methods, task=task, arguments=TWO_SEEDS, photos=few_photos)

    assert report["methods"] == ["FEDD", "random UNet"]
    assert passes["photos"] == 2 * (6 + 6)  # each photo once for each method, whatever is trained
    assert json.loads(json.dumps(report)) == report
    read = [report["settings"]["methods"]["FEDD"][fraction]["reading"] for fraction in ("0.05", "0.1")]
    expected = [([4, 7], [50])] * 2 if task == "segmentation" else [([4], [50]), ([6], [999])]
    assert [(reading["blocks"], reading["timesteps"]) for reading in read] == expected


def test_stored_features_give_the_maps_of_the_model_itself(settings, trial, tmp_path):
    fedd = make_method("FEDD", settings)

    table = fedd.segment(trial, tmp_path)

    own = predict_segmentation(*fedd.train_segmenter(trial), trial.photos)
    counts = ["tp", "fp", "fn", "tn"]
    pixels = np.abs(table[counts].to_numpy() - own[counts].to_numpy())
    assert pixels.max() <= 0.02 * 32 * 32  # features are stored as float16
    assert Image.open(tmp_path / f"{trial.examples[0]['image_id']}.png").size == (32, 32)


def test_stored_features_give_the_scores_of_the_model_itself(settings, trial):
    fedd = make_method("FEDD", settings)

    scores = fedd.classify(trial)["y_score"]

    own = predict_classification(*fedd.train_classifier(trial), trial.photos)["y_score"]
    np.testing.assert_allclose(scores, own, atol=1e-4)
    assert scores.nunique() > 1


def test_without_a_choice_the_papers_blocks_are_read(tmp_path, accelerator):
    fedd = make_method("FEDD", MethodSettings(folder=tmp_path, accelerator=accelerator))

    read = [fedd.describe("classification", fraction)["reading"]["blocks"] for fraction in (0.05, 0.10, 0.15, 0.20)]

    assert read == [[4], [6], [12], [14]]
    with pytest.raises(ValueError, match="label_fraction"):
        fedd.describe("classification", 0.3)


def test_a_fraction_without_a_reading_is_named(settings):
    with pytest.raises(ValueError, match="not for 0.15"):
        make_method("FEDD", settings).describe("classification", 0.15)


def test_an_unknown_method_is_named(settings):
    with pytest.raises(ValueError, match="'U-Net'"):
        make_method("U-Net", settings)


def test_the_random_unet_differs_from_the_backbone_in_its_weights_only(tiny_backbone, tmp_path, accelerator):
    folder = write_random_backbone(str(tiny_backbone), tmp_path / "random", accelerator, seed=1)

    assert read_backbone_config(folder) == read_backbone_config(tiny_backbone)
    reading = {"blocks": [4], "timesteps": [50], "image_size": 16}
    weights, drawn = (
        FEDDForSegmentation.from_backbone(str(backbone), **reading).backbone.state_dict()
        for backbone in (tiny_backbone, folder)
    )
    assert torch.equal(weights["noise"], drawn["noise"])
    assert not torch.equal(weights["unet.conv_in.weight"], drawn["unet.conv_in.weight"])


def test_the_random_unet_is_drawn_once_and_from_a_seed(tiny_backbone, tmp_path, accelerator):
    def weights(name, seed):
        folder = write_random_backbone(str(tiny_backbone), tmp_path / name, accelerator, seed)
        return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    first = weights("first", seed=1)

    assert weights("second", seed=1) == first
    assert weights("first", seed=2) == first  # it is there already
    assert weights("third", seed=2) != first


def test_a_unit_holds_the_table_and_says_what_it_is_of(run, pair, tmp_path, few_photos):
    run(pair, photos=few_photos)

    unit = unit_of(tmp_path / "run" / "units", "only skin", 0.05, seed=0)
    assert set(unit.predictions["image_id"]) == set(few_photos.photos["image_id"])
    settings = read_report(unit.folder / "unit.json")["settings"]
    assert settings["photos"]["train"] == list(few_photos.train[0.05]["image_id"])
    assert list(unit.folder.parent.glob(".*")) == []


# --- photos ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "tests"),
    [
        ("segmentation", {"validation": 15, "test": 16, "large_test": 198}),
        ("classification", {"validation": 30, "test": 30, "large_test": 476}),
    ],
)
def test_of_ddi_the_photos_are_those_of_the_paper(painted_ddi, ddi_seg, task, tests):
    data = DataArguments(dataset="ddi", root=str(painted_ddi), masks=str(ddi_seg))

    photos = load_photo_sets(data, task, [0.05, 0.20])

    assert {name: len(rows) for name, rows in photos.scored.items()} == tests
    small, large = (set(photos.train[fraction]["image_id"]) for fraction in (0.05, 0.20))
    assert (len(small), len(large)) == (30, 120)
    assert small < large
    assert not large & set(photos.photos["image_id"])
    by_loader = load_splits(replace(data, label_fraction=0.05), "segmentation" if "seg" in task else "classification")
    assert list(photos.train[0.05]["image_id"]) == list(by_loader["train"]["image_id"])
    ids = list(photos.photos["image_id"])
    assert len(ids) == len(set(ids)) == (213 if task == "segmentation" else 536)


def test_of_another_dataset_a_fraction_is_a_share_of_the_training_photos(monkeypatch):
    monkeypatch.setattr(loading, "paint_dataset", lambda per_tone, seed: paint_dataset(per_tone, seed, size=32))

    photos = load_photo_sets(DataArguments(), "segmentation", [0.05, 0.5])

    assert {fraction: len(rows) for fraction, rows in photos.train.items()} == {0.05: 6, 0.5: 60}
    assert list(photos.tests) == ["test"]
    with pytest.raises(ValueError, match="`task` must be one of"):
        load_photo_sets(DataArguments(), "malignancy", [0.05])


@pytest.fixture
def half_with_tones(monkeypatch):
    """Painted splits of which some photos have no skin tone, as in PAD-UFES-20."""
    painted = paint_dataset(num_per_tone=8, seed=0, size=32)
    tones = [None if row % 3 == 0 else tone for row, tone in enumerate(tone_labels(painted))]
    rows = painted.remove_columns("skin_tone").add_column("skin_tone", tones).cast(painted.features)
    splits = {name: rows.select(range(start, start + 8)) for name, start in zip(SPLITS, (0, 8, 16), strict=False)}
    monkeypatch.setattr(photo_sets, "load_splits", lambda *_: DatasetDict(splits))


def test_numbers_of_labelled_photos_are_nested_shares_of_the_training_photos(half_with_tones):
    photos = load_numbered_sets(DataArguments(), "segmentation", [6, 3], max_scored=5)

    assert {fraction: len(rows) for fraction, rows in photos.train.items()} == {3 / 8: 3, 6 / 8: 6}
    few, more = (set(rows["image_id"]) for rows in photos.train.values())
    assert few < more
    assert {name: len(rows) for name, rows in photos.scored.items()} == {"validation": 5, "test": 5}


def test_malignancy_is_compared_on_photos_that_have_a_tone(half_with_tones):
    photos = load_numbered_sets(DataArguments(), "classification", [3])

    assert None not in tone_labels(photos.photos) + tone_labels(photos.train[3 / 5])
    assert {name: len(rows) for name, rows in photos.scored.items()} == {"validation": 5, "test": 6}
