import numpy as np
import pytest
from PIL import Image

from fedd_hf.figures.contact_sheet import write_contact_sheet
from fedd_hf.figures.style import CLASS_COLOURS


@pytest.fixture
def pictures(tmp_path):
    """Write a picture of many thousands of colours, as photos have, with a small swatch of each class."""
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([60 + 0.4 * x, 40 + 0.4 * y, 30 + 0.2 * (x + y)], axis=-1).astype(np.uint8)
    for index, colour in enumerate(CLASS_COLOURS.values()):
        pixels[10:22, 16 * index : 16 * index + 12] = colour
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return [(f"Figure {number}", tmp_path / "picture.png") for number in range(3)]


def test_colours_of_classes_survive_even_where_they_are_rare(pictures, tmp_path):
    write_contact_sheet(pictures, tmp_path / "sheet.png")

    shown = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3).astype(int)
    for label, colour in CLASS_COLOURS.items():
        assert np.abs(shown - colour).max(axis=1).min() <= 16, label
