"""scripts/publish.py: from a quickstart and ddi-seg to repositories, each with its card."""

import runpy
import shutil
from pathlib import Path

import pytest
from card_rules import check_body, check_named_files
from dataset_card_rules import check_dataset_card
from model_card_rules import check_model_card
from space_card_rules import check_space_card

from fedd_hf.experiments.quickstart import QuickstartSize, run_quickstart
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments

SCRIPTS = Path(__file__).parents[2] / "scripts"
RULES = {"model": check_model_card, "dataset": check_dataset_card, "space": check_space_card}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """What `fedd quickstart` leaves, from fewer photos and steps."""
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    folder.mkdir()
    size = QuickstartSize(train_per_tone=2, validation_per_tone=2, test_per_tone=1, photo_size=64)
    run_quickstart(folder, size, SegmentationArguments(num_steps=2), ClassificationArguments(max_epochs=2))
    return folder


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPTS / "publish.py"))["main"]


def test_a_dry_run_shows_every_file_and_uploads_nothing(main, quickstart, ddi_seg, capsys):
    main(["--quickstart", str(quickstart), "--ddi-seg", str(ddi_seg), "--owner", "jane", "--dry-run"])

    shown = capsys.readouterr().out
    order = [line.split(":")[0] for line in shown.splitlines() if not line.startswith(" ")]
    assert order == [
        "model jane/derm-ddpm-64",
        "dataset jane/ddi-seg",
        "space jane/classification_by_group",
        "space jane/mean_iou_by_group",
        "model jane/fedd-segmentation-painted",
        "model jane/fedd-segmentation-painted-heads",
        "model jane/fedd-malignancy-painted",
        "model jane/fedd-malignancy-painted-heads",
    ]
    assert "handler.py" in shown
    assert "examples/V-VI-map.png" in shown
    assert shown.count("README.md") == len(order)


def test_every_card_keeps_the_rules_of_the_hub(main, quickstart, ddi_seg, monkeypatch):
    violations = {}

    def check_card(repository):
        card = (repository.folder / "README.md").read_text()
        files = [path.relative_to(repository.folder).as_posix() for path in repository.folder.rglob("*")]
        found = RULES[repository.repo_type](card) + check_body(card, files) + check_named_files(card, files)
        violations[repository.repo_id] = found
        return ""

    monkeypatch.setitem(main.__globals__, "describe_repository", check_card)
    main(["--quickstart", str(quickstart), "--ddi-seg", str(ddi_seg), "--dry-run"])

    assert len(violations) == 8
    assert {repo_id: found for repo_id, found in violations.items() if found} == {}


def test_masks_of_the_authors_need_a_confirmation(main, quickstart, released_zip, tmp_path):
    build = runpy.run_path(str(SCRIPTS / "build_ddi_seg.py"))["main"]
    build(["--masks", str(released_zip), "--output-dir", str(tmp_path / "ddi-seg")])
    arguments = ["--quickstart", str(quickstart), "--ddi-seg", str(tmp_path / "ddi-seg"), "--dry-run"]

    with pytest.raises(SystemExit, match="^publish: .* released without a licence. .* add `--confirm-masks`"):
        main(arguments)
    main([*arguments, "--confirm-masks"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--quickstart", "nowhere"], "nowhere/report.json"),
        (["--gated", "always"], "`gated` must be None, 'auto' or 'manual', got 'always'"),
        (["--ddi-seg", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, quickstart, change, message):
    with pytest.raises(SystemExit, match=f"^publish: .*{message}"):
        main(["--quickstart", str(quickstart), "--dry-run", *change])


def test_a_photo_that_was_put_beside_a_model_is_not_published(main, quickstart, tmp_path, capsys):
    folder = Path(shutil.copytree(quickstart, tmp_path / "quickstart"))
    (folder / "segmentation" / "patient.png").write_bytes(b"a photo")

    main(["--quickstart", str(folder), "--dry-run"])

    assert "patient" not in capsys.readouterr().out


def test_a_damaged_dataset_is_not_published(main, quickstart, ddi_seg, tmp_path):
    folder = tmp_path / "ddi-seg"
    shutil.copytree(ddi_seg, folder)
    (folder / "patient.jpg").write_bytes(b"a photo")

    with pytest.raises(SystemExit, match="^publish: patient.jpg may not be published"):
        main(["--quickstart", str(quickstart), "--ddi-seg", str(folder), "--dry-run"])
