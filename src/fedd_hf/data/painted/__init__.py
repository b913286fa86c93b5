"""Painted photographs whose segmentation map is known exactly: for tests, demo and quickstart, no patient."""

from .layout import paint_mask
from .photos import paint_dataset, paint_photo

__all__ = ["paint_dataset", "paint_mask", "paint_photo"]
