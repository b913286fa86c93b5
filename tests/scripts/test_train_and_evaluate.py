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
from huggingface_hub import ModelCard

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES

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


# Training of the segmentation model


def test_training_leaves_a_model_with_its_processor_and_report(segmenter_dir, photos, tiny_backbone):
    assert {path.name for path in segmenter_dir.iterdir() if path.suffix != ".py"} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "run.json",
    }
    config = FEDDForSegmentation.from_pretrained(segmenter_dir).config
    assert (config.blocks, config.timesteps, config.image_size) == ([2, 4], [50], 16)
    assert FEDDImageProcessor.from_pretrained(segmenter_dir).size["height"] == 16
    run = json.loads((segmenter_dir / "run.json").read_text())
    assert (run["data"]["dataset"], run["data"]["root"]) == ("folder", str(photos))
    assert run["reading"]["backbone"] == str(tiny_backbone)
    assert (run["training"]["num_steps"], run["training"]["seed"]) == (2, 0)
    assert run["photos"] == 3  # half of the six, one of each tone
    assert run["final_loss"] > 0
    assert "torch" in run["machine"]


def test_the_same_command_says_what_it_does_and_trains_the_same_model(
    train_segmentation, segmenter_dir, photos, segmentation_arguments, tmp_path, capsys
):
    train_segmentation(arguments_of(photos, tmp_path / "run", "--label-fraction", 0.5, *segmentation_arguments))

    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (segmenter_dir / "model.safetensors").read_bytes()
    printed = capsys.readouterr().out
    header, row, *_ = (line.split() for line in printed.splitlines())
    assert header == ["split", "skin_tone", "photos", "masks", "malignant", "benign", "unlabelled"]
    assert row == ["train", "I-II", "1", "1", "1", "0", "0"]
    assert re.search("Features: .* bytes an image, .* for 3 photos.*: features/", printed)
    assert "Trained on 3 photos, final loss " in printed
    assert str(tmp_path / "run") in printed


def test_a_push_that_fails_is_made_up_for_by_the_same_command(
    train_segmentation, photos, segmentation_arguments, tmp_path, hub
):
    options = [*segmentation_arguments, "--push-to-hub", "me/lesions"]
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


@pytest.mark.slow
def test_segmentation_training_runs_under_torchrun(photos, segmentation_arguments, tmp_path):
    arguments = arguments_of(photos, tmp_path / "run", *segmentation_arguments, "--num-threads", 1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
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


def test_a_classifier_is_trained_and_pushed_with_its_card(
    train_classification, photos, classification_arguments, tmp_path, hub
):
    train_classification(
        arguments_of(photos, tmp_path / "run", *classification_arguments, "--push-to-hub", "me/malignancy")
    )

    config = FEDDForImageClassification.from_pretrained(tmp_path / "run").config
    assert (config.blocks, config.timesteps, config.image_size) == ([4], [50], 64)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["photos"], run["training"]["max_epochs"]) == (6, 2)
    assert run["validation_loss"] > 0
    card = ModelCard(hub.repository("me/malignancy").files["README.md"].decode())
    assert card.data.pipeline_tag == "image-classification"
    assert "It has not been evaluated" in card.text


def test_the_classifier_reads_one_block_and_says_so(train_classification, photos, reading, tmp_path):
    message = refusal(train_classification, arguments_of(photos, tmp_path / "run", *reading, "--blocks", 2, 4))

    assert "reads one block at one timestep, got `blocks`=[2, 4], `timesteps`=[50]." in message
    assert not (tmp_path / "run").exists()


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


def test_predictions_are_pixel_counts_or_scores_of_each_photo(evaluated):
    counts = pd.read_parquet(evaluated["segmentation"] / "predictions.parquet")
    scores = pd.read_parquet(evaluated["classification"] / "predictions.parquet")

    assert (counts["image_id"].nunique(), len(counts)) == (6, 6 * 5)
    assert (counts[["tp", "fp", "fn", "tn"]].sum(axis=1) == 32 * 32).all()
    assert sorted(scores["y_true"]) == [0, 0, 0, 1, 1, 1]
    assert scores["y_score"].between(0, 1).all()


@pytest.mark.parametrize(("task", "metric"), [("segmentation", "mean_iou"), ("classification", "auroc")])
def test_the_report_has_every_metric_overall_and_by_tone(evaluated, task, metric):
    report = json.loads((evaluated[task] / "report.json").read_text())

    rows = {row["skin_tone"]: row["n"] for row in report["by_tone"] if row["metric"] == metric}
    assert rows.items() >= {"all": 6, "I-II": 2, "III-IV": 2, "V-VI": 2}.items()
    assert (report["photos_without_tone"], report["evaluation"]["split"]) == (0, "test")


