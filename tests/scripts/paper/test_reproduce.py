"""scripts/paper/reproduce.py: the whole paper on painted photos and a tiny backbone, and its page in a browser."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image

SCRIPTS = Path(__file__).parents[3] / "scripts" / "paper"
VERDICTS = {"reproduced", "not reproduced", "undecidable"}
FIGURES = {f"figure-{number}" for number in range(1, 8)} | {f"supplement-{number}" for number in (1, 2, 3)}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPTS / "reproduce.py"))["main"]


@pytest.fixture(scope="module")
def backbone(tiny_backbone, tmp_path_factory):
    """The tiny backbone with attention at its lowest level only: at 64 pixels it takes a quarter of the time."""
    folder = Path(shutil.copytree(tiny_backbone, tmp_path_factory.mktemp("backbone") / "tiny"))
    torch.manual_seed(0)
    unet = UNet2DModel.from_config(
        UNet2DModel.load_config(tiny_backbone / "unet")
        | {
            "down_block_types": ["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"],
        }
    )
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def arguments(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "run"
    options = {"--backbone": backbone, "--output-dir": folder, "--photo-size": 48, "--num-seeds": 1}
    options |= {"--num-steps": 5, "--image-size": 64}
    return ["--painted", *(str(part) for option in options.items() for part in option)] + [
        "--label-fractions", "0.05", "0.2", "--grid-timesteps", "0", "500", "1000",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(main, arguments):
    """The folder that one run leaves."""
    main(arguments)
    return Path(arguments[arguments.index("--output-dir") + 1])


@pytest.fixture(scope="module")
def report(run):
    return json.loads((run / "report.json").read_text())


def test_each_claim_gets_a_verdict_with_its_evidence(report):
    assert {row["verdict"] for row in report["claims"]} <= VERDICTS
    assert all(row["evidence"] for row in report["claims"])


def test_all_figures_of_the_paper_are_drawn_as_vector_and_as_picture(run):
    stems = {path.stem for path in (run / "figures").glob("*.png")}

    assert {found[0] for stem in stems if (found := re.match(r"(figure|supplement)-\d", stem))} == FIGURES
    assert stems == {path.stem for path in (run / "figures").iterdir() if path.suffix != ".png"}


def test_a_contact_sheet_shows_them_in_half_a_megabyte(run):
    sheet = run / "contact_sheet.png"

    assert sheet.stat().st_size <= 500 * 1024
    assert min(Image.open(sheet).size) > 400


def test_published_values_stand_beside_ours(report):
    ours = [row for row in report["comparison"] if row["ours"] is not None and row["method"] == "FEDD"]

    assert {row["table"] for row in ours} >= {"Figure 4", "Figure 6", "Figure 7", "Supplement, Table 2"}
    assert all(row["difference"] == pytest.approx(row["ours"] - row["published"]) for row in ours)


def test_paths_in_the_report_lead_to_files_in_the_folder(run, report):
    def paths(part):
        if isinstance(part, dict):
            for name, item in part.items():
                yield from [item] if name.endswith("_path") else paths(item)
        elif isinstance(part, list):
            for item in part:
                yield from paths(item)

    found = list(paths(report))
    assert len(found) > 10
    assert all((run / path).is_file() for path in found)


def test_the_same_command_computes_nothing_again(main, arguments, run, monkeypatch):
    before = (run / "report.json").read_text()
    files = [*run.rglob("predictions.parquet"), *(run / "painted-ddi").glob("*.*")]
    written = {path: path.stat().st_mtime_ns for path in files}

    main(arguments)

    assert len(files) > len(list((run / "painted-ddi").glob("*.*"))) > 0
    assert {path: path.stat().st_mtime_ns for path in files} == written
    after = json.loads((run / "report.json").read_text())
    assert {name: after[name] for name in ("claims", "comparison")} == {
        name: json.loads(before)[name] for name in ("claims", "comparison")
    }


def test_a_folder_of_other_arguments_is_refused(main, arguments, run):
    with pytest.raises(SystemExit, match="reproduce: .* holds the run of other arguments"):
        main([*arguments, "--num-steps", "6"])


def test_neither_ddi_nor_paint_is_an_error_that_says_what_to_give(main, tmp_path):
    with pytest.raises(SystemExit, match=r"Give `ddi_root`, .* or `painted`"):
        main(["--output-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--ddi-root", "nowhere", "--backbone", "embedded"], "There is no DDI folder at nowhere"),
        (["--painted", "--image-size", "32"], "are too small to pool to 512 at `image_size` 32"),
        (["--painted", "--methods", "FEDD", "FED"], "A method must be one of .*, got 'FED'"),
        (["--painted", "--backbone", "./nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_noticed_at_once_and_the_folder_is_still_free(main, tiny_backbone, tmp_path, wrong, message):
    folder = tmp_path / "run"

    with pytest.raises(SystemExit, match=message):
        main(["--backbone", str(tiny_backbone), "--output-dir", str(folder), *wrong])

    assert not folder.exists()


def test_the_page_opens_in_a_browser_without_an_error_and_needs_no_other_file(run, report, browser, tmp_path):
    alone = tmp_path / "report.html"
    alone.write_bytes((run / "report.html").read_bytes())
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url[:100]))

    page.goto(alone.as_uri())

    assert problems == []
    assert page.locator("figure img").count() == len(list((run / "figures").glob("*.png")))
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert page.locator(".verdict").all_inner_texts() == [row["verdict"] for row in report["claims"]]


def test_the_page_fits_a_phone(run, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})

    page.goto((run / "report.html").as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_pages_warn_and_name_no_path_of_this_machine(run, name):
    text = (run / name).read_text()

    assert "Not a medical device" in text
    assert "painted" in text
    assert str(run) not in text
    assert re.findall(r"{{|{%|\bTODO\b|\bnan\b|[>|] ?None ?[<|]", text) == []
