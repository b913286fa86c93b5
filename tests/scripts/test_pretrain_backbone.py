"""scripts/pretrain_backbone.py: from photos to a backbone that FEDD reads."""

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

from fedd_hf import FEDDForSegmentation
from fedd_hf.data import loading

SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPTS / "pretrain_backbone.py"))["main"]


@pytest.fixture
def few_painted(monkeypatch):
    monkeypatch.setattr(loading, "PAINTED_PER_TONE", {"train": 2, "validation": 1, "test": 1})


@pytest.fixture
def arguments(tmp_path):
    options = {"--datasets": "painted", "--probe": "painted", "--output-dir": tmp_path / "run", "--look-every": 3}
    options |= {"--image-sizes": 16, "--exposures": 24, "--batch-sizes": 4, "--probe-blocks": 4}
    return [str(part) for option in options.items() for part in option] + ["--block-out-channels", "8", "16", "16"]


def test_photos_become_a_backbone_with_its_card_curve_and_samples(main, few_painted, arguments, tmp_path):
    main(arguments)

    run = tmp_path / "run"
    report = json.loads((run / "pretraining.json").read_text())
    assert len(report["losses"]) == 6
    assert [look["exposures"] for look in report["looks"]] == [12, 24]
    assert all(0 <= look["lesion_iou"] <= 1 for look in report["looks"])
    assert report["photos"] == [{"dataset": "painted", "photos": 6, "times": 1}]
    assert Image.open(run / "samples" / "00000024.png").size == (64, 64)
    card = (run / "backbone" / "README.md").read_text()
    assert "not a medical device" in card
    assert "| painted | 6 | 1 |" in card
    assert not (run / "checkpoints").exists()
    model = FEDDForSegmentation.from_backbone(str(run / "backbone"), blocks=[4], timesteps=[50], image_size=16)
    assert model.config.num_blocks == 9


def test_training_continues_from_another_backbone_and_repeats_a_small_dataset(
    main, few_painted, arguments, tiny_backbone, tmp_path
):
    main([*arguments, "--backbone", str(tiny_backbone), "--repeats", "3"])

    card = (tmp_path / "run" / "backbone" / "README.md").read_text()
    assert f"Training went on from the backbone `{tiny_backbone.name}`" in card
    report = json.loads((tmp_path / "run" / "pretraining.json").read_text())
    assert report["photos"] == [{"dataset": "painted", "photos": 6, "times": 3}]


def test_the_backbone_and_its_card_are_pushed_in_one_commit(
    main, few_painted, arguments, hub, tiny_backbone, tmp_path
):
    main([*arguments, "--backbone", str(tiny_backbone), "--push-to-hub", "me/backbone"])

    repository = hub.repository("me/backbone")
    assert set(repository.files) == {
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert len(list(repository.head.history())) == 2
    saved = {name: (tmp_path / "run" / "backbone" / name).read_bytes() for name in repository.files}
    assert repository.files == saved
    assert not any(str(tiny_backbone).encode() in saved[name] for name in saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--datasets", "nowhere"], "`dataset` must be one of"),
        (["--datasets", "isic"], "needs the folder where it lies"),
        (["--backbone", "./nowhere"], "The backbone folder './nowhere' does not exist"),
        (["--exposures", "2"], "is less than one batch of 4"),
        (["--repeats", "2", "1"], "`repeats` must have a number of at least 1 for each of"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(main, few_painted, arguments, change, message):
    with pytest.raises(SystemExit, match="^pretrain_backbone: ") as told:
        main([*arguments, *change])

    assert message in str(told.value)
