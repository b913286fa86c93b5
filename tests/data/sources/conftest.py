"""What the tests of sources share: tiny photos and masks on disk."""

import numpy as np
import pytest
from PIL import ExifTags, Image

SIZE = (12, 9)  # width and height: oblong, so that a turned photo is noticed


@pytest.fixture(scope="session")
def save_photo():
    """Save a photo, of another shade for each name, stored as `orientation` of EXIF says."""

    def save(path, size=SIZE, orientation=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation is not None:
            exif[ExifTags.Base.Orientation] = orientation
        shade = sum(path.stem.encode()) % 256
        Image.new("RGB", size, (200, 150, shade)).save(path, exif=exif)
        return path

    return save


@pytest.fixture(scope="session")
def save_lesion():
    """Save a black and white mask, of 1 bit or 8, whose upper third is lesion."""

    def save(path, size=SIZE, bits=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        lesion = np.zeros(size[::-1], dtype=bool)
        lesion[: size[1] // 3] = True
        Image.fromarray(lesion if bits == 1 else lesion.astype(np.uint8) * 255).save(path)
        return path

    return save
