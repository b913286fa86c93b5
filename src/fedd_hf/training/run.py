"""A training run: where it runs, how it goes on after a kill, and what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration

from fedd_hf.features import hash_json, write_json
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDPreTrainedModel

from .arguments import RunArguments

COUNTERS = "counters.json"


def open_accelerator(**options: Any) -> Accelerator:
    """Open Accelerate, which sees other processes on CPUs only if it is told that there is no accelerator."""
    return Accelerator(cpu=not torch.accelerator.is_available(), **options)


def start_accelerator(arguments: RunArguments) -> Accelerator:
    """Start Accelerate for a run, with its tracker if one is wanted.

    Raises:
        ValueError: If the tracker is not installed, or the machine cannot compute in the precision.
    """
    trackers = [str(tracker) for tracker in get_available_trackers()]
    if arguments.log_with not in (None, *trackers):
        raise ValueError(
            f"`log_with` must be a tracker that is installed, one of {trackers}, got {arguments.log_with!r}. "
            "Type `pip install fedd-hf[tracking]` for tensorboard."
        )
    accelerator = open_accelerator(
        mixed_precision=arguments.mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with=arguments.log_with,
        project_config=ProjectConfiguration(arguments.output_dir, logging_dir=arguments.output_dir),
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # a step is the same for any process count
    )
    if arguments.log_with is not None:
        accelerator.init_trackers("logs")
    return accelerator


class RunState:
    """Checkpoints of a run: heads, optimizer, random numbers and counters, from which it goes on exactly.

    They hold pickles, as Accelerate writes them: they stay in the run's folder, are never pushed, and are removed when
    the run ends.

    Args:
        arguments ([`RunArguments`]):
            Folder of the run, and how often to write a checkpoint.
        accelerator (`accelerate.Accelerator`):
            What has prepared the objects to be stored.
        identity (`dict`):
            What else makes this run this run, as JSON; a checkpoint of another one is refused.
    """

    def __init__(self, arguments: RunArguments, accelerator: Accelerator, identity: dict[str, Any]) -> None:
        self.folder, self.every = Path(arguments.output_dir) / "checkpoints", arguments.checkpoint_every
        self.accelerator = accelerator
        self.identity = hash_json(
            identity
            | {
                "processes": accelerator.num_processes,
                "precision": accelerator.mixed_precision,
                "parts": accelerator.gradient_accumulation_steps,
            }
        )

    def resume(self) -> dict[str, Any]:
        """Load the newest checkpoint and return its counters; `{}` if there is none.

        Raises:
            ValueError: If it is of another run.
        """
        checkpoints = sorted(self.folder.glob("step-*"))
        self.accelerator.wait_for_everyone()
        if not checkpoints:
            return {}
        counters = json.loads((checkpoints[-1] / COUNTERS).read_text())
        if counters.pop("identity") != self.identity:
            raise ValueError(
                f"{self.folder} was left by a run with other arguments, photos or processes. Give the same ones to go "
                "on, or delete it to start anew."
            )
        self.accelerator.load_state(str(checkpoints[-1]))
        return counters

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after `step` steps."""
        return step % self.every == 0

    def save(self, step: int, counters: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, then remove the one before it. All processes call it."""
        partial, checkpoint = self.folder / "partial", self.folder / f"step-{step:09d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_json(counters | {"identity": self.identity}, partial / COUNTERS)
            older = sorted(self.folder.glob("step-*"))
            partial.rename(checkpoint)
            for folder in older:
                shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """End the run and remove its checkpoints, first by name, so that a kill leaves no half of one."""
        if self.accelerator.is_main_process and self.folder.exists():
            removed = self.folder.with_name(".checkpoints")
            shutil.rmtree(removed, ignore_errors=True)
            shutil.rmtree(self.folder.rename(removed))
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def save_run(
    model: FEDDPreTrainedModel,
    processor: FEDDImageProcessor,
    report: dict[str, Any],
    arguments: RunArguments,
    accelerator: Accelerator,
) -> None:
    """Write a trained model, its image processor and `run.json`, each file whole or not at all."""
    if accelerator.is_main_process:
        folder = Path(arguments.output_dir).resolve()
        partial = folder.with_name(f".{folder.name}.partial")  # beside it: a path to the backbone is relative
        shutil.rmtree(partial, ignore_errors=True)
        for path in (folder, partial):
            path.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        write_json(report, partial / "run.json")
        for file in sorted(partial.iterdir()):
            file.replace(folder / file.name)
        partial.rmdir()
    accelerator.wait_for_everyone()
