"""Which blocks show what a mask shows: k-means on the activations of each block, scored against the masks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from tqdm.auto import tqdm

from fedd_hf.compare.blocks_and_timesteps import BLOCKS
from fedd_hf.compare.photo_sets import choose_examples
from fedd_hf.compare.results_cache import cache_json
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.data.schema import tone_labels
from fedd_hf.evaluation.by_tone import sample_of
from fedd_hf.evaluation.intervals import interval, value_of
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.features import compute_features
from fedd_hf.image_processing_fedd import IGNORE_INDEX, FEDDImageProcessor
from fedd_hf.labels import SEGMENTATION_LABELS
from fedd_hf.modeling_fedd import FEDDForSegmentation
from fedd_hf.training.arguments import ReadingArguments
from fedd_hf.unet_files_fedd import locate_backbone, read_backbone_config
from mean_metric import mean_metric

SCORES = ("silhouette", "adjusted_rand", "best_match_iou", "lesion_iou")
CHOICES = {"by silhouette": "silhouette", "by adjusted rand": "adjusted_rand"}
LESION = SEGMENTATION_LABELS.index("lesion")
CLUSTER_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))


@dataclass(frozen=True, kw_only=True)
class ClusteringArguments:
    """How activations are clustered.

    Args:
        num_clusters (`int`): Clusters of each activation, K.
        num_restarts (`int`): Starts of k-means, of which the best is taken.
        fitted_positions (`int`): Positions of an activation on which k-means is fitted, at most.
        scored_positions (`int`): Positions on which the silhouette is computed, at most.
        seed (`int`): Seed of the starts and of the positions.

    Raises:
        ValueError: If there are too few or too many clusters, or fewer positions than clusters.

    Source: FEDD (MICCAI 2023), supplement, Figure 1: K = 3.
    """

    num_clusters: int = field(default=3, metadata={"help": "clusters of each activation"})
    num_restarts: int = field(default=10, metadata={"help": "starts of k-means, of which the best is taken"})
    fitted_positions: int = field(default=4096, metadata={"help": "positions on which k-means is fitted, at most"})
    scored_positions: int = field(default=1000, metadata={"help": "positions of the silhouette, at most"})
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.num_clusters <= len(CLUSTER_COLOURS):
            raise ValueError(f"`num_clusters` must lie in [2, {len(CLUSTER_COLOURS)}], got {self.num_clusters}.")
        for name in ("fitted_positions", "scored_positions"):
            if getattr(self, name) <= self.num_clusters:
                raise ValueError(f"`{name}` must be more than `num_clusters`, got {getattr(self, name)}.")


def cluster_blocks(
    photos: Dataset,
    reading: ReadingArguments,
    arguments: ClusteringArguments,
    output_dir: Path,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Cluster the activation of each block for each photo alone, and score the clusters.

    What a photo gave is kept: a run that was killed goes on with the next one.

    Args:
        photos (`datasets.Dataset`):
            Photos with masks; one of each skin tone is shown.
        reading ([`ReadingArguments`]):
            Backbone, and which blocks and timesteps are clustered; by default the paper's blocks that the backbone
            has, at the timesteps that its pixel classifiers read.
        arguments ([`ClusteringArguments`]):
            How.
        output_dir (`Path`):
            Existing folder, which gets `photos/`, `examples/` and `report.json`.
        accelerator (`accelerate.Accelerator`):
            Where, and as which of how many processes; each of them does all.

    Returns:
        `dict`: the report. `points` has a row for each block and timestep with the mean over photos, `_low` and
        `_high` of `silhouette` (needs no mask), `adjusted_rand`, `best_match_iou` and `lesion_iou`; `chosen` the
        block of the best point by silhouette, a choice without labels, and by adjusted Rand index; `examples` the
        activations (mean over channels, in grey) and the clusters as images, at the first timestep.

    Raises:
        ValueError: If a photo has no mask, or a block or timestep does not exist.

    Source: FEDD (MICCAI 2023), section 3.1 and supplement, Figure 1, which shows clusters and scores none.
    """
    start = time.perf_counter()
    model = open_activations(reading).to(accelerator.device)
    processor = FEDDImageProcessor(size=model.config.image_size)
    names = ("backbone_sha256", "blocks", "timesteps", "image_size", "noise_seed")
    settings = {"reading": {name: getattr(model.config, name) for name in names}, "clustering": asdict(arguments)}
    shown = list(choose_examples(photos)["image_id"])
    results, examples = [], []
    progress = tqdm(photos, desc="Clustering", unit="photo", disable=not accelerator.is_main_process)
    for row, tone in zip(progress, tone_labels(photos), strict=True):
        name = row["image_id"]
        pictures = output_dir / "examples" / name if name in shown and accelerator.is_main_process else None
        compute = partial(_cluster_photo, model, processor, row, arguments, pictures)
        told = settings | {"photo": name, "is_shown": name in shown}
        results.append(cache_json(output_dir / "photos", name, told, compute, accelerator)["points"])
        if name in shown:
            examples.append({"skin_tone": tone} | _describe_example(name, model.config.blocks))
    points = _average(results, photos)
    report = {
        "experiment": "clustering",
        "settings": settings,
        "photos": len(photos),
        "points": points,
        "chosen": {name: choose_block(points, score) for name, score in CHOICES.items()},
        "examples": examples,
        "seconds": {"clustering": round(time.perf_counter() - start, 1)},
        "machine": describe_machine(),
    }
    if accelerator.is_main_process:
        write_report(report, output_dir / "report.json")
    accelerator.wait_for_everyone()
    return read_report(output_dir / "report.json")


