import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor, cli, modeling_fedd, prediction
from fedd_hf.cli import quickstart_run
from fedd_hf.evaluation.report import read_report

LABELS = ["background", "lesion", "marker", "ruler", "skin"]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def message_of(result):
    """Printed text without the frames that typer draws."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def files_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def draw_photo(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def models(_tiny_models, tmp_path_factory):
    """Folders of a tiny random model of each task."""
    folder = tmp_path_factory.mktemp("models")
    for task, model in _tiny_models.items():
        model.save_pretrained(folder / task)
        FEDDImageProcessor(size=16).save_pretrained(folder / task)
    return {task: folder / task for task in _tiny_models}


@pytest.fixture
def photos(tmp_path):
    """Two good photos of different sizes, the first with the place where it was taken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[270] = "SECRET-DESCRIPTION"
    exif.get_ifd(0x8825)[29] = "SECRET-GPS-DATE"
    draw_photo((40, 60)).save(folder / "wide.jpg", exif=exif)
    draw_photo((50, 30), seed=1).save(folder / "tall.png")
    return folder


@pytest.fixture
def bad_photos(photos):
    """The good photos with a truncated one and a text file between them."""
    whole = (photos / "wide.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.png").write_text("This is no picture.")
    return photos


def test_help_lists_the_commands_and_says_that_this_is_research_only():
    message = message_of(invoke("--help"))

    assert {"quickstart", "predict"} <= set(message_of(invoke()).split())
    assert "not for diagnosis" in message
    for command in ("quickstart", "predict"):
        assert invoke(command, "--help").exit_code == 0


# --- predict: good photos --------------------------------------------------------------------------------------------


def test_both_models_say_all_about_each_photo_in_a_line_a_map_and_an_overlay(photos, models, tmp_path):
    out = tmp_path / "out [bold]"
    both = [argument for model in models.values() for argument in ("--model", model)]

    result = invoke("predict", photos, *both, "--output-dir", out)

    assert result.exit_code == 0, result.output
    assert "2 of 2 photos predicted" in message_of(result)
    assert "out [bold]" in message_of(result)
    names = [f"{name}_{kind}.png" for name in ("tall", "wide") for kind in ("map", "overlay")]
    assert files_in(out) == ["predictions.jsonl", *names]
    tall, wide = lines_of(out)
    assert tall["image"] == str(photos / "tall.png")
    said = {"image", "map", "overlay", "area", "uncertainty", "malignancy", "malignancy_uncertainty", "outside_share"}
    assert set(tall) == set(wide) == said
    for line, size in ((tall, (30, 50)), (wide, (60, 40))):
        segmentation_map = Image.open(out / line["map"])
        assert segmentation_map.size == Image.open(out / line["overlay"]).size == size
        shares = {label: (np.array(segmentation_map) == index).mean() for index, label in enumerate(LABELS)}
        assert line["area"] == pytest.approx(shares, abs=1e-6)
        score = line["malignancy"]
        entropy = -(score * np.log(score) + (1 - score) * np.log(1 - score))
        assert line["malignancy_uncertainty"] == pytest.approx(entropy, abs=1e-4)
        assert line["outside_share"] == 0.0


