"""Measure this package against the original way, on this machine.

Usage:
    python scripts/benchmark/against_original.py --pad-root pad_ufes_20 --ham-root ham10000
    python scripts/benchmark/against_original.py --sections extraction prediction --again
    python scripts/benchmark/against_original.py --quick
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import disable_progress_bars
from transformers.utils import logging

from benchmark_size import QUICK, BenchmarkArguments, BenchmarkSize
from benchmark_tables import results_as_markdown
from sections import SECTIONS, run_benchmark

REPORT = Path(__file__).resolve().parents[2] / "hub_cards" / "reports" / "benchmark.json"


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument(
        "--output", type=Path, help=f"report; {REPORT.name} of the cards by default, nothing if --quick"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what the report holds already")
    parser.add_argument("--pad-root", type=Path, help="folder of PAD-UFES-20, for quality")
    parser.add_argument("--ham-root", type=Path, help="folder of HAM10000, for growth")
    parser.add_argument("--num-threads", type=int, default=torch.get_num_threads(), help="of each measured process")
    parser.add_argument("--work-dir", type=Path, help="folder on a disk with 5 GB, for features; the system's default")
    parser.add_argument("--quick", action="store_true", help="shrink all sizes: numbers then say nothing")
    return parser.parse_args(arguments)


def measure(args: argparse.Namespace, output: Path | None) -> None:
    with TemporaryDirectory(dir=args.work_dir) as work_dir:
        arguments = BenchmarkArguments(
            size=QUICK if args.quick else BenchmarkSize(),
            num_threads=args.num_threads,
            work_dir=Path(work_dir),
            pad_root=args.pad_root,
            ham_root=args.ham_root,
        )
        print(results_as_markdown(run_benchmark(arguments, args.sections, output, args.again)))


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    output = args.output or (None if args.quick else REPORT)
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        measure(args, output)
    except (OSError, ValueError) as error:
        sys.exit(f"against_original: {error}")
    if output is not None:
        print(output)


if __name__ == "__main__":
    main()
