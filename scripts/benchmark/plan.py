"""What thousands and millions of photos would take on other machines: an estimate, from counts and stated rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedd_hf.backbone_fedd import FEDDBackbone, input_blocks, output_blocks
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.decode_head_fedd import FEDDDecodeHead
from fedd_hf.modeling_fedd import default_batch_size
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixels import LABELS_KEPT
from measure_extraction import FLOAT32, count_bytes, count_operations

LABEL = "ESTIMATE, NOT A MEASUREMENT"
PHOTOS = {"DDI": 656, "17,000 photos": 17_000, "a million photos": 1_000_000}
GPUS = (1, 8)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device and the peak rate that its maker states.

    Args:
        device (`str`): Name, and how it computes.
        operations_per_second (`float`): Dense matrix products, without sparsity.
        source (`str`): Who says so.
    """

    device: str
    operations_per_second: float
    source: str


DEVICES = (
    Device(device="A100, float16", operations_per_second=312e12, source="NVIDIA A100 datasheet, tensor cores"),
    Device(device="A100, TF32", operations_per_second=156e12, source="NVIDIA A100 datasheet, tensor cores"),
    Device(device="A100, float32", operations_per_second=19.5e12, source="NVIDIA A100 datasheet, no tensor cores"),
)


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is neither counted nor measured.

    Args:
        share_of_peak (`float`): Part of the device's peak rate that a network reaches.
        photos_read_per_second (`float`): Photos that one process decodes and resizes; each GPU has one process.
        disk_bytes_per_second (`float`): Rate of the one disk, which all processes share.
    """

    share_of_peak: float = 0.4
    photos_read_per_second: float = 50.0
    disk_bytes_per_second: float = 1e9


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the paper's segmentation model does, counted.

    Args:
        operations_per_photo (`int`): Floating-point operations of the backbone.
        head_operations_per_photo (`int`): Those of all members on every pixel.
        training_operations (`int`): Those of a whole training, three times its forward passes.
        training_visits (`int`): Photos that a training draws from the store.
        bytes_per_photo (`int`): Stored features, float16.
        weight_bytes (`int`): Weights of the backbone, float32.
        activation_bytes (`int`): Memory of a pass of one photo on top of them.
        labels_bytes (`int`): One label map.
    """

    operations_per_photo: int
    head_operations_per_photo: int
    training_operations: int
    training_visits: int
    bytes_per_photo: int
    weight_bytes: int
    activation_bytes: int
    labels_bytes: int


def plan(report: dict[str, Any] | None = None, assumptions: Assumptions = Assumptions()) -> dict[str, Any]:
    """Estimate time, store and memory of DDI, 17,000 and 1,000,000 photos on 1 and 8 GPUs.

    Args:
        report (`dict`, *optional*):
            Report of a benchmark, whose measured memory replaces the counted one, and whose machine is added.
        assumptions ([`Assumptions`], *optional*):
            The rest.

    Returns:
        `dict`: `label`, `estimates` (one row per number of photos, device and number of GPUs), and all that they
        follow from.
    """
    measured = {} if report is None or report["quick"] else report["sections"].get("extraction", {})
    workload = count_work(FEDDConfig(), measured.get("ours_batch_1", {}).get("activation_bytes"))
    rows = [
        {"photos": name} | estimate(workload, assumptions, number, device, gpus)
        for name, number in PHOTOS.items()
        for device in DEVICES
        for gpus in GPUS
    ]
    rows += [] if "ours_batch_1" not in measured else _on_this_machine(measured["ours_batch_1"], workload)
    return {
        "label": LABEL,
        "estimates": rows,
        "devices": [asdict(device) for device in DEVICES],
        "assumptions": asdict(assumptions) | _explain(workload, bool(measured)),
        "workload": asdict(workload),
    }


def estimate(workload: Workload, assumptions: Assumptions, photos: int, device: Device, gpus: int) -> dict[str, Any]:
    """Estimate one row: reading, computing and writing follow one another, as the code runs them."""
    rate = gpus * device.operations_per_second * assumptions.share_of_peak
    reading = photos / (gpus * assumptions.photos_read_per_second)
    writing = photos * workload.bytes_per_photo / assumptions.disk_bytes_per_second
    visited = min(photos, workload.training_visits) * workload.bytes_per_photo
    prediction = workload.operations_per_photo + workload.head_operations_per_photo
    return {
        "device": device.device,
        "gpus": gpus,
        "extraction_minutes": (reading + photos * workload.operations_per_photo / rate + writing) / 60,
        "training_minutes": (workload.training_operations / rate + visited / assumptions.disk_bytes_per_second) / 60,
        "training_minutes_without_store": _train_without_store(workload, assumptions, rate, gpus) / 60,
        "prediction_minutes": (reading + photos * prediction / rate) / 60,
        **_sizes(workload, photos),
    }


