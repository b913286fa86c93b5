"""Label efficiency: methods x label fractions x seeds, trained and scored on the same photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
from .results_cache import read_seconds
from .run import MAPS, PREDICTIONS, SEGMENTATION, TASKS, Method, Run, predict_run, read_predictions

Runs = dict[tuple[str, float], list[Path]]  # run folders of each method and label fraction, one for each seed


def run_label_efficiency(
    task: str,
    methods: Sequence[Method],
    photos: PhotoSets,
    output_dir: Path,
    accelerator: Accelerator,
    num_seeds: int = 3,
    examples_per_tone: int = 1,
    save_models: bool = False,
) -> dict[str, Any]:
    """Train each method at each label fraction with each seed, predict all photos, and compare by skin tone.

    Each run leaves its predictions table; a comparison that was interrupted resumes with the next run, and one with
    more methods, fractions or seeds reads those that are there.

    Args:
        task (`str`):
            `"segmentation"` or `"classification"`.
        methods (`list[Method]`):
            What is compared, with different names; each is compared with the first.
        photos ([`PhotoSets`]):
            Training photos of each label fraction, validation photos and tests.
        output_dir (`Path`):
            Existing folder, which gets `runs/`, `examples/` and `report.json`.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes; the first writes.
        num_seeds (`int`, *optional*, defaults to 3):
            Runs of each method at each label fraction.
        examples_per_tone (`int`, *optional*, defaults to 1):
            Photos of each skin tone whose segmentation maps are stored.
        save_models (`bool`, *optional*, defaults to `False`):
            Whether the models of runs to come are stored, each in its run folder.

    Returns:
        `dict`: the report; `runs` says where the predictions of each run are.

    Raises:
        ValueError: If `task` is unknown, a method cannot do it, or there is no method, fraction or seed.
    """
    _check(task, methods, photos, num_seeds, examples_per_tone)
    examples = _choose_examples(task, photos, examples_per_tone)
    run_method = partial(predict_run, root=output_dir / "runs", accelerator=accelerator, save_model=save_models)
    runs = _run_all(task, methods, photos, examples, num_seeds, run_method, accelerator.is_main_process)
    predictions = {key: [read_predictions(folder) for folder in of_key] for key, of_key in runs.items()}
    start = time.perf_counter()
    curves = measure_curves(task, predictions, {name: list(rows["image_id"]) for name, rows in photos.scored.items()})
    for row in [row for name in ("curves", "differences", "gaps") for row in curves[name]]:
        row["photos"] = len(photos.train[row["label_fraction"]])
    seconds = {"statistics": round(time.perf_counter() - start, 1)} | _add_up(runs)
    report = {
        "experiment": "label_efficiency",
        "task": task,
        "methods": [method.name for method in methods],
        "seeds": num_seeds,
        "settings": _describe(methods, photos, task),
        **curves,
        "examples": _write_examples(examples, runs, output_dir, accelerator),
        "runs": list(_list_runs(runs, output_dir)),
        "seconds": seconds,
        "machine": describe_machine(),
    }
    if accelerator.is_main_process:
        write_report(report, output_dir / "report.json")
    accelerator.wait_for_everyone()
    return read_report(output_dir / "report.json")


def _check(task: str, methods: Sequence[Method], photos: PhotoSets, num_seeds: int, examples_per_tone: int) -> None:
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}, got {task!r}.")
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`methods` must be at least one, with different names, got {names}.")
    unable = [method.name for method in methods if task not in method.tasks]
    if unable:
        raise ValueError(f"{unable} cannot be compared in {task!r}. Leave them out.")
    if not photos.train:
        raise ValueError("`photos` must have training photos of at least one label fraction.")
    if num_seeds < 1:
        raise ValueError(f"`num_seeds` must be at least 1, got {num_seeds}.")
    if examples_per_tone < 0:
        raise ValueError(f"`examples_per_tone` must not be negative, got {examples_per_tone}.")


def _choose_examples(task: str, photos: PhotoSets, per_tone: int) -> Dataset:
    """Choose from the last test, which is the largest."""
    test = list(photos.tests.values())[-1]
    return choose_examples(test, per_tone) if task == SEGMENTATION and per_tone else test.select([])


def _run_all(
    task: str,
    methods: Sequence[Method],
    photos: PhotoSets,
    examples: Dataset,
    num_seeds: int,
    run_method: Callable[[Method, Run], Path],
    is_main_process: bool,
) -> Runs:
    """Run what is not done yet, and return the run folders of the seeds of each method and label fraction.

    Every method has its first training before any has its second, so that the time of all can be told early.
    """
    runs: Runs = {(method.name, fraction): [] for method in methods for fraction in photos.train}
    plan = list(product(range(num_seeds), photos.train, methods))
    progress = tqdm(plan, unit="training", disable=not is_main_process)
    for done, (seed, label_fraction, method) in enumerate(progress):
        if done == len(methods) and is_main_process:
            progress.write(_say_time_left(plan[done:], runs, photos))
        progress.set_description(f"{method.name}, {label_fraction:.0%} labelled, seed {seed}")
        run = Run(
            task=task,
            train=photos.train[label_fraction],
            validation=photos.validation,
            photos=photos.photos,
            examples=examples,
            label_fraction=label_fraction,
            seed=seed,
        )
        runs[method.name, label_fraction].append(run_method(method, run))
    return runs


def _say_time_left(plan: Sequence[tuple[int, float, Method]], runs: Runs, photos: PhotoSets) -> str:
    """Say how long a plan takes if a method's first training tells its seconds for each labelled photo."""
    seconds = {
        name: read_seconds(folders[0]) / len(photos.train[label_fraction])
        for (name, label_fraction), folders in runs.items()
        if folders
    }
    total = sum(seconds[method.name] * len(photos.train[label_fraction]) for _, label_fraction, method in plan)
    return f"{len(plan)} trainings are left: at most about {total / 3600:.1f} hours on a machine like this."


def _add_up(runs: Runs) -> dict[str, float]:
    """Return the seconds of each method and label fraction; the first ones also compute features."""
    return {
        f"{name}, {label_fraction:.0%}": round(sum(map(read_seconds, folders)), 1)
        for (name, label_fraction), folders in runs.items()
    }


def _describe(methods: Sequence[Method], photos: PhotoSets, task: str) -> dict[str, Any]:
    return {
        "label_fractions": {str(label_fraction): len(rows) for label_fraction, rows in photos.train.items()},
        "photos": {name: len(rows) for name, rows in photos.scored.items()},
        "methods": {
            method.name: {
                str(label_fraction): method.describe(task, label_fraction) for label_fraction in photos.train
            }
            for method in methods
        },
    }


def _list_runs(runs: Runs, output_dir: Path) -> Iterator[dict[str, Any]]:
    for (name, label_fraction), folders in runs.items():
        for seed, folder in enumerate(folders):
            path = (folder / PREDICTIONS).relative_to(output_dir).as_posix()
            yield {"method": name, "label_fraction": label_fraction, "seed": seed, "predictions_path": path}


def _write_examples(examples: Dataset, runs: Runs, output_dir: Path, accelerator: Accelerator) -> list[dict[str, Any]]:
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
                "map_path": (of_seeds[0] / MAPS / f"{name}.png").relative_to(output_dir).as_posix(),
            }
            for (method, label_fraction), of_seeds in runs.items()
        ]
        rows.append({"image_id": name, "skin_tone": tone, **paths, "maps": maps})
    return rows
