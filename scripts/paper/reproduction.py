"""The whole paper in one run: data, both tasks with few labels and with more, grid, clusters, probe, verdicts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from datasets import Dataset

from claims import judge_claims
from clustering import ClusteringArguments, cluster_blocks
from fedd_hf.compare.blocks_and_timesteps import TIMESTEPS, choose_blocks, run_grid
from fedd_hf.compare.label_efficiency import run_label_efficiency
from fedd_hf.compare.methods import FEDD, RANDOM_UNET, check_method, make_fedd, make_method
from fedd_hf.compare.photo_sets import LARGE_TEST, choose_examples, load_photo_sets
from fedd_hf.compare.run import TASKS, MethodSettings, Run
from fedd_hf.data.ddi.build import build_ddi_seg
from fedd_hf.data.ddi.local_copy import METADATA_FILE
from fedd_hf.data.loading import DataArguments
from fedd_hf.data.schema import tone_labels
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.evaluation.summary import evaluate_classification, evaluate_segmentation
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from marker_probe import probe_markers
from painted_double import MASKS_FILE, paint_ddi
from photo_counts import describe_counts
from published import compare_with_published
from run_time import measure_run_time
from scheme import describe_scheme

LABEL_FRACTIONS = [0.05, 0.10, 0.15, 0.20]
COST: dict[str, Any] = {
    "num_seeds": 3,
    "num_steps": SegmentationArguments.num_steps,
    "grid_timesteps": TIMESTEPS,
    "image_size": None,  # the backbone's own
}
PAINTED_COST: dict[str, Any] = {
    "num_seeds": 1,
    "num_steps": 300,
    "grid_timesteps": [0, 200, 400, 600, 800, 1000],
    "image_size": 96,
}
SETTINGS_FILE = "settings.json"
GRID_SEEDS = 3
CLUSTERED_PER_TONE = 4
PROBED_PER_TONE = 20
SAMPLES_PER_TONE = 4
EXAMPLES_PER_TONE = 2  # the first of them in Figure 5, all in the supplement's Figure 3


@dataclass(frozen=True, kw_only=True)
class ReproductionArguments:
    """What is reproduced, and at what cost.

    Args:
        output_dir (`str`): Folder for everything; give it again to go on.
        ddi_root (`str`, *optional*): Licensed copy of DDI.
        masks (`str`): ddi-seg, as a repository id or folder.
        painted (`bool`): Paint a double of DDI instead; the result says nothing about patients.
        backbone (`str`): `embedded`, a folder or a repository id.
        image_size (`int`, *optional*): Side of the square to which photos are brought; by default the backbone's own,
            painted 96.
        methods (`list[str]`): What is compared with FEDD, which comes first.
        label_fractions (`list[float]`): Shares of DDI that are labelled.
        num_seeds (`int`, *optional*): Trainings of each method at each label fraction; by default 3, painted 1.
        grid_timesteps (`list[int]`, *optional*): Timesteps of the grid; by default the paper's 21, painted 6.
        num_steps (`int`, *optional*): Training steps of pixel classifiers; by default the recipe's, painted 300.
        photo_size (`int`): Shorter side of painted photos.

    Raises:
        ValueError: If there is neither a copy of DDI nor the wish to paint one, or both; FEDD is not the first
            method; or a method is unknown.
    """

    output_dir: str = field(metadata={"help": "folder for everything; give it again to go on"})
    ddi_root: str | None = field(default=None, metadata={"help": "licensed copy of DDI"})
    masks: str = field(default="fedd/ddi-seg", metadata={"help": "ddi-seg, as a repository id or folder"})
    painted: bool = field(default=False, metadata={"help": "paint a double of DDI instead, which shows no patient"})
    backbone: str = field(default="embedded", metadata={"help": "embedded, a folder or a repository id"})
    image_size: int | None = field(default=None, metadata={"help": "side of the square, in pixels"})
    methods: list[str] = field(default_factory=lambda: [FEDD, RANDOM_UNET], metadata={"help": "FEDD, and its rivals"})
    label_fractions: list[float] = field(
        default_factory=lambda: list(LABEL_FRACTIONS), metadata={"help": "shares of DDI that are labelled"}
    )
    num_seeds: int | None = field(default=None, metadata={"help": "trainings of each method at each label fraction"})
    grid_timesteps: list[int] | None = field(default=None, metadata={"help": "timesteps of the grid"})
    num_steps: int | None = field(default=None, metadata={"help": "training steps of pixel classifiers"})
    photo_size: int = field(default=128, metadata={"help": "shorter side of painted photos, in pixels"})

    def __post_init__(self) -> None:
        if self.painted == (self.ddi_root is not None):
            raise ValueError(
                "Give `ddi_root`, the folder of a licensed copy of DDI (https://ddi-dataset.github.io), or `painted` "
                "to run on painted photos; not both."
            )
        if self.methods[:1] != [FEDD]:
            raise ValueError(f"`methods` must begin with {FEDD!r}, got {self.methods}.")
        for name in self.methods:
            check_method(name)

    def cost(self) -> dict[str, Any]:
        """Return what the time of a run depends on: what was given, by default less on painted photos."""
        defaults = PAINTED_COST if self.painted else COST
        given = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if value is None else value for name, value in given.items()}


def run_reproduction(
    arguments: ReproductionArguments, render_card: Callable[..., str], accelerator: Accelerator
) -> dict[str, Any]:
    """Run every experiment of the paper and judge its claims.

    What is finished is stored: a run that was interrupted resumes where it stopped.

    Args:
        arguments ([`ReproductionArguments`]):
            What, and at what cost.
        render_card (`Callable[..., str]`):
            Renders the card of ddi-seg, which is built for the painted double.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes.

    Returns:
        `dict`: the report, which is in `report.json` too; paths in it are relative to `output_dir`.

    Raises:
        FileNotFoundError: If DDI, its masks or the backbone are not there.
        ValueError: If `output_dir` holds the run of other arguments, or the data are damaged.

    Source: FEDD (MICCAI 2023) and its supplement.
    """
    folder = Path(arguments.output_dir)
    _refuse_other_run(folder, arguments)
    seconds: dict[str, float] = {}
    with _timed(seconds, "data"):
        paper = Paper(arguments, folder, render_card, accelerator)
    _claim(folder, arguments, accelerator)
    report: dict[str, Any] = {"experiment": "reproduction", "data": paper.describe_data()}
    for name, run in paper.parts().items():
        with _timed(seconds, name):
            report[name] = run()
    curves = [*report["segmentation"]["curves"], *report["classification"]["curves"]]
    report["comparison"] = compare_with_published(curves, report["grid"]["points"])
    report["claims"] = judge_claims(report)
    report |= {"seconds": seconds, "machine": describe_machine()}
    if accelerator.is_main_process:
        write_report(report, folder / "report.json")
    accelerator.wait_for_everyone()
    return read_report(folder / "report.json")


class Paper:
    """The paper's data and experiments, each a method that returns its part of the report.

    Arguments are those of [`run_reproduction`], and the folder.
    """

    def __init__(
        self,
        arguments: ReproductionArguments,
        folder: Path,
        render_card: Callable[..., str],
        accelerator: Accelerator,
    ) -> None:
        self.arguments, self.folder, self.accelerator = arguments, folder, accelerator
        self.cost = arguments.cost()
        self.reading = ReadingArguments(backbone=arguments.backbone, image_size=self.cost["image_size"])
        self.grid_reading = replace(
            self.reading, blocks=choose_blocks(self.reading), timesteps=self.cost["grid_timesteps"]
        )
        self.data = _open_data(arguments, folder, render_card, accelerator)
        self.photos = {task: load_photo_sets(self.data, task, arguments.label_fractions) for task in TASKS}
        self.largest_fraction = max(arguments.label_fractions)
        self.settings = MethodSettings(
            folder=folder,
            accelerator=accelerator,
            reading=self.reading,
            segmentation=SegmentationArguments(num_steps=self.cost["num_steps"]),
        )
        self.fedd = make_fedd(self.settings)
        self.runs: dict[str, list[dict[str, Any]]] = {}

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return the parts of the report in the order in which they are computed."""
        return {
            "counts": self.count,
            "scheme": lambda: describe_scheme(self.fedd.open_segmenter().config),
            "samples": self.show_samples,
            "segmentation": lambda: self.compare_methods("segmentation"),
            "grid": self.run_grid,
            "classification": lambda: self.compare_methods("classification"),
            "clustering": self.cluster,
            "marker_probe": self.probe_markers,
            "evaluation": self.evaluate,
            "run_time": lambda: measure_run_time(self.fedd, self.make_run("segmentation")),
        }

    def describe_data(self) -> dict[str, Any]:
        """Name the photos and the backbone."""
        painted = self.arguments.painted
        name = "a painted double of DDI" if painted else "Diverse Dermatology Images (DDI)"
        return {"name": name, "painted": painted, "backbone": self.arguments.backbone}

    def count(self) -> dict[str, Any]:
        """Count photos: Figure 1 and the supplement's Table 1."""
        return describe_counts(*({"train": self.largest(task)} | self.photos[task].scored for task in TASKS))

    def show_samples(self) -> list[dict[str, Any]]:
        """Write some photos of each skin tone with their masks: Figure 2."""
        return write_samples(self.photos["segmentation"].tests[LARGE_TEST], self.folder, self.accelerator)

    def compare_methods(self, task: str) -> dict[str, Any]:
        """Train all methods with few labels and with more: Figures 4, 5 and 7."""
        named = [make_method(name, self.settings) for name in self.arguments.methods if name != FEDD]
        baselines = [method for method in named if task in method.tasks]
        how = {"num_seeds": self.cost["num_seeds"], "examples_per_tone": EXAMPLES_PER_TONE}
        folder, methods = _subfolder(self.folder, task), [self.fedd, *baselines]
        report = run_label_efficiency(task, methods, self.photos[task], folder, self.accelerator, **how)
        report = prefix_paths(report, task)
        self.runs[task] = report["runs"]
        return report

    def run_grid(self) -> dict[str, Any]:
        """Train malignancy classifiers on each block and timestep: Figure 6. Validation photos choose what is read."""
        photos = self.photos["classification"]
        folder, features = _subfolder(self.folder, "grid"), _subfolder(self.folder, "features")
        report = run_grid(
            photos, self.grid_reading, ClassificationArguments(), GRID_SEEDS, folder, features, self.accelerator
        )
        readings = {row["label_fraction"]: (row["block"], row["timestep"]) for row in report["best"]}
        self.settings = replace(self.settings, malignancy_readings=readings)
        self.fedd = make_fedd(self.settings)
        return report

    def cluster(self) -> dict[str, Any]:
        """Cluster the activations of each block: the supplement's Figure 1."""
        photos = choose_examples(self.photos["segmentation"].tests[LARGE_TEST], CLUSTERED_PER_TONE)
        folder = _subfolder(self.folder, "clustering")
        report = cluster_blocks(photos, self.reading, ClusteringArguments(), folder, self.accelerator)
        return prefix_paths(report, "clustering")

    def probe_markers(self) -> dict[str, Any]:
        """Paint over pen marks and rulers and score again, with the classifier of most labels."""
        model, processor = self.fedd.train(self.make_run("classification"))
        photos = choose_examples(self.photos["segmentation"].tests[LARGE_TEST], PROBED_PER_TONE)
        folder = _subfolder(self.folder, "marker_probe")
        return prefix_paths(probe_markers(model, processor, photos, folder, self.accelerator), "marker_probe")

    def evaluate(self) -> dict[str, Any]:
        """Report the first FEDD model of most labels on the large tests: tones, gaps, calibration, abstention."""
        return {
            "segmentation": evaluate_segmentation(*self._predictions("segmentation")),
            "classification": evaluate_classification(*self._predictions("classification")),
        }

    def _predictions(self, task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the predictions of the first FEDD model of most labels on the large test and on validation photos."""
        first = {"method": self.fedd.name, "label_fraction": self.largest_fraction, "seed": 0}
        (run,) = (row for row in self.runs[task] if row.items() >= first.items())
        predictions = pd.read_parquet(self.folder / run["predictions_path"])
        sets = (self.photos[task].tests[LARGE_TEST], self.photos[task].validation)
        large_test, validation = (predictions[predictions["image_id"].isin(rows["image_id"])] for rows in sets)
        return large_test, validation

    def largest(self, task: str) -> Dataset:
        """Return the training photos of the largest share, which hold those of all others."""
        return self.photos[task].train[self.largest_fraction]

    def make_run(self, task: str) -> Run:
        """Return the first training at the largest share."""
        photos = self.photos[task]
        return Run(
            task=task,
            train=self.largest(task),
            validation=photos.validation,
            photos=photos.photos,
            examples=photos.photos.select([]),
            label_fraction=self.largest_fraction,
            seed=0,
        )


def prefix_paths(report: Any, folder: str) -> Any:
    """Return a report whose paths (of keys that end in `_path`) begin with a folder."""
    if isinstance(report, list):
        return [prefix_paths(item, folder) for item in report]
    if not isinstance(report, dict):
        return report
    return {
        name: f"{folder}/{item}" if name.endswith("_path") and item is not None else prefix_paths(item, folder)
        for name, item in report.items()
    }


def write_samples(photos: Dataset, folder: Path, accelerator: Accelerator) -> list[dict[str, Any]]:
    """Write photos of each skin tone and their masks to `folder/samples`, and say where they are."""
    rows = []
    chosen = choose_examples(photos, SAMPLES_PER_TONE)
    for photo, tone in zip(chosen, tone_labels(chosen), strict=True):
        paths = {name: f"samples/{photo['image_id']}_{name}.png" for name in ("photo", "truth")}
        if accelerator.is_main_process:
            _subfolder(folder, "samples")
            photo["image"].convert("RGB").save(folder / paths["photo"])
            photo["mask"].save(folder / paths["truth"])
        where = {f"{name}_path": path for name, path in paths.items()}
        rows.append({"image_id": photo["image_id"], "skin_tone": tone} | where)
    return rows


def _open_data(
    arguments: ReproductionArguments, folder: Path, render_card: Callable[..., str], accelerator: Accelerator
) -> DataArguments:
    """Say where DDI and its masks are; paint them first where that is wanted."""
    if not arguments.painted:
        return DataArguments(dataset="ddi", root=arguments.ddi_root, masks=arguments.masks)
    root, masks = folder / "painted-ddi", folder / "painted-ddi-seg"
    is_painted = (folder / SETTINGS_FILE).is_file() and masks.exists()
    if accelerator.is_main_process and not is_painted:
        paint_ddi(root, photo_size=arguments.photo_size)
        if not masks.exists():
            build_ddi_seg(masks, root / MASKS_FILE, render_card, root / METADATA_FILE)
    accelerator.wait_for_everyone()
    return DataArguments(dataset="ddi", root=str(root), masks=str(masks))


def _refuse_other_run(folder: Path, arguments: ReproductionArguments) -> None:
    path = folder / SETTINGS_FILE
    if path.is_file() and read_report(path) != _settings(arguments):
        raise ValueError(
            f"{folder} holds the run of other arguments, {read_report(path)}. Give the same ones to go on, or another "
            "`output_dir`."
        )


def _claim(folder: Path, arguments: ReproductionArguments, accelerator: Accelerator) -> None:
    """Make the folder that of these arguments, which have opened their data by now."""
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_report(_settings(arguments), folder / SETTINGS_FILE)
    accelerator.wait_for_everyone()


def _settings(arguments: ReproductionArguments) -> dict[str, Any]:
    """Return what a run depends on, as JSON."""
    settings = json.loads(json.dumps(asdict(arguments) | arguments.cost()))
    settings.pop("output_dir")
    return settings


def _subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)
