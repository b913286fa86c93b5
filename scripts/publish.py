"""Publish backbone, ddi-seg, metrics, the models of a quickstart and the demo on the Hub, each with its card.

Usage:
    fedd quickstart
    python scripts/publish.py --quickstart quickstart --dry-run
    python scripts/publish.py --quickstart quickstart --ddi-seg ddi-seg --owner my-name --private

Everything is written to a temporary folder and checked before the first byte leaves. Then what others stand on comes
first: backbone, dataset, metrics, models, demo. A repository is one commit; typed again, only what changed is
uploaded.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import evaluate
import numpy as np
from datasets import disable_progress_bars, load_dataset
from huggingface_hub import HfApi
from transformers import HfArgumentParser
from transformers.utils import logging

from fedd_hf import FEDDConfig, FEDDForSegmentation
from fedd_hf.data.ddi.release import released_splits
from fedd_hf.data.masks import hash_mask
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES
from fedd_hf.evaluation.report import read_report, write_report
from fedd_hf.figures.overlays import overlay
from fedd_hf.files import hash_file
from fedd_hf.hub.cards import render_metric_pages, render_space_card
from fedd_hf.hub.guard import check_folder
from fedd_hf.hub.model_card import Example, ModelFacts, render_model_card
from fedd_hf.hub.push import PushArguments, Repository, describe_repository, push_repository
from fedd_hf.prediction import open_model, score_photos, segment_photos
from fedd_hf.unet_files_fedd import locate_backbone

HUB_CARDS = Path(__file__).resolve().parents[1] / "hub_cards"
NAMES = {"segmentation": "fedd-segmentation-painted", "classification": "fedd-malignancy-painted"}
BACKBONE, DATASET = "derm-ddpm-64", "ddi-seg"
EXAMPLE_SEED = 3  # of painted photos that no model saw or was scored on


@dataclass(frozen=True, kw_only=True)
class PublishArguments(PushArguments):
    """What is published, and as whose.

    Args:
        quickstart (`str`): Folder that `fedd quickstart` left.
        ddi_seg (`str`, *optional*): Folder that `build_ddi_seg.py` left.
        owner (`str`): Name or organisation on the Hub.
        dry_run (`bool`): Show every file and its size, and upload nothing.
        confirm_masks (`bool`): You may publish the masks of FEDD's authors, who stated no licence.
    """

    quickstart: str = field(default="quickstart", metadata={"help": "folder that `fedd quickstart` left"})
    ddi_seg: str | None = field(default=None, metadata={"help": "folder that build_ddi_seg.py left"})
    owner: str = field(default="fedd", metadata={"help": "name or organisation on the Hub"})
    dry_run: bool = field(default=False, metadata={"help": "show every file and its size, and upload nothing"})
    confirm_masks: bool = field(default=False, metadata={"help": "you may publish the masks of FEDD's authors"})


@dataclass(frozen=True)
class Stage:
    """Where repositories are put together, and the pictures that may leave.

    Args:
        root (`Path`): Temporary folder.
        owner (`str`): Name or organisation on the Hub.
        pictures (`set[str]`): SHA-256 of the pictures that were painted, or drawn of such.
    """

    root: Path
    owner: str
    pictures: set[str] = field(default_factory=set)

    @property
    def backbone(self) -> str:
        """Repository of the backbone."""
        return f"{self.owner}/{BACKBONE}"

    def open(self, name: str, repo_type: str = "model", space_sdk: str | None = None) -> Repository:
        """Return a new empty repository."""
        folder = self.root / name
        folder.mkdir()
        return Repository(repo_id=f"{self.owner}/{name}", repo_type=repo_type, folder=folder, space_sdk=space_sdk)


def stage_backbone(stage: Stage) -> Repository:
    """Take the embedded backbone, whose card travels with it."""
    repository = stage.open(BACKBONE)
    shutil.copytree(locate_backbone("embedded"), repository.folder, dirs_exist_ok=True)
    return repository


def stage_dataset(stage: Stage, folder: Path, confirmed: bool) -> Repository:
    """Take ddi-seg; masks of FEDD's authors only if the publisher may."""
    if not confirmed and has_released_masks(folder):
        raise ValueError(
            f"{folder} holds the masks that the authors of FEDD released without a licence. If you may publish them, "
            "add `--confirm-masks`."
        )
    repository = stage.open(DATASET, "dataset")
    shutil.copytree(folder, repository.folder, dirs_exist_ok=True)
    card = repository.folder / "README.md"
    card.write_text(card.read_text().replace(f"fedd/{DATASET}", repository.repo_id))
    return repository