def open_activations(reading: ReadingArguments) -> FEDDForSegmentation:
    """Load the backbone with the blocks of the paper that it has, or those that are asked for."""
    fields = reading.given()
    if reading.blocks is None:
        backbone = read_backbone_config(locate_backbone(reading.backbone))
        num_blocks = FEDDConfig(**(backbone | {"blocks": [0], "timesteps": [0]})).num_blocks
        fields["blocks"] = [block for block in BLOCKS if block < num_blocks]
    return FEDDForSegmentation.from_backbone(reading.backbone, **fields)


def choose_block(points: Sequence[dict[str, Any]], score: str = "silhouette") -> int:
    """Return the block whose clusters score best; by the silhouette, without a single label."""
    return int(max(points, key=lambda point: point[score])["block"])


def cluster_activation(activation: np.ndarray, arguments: ClusteringArguments) -> np.ndarray:
    """Cluster the positions of an activation; the largest cluster is 0, the smallest the last.

    Args:
        activation (`np.ndarray` of shape `(height, width, channels)`):
            Activation of one block for one photo.
        arguments ([`ClusteringArguments`]):
            How.

    Returns:
        `np.ndarray` of shape `(height, width)`, uint8: the cluster of each position.
    """
    positions = activation.reshape(-1, activation.shape[-1])
    means = KMeans(arguments.num_clusters, n_init=arguments.num_restarts, random_state=arguments.seed)
    means.fit(_sample(positions, arguments.fitted_positions, arguments.seed))
    clusters = means.predict(positions)
    order = np.argsort(-np.bincount(clusters, minlength=arguments.num_clusters), kind="stable")
    return np.argsort(order)[clusters].reshape(activation.shape[:2]).astype(np.uint8)


