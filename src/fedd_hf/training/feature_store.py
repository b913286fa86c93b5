"""Features of a frozen backbone: computed once for a set of photos, then read by every head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import FEDDForImageClassification, FEDDForSegmentation, pool_features


@dataclass(frozen=True)
class FeatureMaps(torch.utils.data.Dataset):
    """Feature maps of labelled photos at block resolution.

    Args:
        feature_maps (`tuple[torch.Tensor]`):
            One tensor of shape `(num_images, channels, block_height, block_width)` per timestep and block.
        labels (`torch.LongTensor` of shape `(num_images, image_size, image_size)`):
            Class of each pixel, 255 where it does not count.
    """

    feature_maps: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[list[Tensor], Tensor]:
        """Return a whole batch, which spares the loader from stacking it."""
        return [feature_map[indices] for feature_map in self.feature_maps], self.labels[indices]

    @staticmethod
    def collate(batch: Any) -> Any:
        """Pass on a batch that is stacked already."""
        return batch


def extract_feature_maps(
    model: FEDDForSegmentation, processor: FEDDImageProcessor, dataset: Dataset, accelerator: Accelerator
) -> FeatureMaps:
    """Run the backbone over the photos of `dataset` and keep the blocks that the pixel classifiers read."""
    batches = _batches(processor, dataset, accelerator, with_masks=True)
    backbone = model.backbone.to(accelerator.device)  # in its own precision, as it predicts
    parts = [(backbone(batch["pixel_values"]), batch["labels"]) for batch in batches]
    feature_maps = zip(*(maps for maps, _ in parts), strict=True)
    return FeatureMaps(tuple(torch.cat(maps) for maps in feature_maps), torch.cat([labels for _, labels in parts]))


def extract_pooled_features(
    model: FEDDForImageClassification, processor: FEDDImageProcessor, dataset: Dataset, accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    """Return pooled features of shape `(num_images, pooled_size)` and labels, 0 benign or 1 malignant."""
    batches = _batches(processor, dataset, accelerator, with_masks=False)
    backbone = model.backbone.to(accelerator.device)
    maps = (backbone(batch["pixel_values"]) for batch in batches)
    pooled = [pool_features(feature_map, model.config.pooled_size) for (feature_map,) in maps]
    labels = torch.tensor(dataset["malignant"], dtype=torch.long, device=accelerator.device)
    return torch.cat(pooled), labels


def _batches(
    processor: FEDDImageProcessor, dataset: Dataset, accelerator: Accelerator, with_masks: bool
) -> Iterator[dict[str, Tensor]]:
    loader = DataLoader(dataset, batch_size=8, collate_fn=_collate(processor, with_masks))
    for batch in tqdm(loader, desc="Features", unit="batch", leave=False):
        yield {name: tensor.to(accelerator.device) for name, tensor in batch.items()}


def _collate(processor: FEDDImageProcessor, with_masks: bool) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        masks = [row["mask"] for row in rows] if with_masks else None
        return processor([row["image"] for row in rows], segmentation_maps=masks, return_tensors="pt")

    return collate
