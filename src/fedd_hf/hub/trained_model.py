"""What a training run left -> a repository with the model, its image processor and a card, in one commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from fedd_hf.evaluation.report import read_report

from .guard import check_folder
from .model_card import TASKS, ModelFacts, render_model_card
from .push import PushArguments, Repository, push_repository

FILES = ("model.safetensors", "preprocessor_config.json")
CODE = "*_fedd.py"
CHOICES = ("label_fraction", "label_seed", "skin_tone", "malignancy_policy")
LOSSES = ("final_loss", "validation_loss")


def push_trained_model(run: Path, repo_id: str, api: HfApi) -> str:
    """Publish the model of a training run with a card that says what `run.json` says, and return the commit.

    Nothing else of the folder leaves, such as checkpoints or predictions; other files of the repository stay.

    Args:
        run (`Path`):
            Folder of the run.
        repo_id (`str`):
            Name on the Hub.
        api (`HfApi`):
            As whom.

    Raises:
        OSError: If the folder holds no model, or the Hub refuses, cannot be reached, or hangs up.
        ValueError: If a file may not be published, or heads alone would be whose backbone is a folder of this machine.
    """
    with TemporaryDirectory() as root:
        folder = Path(root)
        stage_model(run, repo_id, folder)
        check_folder(folder)
        repository = Repository(repo_id=repo_id, repo_type="model", folder=folder, is_whole=False)
        return push_repository(repository, PushArguments(), api)


def stage_model(run: Path, repo_id: str, folder: Path) -> None:
    """Put together what is published of a training run."""
    for path in (*(run / name for name in FILES), *run.glob(CODE)):
        shutil.copy(path, folder)
    config = _without_path(json.loads((run / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    facts = describe_run(repo_id, config, read_report(run / "run.json"))
    (folder / "README.md").write_text(render_model_card(facts))


def _without_path(config: dict[str, Any]) -> dict[str, Any]:
    """Forget the folder of the backbone, which is nowhere else: it is written relative to that of the model."""
    if not (config["backbone"] or "").startswith("."):
        return config
    if not config["save_backbone"]:
        raise ValueError(
            f"The backbone {config['backbone']!r} of these heads is a local folder that nobody else can load. Push it "
            "first and train on its repository id."
        )
    return config | {"backbone": None}


def describe_run(repo_id: str, config: dict[str, Any], run: dict[str, Any]) -> ModelFacts:
    """Say what is known of a model before it is evaluated."""
    data, backbone = run["data"], config["backbone"]
    losses = {name: f"{run[name]:.4f}" for name in LOSSES if name in run}
    told = {"name": data["dataset"], "dataset": data["dataset"], "train": f"{run['photos']} labelled photos"}
    return ModelFacts(
        repo_id=repo_id,
        task=next(name for name, task in TASKS.items() if task.architecture == config["architectures"][0]),
        config=config,
        data=told | {"validation": "", "test": ""},
        training={name: data[name] for name in CHOICES} | run["features"] | run["training"] | losses,
        machine=run["machine"],
        backbone_repo_id=None if backbone == "embedded" else backbone,
    )


__all__ = ["push_trained_model"]
