import io

import numpy as np
import pytest
from PIL import Image

from contact_sheet import write_contact_sheet
from fedd_hf.figures.style import CLASS_COLOURS


@pytest.fixture
def make_pictures(tmp_path):
    """Write plain or noisy pictures with EXIF data, and return their titles and files."""

    def make(colours, size=(700, 400), is_noisy=False):
        exif = Image.Exif()
        exif[270] = "a description"
        pictures = []
        for number, colour in enumerate(colours):
            picture = Image.new("RGB", size, colour)
            if is_noisy:
                picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8))
            picture.save(tmp_path / f"{number}.png", exif=exif)
            pictures.append((f"Figure {number}", tmp_path / f"{number}.png"))
        return pictures

    return make


def share(sheet, colour):
    return float((np.abs(np.asarray(sheet.convert("RGB")).astype(int) - colour) < 12).all(axis=-1).mean())


def test_every_picture_is_on_the_sheet_at_the_same_size(make_pictures, tmp_path):
    name = "sheet.png"
    write_contact_sheet(make_pictures(["red", "lime", "blue", "yellow"]), tmp_path / name)

    sheet = Image.open(tmp_path / name)
    shares = [share(sheet, colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))]
    assert min(shares) > 0.1
    assert max(shares) < min(shares) * 1.05


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_the_sheet_shrinks_until_it_weighs_no_more_than_allowed(make_pictures, tmp_path, name):
    pictures = make_pictures(["red"] * 3, is_noisy=True)

    write_contact_sheet(pictures, tmp_path / name, max_bytes=2**30)
    large = Image.open(tmp_path / name).size
    write_contact_sheet(pictures, tmp_path / name, max_bytes=150_000)

    assert (tmp_path / name).stat().st_size <= 150_000
    assert Image.open(tmp_path / name).width < large[0]


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_the_sheet_holds_no_metadata(make_pictures, tmp_path, name):
    write_contact_sheet(make_pictures(["red"]), tmp_path / name)

    content = (tmp_path / name).read_bytes()
    assert dict(Image.open(io.BytesIO(content)).getexif()) == {}
    assert b"a description" not in content
    assert b"Exif" not in content


def test_a_sheet_that_cannot_be_small_enough_is_not_written(make_pictures, tmp_path):
    with pytest.raises(ValueError, match="more than `max_bytes` 100"):
        write_contact_sheet(make_pictures(["red"]), tmp_path / "sheet.png", max_bytes=100)

    assert not (tmp_path / "sheet.png").exists()


@pytest.fixture
def colourful_pictures(tmp_path):
    """Write a picture of many thousands of colours, as photos have, with a small swatch of each class."""
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([60 + 0.4 * x, 40 + 0.4 * y, 30 + 0.2 * (x + y)], axis=-1).astype(np.uint8)
    for index, colour in enumerate(CLASS_COLOURS.values()):
        pixels[10:22, 16 * index : 16 * index + 12] = colour
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return [(f"Figure {number}", tmp_path / "picture.png") for number in range(3)]


def test_colours_of_classes_survive_even_where_they_are_rare(colourful_pictures, tmp_path):
    write_contact_sheet(colourful_pictures, tmp_path / "sheet.png")

    shown = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3).astype(int)
    for label, colour in CLASS_COLOURS.items():
        assert np.abs(shown - colour).max(axis=1).min() <= 16, label
