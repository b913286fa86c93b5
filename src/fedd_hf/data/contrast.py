"""How far the colour of a lesion is from that of the skin around it."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.util import img_as_float32

from fedd_hf.labels import PixelClass

_PIXELS_AT_ONCE = 2**18  # with all that is made on the way, some 20 MB


def lesion_contrast(photo: np.ndarray, mask: np.ndarray) -> float:
    """Return the CIEDE2000 difference between the mean CIELAB colours of the lesion and of the skin.

    Colours are sRGB under the white of D65. A difference of 1 is about the least that an eye sees.

    Args:
        photo (`np.ndarray` of shape `(height, width, 3)`, uint8):
            The upright photo in RGB.
        mask (`np.ndarray` of shape `(height, width)`):
            The true class of each pixel, an id of [`~fedd_hf.labels.PixelClass`] or 255.

    Returns:
        `float`: the difference; NaN if the mask has no pixel of lesion, or none of skin.

    Raises:
        ValueError: If mask and photo are not of one size.

    Source: CIE 142-2001, by G. Sharma, W. Wu, E. N. Dalal, The CIEDE2000 color-difference formula, Color Research and
    Application 30 (2005); scikit-image, `deltaE_ciede2000`.
    """
    if mask.shape != photo.shape[:2]:
        raise ValueError(f"Mask and photo must be of one size, got {mask.shape} and {photo.shape[:2]}.")
    areas = [photo[mask == label] for label in (PixelClass.LESION, PixelClass.SKIN)]
    if not all(len(pixels) for pixels in areas):
        return float("nan")
    lesion, skin = (_mean_lab(pixels) for pixels in areas)
    return float(deltaE_ciede2000(lesion, skin))


def _mean_lab(pixels: np.ndarray) -> np.ndarray:
    parts = (pixels[start : start + _PIXELS_AT_ONCE] for start in range(0, len(pixels), _PIXELS_AT_ONCE))
    return np.sum([rgb2lab(img_as_float32(part)).sum(axis=0, dtype=float) for part in parts], axis=0) / len(pixels)
