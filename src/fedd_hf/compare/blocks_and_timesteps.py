"""Choice of blocks and timesteps for either task: heads on each, compared on validation photos."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from datasets import Dataset
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import tone_labels
from fedd_hf.evaluation.by_tone import photos_of, sample_of
from fedd_hf.evaluation.classification import classification_metrics
from fedd_hf.evaluation.intervals import Metric, paired_difference, value_of
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.evaluation.segmentation import COUNTS, iou
from fedd_hf.evaluation.text_tables import NOTHING, Table, as_markdown
from fedd_hf.features import FeatureStore, pool_labelled
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation, count_votes
from fedd_hf.prediction import count_pixels
from fedd_hf.training.arguments import ClassificationArguments, ReadingArguments, SegmentationArguments
from fedd_hf.training.malignancy_heads import PAPER_READINGS, train_classifiers
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import PixelDraws, StoredFeatures

from .photo_sets import TEST, VALIDATION, PhotoSets
from .results_cache import cache_json
from .run import describe_backbone

# The grid of FEDD (MICCAI 2023), Figure 6. Timestep 1000 is read at the last index, 999.
BLOCKS = [2, 4, 6, 8, 10, 12, 14]
TIMESTEPS = list(range(0, 1001, 50))
PIXELS_PER_IMAGE = 1500
SEGMENTATION_SEEDS = (0, 1)
REGRETTED = ("accuracy", "auroc")

PooledSplits = dict[str, tuple[Tensor, Tensor]]


def run_grid(
    photos: PhotoSets,
    reading: ReadingArguments,
    training: ClassificationArguments,
    num_seeds: int,
    output_dir: Path,
    features: Path,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Train malignancy classifiers on each block and timestep, with few labels and with more, and test all of them.

    Features are computed once; then the classifiers of a label fraction are trained at once. What is finished is
    stored: a grid that was interrupted resumes with the next photo, or the next label fraction.

    Args:
        photos ([`PhotoSets`]):
            Photos of known malignancy; those of a label fraction are as many as the paper has there.
        reading ([`ReadingArguments`]):
            Which backbone; by default with the blocks and timesteps of the paper.
        training ([`ClassificationArguments`]):
            How the classifiers are trained; their seeds count up from its seed.
        num_seeds (`int`):
            Classifiers that are trained on each block and timestep.
        output_dir (`Path`):
            Existing folder, which gets the results of each label fraction, and `report.json`.
        features (`Path`):
            Folder of the feature stores.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes.

    Returns:
        `dict`: the report. `points` has a row for each label fraction, block and timestep: means over seeds of
        `accuracy` and `balanced_accuracy` (at 0.5) and `auroc` on the test photos, `validation_auroc` and
        `validation_loss`, and the standard deviation of each (`accuracy_std`, ...). `best` has the row of each label
        fraction that validation photos choose, `paper` the one that the paper chose, `regret` what
        [`measure_regret`] says of the choice.

    Raises:
        ValueError: If a block is too small to pool, or there is no seed.

    Source: FEDD (MICCAI 2023), section 4 and Figure 6; choice on validation, which the paper made on test.
    """
    if num_seeds < 1:
        raise ValueError(f"`num_seeds` must be at least 1, got {num_seeds}.")
    test, largest = photos.tests[TEST], photos.train[max(photos.train)]
    splits = {"train": largest, VALIDATION: photos.validation, TEST: test}
    start = time.perf_counter()
    model = open_backbone(reading)
    pooled = _read_splits(model, splits, features, accelerator)
    seconds = {"features": round(time.perf_counter() - start, 1)}
    settings = {"training": asdict(training), "num_seeds": num_seeds} | _describe(model, splits)
    rows: list[dict[str, Any]] = []
    regret: list[dict[str, Any]] = []
    for label_fraction, labelled in photos.train.items():
        chosen = _select_photos(pooled, largest, labelled)
        compute = partial(_train_fraction, model, chosen, label_fraction, training, num_seeds, accelerator)
        told = settings | {"labelled": list(labelled["image_id"])}
        stored = cache_json(output_dir / "results", f"{label_fraction:.0%}-labelled", told, compute, accelerator)
        seconds[f"heads, {label_fraction:.0%}"] = stored["seconds"]
        rows += stored["points"]
        regret += measure_regret(stored["points"], stored["test_scores"], test)
    report = {"experiment": "block_timestep", **settings, "points": rows, "best": choose_points(rows)}
    report |= {"paper": _paper_points(rows), "regret": regret, "seconds": seconds, "machine": describe_machine()}
    if accelerator.is_main_process:
        write_report(report, output_dir / "report.json")
    accelerator.wait_for_everyone()
    return read_report(output_dir / "report.json")


