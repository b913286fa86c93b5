"""scripts/train_segmentation.py, train_classification.py and evaluate_model.py, on a folder of painted photos."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf import features as feature_store
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES
from fedd_hf.training import original_recipe
from fedd_hf.training.run import RunState

SCRIPTS = Path(__file__).parents[2] / "scripts"
TABLE = "file_name,skin_tone,malignant,patient_id,split"


@pytest.fixture(scope="module", autouse=True)
def _working_directory(tmp_path_factory):
    """Commands keep their features in the folder where they are typed; those of all tests share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("typed-here"))
        yield


@pytest.fixture(scope="module")
def train_segmentation():
    return runpy.run_path(str(SCRIPTS / "train_segmentation.py"))["main"]


@pytest.fixture(scope="module")
def train_classification():
    return runpy.run_path(str(SCRIPTS / "train_classification.py"))["main"]


@pytest.fixture(scope="module")
def evaluate_model():
    return runpy.run_path(str(SCRIPTS / "evaluate_model.py"))["main"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eighteen painted photos as a user keeps them: six of each split, each with both labels of every tone."""
    root = tmp_path_factory.mktemp("photos") / "clinic"
    lines = [TABLE]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index, row in enumerate(paint_dataset(num_per_tone=6, seed=0, size=32)):
        name = f"{row['image_id']}.png"
        row["image"].save(root / "images" / name)
        row["mask"].save(root / "masks" / name)
        split = ("train", "validation", "test")[index // 6]
        tone = FEATURES["skin_tone"].int2str(row["skin_tone"])
        lines.append(f"{name},{tone},{int(row['malignant'])},P{index},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def change_table(photos, tmp_path):
    """Copy the folder with another text in its table."""

    def change(old, new):
        root = Path(shutil.copytree(photos, tmp_path / "changed"))
        text = (root / "metadata.csv").read_text()
        assert old in text
        (root / "metadata.csv").write_text(text.replace(old, new))
        return root

    return change


@pytest.fixture
def leaking(change_table):
    """The folder with one patient in training and test."""
    return change_table(",P12,", ",P0,")


@pytest.fixture(scope="module")
def reading(tiny_backbone):
    return ["--backbone", str(tiny_backbone), "--timesteps", "50"]


def arguments_of(photos, output_dir, *more):
    return ["--dataset", "folder", "--root", str(photos), "--output-dir", str(output_dir), *map(str, more)]


@pytest.fixture(scope="module")
def segmentation_arguments(reading):
    sizes = ["--num-steps", "2", "--images-per-step", "2", "--pixels-per-image", "20", "--batch-size", "4"]
    return [*reading, "--blocks", "2", "4", "--image-size", "16", *sizes]


@pytest.fixture(scope="module")
def classification_arguments(reading):
    """Of 64 pixels: pooling needs 32 rows of block 4."""
    return [*reading, "--blocks", "4", "--image-size", "64", "--max-epochs", "2", "--batch-size", "4"]


@pytest.fixture(scope="module")
def segmenter_dir(train_segmentation, photos, segmentation_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "segmentation"
    train_segmentation(arguments_of(photos, folder, "--label-fraction", 0.5, *segmentation_arguments))
    return folder


@pytest.fixture(scope="module")
def classifier_dir(train_classification, photos, classification_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "classification"
    train_classification(arguments_of(photos, folder, *classification_arguments))
    return folder


def refusal(main, arguments):
    """Return the message with which a command ends."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert isinstance(exit_info.value.code, str)  # which Python prints before it exits with 1
    return exit_info.value.code


def weights_in(folder, head="decode_head"):
    model = {"decode_head": FEDDForSegmentation, "classifier": FEDDForImageClassification}[head]
    return model.from_pretrained(folder).get_submodule(head).state_dict()


def assert_same_bits(actual, wanted):
    assert actual.keys() == wanted.keys()
    assert [name for name in actual if not torch.equal(actual[name], wanted[name])] == []


class KilledError(Exception):
    """A command that ends in the middle."""


@pytest.fixture
def kill_at(monkeypatch):
    """Let a command end right after the checkpoint of a step."""

    def kill(step):
        save = RunState.save

        def save_and_die(self, now, counters):
            save(self, now, counters)
            if now == step:
                raise KilledError

        patch.setattr(RunState, "save", save_and_die)

    with monkeypatch.context() as patch:
        kill.undo = patch.undo
        yield kill


@pytest.fixture
def no_backbone(monkeypatch):
    """Let every run of the backbone for features fail from now on."""

    def forbid():
        def compute(*_):
            raise AssertionError("The backbone ran.")

        monkeypatch.setattr(feature_store, "compute_features", compute)

    return forbid


# Training of the segmentation model


def test_the_segmentation_model_opens_with_its_processor(segmenter_dir):
    model = FEDDForSegmentation.from_pretrained(segmenter_dir)
    processor = FEDDImageProcessor.from_pretrained(segmenter_dir)

    assert (model.config.blocks, model.config.timesteps, model.config.image_size) == ([2, 4], [50], 16)
    assert (processor.size["height"], processor.size["width"]) == (16, 16)


def test_the_run_of_the_segmentation_model_is_written_down(segmenter_dir, photos, tiny_backbone):
    run = json.loads((segmenter_dir / "run.json").read_text())

    assert (run["data"]["dataset"], run["data"]["root"]) == ("folder", str(photos))
    assert run["reading"]["backbone"] == str(tiny_backbone)
    assert (run["training"]["num_steps"], run["training"]["seed"]) == (2, 0)
    assert run["photos"] == 3  # half of the six, one of each tone
    assert run["final_loss"] > 0
    assert "torch" in run["machine"]


def test_segmentation_training_says_what_it_counts_and_where_the_model_is(
    train_segmentation, photos, segmentation_arguments, tmp_path, capsys
):
    train_segmentation(arguments_of(photos, tmp_path / "run", *segmentation_arguments))

    printed = capsys.readouterr().out
    header, row, *_ = (line.split() for line in printed.splitlines())
    assert header == ["split", "skin_tone", "photos", "masks", "malignant", "benign", "unlabelled"]
    assert row == ["train", "I-II", "2", "2", "1", "1", "0"]
    assert "Trained on 6 photos, final loss " in printed
    assert str(tmp_path / "run") in printed


def test_the_same_arguments_train_the_same_model(
    train_segmentation, segmenter_dir, photos, segmentation_arguments, tmp_path
):
    arguments = arguments_of(photos, tmp_path / "again", "--label-fraction", 0.5, *segmentation_arguments)

    train_segmentation(arguments)

    first, again = (
        FEDDForSegmentation.from_pretrained(folder).decode_head.state_dict()
        for folder in (segmenter_dir, tmp_path / "again")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_segmentation_training_says_how_much_room_features_take(
    train_segmentation, photos, segmentation_arguments, tmp_path, capsys
):
    train_segmentation(arguments_of(photos, tmp_path / "run", *segmentation_arguments))

    printed = capsys.readouterr().out
    assert "photos" in next(line for line in printed.splitlines() if line.startswith("Features: "))
    assert "features/" in printed


def test_a_run_leaves_the_model_and_no_checkpoint(segmenter_dir):
    names = {path.name for path in segmenter_dir.iterdir() if path.is_file() and path.suffix != ".py"}

    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "run.json"}
    assert not [path for path in segmenter_dir.iterdir() if path.name.strip(".") in ("checkpoints", "partial")]


def test_a_model_is_pushed_with_its_card_and_a_push_that_fails_is_made_up_for_by_the_same_command(
    train_segmentation, photos, segmentation_arguments, tmp_path, hub
):
    options = [*segmentation_arguments, "--checkpoint-every", 1, "--push-to-hub", "me/lesions"]
    hub.fail_commit()
    told = refusal(train_segmentation, arguments_of(photos, tmp_path / "run", *options))
    left = hub.repository("me/lesions").files

    train_segmentation(arguments_of(photos, tmp_path / "run", *options))

    assert re.fullmatch("train_segmentation: me/lesions was not published: .*500.*", told)
    assert left == {}
    files = hub.repository("me/lesions").files
    assert files["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert b"folder: 6 labelled photos." in files["README.md"]
    assert {Path(name).suffix for name in files} == {".json", ".md", ".py", ".safetensors"}
    assert "run.json" not in files
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_classifier_is_pushed_with_its_card(train_classification, photos, classification_arguments, tmp_path, hub):
    train_classification(
        arguments_of(photos, tmp_path / "run", *classification_arguments, "--push-to-hub", "me/malignancy")
    )

    card = ModelCard(hub.repository("me/malignancy").files["README.md"].decode())
    assert card.data.pipeline_tag == "image-classification"
    assert "It has not been evaluated" in card.text


def test_a_command_that_is_typed_again_after_its_success_gives_the_same_model(
    train_segmentation, photos, segmentation_arguments, tmp_path
):
    arguments = arguments_of(photos, tmp_path / "run", *segmentation_arguments, "--checkpoint-every", 1)
    train_segmentation(arguments)
    first = weights_in(tmp_path / "run")

    train_segmentation(arguments)

    assert_same_bits(weights_in(tmp_path / "run"), first)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_segmentation_training_that_was_killed_goes_on_with_the_same_bits(
    steps, train_segmentation, photos, segmentation_arguments, tmp_path, kill_at, no_backbone
):
    options = [*segmentation_arguments, "--num-steps", 4, "--checkpoint-every", 1]
    train_segmentation(arguments_of(photos, tmp_path / "whole", *options))
    kill_at(steps)
    with pytest.raises(KilledError):
        train_segmentation(arguments_of(photos, tmp_path / "run", *options))
    kill_at.undo()
    no_backbone()

    train_segmentation(arguments_of(photos, tmp_path / "run", *options))

    assert_same_bits(weights_in(tmp_path / "run"), weights_in(tmp_path / "whole"))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "other",
    [["--seed", 1], ["--label-fraction", 0.5], ["--learning-rate", 1e-3], ["--gradient-accumulation-steps", 2]],
)
def test_a_training_that_was_killed_does_not_go_on_as_another(
    other, train_segmentation, photos, segmentation_arguments, tmp_path, kill_at
):
    arguments = arguments_of(photos, tmp_path / "run", *segmentation_arguments, "--checkpoint-every", 1)
    kill_at(1)
    with pytest.raises(KilledError):
        train_segmentation(arguments)
    kill_at.undo()

    message = refusal(train_segmentation, [*arguments, *map(str, other)])

    assert "was left by a run with other arguments, photos or processes" in message
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_features_that_are_not_stored_train_the_same_model(
    train_segmentation, photos, segmentation_arguments, tmp_path
):
    train_segmentation(arguments_of(photos, tmp_path / "stored", *segmentation_arguments))
    streaming = [*segmentation_arguments, "--no-store", "--features", tmp_path / "nothing"]

    train_segmentation(arguments_of(photos, tmp_path / "streamed", *streaming))

    assert_same_bits(weights_in(tmp_path / "streamed"), weights_in(tmp_path / "stored"))
    assert not (tmp_path / "nothing").exists()


def test_photos_are_flipped_where_features_are_not_stored(
    train_segmentation, photos, segmentation_arguments, tmp_path
):
    streaming = [*segmentation_arguments, "--no-store"]
    train_segmentation(arguments_of(photos, tmp_path / "plain", *streaming))

    train_segmentation(arguments_of(photos, tmp_path / "augmented", *streaming, "--augment"))

    plain, augmented = weights_in(tmp_path / "plain"), weights_in(tmp_path / "augmented")
    assert not torch.equal(plain["projection.weight"], augmented["projection.weight"])


def test_the_original_recipe_trains_a_model(train_segmentation, photos, segmentation_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(original_recipe, "MAX_EPOCHS", 1)

    train_segmentation(arguments_of(photos, tmp_path / "run", *segmentation_arguments, "--recipe", "original"))

    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["training"]["recipe"] == "original"
    assert run["final_loss"] > 0
    assert FEDDForSegmentation.from_pretrained(tmp_path / "run").config.ensemble_size == 5


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_segmentation_training_runs_under_torchrun(processes, photos, segmentation_arguments, tmp_path):
    arguments = arguments_of(photos, tmp_path / "run", *segmentation_arguments, "--num-threads", 1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}

    told = subprocess.run(
        [sys.executable, *launcher, str(SCRIPTS / "train_segmentation.py"), *arguments, "--features", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )

    assert told.stdout.count("Trained on 6 photos, final loss ") == 1
    assert FEDDForSegmentation.from_pretrained(tmp_path / "run").config.blocks == [2, 4]


# Training of the classifier


def test_the_classifier_opens_with_its_processor(classifier_dir):
    model = FEDDForImageClassification.from_pretrained(classifier_dir)

    assert (model.config.blocks, model.config.timesteps, model.config.image_size) == ([4], [50], 64)
    assert FEDDImageProcessor.from_pretrained(classifier_dir).size["height"] == 64


def test_the_run_of_the_classifier_is_written_down(classifier_dir):
    run = json.loads((classifier_dir / "run.json").read_text())

    assert run["photos"] == 6
    assert run["validation_loss"] > 0
    assert (run["data"]["dataset"], run["training"]["max_epochs"]) == ("folder", 2)


def test_the_classifier_reads_one_block_and_says_so(train_classification, photos, reading, tmp_path):
    message = refusal(train_classification, arguments_of(photos, tmp_path / "run", *reading, "--blocks", 2, 4))

    assert "reads one block at one timestep, got `blocks`=[2, 4], `timesteps`=[50]." in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_the_classifier_that_was_killed_goes_on_with_the_same_bits(
    steps, train_classification, photos, classification_arguments, tmp_path, kill_at
):
    options = [*classification_arguments, "--max-epochs", 3, "--checkpoint-every", 1]
    train_classification(arguments_of(photos, tmp_path / "whole", *options))
    kill_at(steps)
    with pytest.raises(KilledError):
        train_classification(arguments_of(photos, tmp_path / "run", *options))
    kill_at.undo()

    train_classification(arguments_of(photos, tmp_path / "run", *options))

    assert_same_bits(*(weights_in(tmp_path / name, "classifier") for name in ("run", "whole")))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_features_that_are_not_stored_train_the_same_classifier(
    train_classification, photos, classification_arguments, classifier_dir, tmp_path
):
    options = [*classification_arguments, "--no-store", "--features", tmp_path / "nothing"]

    train_classification(arguments_of(photos, tmp_path / "run", *options))

    assert_same_bits(weights_in(tmp_path / "run", "classifier"), weights_in(classifier_dir, "classifier"))
    assert not (tmp_path / "nothing").exists()
    assert not list((tmp_path / "run").glob("*checkpoints*"))


@pytest.mark.parametrize("fraction", [[], ["--label-fraction", "0.5"]], ids=["none", "another"])
def test_the_reading_of_the_paper_needs_one_of_its_label_fractions(
    fraction, train_classification, photos, tiny_backbone, tmp_path
):
    options = ["--backbone", tiny_backbone, "--paper-reading", *fraction]
    arguments = arguments_of(photos, tmp_path / "run", *options)

    message = refusal(train_classification, arguments)

    assert message.startswith("train_classification: The paper reads DDI at `label_fraction` [0.05, 0.1, 0.15, 0.2]")
    assert not (tmp_path / "run").exists()


def test_the_reading_of_the_paper_leaves_no_choice(train_classification, photos, reading, tmp_path):
    message = refusal(train_classification, arguments_of(photos, tmp_path / "run", *reading, "--paper-reading"))

    assert message == (
        "train_classification: --paper-reading chooses block and timestep; leave --blocks and --timesteps out."
    )


# Evaluation


@pytest.fixture(scope="module")
def evaluated(evaluate_model, photos, segmenter_dir, classifier_dir):
    """The folders of the evaluation of both models on the split test."""
    for folder in (segmenter_dir, classifier_dir):
        evaluate_model(arguments_of(photos, folder / "test", "--model", folder))
    return {"segmentation": segmenter_dir / "test", "classification": classifier_dir / "test"}


def test_predictions_of_the_segmentation_model_are_pixel_counts_of_each_photo_and_class(evaluated):
    predictions = pd.read_parquet(evaluated["segmentation"] / "predictions.parquet")

    assert predictions["image_id"].nunique() == 6
    assert len(predictions) == 6 * 5
    assert (predictions[["tp", "fp", "fn", "tn"]].sum(axis=1) == 32 * 32).all()


def test_predictions_of_the_classifier_are_scores_of_each_photo(evaluated):
    predictions = pd.read_parquet(evaluated["classification"] / "predictions.parquet")

    assert sorted(predictions["y_true"]) == [0, 0, 0, 1, 1, 1]
    assert predictions["y_score"].between(0, 1).all()


@pytest.mark.parametrize(("task", "metric"), [("segmentation", "mean_iou"), ("classification", "auroc")])
def test_the_report_has_every_metric_overall_and_by_tone(evaluated, task, metric):
    report = json.loads((evaluated[task] / "report.json").read_text())

    rows = {row["skin_tone"]: row for row in report["by_tone"] if row["metric"] == metric}
    assert {tone: row["n"] for tone, row in rows.items() if tone in ("all", "I-II", "III-IV", "V-VI")} == {
        "all": 6,
        "I-II": 2,
        "III-IV": 2,
        "V-VI": 2,
    }
    assert report["photos_without_tone"] == 0
    assert report["evaluation"]["split"] == "test"


def test_evaluation_prints_the_table_by_tone(evaluate_model, photos, segmenter_dir, tmp_path, capsys):
    evaluate_model(arguments_of(photos, tmp_path, "--model", segmenter_dir, "--split", "validation"))

    printed = capsys.readouterr().out
    assert "validation" in printed
    assert "| V-VI | 2 |" in printed
    assert "0 photos have no recorded skin tone" in printed


def test_photos_without_a_tone_count_overall_only(evaluate_model, change_table, segmenter_dir, tmp_path):
    root = change_table("I-II,0,P12,test", ",0,P12,test")

    evaluate_model(arguments_of(root, tmp_path / "report", "--model", segmenter_dir))

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    counts = {row["skin_tone"]: row["n"] for row in report["by_tone"] if row["metric"] == "mean_iou"}
    assert report["photos_without_tone"] == 1
    assert (counts["all"], counts["I-II"]) == (6, 1)


def test_photos_of_a_test_split_alone_are_evaluated(evaluate_model, change_table, segmenter_dir, tmp_path):
    root = change_table("train\n", "test\n")

    evaluate_model(arguments_of(root, tmp_path / "report", "--model", segmenter_dir))

    assert pd.read_parquet(tmp_path / "report" / "predictions.parquet")["image_id"].nunique() == 12


# Refusals


@pytest.mark.parametrize("script", ["train_segmentation", "train_classification", "evaluate_model"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "imagenet", "--root", "r"], "`dataset` must be one of "),
        (["--dataset", "folder"], "`root` is None, but the dataset 'folder' needs the folder where it lies."),
        (["--dataset", "folder", "--root", "nowhere"], "There is no folder nowhere."),
        (["--root", "r"], "the dataset 'painted' is painted and has no folder."),
    ],
)
def test_wrong_data_is_refused_in_one_line(request, segmenter_dir, tmp_path, script, arguments, message):
    main = request.getfixturevalue(script)
    model = ["--model", str(segmenter_dir)] if script == "evaluate_model" else []

    told = refusal(main, [*arguments, *model, "--output-dir", str(tmp_path / "run")])

    assert told.startswith(f"{script}: ")
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


def test_segmentation_training_without_a_training_split_is_refused(train_segmentation, change_table, tmp_path):
    root = change_table("train\n", "test\n")

    message = refusal(train_segmentation, arguments_of(root, tmp_path / "run"))

    assert message == (
        "train_segmentation: The split 'train' is needed, but the dataset has only ['validation', 'test']."
    )


def test_the_classifier_is_not_trained_without_a_validation_split(train_classification, change_table, tmp_path):
    root = change_table("validation\n", "train\n")

    message = refusal(train_classification, arguments_of(root, tmp_path / "run"))

    assert message == (
        "train_classification: The split 'validation' is needed, but the dataset has only ['train', 'test']."
    )


def test_a_split_that_does_not_exist_is_not_evaluated(evaluate_model, photos, segmenter_dir, tmp_path):
    arguments = arguments_of(photos, tmp_path / "report", "--model", segmenter_dir, "--split", "tset")

    message = refusal(evaluate_model, arguments)

    assert message == (
        "evaluate_model: The split 'tset' is needed, but the dataset has only ['train', 'validation', 'test']."
    )
    assert not (tmp_path / "report").exists()


def test_a_model_that_is_not_there_is_named(evaluate_model, photos, tmp_path):
    arguments = arguments_of(photos, tmp_path / "report", "--model", tmp_path / "nowhere")

    assert "nowhere" in refusal(evaluate_model, arguments)


def test_a_backbone_that_is_not_there_is_named(train_segmentation, photos, tmp_path):
    arguments = arguments_of(photos, tmp_path / "run", "--backbone", tmp_path / "nowhere")

    assert "nowhere" in refusal(train_segmentation, arguments)
    assert not (tmp_path / "run").exists()


def test_a_misspelt_flag_is_named(train_segmentation, photos, tmp_path):
    assert "--label-fractoin" in refusal(train_segmentation, arguments_of(photos, tmp_path, "--label-fractoin", 0.5))


def test_stored_features_are_not_augmented(train_segmentation, photos, tmp_path):
    message = refusal(train_segmentation, arguments_of(photos, tmp_path / "run", "--augment"))

    assert message == ("train_segmentation: Stored features are of photos as they are: `augment` needs `no_store`.")


@pytest.mark.parametrize("script", ["train_segmentation", "train_classification"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--dtype", "bfloat16"], "`dtype` must be one of ['float16', 'float32'], got 'bfloat16'."),
        (["--log-with", "paper"], "paper"),
        (["--checkpoint-every", "0"], "`checkpoint_every` must be at least 1, got 0."),
    ],
)
def test_what_a_run_cannot_do_is_refused_in_one_line(request, script, option, message, photos, tmp_path):
    told = refusal(request.getfixturevalue(script), arguments_of(photos, tmp_path / "run", *option))

    assert told.startswith(f"{script}: ")
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_cut_equally_is_refused(train_segmentation, photos, segmentation_arguments, tmp_path):
    options = [*segmentation_arguments, "--gradient-accumulation-steps", 3]

    message = refusal(train_segmentation, arguments_of(photos, tmp_path / "run", *options))

    assert "`images_per_step` 2 cannot be cut into 3 equal parts" in message


def test_features_of_another_batch_size_are_refused_with_the_folder(
    train_segmentation, photos, segmentation_arguments, tmp_path
):
    options = [*segmentation_arguments, "--features", tmp_path / "features"]
    train_segmentation(arguments_of(photos, tmp_path / "run", *options))

    message = refusal(train_segmentation, arguments_of(photos, tmp_path / "other", *options, "--batch-size", 3))

    assert str(tmp_path / "features") in message
    assert "was begun with" in message


LEAK = "same patient or lesion: painted-0000-000000 (train) and painted-0000-000012 (test)"


def test_leakage_is_refused_by_the_training_of_the_segmentation_model_unless_it_is_allowed(
    train_segmentation, leaking, segmentation_arguments, tmp_path
):
    arguments = arguments_of(leaking, tmp_path / "run", *segmentation_arguments)

    message = refusal(train_segmentation, arguments)
    train_segmentation([*arguments, "--allow-leakage"])

    assert LEAK in message
    assert "`--allow-leakage`" in message
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["allow_leakage"] is True


def test_leakage_is_refused_by_the_training_of_the_classifier_unless_it_is_allowed(
    train_classification, leaking, classification_arguments, tmp_path
):
    arguments = arguments_of(leaking, tmp_path / "run", *classification_arguments)

    message = refusal(train_classification, arguments)
    train_classification([*arguments, "--allow-leakage"])

    assert LEAK in message
    assert (tmp_path / "run" / "run.json").is_file()


def test_leakage_is_refused_by_the_evaluation_unless_it_is_allowed(evaluate_model, leaking, segmenter_dir, tmp_path):
    arguments = arguments_of(leaking, tmp_path / "report", "--model", segmenter_dir)

    message = refusal(evaluate_model, arguments)
    evaluate_model([*arguments, "--allow-leakage"])

    assert LEAK in message
    assert (tmp_path / "report" / "report.json").is_file()


@pytest.mark.parametrize(
    ("command", "option"), [("train_segmentation", "--num-steps"), ("train_classification", "--max-epochs")]
)
def test_a_training_of_no_steps_is_refused_before_photos_are_read(command, option, request, tmp_path):
    main = request.getfixturevalue(command)

    message = refusal(main, ["--output-dir", str(tmp_path / "run"), option, "0"])

    assert message == f"{command}: `{option[2:].replace('-', '_')}` must be at least 1, got 0."
