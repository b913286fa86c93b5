"""A training run: where it runs, and what it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration

from fedd_hf.features import write_json
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDPreTrainedModel

from .arguments import RunArguments


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
