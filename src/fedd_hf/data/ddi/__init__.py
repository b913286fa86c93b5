"""DDI: the released masks of FEDD as a dataset, and a licensed local copy of the photos joined to it."""

from .join import load_ddi

__all__ = ["load_ddi"]