def test_nothing_of_the_metadata_of_a_photo_is_written(photos, models, tmp_path):
    assert b"SECRET-GPS-DATE" in (photos / "wide.jpg").read_bytes()

    invoke("predict", photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    for file in (tmp_path / "out").iterdir():
        assert b"SECRET" not in file.read_bytes()
        if file.suffix == ".png":
            assert dict(Image.open(file).getexif()) == {}
            assert Image.open(file).info == {}


def test_two_photos_of_one_name_do_not_overwrite_each_other(models, tmp_path):
    for folder, size in {"a": (20, 30), "b": (40, 50), "c": (60, 20)}.items():
        (tmp_path / folder).mkdir()
        draw_photo(size).save(tmp_path / folder / ("LESION.PNG" if folder == "c" else "lesion.png"))

    folders = [tmp_path / folder for folder in "abc"]
    result = invoke("predict", *folders, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    lines = lines_of(tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [line["map"] for line in lines] == ["lesion_map.png", "lesion-2_map.png", "LESION-3_map.png"]
    sizes = [Image.open(tmp_path / "out" / line["map"]).size for line in lines]
    assert sizes == [(30, 20), (50, 40), (20, 60)]


def test_output_names_never_meet(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "a.jpg", "a-2.png", "b/a.png", "A.png", "a-2.jpg")]

    names = cli.predict._output_names(paths)

    assert list(names) == paths
    assert len({name.casefold() for name in names.values()}) == 6


def test_a_photo_that_is_named_twice_is_predicted_once(photos, models, tmp_path):
    wide = photos / "wide.jpg"

    invoke("predict", wide, wide, photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert [line["image"] for line in lines_of(tmp_path / "out")] == [str(wide), str(photos / "tall.png")]


def test_what_was_predicted_into_a_folder_of_photos_is_not_taken_for_photos(photos, models, tmp_path):
    command = ("predict", photos, "--model", models["classification"], "--output-dir", photos / "out")
    invoke(*command)

    assert "2 of 2 photos predicted" in message_of(invoke(*command))


def test_the_folder_of_the_photos_is_refused_as_output(photos, models):
    result = invoke("predict", photos, "--model", models["segmentation"], "--output-dir", photos)

    assert result.exit_code == 2
    assert "Choose another folder than that of the photos" in message_of(result)
    assert files_in(photos) == ["tall.png", "wide.jpg"]


# --- predict: bad photos ---------------------------------------------------------------------------------------------


def test_bad_photos_are_named_at_the_end_and_do_not_stop_the_good_ones(bad_photos, models, tmp_path):
    missing = tmp_path / "missing.jpg"

    result = invoke(
        "predict", bad_photos, missing, "--model", models["segmentation"], "--output-dir", tmp_path / "out"
    )

    message = message_of(result)
    assert result.exit_code == 1
    assert "2 of 5 photos predicted" in message
    assert re.findall(r"Failed: [^:]*?(\w+\.\w+)", message) == ["cut.jpg", "text.png", "missing.jpg"]
    assert [line["image"] for line in lines_of(tmp_path / "out")] == [
        str(bad_photos / "tall.png"),
        str(bad_photos / "wide.jpg"),
    ]
    assert "Traceback" not in result.output


def test_an_empty_folder_is_no_success(models, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo")

    result = invoke("predict", tmp_path / "empty", "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert result.exit_code == 1
    assert "there is no photo" in message_of(result)


def test_a_folder_that_is_named_like_a_photo_is_looked_into(photos, models, tmp_path):
    (photos / "more.png").mkdir()
    draw_photo((20, 20)).save(photos / "more.png" / "third.png")

    result = invoke("predict", photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert "3 of 3 photos predicted" in message_of(result)


# --- predict: batches ------------------------------------------------------------------------------------------------


@pytest.fixture
def five_photos(tmp_path):
    """Photos of five sizes."""
    folder = tmp_path / "five"
    folder.mkdir()
    for index in range(5):
        draw_photo((20 + index, 30), seed=index).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def batches(monkeypatch):
    """How many photos were segmented together; two at most fit into a batch."""
    monkeypatch.setattr(modeling_fedd, "_PIXELS_PER_BATCH", 2 * 16 * 16)
    segment, sizes = prediction.segment_photos, []

    def note_and_segment(model, processor, photos):
        sizes.append(len(photos))
        return segment(model, processor, photos)

    monkeypatch.setattr(prediction, "segment_photos", note_and_segment)
    return sizes


def test_photos_are_predicted_in_batches_that_change_nothing(five_photos, batches, models, tmp_path, monkeypatch):
    command = ["predict", five_photos, "--model", models["segmentation"], "--output-dir"]
    result = invoke(*command, tmp_path / "out")
    monkeypatch.setattr(modeling_fedd, "_PIXELS_PER_BATCH", 1)
    invoke(*command, tmp_path / "alone")

    assert result.exit_code == 0, result.output
    assert batches == [2, 2, 1] + [1] * 5
    assert [line["map"] for line in lines_of(tmp_path / "out")] == [f"{index}_map.png" for index in range(5)]
    for together, alone in zip(lines_of(tmp_path / "out"), lines_of(tmp_path / "alone"), strict=True):
        assert together["uncertainty"] == pytest.approx(alone["uncertainty"], abs=2e-6)
        assert together["area"] == pytest.approx(alone["area"], abs=0.01)  # votes may turn on 1e-6


def test_a_bad_photo_does_not_shorten_a_batch(five_photos, batches, models, tmp_path):
    (five_photos / "1.png").write_text("This is no picture.")

    result = invoke("predict", five_photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert batches == [2, 2]
    assert "4 of 5 photos predicted" in message_of(result)
    assert f"Failed: {five_photos / '1.png'} is not an image" in message_of(result)


def test_a_photo_on_which_the_model_fails_fails_for_itself_only(five_photos, models, tmp_path, monkeypatch):
    segment = prediction.segment_photos

    def fail_on_the_third(model, processor, photos):
        if any(photo.height == 22 for photo in photos):
            raise RuntimeError("out of memory")
        return segment(model, processor, photos)

    monkeypatch.setattr(prediction, "segment_photos", fail_on_the_third)
    result = invoke("predict", five_photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert result.exit_code == 1
    assert f"Failed: {five_photos / '2.png'}: out of memory" in message_of(result)
    assert message_of(result).count("Failed") == 1
    assert [line["map"] for line in lines_of(tmp_path / "out")] == [f"{index}_map.png" for index in (0, 1, 3, 4)]


def test_large_photos_do_not_wait_for_a_full_batch(five_photos, batches, models, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.predict, "HELD_PIXELS", 21 * 30)

    invoke("predict", five_photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert batches == [2, 1, 1, 1]  # the first two have 20 x 30 and 21 x 30 pixels


# --- predict: bad models ---------------------------------------------------------------------------------------------


def assert_refused_in_one_message(result, *words):
    message = message_of(result)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert message.count("Invalid value for --model") == 1
    for word in words:
        assert word in message


def test_what_is_no_model_is_refused(photos, tiny_backbone, tmp_path):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')

    for model, words in {
        str(tmp_path / "nothing"): ["nothing", "config.json"],
        "no-such/model": ["no-such/model"],
        str(tmp_path / "bert"): ["'bert'", "'fedd'"],
        str(tiny_backbone): [],
    }.items():
        result = invoke("predict", photos, "--model", model, "--output-dir", tmp_path / "out")

        assert_refused_in_one_message(result, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut weights", "no weights", "no processor", "other shapes", "cut config"])
def test_a_damaged_model_is_refused(damage, photos, models, tmp_path):
    folder = tmp_path / "model"
    FEDDForSegmentation.from_pretrained(models["segmentation"]).save_pretrained(folder)
    FEDDImageProcessor(size=16).save_pretrained(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no processor":
        (folder / "preprocessor_config.json").unlink()
    elif damage == "other shapes":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_sizes": [7, 6]}))
    else:
        config.write_text(config.read_text()[:100])

    result = invoke("predict", photos, "--model", folder, "--output-dir", tmp_path / "out")

    assert_refused_in_one_message(result)


def test_two_models_of_one_task_are_refused(photos, models, tmp_path):
    twice = ["--model", models["segmentation"]] * 2

    result = invoke("predict", photos, *twice, "--output-dir", tmp_path / "out")

    assert_refused_in_one_message(result, "overwrite each other")


def test_an_output_folder_that_is_a_file_is_refused(photos, models, tmp_path):
    (tmp_path / "out").write_text("a file")

    for command in (["predict", photos, "--model", models["segmentation"]], ["quickstart"]):
        result = invoke(*command, "--output-dir", tmp_path / "out")

        assert result.exit_code == 2
        assert "is a file" in message_of(result)


# --- interruption ----------------------------------------------------------------------------------------------------


def test_lines_so_far_survive_an_interruption(photos, models, tmp_path, monkeypatch):
    draw, calls = cli.predict._draw_segmentation, []

    def interrupt_the_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(cli.predict, "_draw_segmentation", interrupt_the_second)
    result = invoke("predict", photos, "--model", models["segmentation"], "--output-dir", tmp_path / "out")

    assert result.exit_code == 130
    assert [line["image"] for line in lines_of(tmp_path / "out")] == [str(photos / "tall.png")]
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_ctrl_c_ends_a_quickstart_without_a_traceback_or_a_half_result(tmp_path):
    command = [sys.executable, "-c", "from fedd_hf.cli import app; app()", "quickstart", "--output-dir", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.partial-*/new/*")) and time.monotonic() < deadline:
        time.sleep(0.2)

    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in output + error
    assert files_in(tmp_path) in ([], ["out"])


# --- quickstart ------------------------------------------------------------------------------------------------------


def test_quickstart_leaves_models_pictures_tables_and_a_report(quickstart):
    assert sorted(child.name for child in quickstart.iterdir()) == [
        "by_tone.png",
        "classification",
        "classification_predictions.parquet",
        "maps",
        "masks",
        "overlays.png",
        "photos",
        "report.json",
        "segmentation",
        "segmentation_predictions.parquet",
    ]
    names = sorted(file.name for file in (quickstart / "photos").iterdir())
    assert len(names) == 6
    for kind in ("masks", "maps"):
        assert sorted(file.name for file in (quickstart / kind).iterdir()) == names


def test_the_report_of_a_quickstart_says_what_was_done_and_how_well(quickstart):
    report = read_report(quickstart / "report.json")

    assert list(report) == ["experiment", "data", "segmentation", "classification", "seconds", "machine"]
    assert report["experiment"] == "quickstart"
    assert report["data"]["test_per_tone"] == 2
    assert report["segmentation"]["arguments"]["num_steps"] == 3
    assert report["classification"]["epochs"] == 2
    for task in ("segmentation", "classification"):
        numbers = {row["skin_tone"]: row["n"] for row in report[task]["by_tone"]}
        assert numbers == {"all": 6, "I-II": 2, "III-IV": 2, "V-VI": 2, "mean of tones": 6}
        assert report[task]["backbone"] == "embedded"


def test_quickstart_prints_a_table_per_task_and_what_to_type_next(quickstart):
    printed = (quickstart.parent / "printed.txt").read_text()

    message = " ".join(printed.split())
    for words in ("lesion IoU", "malignancy AUROC", "III-IV", "Research only", 'pipeline("image-segmentation"'):
        assert words in message
    assert "† coverage < 90 %" in message  # two photos of a tone
    assert "AUPRC" not in message
    assert str(quickstart / "report.json") in printed


def test_the_models_of_a_quickstart_can_be_opened(quickstart, tmp_path):
    models = ["--model", quickstart / "segmentation", "--model", quickstart / "classification"]

    result = invoke("predict", quickstart / "photos", *models, "--output-dir", tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert "6 of 6 photos predicted" in message_of(result)


def test_what_a_quickstart_writes_does_not_say_where(quickstart):
    for file in (file for file in quickstart.rglob("*") if file.is_file()):
        assert b".partial-" not in file.read_bytes(), file


def test_pictures_of_a_quickstart_carry_no_metadata(quickstart):
    for file in quickstart.rglob("*.png"):
        assert set(Image.open(file).info) <= {"dpi"}, file


@pytest.mark.parametrize("content", [{"thesis.txt": "mine"}, {"report.json": '{"experiment": "block_timestep"}'}])
def test_quickstart_refuses_a_folder_that_is_not_its_own(content, tmp_path):
    for name, text in content.items():
        (tmp_path / name).write_text(text)

    result = invoke("quickstart", "--output-dir", tmp_path)

    assert result.exit_code == 2
    assert "is no quickstart" in message_of(result)
    assert files_in(tmp_path) == list(content)


def write_marker(text):
    """Stand in for a quickstart: a report, a folder with one file, and no model."""

    def run(folder):
        (folder / "photos").mkdir()
        (folder / "photos" / f"{text}.png").write_text(text)
        (folder / "report.json").write_text(json.dumps({"experiment": "quickstart", "text": text}))
        return {}

    return run


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setattr(cli.quickstart, "_draw_quickstart", lambda *_: None)
    monkeypatch.setattr(cli.quickstart, "_print_quickstart", lambda *_: None)


def test_quickstart_takes_the_folder_that_one_is_in(silent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart_run, "run_quickstart", write_marker("here"))

    result = invoke("quickstart", "--output-dir", ".")

    assert result.exit_code == 0, result.output
    assert files_in(tmp_path) == ["photos", "photos/here.png", "report.json"]


def test_a_second_quickstart_replaces_the_first_and_nothing_else(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart_run, "run_quickstart", write_marker("first"))
    invoke("quickstart", "--output-dir", tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    monkeypatch.setattr(quickstart_run, "run_quickstart", write_marker("second"))
    result = invoke("quickstart", "--output-dir", tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert read_report(tmp_path / "out" / "report.json")["text"] == "second"
    assert files_in(tmp_path / "out") == ["notes.txt", "photos", "photos/second.png", "report.json"]


@pytest.mark.parametrize(("stage", "failure"), [("run", RuntimeError("no memory")), ("draw", KeyboardInterrupt())])
def test_a_failure_in_the_middle_leaves_the_earlier_result(stage, failure, silent, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart_run, "run_quickstart", write_marker("first"))
    invoke("quickstart", "--output-dir", tmp_path / "out")

    def fail(*_):
        raise failure

    monkeypatch.setattr(quickstart_run, "run_quickstart", fail if stage == "run" else write_marker("second"))
    monkeypatch.setattr(cli.quickstart, "_draw_quickstart", fail)
    result = invoke("quickstart", "--output-dir", tmp_path / "out")

    assert result.exit_code != 0
    assert files_in(tmp_path / "out") == ["photos", "photos/first.png", "report.json"]
    assert read_report(tmp_path / "out" / "report.json")["text"] == "first"


def test_a_damaged_quickstart_is_not_overwritten_silently(tmp_path):
    (tmp_path / "report.json").write_text('{"experiment": "quick')

    assert invoke("quickstart", "--output-dir", tmp_path).exit_code == 2
