"""The `fedd` command, for people who use a model: one file for each verb."""

from __future__ import annotations

import typer

from . import demo, predict, quickstart
from .console import NOTICE

app = typer.Typer(
    help=f"FEDD: lesion segmentation and malignancy classification, reported by skin tone. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

# Verbs import what they need when they run: datasets, accelerate and matplotlib would slow down every start.


@app.callback()
def main() -> None:
    """Keep the libraries quiet: what matters is printed by the verbs."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


app.command()(quickstart.quickstart)
app.command()(predict.predict)
app.command()(demo.demo)