def open_backbone(reading: ReadingArguments) -> FEDDForSegmentation:
    """Load the backbone with all blocks and timesteps of a grid, by default those of the paper that it has.

    Raises:
        ValueError: If a block is too small to pool to a feature vector.
    """
    config = describe_backbone(reading, "classification")
    last = config.num_train_timesteps - 1
    timesteps = [min(timestep, last) for timestep in reading.timesteps or TIMESTEPS]
    return FEDDForSegmentation.from_backbone(
        reading.backbone, blocks=choose_blocks(reading), timesteps=timesteps, image_size=config.image_size
    )


def choose_blocks(reading: ReadingArguments) -> list[int]:
    """Return the blocks of a grid: those that are given, or those of the paper that can be pooled.

    Raises:
        ValueError: If a given block is too small to pool to a feature vector, or all blocks of the paper are.
    """
    config = describe_backbone(reading, "classification")
    poolable = {block for block in range(config.num_blocks) if _is_poolable(config, block)}
    too_small = set(range(config.num_blocks)) - poolable
    of_paper = [block for block in BLOCKS if block < config.num_blocks]
    blocks = reading.blocks or [block for block in of_paper if block in poolable] or of_paper
    if refused := sorted(too_small & set(blocks)):
        raise ValueError(
            f"Blocks {refused} are too small to pool to {config.pooled_size} at `image_size` {config.image_size}; "
            f"{sorted(poolable) or 'no others'} are not. Choose among those, or a larger `image_size`."
        )
    return blocks