def has_released_masks(folder: Path) -> bool:
    released = set(released_splits()["mask_sha256"])
    splits = load_dataset(str(folder), "segmentation").values()
    return any(hash_mask(np.asarray(row["mask"])) in released for rows in splits for row in rows)


def stage_metric(stage: Stage, name: str) -> Repository:
    """Take a module of `evaluate`, which is fetched from a Space."""
    repository, source = stage.open(name, "space", space_sdk="static"), HUB_CARDS / "metrics" / name
    shutil.copy(source / f"{name}.py", repository.folder)
    metric = evaluate.load(str(source))
    parts = ("description", "inputs_description", "citation")
    told = {"repo_id": repository.repo_id} | {part: getattr(metric, part) for part in parts}
    readme, page = render_metric_pages(metric.name.replace("_", " "), told)
    (repository.folder / "README.md").write_text(readme)
    (repository.folder / "index.html").write_text(page)
    return repository


def stage_models(stage: Stage, task: str, quickstart: Path, report: dict[str, Any]) -> Iterator[Repository]:
    """Take a model of the quickstart twice: whole, and as heads that stand on the published backbone."""
    model, processor = open_model(str(quickstart / task))
    for suffix, save_backbone in (("", True), ("-heads", False)):
        repository = stage.open(f"{NAMES[task]}{suffix}")
        model.config.save_backbone = save_backbone
        model.save_pretrained(repository.folder)
        processor.save_pretrained(repository.folder)
        shutil.copy(HUB_CARDS / "handler.py", repository.folder)
        (repository.folder / "requirements.txt").write_text(f"fedd-hf=={version('fedd-hf')}\n")
        examples = draw_examples(model, processor, repository.folder)
        stage.pictures.update(hash_file(path) for path in (repository.folder / "examples").iterdir())
        facts = describe_model(repository.repo_id, task, model.config, stage.backbone, report, examples)
        (repository.folder / "README.md").write_text(render_model_card(facts))
        yield repository


def stage_demo(stage: Stage, report: dict[str, Any]) -> Repository:
    """Take the page on which the published models look at a photo, with their report and painted examples."""
    repository = stage.open("fedd-demo", "space", space_sdk="gradio")
    shutil.copy(HUB_CARDS / "space" / "app.py", repository.folder)
    names = {task: f"{stage.owner}/{name}" for task, name in NAMES.items()}
    write_json({task: {"name_or_path": name} for task, name in names.items()}, repository.folder / "models.json")
    write_report(report, repository.folder / "report.json")
    shutil.copytree(stage.root / "fedd-malignancy-painted" / "examples", repository.folder / "examples")
    (repository.folder / "requirements.txt").write_text(f"fedd-hf[demo]=={version('fedd-hf')}\n")
    card = render_space_card([*names.values()], gradio_version(), f"{sys.version_info.major}.{sys.version_info.minor}")
    (repository.folder / "README.md").write_text(card)
    return repository


def draw_examples(model: Any, processor: Any, folder: Path) -> list[Example]:
    """Paint a photo of each skin tone, and write it with what the model says of it."""
    (folder / "examples").mkdir()
    return [draw_example(model, processor, row, folder) for row in paint_dataset(1, EXAMPLE_SEED)]


