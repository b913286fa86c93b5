"""Prediction of the heads alone, at the paper's size: features of a photo are given, its map is wanted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmark_size import BenchmarkArguments, BenchmarkSize
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.modeling_fedd import count_votes, jensen_shannon
from gauges import peak_memory, time_passes
from isolation import run_alone
from networks import make_heads, paper_config
from original_recipe import make_classifier
from original_way import predict_labels


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    alone = partial(run_alone, num_threads=arguments.num_threads)
    return {
        "original": partial(alone, measure_original, arguments.size),
        "ours": partial(alone, measure_ours, arguments.size),
    }


def measure_original(size: BenchmarkSize) -> dict[str, Any]:
    """Predict with one classifier after another, on the features of every pixel."""
    config = paper_config(size)
    channels, number = sum(config.feature_channels), config.ensemble_size
    classifiers = [make_classifier(channels, config.num_labels).eval() for _ in range(number)]
    maps = [feature_map[0] for feature_map in _draw_maps(config)]
    return _measure(lambda: predict_labels(classifiers, maps, (size.image_size, size.image_size)), size)


def measure_ours(size: BenchmarkSize) -> dict[str, Any]:
    """Predict with all members at once, map and uncertainty."""
    config = paper_config(size)
    head, maps = make_heads(config).decode_head, _draw_maps(config)

    @torch.no_grad()
    def predict() -> tuple[Tensor, Tensor]:
        member_logits = head(maps, (size.image_size, size.image_size))
        return count_votes(member_logits).argmax(dim=1), jensen_shannon(member_logits)

    return _measure(predict, size)


def _draw_maps(config: FEDDConfig) -> tuple[Tensor, ...]:
    """Draw the maps of one photo, laid out as the backbone leaves them."""
    sides = [config.block_size(block) for block in config.blocks]
    maps = [
        torch.randn(1, side, side, channels) for side, channels in zip(sides, config.feature_channels, strict=True)
    ]
    return tuple(feature_map.movedim(-1, 1) for feature_map in maps)


def _measure(predict: Callable[[], Any], size: BenchmarkSize) -> dict[str, Any]:
    with peak_memory() as memory:
        predict()
    seconds = time_passes(predict, size.passes)
    return {"seconds_per_image": min(seconds), "seconds_of_passes": seconds, "peak_bytes": memory.used}
