"""Cards: Jinja templates and the numbers that fill them -> Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedd_hf.evaluation.report import markdown_by_tone
from fedd_hf.figures.style import TITLES


def templates_dir() -> Path:
    """Return the folder of the card templates: inside an installed package, or `hub_cards/` of a source checkout.

    Raises:
        FileNotFoundError: If neither folder exists.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "hub" / "templates", package.parents[1] / "hub_cards")
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked_at = " nor ".join(str(folder) for folder in candidates)
    raise FileNotFoundError(f"The card templates are neither in {looked_at}. Install fedd-hf again.")


def render_card(template_name: str, *, autoescape: bool = False, **fields: Any) -> str:
    """Fill a card template.

    Args:
        template_name (`str`):
            File in [`templates_dir`], such as `"backbone_adm.md.j2"`.
        autoescape (`bool`, *optional*, defaults to `False`):
            Escape the fields for HTML; in Markdown "I-II & III-IV" must stay as it is.
        fields:
            Everything the template names; one that is missing is an error, never an empty place in the card.

    Raises:
        jinja2.TemplateNotFound: If there is no such template.
        jinja2.UndefinedError: If a field is missing.
    """
    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
    return environment.get_template(template_name).render(fields)


def fill_readme(readme: str, quickstart_report: dict[str, Any]) -> str:
    """Put the numbers of a quickstart between the two marks of the README."""
    before, start, rest = readme.partition("<!-- quickstart table -->\n")
    _, end, after = rest.partition("<!-- /quickstart table -->")
    if not (start and end):
        raise ValueError("The README lacks the marks <!-- quickstart table --> and <!-- /quickstart table -->.")
    return before + start + _describe_quickstart(quickstart_report) + end + after


def _describe_quickstart(report: dict[str, Any]) -> str:
    tables = [markdown_by_tone(report[task]["by_tone"], TITLES) for task in ("segmentation", "malignancy")]
    data, seconds = report["data"], sum(report["seconds"].values())
    return (
        f"{3 * data['train_per_tone']} labelled photos ({data['train_per_tone']} of each skin tone), "
        f"{3 * data['test_per_tone']} held out, 95 % bootstrap intervals; {seconds:.0f} seconds on "
        f"{report['machine']['cores']} cores. Pixels are pooled over the photos of a group; `all` pools the "
        "groups.\n\n" + "\n".join(tables)
    )


__all__ = ["fill_readme", "render_card", "templates_dir"]
