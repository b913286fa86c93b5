"""Simulate how often the intervals of reports hold the truth, by the number of photos.

Usage:
    python scripts/paper/simulate_coverage.py --output src/fedd_hf/evaluation/coverage.json

The report decides which rows of tables are flagged as having too few photos. Give the same file again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from coverage_simulation import simulate_coverage


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="report, new or to go on with")
    parser.add_argument("--num-sets", type=int, default=1000, help="data sets of each scenario and number of photos")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    try:
        report = simulate_coverage(args.output, args.num_sets, seed=args.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"simulate_coverage: {error}")
    rows = pd.DataFrame(report["rows"])
    table = rows.pivot_table(index=["metric", "is_gap", "scenario"], columns="n", values="coverage")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
