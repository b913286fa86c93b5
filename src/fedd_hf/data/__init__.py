"""Photos and their segmentation maps from every source, as rows of one format."""

from .ddi import load_ddi

__all__ = ["load_ddi"]
