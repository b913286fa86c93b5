"""Output that all verbs of `fedd` share."""

from __future__ import annotations

from rich.console import Console

NOTICE = "Research only. Not a medical device, not for diagnosis."
console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line as it is: a path may hold brackets."""
    console.print(text, markup=False)