def _train_without_store(workload: Workload, assumptions: Assumptions, rate: float, gpus: int) -> float:
    operations = workload.training_operations + workload.training_visits * workload.operations_per_photo
    return operations / rate + workload.training_visits / (gpus * assumptions.photos_read_per_second)


def _sizes(workload: Workload, photos: int) -> dict[str, float]:
    batch = default_batch_size(FEDDConfig().image_size)
    return {
        "store_gb": photos * workload.bytes_per_photo / 1e9,
        "gpu_memory_gb": (workload.weight_bytes + batch * workload.activation_bytes) / 1e9,
        "cached_labels_gb": min(photos, LABELS_KEPT) * workload.labels_bytes / 1e9,
    }


def _on_this_machine(measured: dict[str, Any], workload: Workload) -> list[dict[str, Any]]:
    """Estimate extraction on the machine of the benchmark, from its measured seconds; the rest is unknown."""
    unknown = dict.fromkeys(("training_minutes", "training_minutes_without_store", "prediction_minutes"))
    return [
        {"photos": name, "device": "the benchmark's own machine", "gpus": None}
        | {"extraction_minutes": number * measured["seconds_per_image"] / 60}
        | unknown
        | _sizes(workload, number)
        for name, number in PHOTOS.items()
    ]


def count_work(config: FEDDConfig, activation_bytes: int | None = None) -> Workload:
    """Count what a model does; memory of a pass is counted too, unless it was measured."""
    recipe = SegmentationArguments()
    visits = recipe.num_steps * recipe.images_per_step
    pixel = count_head_operations(config)
    return Workload(
        operations_per_photo=count_operations(config),
        head_operations_per_photo=pixel * config.image_size**2,
        training_operations=3 * pixel * visits * recipe.pixels_per_image,
        training_visits=visits,
        bytes_per_photo=count_bytes(config)["float16"],
        weight_bytes=count_weights(config) * FLOAT32,
        activation_bytes=count_activation_bytes(config) if activation_bytes is None else activation_bytes,
        labels_bytes=config.image_size**2,
    )


def count_head_operations(config: FEDDConfig) -> int:
    """Count the floating-point operations of all members on one pixel, as in training."""
    with torch.device("meta"):
        head = FEDDDecodeHead(config).train()
        pixels = tuple(torch.empty(1, channels, 1, 2) for channels in config.feature_channels)
    with FlopCounterMode(display=False) as counter:
        head(pixels, (1, 2))
    return int(counter.get_total_flops()) // 2


def count_weights(config: FEDDConfig) -> int:
    """Count the parameters of the truncated backbone."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in FEDDBackbone(config).parameters())


def count_activation_bytes(config: FEDDConfig) -> int:
    """Count the memory of a pass of one photo: skip connections, and at the largest layer its input and output.

    The input of its residual block waits too. What a layer needs inside comes on top.
    """
    with torch.device("meta"):
        backbone = FEDDBackbone(config).to("meta")
        pixel_values = torch.empty(1, 3, config.image_size, config.image_size)
    layers = [module for module in backbone.unet.modules() if isinstance(module, nn.Conv2d)]
    kept = input_blocks(backbone.unet)[-len(output_blocks(backbone.unet)) :]  # others have no use in the decoder
    passing, waiting = [0], [0]
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: passing.append(2 * inputs[0].numel() + output.numel()))
    for block in kept:
        block[-1].register_forward_hook(lambda _, inputs, output: waiting.append(output.numel()))
    backbone(pixel_values)
    return (max(passing) + sum(waiting)) * FLOAT32


def _explain(workload: Workload, is_measured: bool) -> dict[str, str]:
    memory = "measured in the benchmark" if is_measured else "counted, without what layers need inside"
    return {
        "photos": "a photo is seen once, at 256 px, by the paper's network, blocks 6 and 8, t = 100",
        "activation memory": memory,
        "training": f"the default recipe, {workload.training_visits} visits of photos, however many photos there are",
        "prediction": "starts from photos, not from a store",
        "beyond one machine": "8 GPUs are 8 processes that share the photos; nothing of this has run on a GPU",
    }
