"""scripts/compare_methods.py: from labelled photos to curves, differences and a table."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fedd_hf import FEDDForSegmentation
from fedd_hf.baselines.frozen_models import FrozenNetworkForSegmentation
from fedd_hf.compare import baseline_methods
from fedd_hf.data import loading

READ = ["--malignancy-blocks", "5", "--malignancy-timesteps", "50"]
SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPTS / "compare_methods.py"))["main"]


@pytest.fixture(autouse=True)
def few_painted(monkeypatch):
    monkeypatch.setattr(loading, "PAINTED_PER_TONE", {"train": 4, "validation": 2, "test": 3})


@pytest.fixture
def arguments(tmp_path, tiny_backbone):
    options = {"--backbone": tiny_backbone, "--image-size": 32, "--blocks": 4, "--timesteps": 50, "--num-steps": 2}
    options |= {"--num-seeds": 1, "--output-dir": tmp_path}
    return [*(str(part) for option in options.items() for part in option), "--labelled", "3", "6"]


def test_segmentation_is_compared_on_the_same_photos(main, arguments, tmp_path, tiny_backbone):
    other = shutil.copytree(tiny_backbone, tmp_path / "backbones" / "other")
    methods = ["FEDD", "raw colour", "frozen EfficientNetLite0", f"FEDD on {other}"]
    main([*arguments, "--methods", *methods, "--save-models"])

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["methods"] == [*methods[:3], "FEDD on other"]
    assert {row["photos"] for row in report["differences"]} == {3, 6}
    text = (tmp_path / "report.md").read_text()
    assert "**lesion IoU, 9 test photos, mean over seeds**" in text
    assert "**lesion IoU: FEDD minus the method, on the same test photos**" in text
    assert "| method | 3 labelled | 6 labelled |" in text
    assert "III-IV minus I-II" in text
    assert "V-VI" not in text.replace("minus", "")
    assert Image.open(tmp_path / "curves.png").width > 500
    assert FEDDForSegmentation.from_pretrained(next(tmp_path.glob("runs/fedd-2*/model"))).config.blocks == [4]
    (frozen,) = tmp_path.glob("runs/frozen-efficientnetlite0-25-*/model")
    assert FrozenNetworkForSegmentation.from_pretrained(frozen).config.network == "EfficientNetLite0"


def test_malignancy_is_compared_with_always_benign(main, arguments, tmp_path):
    read = ["--malignancy-blocks", "5", "--malignancy-timesteps", "100", "50"]
    numbers = ["--labelled", "6", "3"]
    main([*arguments, *numbers, *read, "--task", "classification", "--methods", "FEDD", "always benign"])

    report = json.loads((tmp_path / "report.json").read_text())
    told = report["settings"]["methods"]["FEDD"]
    of_number = {report["settings"]["label_fractions"][fraction]: told[fraction]["reading"] for fraction in told}
    assert {number: reading["timesteps"] for number, reading in of_number.items()} == {3: [50], 6: [100]}
    of_benign = [row for row in report["curves"] if row["method"] == "always benign" and row["metric"] == "auroc"]
    assert {row["value"] for row in of_benign if row["skin_tone"] == "all" and row["test"] == "test"} == {0.5}


def test_deepderm_runs_for_as_long_as_it_is_told(main, arguments, tmp_path, monkeypatch):
    painted = loading.load_splits(loading.DataArguments())
    diagnosed = painted.map(lambda photo: {"disease": "mel" if photo["malignant"] else "nv"})
    monkeypatch.setattr(baseline_methods, "load_splits", lambda *_: diagnosed)
    asked = ["--task", "classification", "--methods", "DeepDerm", "--weights", "random", "--image-size", "80", *READ]
    main([*arguments, *asked, "--labelled", "6", "--ham10000", "ham", "--deepderm-epochs", "1"])

    report = json.loads((tmp_path / "report.json").read_text())
    (name,) = report["methods"]
    (told,) = report["settings"]["methods"][name].values()
    assert name == "DeepDerm (random weights: not a comparison)"
    assert (told["training"]["max_epochs"], told["authors"]["max_epochs"]) == (1, 500)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--methods", "FEDD", "AlexNet"], "A method must be one of"),
        (["--task", "classification"], "Give `malignancy_blocks` and `malignancy_timesteps`"),
        (["--task", "classification", *READ, "--methods", "FEDD", "raw colour"], "['raw colour'] cannot be compared"),
        (["--task", "classification", "--full"], "DeepDerm learns HAM10000 first: give `ham10000`, its folder"),
        (["--labelled", "300"], "`number` must lie in [1, 12], the number of photos there are, got 300"),
        (["--malignancy-blocks", "5", "6", "7"], "Give one of `malignancy_blocks`, or one for each of `labelled`"),
        (["--methods", "FEDD", "FEDD on ./nowhere"], "The backbone folder './nowhere' does not exist"),
        (["--metrics", "lesion_iou", "iou"], "`metrics` must be of"),
        (["--task", "diagnosis"], "`task` must be one of"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(main, arguments, change, message):
    with pytest.raises(SystemExit, match="^compare_methods: ") as told:
        main([*arguments, *change])

    assert message in str(told.value)
