"""Mean IoU of the recipe against that of the original loop: same features, same unseen photos, same seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from benchmark_size import BenchmarkArguments
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.segmentation import COUNTS, iou
from fedd_hf.features import FeatureStore
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import SkinTone
from fedd_hf.modeling_fedd import FEDDForSegmentation, count_votes
from fedd_hf.prediction import count_pixels
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from isolation import run_alone
from measure_training import recipe
from networks import paper_config
from original_recipe import train_as_original

TRAIN_SEED, UNSEEN_SEED = 600, 601  # of the painted photos
PAD_READING: dict[str, Any] = {"blocks": [6, 8, 10, 12], "timesteps": [50]}


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    comparisons = {"painted": compare_on_painted, "pad_ufes_20": compare_on_pad, "full_size": compare_at_full_size}
    alone = partial(run_alone, num_threads=arguments.num_threads)
    return {name: partial(alone, compare, arguments) for name, compare in comparisons.items()}


def compare_on_painted(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Compare on painted photos of five classes, with the embedded backbone at its defaults."""
    size = arguments.size
    model = FEDDForSegmentation.from_backbone(image_size=size.painted_size)
    train = paint_dataset(size.labelled_photos // len(SkinTone), TRAIN_SEED)
    unseen = paint_dataset(size.unseen_photos // len(SkinTone), UNSEEN_SEED)
    return compare_recipes(model, train, unseen, size.seeds, arguments)


def compare_on_pad(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Compare on clinical photos with lesion masks, with the embedded backbone at a small size."""
    if arguments.pad_root is None:
        return {"skipped": "PAD-UFES-20 is needed; give its folder as --pad-root."}
    size = arguments.size
    splits = load_splits(DataArguments(dataset="pad-ufes-20", root=str(arguments.pad_root)))
    train, unseen = need_split(splits, "train"), need_split(splits, "test")
    labelled = np.random.default_rng(0).permutation(len(train))[: size.labelled_photos]
    model = FEDDForSegmentation.from_backbone(image_size=size.small_size, **PAD_READING)
    return compare_recipes(model, train.select(sorted(labelled)), unseen, size.seeds, arguments)


def compare_at_full_size(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Compare once on features of the full-size network, whose weights are random, of painted photos."""
    size = arguments.size
    torch.manual_seed(0)
    model = FEDDForSegmentation(paper_config(size))
    rounds = -(-size.full_size_photos // len(SkinTone))
    train, unseen = (
        paint_dataset(rounds, seed, size.image_size).select(range(size.full_size_photos))
        for seed in (TRAIN_SEED, UNSEEN_SEED)
    )
    return compare_recipes(model, train, unseen, size.seeds[:1], arguments)


def compare_recipes(
    model: FEDDForSegmentation,
    train: Dataset,
    unseen: Dataset,
    seeds: tuple[int, ...],
    arguments: BenchmarkArguments,
) -> dict[str, Any]:
    """Train heads by both recipes with each seed and score them on unseen photos.

    Returns:
        `dict`: numbers of photos, the reading, and `ours` and `original`: the mean IoU of each seed.
    """
    accelerator, processor = Accelerator(), FEDDImageProcessor(size=model.config.image_size)
    scores: dict[str, list[float]] = {"ours": [], "original": []}
    with TemporaryDirectory(dir=arguments.work_dir) as root:
        store = FeatureStore(Path(root), model, processor)
        sets = [StoredFeatures(store.extract(photos, accelerator), photos, processor) for photos in (train, unseen)]
        for seed in seeds:
            train_pixel_classifiers(model, sets[0], recipe(arguments.size, seed=seed), accelerator)
            scores["ours"].append(score_heads(model, sets[1]))
            train_as_original(model, sets[0], seed)
            scores["original"].append(score_heads(model, sets[1]))
    reading = {name: getattr(model.config, name) for name in ("blocks", "timesteps", "image_size")}
    counts = {"labelled_photos": len(train), "unseen_photos": len(unseen), "seeds": list(seeds)}
    return counts | reading | {"recipe": asdict(recipe(arguments.size))} | scores


@torch.no_grad()
def score_heads(model: FEDDForSegmentation, features: StoredFeatures) -> float:
    """Return the mean IoU over the classes that the masks show, pooled over all pixels, at the size of the model.

    A class that no mask shows would count as 0 for one stray pixel, which says nothing of a recipe.
    """
    device = next(model.decode_head.parameters()).device
    counts = []
    for photo in range(len(features)):
        labels = features.labels(photo)
        batch = tuple(feature_map.movedim(-1, 0)[None].to(device) for feature_map in features.read(photo))
        member_logits = model.decode_head(batch, (labels.shape[0], labels.shape[1]))
        classes = count_votes(member_logits).argmax(dim=1)[0]
        counts.append(count_pixels(labels.numpy(), classes.cpu().numpy(), model.config.num_labels))
    totals = np.array([[[of_class[name] for name in COUNTS] for of_class in photo] for photo in counts]).sum(axis=0)
    tp, _, fn, _ = totals.T
    return float(iou(totals)[tp + fn > 0].mean())
