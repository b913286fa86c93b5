"""Write the numbers of the reports in hub_cards/reports into the documents that show them.

Usage:
    python scripts/render_cards.py
"""

from pathlib import Path

from comparison_page import PAD_SEGMENTATION, render_comparisons
from fedd_hf.evaluation.coverage import COVERAGE
from fedd_hf.evaluation.report import read_report
from readme_numbers import fill_readme

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "hub_cards" / "reports"


def main() -> None:
    readme, comparisons = ROOT / "README.md", REPORTS / "comparison"
    quickstart = read_report(REPORTS / "quickstart" / "report.json")
    comparison = read_report(comparisons / f"{PAD_SEGMENTATION.name}.json")
    readme.write_text(fill_readme(readme.read_text(), quickstart, read_report(COVERAGE), comparison))
    (comparisons / "README.md").write_text(render_comparisons(comparisons))
    print(f"Rendered {readme} and {comparisons / 'README.md'}")


if __name__ == "__main__":
    main()
