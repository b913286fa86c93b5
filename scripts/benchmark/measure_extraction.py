"""Extraction with the full-size network: seconds, memory and bytes of a photo, and the share of the machine's rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark_size import BenchmarkArguments, BenchmarkSize
from fedd_hf.backbone_fedd import FEDDBackbone
from fedd_hf.configuration_fedd import FEDDConfig
from gauges import matrix_rate, peak_memory, time_passes
from isolation import run_alone
from networks import make_original_network, paper_config
from original_way import extract_features

BATCH_SIZES = (1, 2)
FLOAT16, FLOAT32 = 2, 4  # bytes of a number


def parts(arguments: BenchmarkArguments) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, by name."""
    alone = partial(run_alone, num_threads=arguments.num_threads)
    ours = {f"ours_batch_{size}": partial(alone, measure_ours, arguments.size, size) for size in BATCH_SIZES}
    return {
        "bytes_per_image": partial(count_bytes, paper_config(arguments.size)),
        "original": partial(alone, measure_original, arguments.size),
        **ours,
    }


def measure_original(size: BenchmarkSize) -> dict[str, Any]:
    """Run the network of guided-diffusion to its end, photo by photo; what follows the hooks is not counted."""
    config, network = paper_config(size), make_original_network(size)
    (timestep,) = config.timesteps
    return _measure(partial(extract_features, network, timestep=timestep, blocks=config.blocks), 1, size)


def measure_ours(size: BenchmarkSize, batch_size: int) -> dict[str, Any]:
    """Run the truncated network."""
    config = paper_config(size)
    measured = _measure(FEDDBackbone(config), batch_size, size)
    operations = count_operations(config)
    rate = operations / measured["seconds_per_image"]
    return measured | {"operations_per_image": operations, "share_of_matrix_rate": rate / measured["matrix_rate"]}


def _measure(extract: Callable[[Tensor], Any], batch_size: int, size: BenchmarkSize) -> dict[str, Any]:
    """Measure memory in a first pass, then time; the machine's own rate is taken before each timed pass."""
    pixel_values = torch.rand(batch_size, 3, size.image_size, size.image_size) * 2 - 1
    with peak_memory() as memory:
        extract(pixel_values)
    seconds, rates = [], []
    for _ in range(size.passes):
        rates.append(matrix_rate(size.matrix_size, passes=3))
        seconds += time_passes(lambda: extract(pixel_values), passes=1)
    return {
        "batch_size": batch_size,
        "seconds_per_image": min(seconds) / batch_size,
        "seconds_of_passes": seconds,
        "matrix_rate": max(rates),
        "activation_bytes": memory.used,
        "weights_and_imports_bytes": memory.before,
    }


def count_operations(config: FEDDConfig) -> int:
    """Count the floating-point operations of one photo, without computing them."""
    with torch.device("meta"):
        backbone = FEDDBackbone(config).to("meta")
        pixel_values = torch.empty(1, 3, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        backbone(pixel_values)
    return int(counter.get_total_flops())


def count_bytes(config: FEDDConfig) -> dict[str, Any]:
    """Count the bytes of a photo's features, stored at block resolution and written out for every pixel."""
    sizes = zip(config.feature_channels, config.blocks, strict=True)
    numbers = sum(channels * config.block_size(block) ** 2 for channels, block in sizes)
    original = sum(config.feature_channels) * config.image_size**2 * FLOAT32
    return {"float16": numbers * FLOAT16, "float32": numbers * FLOAT32, "original": original}
