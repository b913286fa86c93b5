"""Cards: Jinja templates and the numbers that fill them -> Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined


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


def render_card(template_name: str, *, folder: Path | None = None, autoescape: bool = False, **fields: Any) -> str:
    """Fill a card template.

    Args:
        template_name (`str`):
            File in the folder, such as `"backbone_adm.md.j2"`.
        folder (`Path`, *optional*):
            Where the template lies, by default in [`templates_dir`].
        autoescape (`bool`, *optional*, defaults to `False`):
            Escape the fields for HTML; in Markdown "I-II & III-IV" must stay as it is.
        fields:
            Everything the template names; one that is missing is an error, never an empty place in the card.

    Raises:
        jinja2.TemplateNotFound: If there is no such template.
        jinja2.UndefinedError: If a field is missing.
    """
    environment = Environment(
        loader=FileSystemLoader(folder or templates_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
    return environment.get_template(template_name).render(fields)


def render_metric_pages(title: str, told: dict[str, Any]) -> tuple[str, str]:
    """Return the card of a metric and the page that its static Space shows.

    Args:
        title (`str`):
            Name of the metric.
        told (`dict[str, str]`):
            `repo_id`, and `description`, `inputs_description` and `citation` of the module of `evaluate`.
    """
    metadata = SpaceCardData(title=title, sdk="static", license="apache-2.0", tags=["evaluate", "metric", "fedd"])
    card = render_card("metric.md.j2", metadata_yaml=metadata.to_yaml(), title=title, **told)
    return card, render_card("metric.html.j2", autoescape=True, title=title, **told)


def render_space_card(models: list[str], gradio: str, python: str) -> str:
    """Return the card of the demo, which is also its configuration.

    Args:
        models (`list[str]`):
            Repositories of the models that it shows.
        gradio (`str`):
            Version of gradio that it was tried with.
        python (`str`):
            Version of Python, as in `"3.11"`.
    """
    metadata = SpaceCardData(
        title="FEDD: skin lesions from few labels",
        emoji="🔬",
        colorFrom="yellow",
        colorTo="red",
        sdk="gradio",
        sdk_version=gradio,
        python_version=python,
        app_file="app.py",
        short_description="Research demo: lesion map, score, doubt, by skin tone",
        models=models,
        license="apache-2.0",
        tags=["dermatology", "fairness", "fedd"],
    )
    return render_card("space.md.j2", metadata_yaml=metadata.to_yaml(), models=models)


__all__ = ["render_card", "render_metric_pages", "render_space_card", "templates_dir"]
