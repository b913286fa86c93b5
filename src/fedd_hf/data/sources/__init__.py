"""Collections of photos as their publishers lay them out -> rows of the one format."""

from .folder import load_folder
from .ham10000 import load_ham10000
from .isic import load_isic
from .pad_ufes_20 import load_pad_ufes_20

__all__ = ["load_folder", "load_ham10000", "load_isic", "load_pad_ufes_20"]
