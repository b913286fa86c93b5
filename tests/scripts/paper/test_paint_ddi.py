"""scripts/paper/paint_ddi.py on a few photos."""

import runpy
from pathlib import Path

import pytest

import painted_double as ddi

SCRIPT = Path(__file__).parents[3] / "scripts" / "paper" / "paint_ddi.py"


@pytest.fixture
def main(monkeypatch):
    full = ddi.paint_metadata()
    monkeypatch.setattr(ddi, "paint_metadata", lambda seed: full.head(4))
    monkeypatch.setattr(ddi, "_zip_release", lambda masks: b"zip")
    return runpy.run_path(str(SCRIPT))["main"]


def test_a_painted_double_is_written_and_its_place_is_printed(main, tmp_path, capsys):
    main(["--output-dir", str(tmp_path / "painted"), "--size", "32"])

    assert f"Painted, no patient: {tmp_path / 'painted'}" in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "painted").iterdir())
    assert written == ["ddi_labels.zip", "ddi_metadata.csv", "images", "painted.json"]
    assert len(list((tmp_path / "painted" / "images").iterdir())) == 4


def test_a_folder_that_holds_something_else_is_refused_in_one_line(main, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(SystemExit, match=r"^paint_ddi: `output_dir` must be new or an earlier painting"):
        main(["--output-dir", str(tmp_path)])


def test_masks_that_are_not_there_are_refused_in_one_line(main, tmp_path):
    with pytest.raises(SystemExit, match=r"^paint_ddi: There are no released masks at nowhere"):
        main(["--output-dir", str(tmp_path / "painted"), "--masks", "nowhere"])
