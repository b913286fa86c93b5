"""How well methods segment and classify with few labels and with more: methods x label fractions x seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm

from fedd_hf.data.schema import tone_labels
from fedd_hf.evaluation.report import describe_machine, read_report, write_report

from .learning_curves import measure_curves
from .photo_sets import PhotoSets, choose_examples
from .trial import SEGMENTATION, TASKS, Method, Trial
from .units import Unit, run_unit

Units = dict[tuple[str, float], list[Unit]]  # of each method and label fraction, one for each seed


@dataclass(frozen=True, kw_only=True)
class LabelEfficiencyArguments:
    """How often each method is trained, and what is shown.

    Args:
        label_fractions (`list[float]`): Shares that are labelled.
        num_seeds (`int`): Trainings of each method at each label fraction.
        examples_per_tone (`int`): Photos of each skin tone whose segmentation maps are kept.
        save_models (`bool`): Keep the models of trainings to come, each in the folder of its predictions.

    Raises:
        ValueError: If there is no fraction, no seed, or a negative number of examples.
    """

    label_fractions: list[float] = field(
        default_factory=lambda: [0.05, 0.10, 0.15, 0.20], metadata={"help": "shares that are labelled"}
    )
    num_seeds: int = field(default=3, metadata={"help": "trainings of each method at each label fraction"})
    examples_per_tone: int = field(default=1, metadata={"help": "photos of each skin tone whose maps are kept"})

    save_models: bool = field(default=False, metadata={"help": "keep the trained models"})

    def __post_init__(self) -> None:
        if not self.label_fractions:
            raise ValueError("`label_fractions` must name at least one share, got [].")
        if self.num_seeds < 1:
            raise ValueError(f"`num_seeds` must be at least 1, got {self.num_seeds}.")
        if self.examples_per_tone < 0:
            raise ValueError(f"`examples_per_tone` must not be negative, got {self.examples_per_tone}.")


def run_label_efficiency(
    task: str,
    methods: Sequence[Method],
    photos: PhotoSets,
    arguments: LabelEfficiencyArguments,
    output_dir: Path,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Train each method at each label fraction with each seed, predict all photos, and compare by skin tone.

    Each training is a unit that leaves its predictions table; a run that was killed goes on with the next one, and a
    run with more methods, fractions or seeds keeps those that are there.

    Args:
        task (`str`):
            `"segmentation"` or `"classification"`.
        methods (`list[Method]`):
            What is compared, with different names; each is compared with the first.
        photos ([`PhotoSets`]):
            Training photos of each label fraction, validation photos and tests.
        arguments ([`LabelEfficiencyArguments`]):
            Label fractions, seeds, examples.
        output_dir (`Path`):
            Existing folder, which gets `units/`, `examples/` and `report.json`.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.

    Returns:
        `dict`: the report.

    Raises:
        ValueError: If `task` is unknown, or `output_dir` holds units of other photos or arguments.
    """
    _check(task, methods, photos, arguments)
    examples = _choose_examples(task, photos, arguments.examples_per_tone)
    units = _run_units(task, methods, photos, examples, arguments, output_dir / "units", accelerator)
    predictions = {key: [unit.predictions for unit in of_key] for key, of_key in units.items()}
    start = time.perf_counter()
    curves = measure_curves(task, predictions, {name: list(rows["image_id"]) for name, rows in photos.scored.items()})
    for row in [row for name in ("curves", "differences", "gaps") for row in curves[name]]:
        row["photos"] = len(photos.train[row["label_fraction"]])
    seconds = {"statistics": round(time.perf_counter() - start, 1)} | _add_up(units)
    report = {
        "experiment": "label_efficiency",
        "task": task,
        "methods": [method.name for method in methods],
        "seeds": arguments.num_seeds,
        "settings": _describe(methods, photos, arguments, task),
        **curves,
        "examples": _write_examples(examples, units, output_dir, accelerator),
        "seconds": seconds,
        "machine": describe_machine(),
    }
    if accelerator.is_main_process:
        write_report(report, output_dir / "report.json")
    accelerator.wait_for_everyone()
    return read_report(output_dir / "report.json")


