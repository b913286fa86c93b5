"""The card of a trained model: its configuration and its report -> Markdown with the metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from fedd_hf.evaluation.report import HEADLINES, choose_rows
from fedd_hf.evaluation.text_tables import markdown_by_tone
from fedd_hf.evaluation.titles import TITLES

from .cards import render_card

HUB_NAMES = {"auroc": "roc_auc"}
TAGS = ("dermatology", "medical", "fairness", "skin-tone", "diffusion", "custom_code", "fedd")


class Task(NamedTuple):
    """Task of a model, in the words of transformers and of the Hub."""

    architecture: str
    pipeline: str
    metric: str


TASKS = {
    "segmentation": Task("FEDDForSegmentation", "image-segmentation", "mean_iou"),
    "classification": Task("FEDDForImageClassification", "image-classification", "roc_auc"),
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A painted photo that the page shows, and what the model says of it.

    Args:
        title (`str`):
            What it is.
        photo (`str`):
            Path of the photo in the repository.
        overlay (`str`, *optional*):
            Path of the picture of its segmentation map.
        scores (`dict[str, float]`, *optional*):
            Score of each class.
    """

    title: str
    photo: str
    overlay: str | None = None
    scores: dict[str, float] | None = None

    def widget(self) -> dict[str, Any]:
        """Return it as the Hub's widgets read it, with what the model says, since no provider may host the model."""
        shown = {"src": self.photo, "example_title": self.title}
        if self.scores is not None:
            return shown | {"output": [{"label": label, "score": score} for label, score in self.scores.items()]}
        return shown if self.overlay is None else shown | {"output": {"url": self.overlay}}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a card says of a model.

    Args:
        repo_id (`str`):
            Repository of the model.
        task (`str`):
            `"segmentation"` or `"classification"`.
        config (`dict`):
            Its `config.json`.
        data (`dict`):
            `name` and `dataset` of the photos, and `train`, `validation` and `test`, a phrase on each.
        training (`dict`):
            Arguments of the training.
        machine (`dict`):
            Versions and cores.
        backbone_repo_id (`str`, *optional*):
            Repository of the backbone.
        license (`str`, *optional*):
            Licence of the weights, as the Hub writes it.
        by_tone (`list[dict]`):
            Rows of [`~fedd_hf.evaluation.by_tone`]; none before the model was evaluated.
        seconds (`float`, *optional*):
            What the training took.
        examples (`list[Example]`):
            Painted photos to show.
    """

    repo_id: str
    task: str
    config: dict[str, Any]
    data: dict[str, str]
    training: dict[str, Any]
    machine: dict[str, Any]
    backbone_repo_id: str | None = None
    license: str | None = None
    by_tone: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    examples: Sequence[Example] = ()


def render_model_card(facts: ModelFacts) -> str:
    """Return the card of a model.

    Args:
        facts ([`ModelFacts`]):
            What it says.

    Raises:
        ValueError: If the task is unknown.
    """
    if facts.task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {facts.task!r}.")
    return render_card(
        f"{facts.task}_model.md.j2",
        facts=facts,
        metadata_yaml=describe_metadata(facts).to_yaml(),
        results=markdown_by_tone(facts.by_tone) if facts.by_tone else None,
    )


def describe_metadata(facts: ModelFacts) -> ModelCardData:
    """Return the metadata of a card: what the Hub searches, links and shows beside the model."""
    return ModelCardData(
        base_model=facts.backbone_repo_id,
        base_model_relation="adapter" if facts.backbone_repo_id else None,
        eval_results=list(_describe_results(facts)) or None,
        library_name="transformers",
        license=facts.license,
        metrics=[TASKS[facts.task].metric],
        model_name=facts.repo_id.rpartition("/")[2],
        pipeline_tag=TASKS[facts.task].pipeline,
        tags=list(TAGS),
        widget=[example.widget() for example in facts.examples],
    )


def _describe_results(facts: ModelFacts) -> Iterator[EvalResult]:
    """Give each headline metric of each skin tone with its number of photos and its interval."""
    for row in choose_rows(facts.by_tone, HEADLINES):
        if row["value"] is None:
            continue
        yield EvalResult(
            task_type=TASKS[facts.task].pipeline,
            dataset_type=facts.data["dataset"],
            dataset_name=f"{facts.data['name']}, skin tone {row['skin_tone']}",
            dataset_config=row["skin_tone"],  # results of one configuration are put together
            dataset_split="test",
            dataset_args={"skin_tone": row["skin_tone"], "photos": row["n"]},
            metric_type=HUB_NAMES.get(row["metric"], row["metric"]),
            metric_name=TITLES[row["metric"]],
            metric_value=row["value"],
            metric_args={"low": row["low"], "high": row["high"], "confidence": 0.95},
        )


__all__ = ["Example", "ModelFacts", "describe_metadata", "render_model_card"]
