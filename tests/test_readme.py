"""The README shows what the report says, and nothing that was typed by hand."""

import re
from pathlib import Path

import pytest

from comparison_page import render_comparisons
from fedd_hf.evaluation.coverage import COVERAGE
from fedd_hf.evaluation.report import read_report
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


def test_a_readme_without_a_mark_is_refused():
    with pytest.raises(ValueError, match="lacks the marks <!-- coverage table -->"):
        fill_readme((ROOT / "README.md").read_text().replace("<!-- /coverage table -->", ""), *read_numbers())


def test_the_readme_names_the_two_commands_warns_and_its_links_exist():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)

    assert {"make quickstart", "make test"} <= set(re.findall(r"make \w+", readme))
    assert "Research only. Not a medical device" in readme
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_python_of_the_readme_runs_after_its_commands(tmp_path, monkeypatch, painted_ddi, ddi_seg, quickstart):
    for name, folder in {"painted-ddi": painted_ddi, "painted-ddi-seg": ddi_seg, "quickstart": quickstart}.items():
        (tmp_path / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)

    namespace = {}
    for snippet in snippets:
        exec(snippet.replace("SegmentationArguments()", "SegmentationArguments(num_steps=2)"), namespace)

    assert len(snippets) == 3
    assert namespace["ddi"].num_rows == {"train": 30, "validation": 15, "test": 198}
    assert namespace["segmentation_map"].shape == (64, 64)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