def _check(task: str, methods: Sequence[Method], photos: PhotoSets, arguments: LabelEfficiencyArguments) -> None:
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}.")
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`methods` must be at least one, with different names, got {names}.")
    unable = [method.name for method in methods if task not in method.tasks]
    if unable:
        raise ValueError(f"{unable} cannot be compared in {task!r}. Leave them out.")
    missing = [label_fraction for label_fraction in arguments.label_fractions if label_fraction not in photos.train]
    if missing:
        raise ValueError(f"There are no training photos of the label fractions {missing}, only {list(photos.train)}.")


def _choose_examples(task: str, photos: PhotoSets, per_tone: int) -> Dataset:
    """Choose from the last test, which is the largest."""
    test = list(photos.tests.values())[-1]
    return choose_examples(test, per_tone) if task == SEGMENTATION and per_tone else test.select([])


def _run_units(
    task: str,
    methods: Sequence[Method],
    photos: PhotoSets,
    examples: Dataset,
    arguments: LabelEfficiencyArguments,
    root: Path,
    accelerator: Accelerator,
) -> Units:
    """Run what is not done yet, and return the units of the seeds of each method and label fraction.

    Every method has its first training before any has its second, so that the time of all can be told early.
    """
    plan = list(product(range(arguments.num_seeds), arguments.label_fractions, methods))
    units: Units = {(method.name, fraction): [] for method in methods for fraction in arguments.label_fractions}
    progress = tqdm(plan, unit="training", disable=not accelerator.is_main_process)
    for done, (seed, label_fraction, method) in enumerate(progress):
        if done == len(methods) and accelerator.is_main_process:
            progress.write(_say_time_left(plan[done:], units, photos))
        progress.set_description(f"{method.name}, {label_fraction:.0%} labelled, seed {seed}")
        trial = Trial(
            train=photos.train[label_fraction],
            validation=photos.validation,
            photos=photos.photos,
            examples=examples,
            label_fraction=label_fraction,
            seed=seed,
        )
        unit = run_unit(task, method, trial, root, accelerator, arguments.save_models)
        units[method.name, label_fraction].append(unit)
    return units


def _say_time_left(plan: Sequence[tuple[int, float, Method]], units: Units, photos: PhotoSets) -> str:
    """Say how long a plan takes if a method's first training tells its seconds for each labelled photo."""
    seconds: dict[str, float] = {}
    for (name, label_fraction), of_seeds in units.items():
        if of_seeds:
            seconds[name] = of_seeds[0].seconds / len(photos.train[label_fraction])
    total = sum(seconds[method.name] * len(photos.train[label_fraction]) for _, label_fraction, method in plan)
    return f"{len(plan)} trainings are left: at most about {total / 3600:.1f} hours on a machine like this."


def _add_up(units: Units) -> dict[str, float]:
    """Return the seconds of each method and label fraction; the first ones also compute features."""
    return {
        f"{name}, {label_fraction:.0%}": round(sum(unit.seconds for unit in of_seeds), 1)
        for (name, label_fraction), of_seeds in units.items()
    }


def _describe(
    methods: Sequence[Method], photos: PhotoSets, arguments: LabelEfficiencyArguments, task: str
) -> dict[str, Any]:
    return {
        "label_fractions": {
            str(label_fraction): len(photos.train[label_fraction]) for label_fraction in arguments.label_fractions
        },
        "photos": {name: len(rows) for name, rows in photos.scored.items()},
        "methods": {
            method.name: {
                str(label_fraction): method.describe(task, label_fraction)
                for label_fraction in arguments.label_fractions
            }
            for method in methods
        },
    }


def _write_examples(
    examples: Dataset, units: Units, output_dir: Path, accelerator: Accelerator
) -> list[dict[str, Any]]:
    """Write photo and mask of each example, and say where its maps are: those of the first seed."""
    rows = []
    for example, tone in zip(examples, tone_labels(examples), strict=True):
        name = example["image_id"]
        paths = {"photo_path": f"examples/{name}.png", "truth_path": f"examples/{name}_mask.png"}
        if accelerator.is_main_process:
            (output_dir / "examples").mkdir(exist_ok=True)
            example["image"].convert("RGB").save(output_dir / paths["photo_path"])
            example["mask"].save(output_dir / paths["truth_path"])
        maps = [
            {
                "method": method,
                "label_fraction": label_fraction,
                "map_path": of_seeds[0].map_of(name).relative_to(output_dir).as_posix(),
            }
            for (method, label_fraction), of_seeds in units.items()
        ]
        rows.append({"image_id": name, "skin_tone": tone, **paths, "maps": maps})
    return rows