def choose_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the point of each label fraction with the best validation AUROC; of equal ones, with the best loss."""
    table = pd.DataFrame(points).astype({"validation_auroc": float, "validation_loss": float})
    ranked = table.sort_values(["validation_auroc", "validation_loss"], ascending=[False, True], kind="stable")
    firsts = ranked.groupby("label_fraction").head(1).sort_values("label_fraction").index
    return [points[index] for index in firsts]


def measure_regret(
    points: list[dict[str, Any]], test_scores: list[list[list[float]]], test: Dataset
) -> list[dict[str, Any]]:
    """Say how much worse the point that validation photos choose is on test photos than the best point there.

    The best of many points on few photos is partly lucky: its value is optimistic, the regret too large, and the
    p-value, which does not know that the best was looked for, too small.

    Args:
        points (`list[dict]`):
            Rows of one label fraction.
        test_scores (`list[list[list[float]]]`):
            Scores of the test photos by each seed of each point.
        test (`datasets.Dataset`):
            The test photos.

    Returns:
        `list[dict]`: of accuracy at 0.5 and AUROC, means over seeds: the point that is chosen (`block`, `timestep`,
        `value`), the best on test (`best_block`, `best_timestep`, `best_value`), and `regret`, the second value minus
        the first on the same photos, with `low`, `high` and `p_value`; nothing can be said of these where both are
        one point.
    """
    (choice,) = choose_points(points)
    chosen = points.index(choice)
    photos = _describe_photos(test)
    sample = sample_of(photos_of(photos))
    rows = []
    for name in REGRETTED:
        metrics = [_mean_over_seeds(photos, scores, name) for scores in test_scores]
        values = np.array([value_of(metric, sample) for metric in metrics])
        best = chosen if np.isnan(values).all() else int(np.nanargmax(values))
        found = paired_difference(metrics[chosen], metrics[best], sample)
        row = {"label_fraction": choice["label_fraction"], "block": choice["block"], "timestep": choice["timestep"]}
        row |= {"metric": name, "value": values[chosen]}
        row |= {"best_block": points[best]["block"], "best_timestep": points[best]["timestep"]}
        row |= {"best_value": values[best], "regret": found.value}
        rows.append(row | {"low": found.low, "high": found.high, "p_value": found.p_value})
    return rows


def compare_pixel_features(
    backbone: str,
    block_sets: list[list[int]],
    timesteps: list[int],
    image_size: int,
    train: Dataset,
    validation: Dataset,
    arguments: SegmentationArguments,
    features: Path,
    accelerator: Accelerator,
) -> Iterator[dict[str, Any]]:
    """Train pixel classifiers on each set of blocks at each timestep and score them on validation photos.

    Yields:
        `dict`: `blocks`, `timestep`, `mean_iou` and `lesion_iou`, pooled over 1,500 random pixels of each photo,
        averaged over two seeds of the heads.
    """
    processor = FEDDImageProcessor(size=image_size)
    all_blocks = sorted({block for blocks in block_sets for block in blocks})
    for timestep in tqdm(timesteps, desc="Segmentation", unit="timestep"):
        given: dict[str, Any] = {"timesteps": [timestep], "image_size": image_size}
        model = FEDDForSegmentation.from_backbone(backbone, blocks=all_blocks, **given)
        store = FeatureStore(features, model, processor, dtype="float32")
        sets = [StoredFeatures(store.extract(rows, accelerator), rows, processor) for rows in (train, validation)]
        for blocks in block_sets:
            model = FEDDForSegmentation.from_backbone(backbone, blocks=blocks, **given)
            indices = [all_blocks.index(block) for block in blocks]
            seen, unseen = (labelled.select_maps(indices) for labelled in sets)
            scores = []
            for seed in SEGMENTATION_SEEDS:
                train_pixel_classifiers(model, seen, replace(arguments, seed=seed), accelerator)
                scores.append(_iou_of_sampled_pixels(model, unseen))
            mean_iou, lesion_iou = np.mean([(np.nanmean(score), score[1]) for score in scores], axis=0)
            yield {"blocks": blocks, "timestep": timestep, "mean_iou": mean_iou, "lesion_iou": lesion_iou}


def paint_selection_photos(size: int) -> tuple[Dataset, Dataset]:
    """Paint the photos on which sets of blocks are compared: seeds that no other experiment uses."""
    return paint_dataset(10, seed=100, size=size), paint_dataset(20, seed=101, size=size)


def tabulate_choices(report: dict[str, Any]) -> str:
    """Write as Markdown what validation photos choose at each label fraction and what the paper chose, as tested."""
    metrics = {"validation_auroc": "validation AUROC", "accuracy": "test accuracy"}
    metrics |= {"balanced_accuracy": "test balanced accuracy", "auroc": "test AUROC"}
    header = ["labels", "photos", "chosen by", "block", "t", *metrics.values()]
    lines = []
    for choice, name in (("best", "validation"), ("paper", "the paper")):
        for row in report[choice]:
            cells = [f"{row['label_fraction']:.0%}", row["photos"], name, row["block"], row["timestep"]]
            lines.append([*map(str, cells), *(_mean_and_spread(row, metric) for metric in metrics)])
    return as_markdown(Table("Chosen block and timestep", header, lines))


def tabulate_accuracies(report: dict[str, Any]) -> str:
    """Write the test accuracy at each block and timestep as Markdown, a table for each label fraction."""
    tables = []
    for label_fraction, points in pd.DataFrame(report["points"]).groupby("label_fraction"):
        cells = {
            (row["timestep"], row["block"]): _mean_and_spread(row, "accuracy") for row in points.to_dict("records")
        }
        blocks = sorted(set(points["block"]))
        lines = [[str(t), *(cells[t, block] for block in blocks)] for t in sorted(set(points["timestep"]))]
        header = ["t", *(f"block {block}" for block in blocks)]
        tables.append(as_markdown(Table(f"Test accuracy, {label_fraction:.0%} labelled", header, lines)))
    return "\n".join(tables)


def _classifier_model(backbone: str, block: int, image_size: int | None) -> FEDDForImageClassification:
    given: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    return FEDDForImageClassification.from_backbone(backbone, blocks=[block], timesteps=[0], **given)


def _describe_photos(photos: Dataset) -> pd.DataFrame:
    columns = {name: photos[name][:] for name in ("image_id", "group_id")}
    malignant = np.array(photos["malignant"][:], dtype=int)
    return pd.DataFrame(columns | {"skin_tone": tone_labels(photos)}, dtype=object).assign(y_true=malignant)


def _mean_over_seeds(photos: pd.DataFrame, scores: list[list[float]], name: str) -> Metric:
    metrics = [classification_metrics(photos.assign(y_score=of_seed))[name] for of_seed in scores]
    return lambda weights: np.mean([metric(weights) for metric in metrics], axis=0)


def _is_poolable(config: FEDDConfig, block: int) -> bool:
    """Return whether each number of the feature vector has at least one row of one channel."""
    return config.block_channels(block) * config.block_size(block) >= config.pooled_size


def _points(model: FEDDForSegmentation) -> list[dict[str, int]]:
    """List blocks and timesteps as features are stored, the last timestep by the paper's name for it."""
    last = model.config.num_train_timesteps - 1
    names = {timestep: last + 1 if timestep == last else timestep for timestep in model.config.timesteps}
    return [{"block": block, "timestep": name} for name in names.values() for block in model.config.blocks]


