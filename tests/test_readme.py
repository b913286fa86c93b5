"""The README shows what the report says, and nothing that was typed by hand."""

import re
from pathlib import Path

import pytest

from comparison_page import render_comparisons
from fedd_hf.cli.quickstart_run import QuickstartSize, run_quickstart
from fedd_hf.evaluation.coverage import COVERAGE
from fedd_hf.evaluation.report import read_report
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from readme_numbers import fill_readme

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "hub_cards" / "reports"
COMPARISONS = REPORTS / "comparison"


def read_numbers():
    quickstart = read_report(REPORTS / "quickstart" / "report.json")
    return quickstart, read_report(COVERAGE), read_report(COMPARISONS / "pad_segmentation.json")


def test_the_readme_shows_the_numbers_of_the_reports():
    readme = (ROOT / "README.md").read_text()

    assert fill_readme(readme, *read_numbers()) == readme, "Run `make cards`."


def test_the_page_of_comparisons_shows_the_numbers_of_the_reports():
    assert render_comparisons(COMPARISONS) == (COMPARISONS / "README.md").read_text(), "Run `make cards`."


@pytest.mark.parametrize("mark", ["quickstart table", "coverage table", "comparison table"])
def test_a_readme_without_a_mark_is_refused(mark):
    readme = (ROOT / "README.md").read_text().replace(f"<!-- /{mark} -->", "")

    with pytest.raises(ValueError, match=f"lacks the marks <!-- {mark} -->"):
        fill_readme(readme, *read_numbers())


def test_the_readme_names_the_two_commands_and_its_links_exist():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)

    assert "make quickstart" in readme
    assert "make test" in readme
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_says_that_this_is_no_medical_device():
    assert "Research only. Not a medical device" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_python_of_the_readme_runs_after_its_commands(tmp_path, monkeypatch, painted_ddi, ddi_seg):
    (tmp_path / "painted-ddi").symlink_to(painted_ddi)
    (tmp_path / "painted-ddi-seg").symlink_to(ddi_seg)
    (tmp_path / "quickstart").mkdir()
    small = QuickstartSize(train_per_tone=2, validation_per_tone=2, test_per_tone=1, photo_size=64)
    few_steps = SegmentationArguments(num_steps=2)
    run_quickstart(tmp_path / "quickstart", small, few_steps, ClassificationArguments(max_epochs=2))
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)

    namespace = {}
    for snippet in snippets:
        exec(snippet.replace("SegmentationArguments()", "SegmentationArguments(num_steps=2)"), namespace)

    assert len(snippets) == 3
    assert namespace["ddi"].num_rows == {"train": 30, "validation": 15, "test": 198}
    assert namespace["segmentation_map"].shape == (64, 64)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
