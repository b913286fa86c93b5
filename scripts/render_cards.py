"""Write the numbers of the reports in hub_cards/reports into the documents that show them.

Usage:
    python scripts/render_cards.py
"""

from pathlib import Path

from fedd_hf.evaluation.coverage import COVERAGE
from fedd_hf.evaluation.report import read_report
from fedd_hf.hub.readme import fill_readme

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    readme = ROOT / "README.md"
    quickstart = read_report(ROOT / "hub_cards" / "reports" / "quickstart" / "report.json")
    readme.write_text(fill_readme(readme.read_text(), quickstart, read_report(COVERAGE)))
    print(f"Rendered {readme}")


if __name__ == "__main__":
    main()