def _describe(model: FEDDForSegmentation, photos: dict[str, Dataset]) -> dict[str, Any]:
    """Return what the classifiers stand on, as JSON."""
    names = ("backbone", "backbone_sha256", "blocks", "timesteps", "image_size", "noise_seed")
    reading = {name: getattr(model.config, name) for name in names}
    return {"reading": reading, "photos": {name: list(rows["image_id"]) for name, rows in photos.items()}}


def _read_splits(
    model: FEDDForSegmentation, photos: dict[str, Dataset], features: Path, accelerator: Accelerator
) -> PooledSplits:
    """Return pooled features, `(num_points, num_images, pooled_size)`, and labels of each split."""
    processor = FEDDImageProcessor(size=model.config.image_size)
    store = FeatureStore(features, model, processor, dtype="float32", pooled_size=model.config.pooled_size)
    pooled = {name: pool_labelled(store, rows, accelerator) for name, rows in photos.items()}
    return {name: (features.transpose(0, 1), labels) for name, (features, labels) in pooled.items()}


def _select_photos(pooled: PooledSplits, largest: Dataset, labelled: Dataset) -> PooledSplits:
    names = set(labelled["image_id"])
    rows = [row for row, name in enumerate(largest["image_id"]) if name in names]
    features, labels = pooled["train"]
    return pooled | {"train": (features[:, rows], labels[rows])}


