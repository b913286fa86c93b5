"""What the tests of sources share: tiny photos and masks on disk, and where real collections may lie."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

REAL_DATA = Path(os.environ.get("FEDD_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
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


@pytest.fixture(scope="session")
def real_data():
    """Return the path of a real collection, or skip the test where it is absent."""

    def find(name):
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"The real photos are not at {path}; set FEDD_DATA to the folder that holds {name}.")
        return path

    return find