def draw_example(model: Any, processor: Any, row: dict[str, Any], folder: Path) -> Example:
    photo, tone = row["image"], FEATURES["skin_tone"].int2str(row["skin_tone"])
    title, name = f"Painted, skin tone {tone}", f"examples/{tone}.png"
    photo.save(folder / name)
    if not isinstance(model, FEDDForSegmentation):
        (score,) = score_photos(model, processor, [photo])
        labels = model.config.id2label.values()
        return Example(title=title, photo=name, scores=dict(zip(labels, (1 - score, score), strict=True)))
    (segmented,) = segment_photos(model, processor, [photo])
    picture = f"examples/{tone}-map.png"
    overlay(photo, segmented.segmentation_map, model.config.id2label).save(folder / picture)
    return Example(title=title, photo=name, overlay=picture)


def describe_model(
    repo_id: str, task: str, config: FEDDConfig, backbone: str, report: dict[str, Any], examples: list[Example]
) -> ModelFacts:
    """Say what the quickstart's report says."""
    size, told = report["data"], report[task]
    stopping = f"{3 * size['validation_per_tone']} more to stop by." if task == "classification" else ""
    train = f"{3 * size['train_per_tone']} of them, {size['train_per_tone']} of each skin tone"
    test = f"{3 * size['test_per_tone']} other painted photos, {size['test_per_tone']} of each skin tone."
    return ModelFacts(
        repo_id=repo_id,
        task=task,
        config=config.to_dict(),
        backbone_repo_id=backbone,
        license="cc-by-4.0",
        data={"name": "Painted photos", "dataset": "painted", "train": train, "validation": stopping, "test": test},
        training=told["arguments"],
        by_tone=told["by_tone"],
        seconds=report["seconds"][task],
        machine=report["machine"],
        examples=examples,
    )


def gradio_version() -> str:
    """Return the version of gradio that the demo was tried with."""
    try:
        return version("gradio")
    except PackageNotFoundError as error:
        raise ImportError('The demo needs gradio. Type `pip install "fedd-hf[demo]"`.') from error


def stage_all(stage: Stage, arguments: PublishArguments) -> Iterator[Repository]:
    """Put every repository together, first those that others stand on."""
    quickstart = Path(arguments.quickstart)
    if not (quickstart / "report.json").is_file():
        raise FileNotFoundError(
            f"There is no {quickstart}/report.json. Type `fedd quickstart --output-dir {quickstart}` first."
        )
    report = read_report(quickstart / "report.json")
    yield stage_backbone(stage)
    if arguments.ddi_seg is not None:
        yield stage_dataset(stage, Path(arguments.ddi_seg), arguments.confirm_masks)
    for folder in sorted((HUB_CARDS / "metrics").iterdir()):
        yield stage_metric(stage, folder.name)
    for task in NAMES:
        yield from stage_models(stage, task, quickstart, report)
    yield stage_demo(stage, report)


def publish(arguments: PublishArguments) -> None:
    with TemporaryDirectory() as root:
        stage = Stage(Path(root), arguments.owner)
        repositories = []
        for repository in stage_all(stage, arguments):
            check_folder(repository.folder, stage.pictures)
            print(describe_repository(repository), flush=True)
            repositories.append(repository)
        if not arguments.dry_run:
            push_all(repositories, stage.backbone, arguments)


def push_all(repositories: list[Repository], backbone: str, arguments: PublishArguments) -> None:
    """Push one after the other; whoever stands on an earlier one is told its commit."""
    api, commits = HfApi(), dict[str, str]()
    for repository in repositories:
        name_commits(repository.folder, backbone, commits)
        commits[repository.repo_id] = commit = push_repository(repository, arguments, api)
        print(f"{repository.repo_type} {repository.repo_id} is at {commit}", flush=True)


def name_commits(folder: Path, backbone: str, commits: dict[str, str]) -> None:
    """Write at which commit a model has its backbone, and the demo its models."""
    config, models = folder / "config.json", folder / "models.json"
    if config.is_file():
        told = json.loads(config.read_text()) | {"backbone": backbone, "backbone_revision": commits[backbone]}
        write_json(told, config)
    if models.is_file():
        shown = json.loads(models.read_text())
        write_json({task: told | {"revision": commits[told["name_or_path"]]} for task, told in shown.items()}, models)


def write_json(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser(PublishArguments, description=__doc__)
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        publish(*parser.parse_args_into_dataclasses(arguments))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"publish: {error}")


if __name__ == "__main__":
    main()