def _train_fraction(
    model: FEDDForSegmentation,
    labelled: PooledSplits,
    label_fraction: float,
    training: ClassificationArguments,
    num_seeds: int,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Train the whole grid on one label fraction."""
    start = time.perf_counter()
    points = _train_points(model, labelled, training, num_seeds, accelerator)
    seconds = round(time.perf_counter() - start, 1)
    scores = [np.round(point.pop("test_scores"), 6).tolist() for point in points]
    fraction = {"label_fraction": label_fraction, "photos": len(labelled["train"][1])}
    return {"seconds": seconds, "points": [fraction | point for point in points], "test_scores": scores}


def _train_points(
    model: FEDDForSegmentation,
    pooled: PooledSplits,
    training: ClassificationArguments,
    num_seeds: int,
    accelerator: Accelerator,
) -> list[dict[str, Any]]:
    """Train and score the classifiers of one label fraction: the seeds of a point are neighbours."""
    points = _points(model)
    parts = {
        name: (features.repeat_interleave(num_seeds, dim=0), labels) for name, (features, labels) in pooled.items()
    }
    seeds = [training.seed + number for number in range(num_seeds)] * len(points)
    classifier = _classifier_model(model.config.backbone, model.config.blocks[0], model.config.image_size).classifier
    stack, losses = train_classifiers(classifier, parts["train"], parts["validation"], seeds, training, accelerator)
    scores = {name: _score(stack, parts[name][0], accelerator) for name in ("validation", "test")}
    is_malignant = {name: labels.numpy() == 1 for name, (_, labels) in pooled.items()}
    rows = []
    for index, point in enumerate(points):
        members = range(index * num_seeds, (index + 1) * num_seeds)
        measured = [_measure({name: scores[name][member] for name in scores}, is_malignant) for member in members]
        table = pd.DataFrame(measured).assign(validation_loss=[min(losses[member]) for member in members])
        spread = table.std().add_suffix("_std")
        epochs = float(np.mean([len(losses[member]) for member in members]))
        row = point | table.mean().to_dict() | spread.to_dict() | {"epochs": epochs}
        rows.append(row | {"test_scores": scores["test"][members.start : members.stop]})
    return rows


@torch.no_grad()
def _score(stack: torch.nn.Module, features: Tensor, accelerator: Accelerator) -> np.ndarray:
    return stack(features.to(accelerator.device)).sigmoid().cpu().numpy()


def _measure(scores: dict[str, np.ndarray], is_malignant: dict[str, np.ndarray]) -> dict[str, float]:
    """Score one classifier on the photos of test and validation."""
    is_called = scores["test"] > 0.5
    return {
        "accuracy": float((is_called == is_malignant["test"]).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(is_malignant["test"], is_called)),
        "auroc": float(roc_auc_score(is_malignant["test"], scores["test"])),
        "validation_auroc": float(roc_auc_score(is_malignant["validation"], scores["validation"])),
    }


def _paper_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in points if (row["block"], row["timestep"]) == PAPER_READINGS[row["label_fraction"]]]


def _mean_and_spread(row: dict[str, Any], metric: str) -> str:
    """Format a metric as `0.83 ± 0.02`, with a dash where nothing can be said."""
    if pd.isna(row[metric]):
        return NOTHING
    return f"{row[metric]:.2f}" if pd.isna(spread := row[f"{metric}_std"]) else f"{row[metric]:.2f} ± {spread:.2f}"


@torch.no_grad()
def _iou_of_sampled_pixels(model: FEDDForSegmentation, features: StoredFeatures) -> np.ndarray:
    """Return the IoU of each class over random pixels of every photo; NaN for a class that no photo has."""
    draws = PixelDraws(features, len(features), PIXELS_PER_IMAGE, seed=0)
    totals = np.zeros((model.config.num_labels, len(COUNTS)), dtype=np.int64)
    for batch in DataLoader(draws, batch_size=10):
        maps = batch["features"].transpose(1, 2)[:, :, None].to(model.device)  # (batch_size, channels, 1, num_pixels)
        labels = batch["labels"][:, None]
        member_logits = model.decode_head(maps.split(model.config.feature_channels, dim=1), labels.shape[-2:])
        choices = count_votes(member_logits).argmax(dim=1)
        counts = count_pixels(labels.numpy(), choices.cpu().numpy(), model.config.num_labels)
        totals += np.array([[of_class[name] for name in COUNTS] for of_class in counts])
    true_pixels = totals[:, COUNTS.index("tp")] + totals[:, COUNTS.index("fn")]
    return np.where(true_pixels > 0, iou(totals), np.nan)