def score_clusters(clusters: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare clusters with a mask, whose pixels of 255 do not count.

    Args:
        clusters (`np.ndarray` of shape `(height, width)`):
            Cluster of each position, brought to the size of the mask by nearest neighbours.
        mask (`np.ndarray` of shape `(size, size)`):
            True class of each pixel.

    Returns:
        `dict[str, float]`: `adjusted_rand`; `best_match_iou`, the mean IoU of the pairs when clusters and the classes
        that occur are matched one to one as well as can be; `lesion_iou`, that of the lesion with the cluster most
        like it, NaN without a lesion.
    """
    nearest = np.asarray(Image.fromarray(clusters).resize(mask.shape[::-1], Image.Resampling.NEAREST))
    counts = mask != IGNORE_INDEX
    found, true = nearest[counts], mask[counts]
    classes, ids = np.unique(true), np.unique(found)
    overlaps = np.array([[_iou(found == cluster, true == label) for label in classes] for cluster in ids])
    pairs = linear_sum_assignment(overlaps, maximize=True)
    of_lesion = overlaps[:, classes == LESION]
    return {
        "adjusted_rand": float(adjusted_rand_score(true, found)),
        "best_match_iou": float(overlaps[pairs].mean()),
        "lesion_iou": float(of_lesion.max()) if of_lesion.size else float("nan"),
    }


def score_silhouette(activation: np.ndarray, clusters: np.ndarray, num_positions: int, seed: int) -> float:
    """Return the mean silhouette of some positions, which needs no mask; NaN if all are of one cluster."""
    positions = np.concatenate([activation.reshape(-1, activation.shape[-1]), clusters.reshape(-1, 1)], axis=1)
    sampled = _sample(positions, num_positions, seed)
    if not 1 < len(np.unique(sampled[:, -1])) < len(sampled):
        return float("nan")
    return float(silhouette_score(sampled[:, :-1], sampled[:, -1]))


def _cluster_photo(
    model: FEDDForSegmentation,
    processor: FEDDImageProcessor,
    row: dict[str, Any],
    arguments: ClusteringArguments,
    pictures: Path | None,
) -> dict[str, Any]:
    """Cluster and score the activations of one photo; write pictures of the first timestep where they are wanted."""
    if row["mask"] is None:
        raise ValueError(f"Photo {row['image_id']!r} has no mask to compare clusters with. Leave it out.")
    inputs = processor(row["image"], segmentation_maps=row["mask"], return_tensors="pt")
    mask = inputs["labels"][0].numpy().astype(np.uint8)
    activations = compute_features(model, inputs["pixel_values"], batch_size=1)
    points = []
    timesteps, blocks = model.config.timesteps, model.config.blocks
    of_blocks = [maps[0].float().chunk(len(timesteps), dim=-1) for maps in activations]
    of_timesteps = [activation.numpy() for of_timestep in zip(*of_blocks, strict=True) for activation in of_timestep]
    for (timestep, block), activation in zip(product(timesteps, blocks), of_timesteps, strict=True):
        clusters = cluster_activation(activation, arguments)
        silhouette = score_silhouette(activation, clusters, arguments.scored_positions, arguments.seed)
        scores = {"silhouette": silhouette} | score_clusters(clusters, mask)
        points.append({"block": block, "timestep": timestep} | scores)
        if pictures is not None and timestep == model.config.timesteps[0]:
            _write_pictures(activation, clusters, pictures, block)
    if pictures is not None:
        row["image"].convert("RGB").save(pictures / "photo.png")
        row["mask"].save(pictures / "truth.png")
    return {"points": points}


def _sample(positions: np.ndarray, number: int, seed: int) -> np.ndarray:
    if len(positions) <= number:
        return positions
    return positions[np.random.default_rng(seed).choice(len(positions), number, replace=False)]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def _write_pictures(activation: np.ndarray, clusters: np.ndarray, folder: Path, block: int) -> None:
    """Write the mean over channels in grey, from its least to its largest value, and the clusters in colours."""
    folder.mkdir(parents=True, exist_ok=True)
    mean = activation.mean(axis=-1)
    grey = (mean - mean.min()) / max(float(np.ptp(mean)), np.finfo(np.float32).tiny)
    Image.fromarray(np.round(255 * grey).astype(np.uint8)).save(folder / f"block-{block:02d}-activation.png")
    picture = Image.fromarray(clusters, mode="P")
    picture.putpalette([value for colour in CLUSTER_COLOURS for value in colour])
    picture.save(folder / f"block-{block:02d}-clusters.png")


def _describe_example(name: str, blocks: Sequence[int]) -> dict[str, Any]:
    folder = f"examples/{name}"
    paths = [
        {
            "block": block,
            "activation_path": f"{folder}/block-{block:02d}-activation.png",
            "clusters_path": f"{folder}/block-{block:02d}-clusters.png",
        }
        for block in blocks
    ]
    photo = {"photo_path": f"{folder}/photo.png", "truth_path": f"{folder}/truth.png"}
    return {"image_id": name, **photo, "blocks": paths}


def _average(results: Sequence[list[dict[str, Any]]], photos: Dataset) -> list[dict[str, Any]]:
    """Return the mean of each score over the photos where it is defined, with its interval."""
    facts = {"image_id": photos["image_id"][:], "group_id": photos["group_id"][:], "skin_tone": tone_labels(photos)}
    sample = sample_of(pd.DataFrame(facts, dtype=object))
    points = []
    for of_photos in zip(*results, strict=True):
        point = {name: of_photos[0][name] for name in ("block", "timestep")}
        for score in SCORES:
            metric = mean_metric(np.array([of_photo[score] for of_photo in of_photos], dtype=float))
            low, high = interval(metric, sample)
            point |= {score: value_of(metric, sample), f"{score}_low": low, f"{score}_high": high}
        points.append(point)
    return points
