import json

import pytest
import torch

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.training.arguments import (
    ClassificationArguments,
    FeatureArguments,
    PretrainingArguments,
    RunArguments,
    SegmentationArguments,
)
from fedd_hf.training.run import save_run, start_accelerator


@pytest.fixture
def run_arguments(tmp_path):
    return RunArguments(output_dir=str(tmp_path / "run"))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.utils.imports._is_package_available", lambda *_, **__: False)

    with pytest.raises(ValueError, match="log_with.*'comet_ml'"):
        start_accelerator(RunArguments(output_dir=str(tmp_path / "run"), log_with="comet_ml"))

    assert not (tmp_path / "run").exists()


def test_precision_and_parts_are_those_of_the_run(tmp_path, make_accelerator):
    make_accelerator("bf16")
    arguments = RunArguments(output_dir=str(tmp_path), mixed_precision="bf16", gradient_accumulation_steps=4)

    accelerator = start_accelerator(arguments)

    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("bf16", 4)
    assert accelerator.split_batches
    assert accelerator.trackers == []


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        (RunArguments, {"output_dir": "run", "gradient_accumulation_steps": 0}, "must be at least 1, got 0"),
        (FeatureArguments, {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        (FeatureArguments, {"dtype": "bfloat16"}, r"`dtype` must be one of \['float16', 'float32'\], got 'bfloat16'"),
        (SegmentationArguments, {"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        (SegmentationArguments, {"class_weights": "equal"}, "`class_weights` must be one of"),
        (ClassificationArguments, {"max_epochs": 0}, "`max_epochs` must be at least 1, got 0"),
        (PretrainingArguments, {"exposures": [24]}, "one number for each stage"),
        (PretrainingArguments, {"exposures": [24, 3]}, r"`exposures\[1\]` 3 is less than one batch of 12"),
        (PretrainingArguments, {"batch_sizes": [4, 0]}, r"`batch_sizes\[1\]` must be at least 1, got 0"),
        (PretrainingArguments, {"look_every": 0}, "`look_every` must be at least 1, got 0"),
        (PretrainingArguments, {"ema_decay": 1.5}, r"`ema_decay` must lie in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_arguments_are_refused(arguments, fields, message):
    with pytest.raises(ValueError, match=message):
        arguments(**fields)


def test_a_run_leaves_model_processor_and_report_beside_what_lies_there(
    make_segmenter, processor, accelerator, run_arguments, tiny_backbone, tmp_path
):
    model, folder = make_segmenter(), tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")

    save_run(model, processor, {"photos": 6}, run_arguments, accelerator)

    files = {name for name in names_in(folder) if not name.endswith(".py")}  # code for trust_remote_code
    assert files == {"config.json", "model.safetensors", "notes.txt", "preprocessor_config.json", "run.json"}
    assert names_in(tmp_path) == ["run"]
    assert json.loads((folder / "run.json").read_text()) == {"photos": 6}
    opened = FEDDForSegmentation.from_pretrained(folder)
    assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert opened.config.backbone == str(tiny_backbone)
    assert FEDDImageProcessor.from_pretrained(folder).size["height"] == 32


def test_heads_alone_are_saved_with_the_way_to_their_backbone(
    make_segmenter, processor, accelerator, run_arguments, tmp_path
):
    model = make_segmenter()
    model.config.save_backbone = False

    save_run(model, processor, {}, run_arguments, accelerator)

    opened = FEDDForSegmentation.from_pretrained(tmp_path / "run")
    assert torch.equal(opened.backbone.unet.conv_in.weight, model.backbone.unet.conv_in.weight)


def test_a_save_that_fails_leaves_the_files_of_the_run_before(
    make_segmenter, processor, accelerator, run_arguments, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        raise InterruptedError

    save_run(make_segmenter(), processor, {"run": 1}, run_arguments, accelerator)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(FEDDImageProcessor, "save_pretrained", interrupt)
        with pytest.raises(InterruptedError):
            save_run(make_segmenter(ensemble_size=3), processor, {"run": 2}, run_arguments, accelerator)

    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before

    save_run(make_segmenter(ensemble_size=3), processor, {"run": 3}, run_arguments, accelerator)
    assert names_in(tmp_path / "run") == sorted(before)
    assert FEDDForSegmentation.from_pretrained(tmp_path / "run").config.ensemble_size == 3
