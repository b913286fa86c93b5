"""Photos and their segmentation maps from every source, as rows of one format."""

from .ddi import load_ddi
from .sources import load_folder, load_ham10000, load_isic, load_pad_ufes_20

__all__ = ["load_ddi", "load_folder", "load_ham10000", "load_isic", "load_pad_ufes_20"]