def test_photos_without_a_tone_count_overall_only(evaluate_model, change_table, segmenter_dir, tmp_path, capsys):
    root = change_table("I-II,0,P12,test", ",0,P12,test")

    evaluate_model(arguments_of(root, tmp_path / "report", "--model", segmenter_dir))

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    counts = {row["skin_tone"]: row["n"] for row in report["by_tone"] if row["metric"] == "mean_iou"}
    assert (report["photos_without_tone"], counts["all"], counts["I-II"]) == (1, 6, 1)
    assert "| V-VI | 2 |" in capsys.readouterr().out


def test_a_dataset_of_a_test_split_alone_is_evaluated_and_not_trained_on(
    train_segmentation, train_classification, evaluate_model, change_table, segmenter_dir, tmp_path
):
    root = change_table("train\n", "test\n")

    evaluate_model(arguments_of(root, tmp_path / "report", "--model", segmenter_dir))

    assert pd.read_parquet(tmp_path / "report" / "predictions.parquet")["image_id"].nunique() == 12
    needed = "The split 'train' is needed, but the dataset has only ['validation', 'test']."
    assert refusal(train_segmentation, arguments_of(root, tmp_path / "run")) == f"train_segmentation: {needed}"
    assert refusal(train_classification, arguments_of(root, tmp_path / "run")) == f"train_classification: {needed}"


# Refusals


@pytest.mark.parametrize("script", ["train_segmentation", "train_classification", "evaluate_model"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "imagenet", "--root", "r"], "`dataset` must be one of "),
        (["--dataset", "folder"], "`root` is None, but the dataset 'folder' needs the folder where it lies."),
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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--dtype", "bfloat16"], "`dtype` must be one of ['float16', 'float32'], got 'bfloat16'."),
        (["--log-with", "paper"], "paper"),
        (["--backbone", "./nowhere"], "nowhere"),
        (["--label-fractoin", "0.5"], "--label-fractoin"),
    ],
)
@pytest.mark.parametrize("script", ["train_segmentation", "train_classification"])
def test_what_a_run_cannot_do_is_refused_in_one_line(request, script, option, message, photos, tmp_path):
    told = refusal(request.getfixturevalue(script), arguments_of(photos, tmp_path / "run", *option))

    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


def test_evaluation_names_a_split_or_a_model_that_is_not_there(evaluate_model, photos, segmenter_dir, tmp_path):
    no_split = arguments_of(photos, tmp_path / "report", "--model", segmenter_dir, "--split", "tset")
    no_model = arguments_of(photos, tmp_path / "report", "--model", tmp_path / "nowhere")

    assert refusal(evaluate_model, no_split) == (
        "evaluate_model: The split 'tset' is needed, but the dataset has only ['train', 'validation', 'test']."
    )
    assert "nowhere" in refusal(evaluate_model, no_model)
    assert not (tmp_path / "report").exists()


def test_features_of_another_batch_size_are_refused_with_the_folder(
    train_segmentation, photos, segmentation_arguments, tmp_path
):
    options = [*segmentation_arguments, "--features", tmp_path / "features"]
    train_segmentation(arguments_of(photos, tmp_path / "run", *options))

    message = refusal(train_segmentation, arguments_of(photos, tmp_path / "other", *options, "--batch-size", 3))

    assert str(tmp_path / "features") in message
    assert "was begun with" in message


LEAK = "same patient or lesion: painted-0000-000000 (train) and painted-0000-000012 (test)"


def test_leakage_is_refused_by_training_and_evaluation_unless_it_is_allowed(
    train_segmentation, evaluate_model, leaking, segmentation_arguments, tmp_path
):
    training = arguments_of(leaking, tmp_path / "run", *segmentation_arguments)
    evaluation = arguments_of(leaking, tmp_path / "report", "--model", tmp_path / "run")

    messages = [refusal(train_segmentation, training)]
    train_segmentation([*training, "--allow-leakage"])
    messages.append(refusal(evaluate_model, evaluation))
    evaluate_model([*evaluation, "--allow-leakage"])

    assert all(LEAK in message and "`--allow-leakage`" in message for message in messages)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["allow_leakage"] is True
    assert (tmp_path / "report" / "report.json").is_file()
