"""Reproduce the paper: data, features, heads, all figures and tables, and a verdict on each of its claims.

Usage:
    python scripts/paper/reproduce.py --ddi-root ddi --masks ddi-seg --backbone adm-256 --output-dir runs/paper
    python scripts/paper/reproduce.py --painted --output-dir runs/painted

Leaves report.html (one file, to be opened in a browser), report.md, report.json and figures/. Type the same command
again to go on with a run that was killed. `--painted` needs no data: it runs on painted photos with the embedded
backbone and says nothing about patients.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from tqdm.auto import tqdm
from transformers import HfArgumentParser
from transformers.utils import logging

from contact_sheet import write_contact_sheet
from fedd_hf.figures.style import save_figure
from fedd_hf.hub.cards import render_card
from fedd_hf.training.run import open_accelerator
from paper_figures import draw_paper
from reproduction import ReproductionArguments, run_reproduction
from reproduction_page import Picture, write_pages


def draw_figures(report: dict[str, Any], folder: Path) -> list[Picture]:
    pictures = []
    (folder / "figures").mkdir(exist_ok=True)
    for name, title, figure in tqdm(draw_paper(report, folder), desc="Figures", unit="figure"):
        vector, png = save_figure(figure, folder / "figures" / name)
        pictures.append(Picture(name, title, png, vector))
    write_contact_sheet([(picture.title, picture.png) for picture in pictures], folder / "contact_sheet.png")
    return pictures


def reproduce(arguments: ReproductionArguments) -> None:
    accelerator = open_accelerator()
    report = run_reproduction(arguments, render_card, accelerator)
    if accelerator.is_main_process:
        folder = Path(arguments.output_dir)
        page, _ = write_pages(report, draw_figures(report, folder), folder)
        for row in report["claims"]:
            print(f"{row['verdict']:>14}: {row['claim']}")
        print(f"Open {page}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser([ReproductionArguments], description=__doc__)
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        (parsed,) = parser.parse_args_into_dataclasses(arguments)
        reproduce(parsed)
    except (OSError, ValueError) as error:
        sys.exit(f"reproduce: {error}")


if __name__ == "__main__":
    main()
