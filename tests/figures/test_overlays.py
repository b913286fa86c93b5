import numpy as np
import pytest
from PIL import Image

from fedd_hf.figures.overlays import OPACITY, colour_map, draw_overlays, open_overlay, overlay
from fedd_hf.figures.style import CLASS_COLOURS

LABELS = dict(enumerate(("background", "lesion", "marker", "ruler", "skin")))


@pytest.fixture
def segmentation_map():
    return np.random.default_rng(0).integers(0, 5, (20, 30), dtype=np.uint8)


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def test_a_map_is_shown_in_the_colours_of_its_classes(segmentation_map, tmp_path):
    colour_map(segmentation_map, LABELS).save(tmp_path / "map.png")

    shown = np.array(Image.open(tmp_path / "map.png").convert("RGB"))
    for label, name in LABELS.items():
        assert np.unique(shown[segmentation_map == label], axis=0).tolist() == [list(CLASS_COLOURS[name])]


def test_an_overlay_mixes_photo_and_class_colour(photo, segmentation_map):
    shown = np.asarray(overlay(photo, segmentation_map, LABELS))

    for row, column in [(0, 0), (7, 3), (19, 29), (11, 16)]:
        label = LABELS[int(segmentation_map[row, column])]
        share = 0.0 if label == "background" else OPACITY
        pairs = zip(photo.getpixel((column, row)), CLASS_COLOURS[label], strict=True)
        mixed = [(1 - share) * pixel + share * colour for pixel, colour in pairs]
        assert shown[row, column].tolist() == pytest.approx(mixed, abs=0.8)  # opacity in steps of 1/255


def test_an_overlay_leaves_pixels_of_255_untouched(photo, segmentation_map):
    segmentation_map[:5] = 255

    shown = np.asarray(overlay(photo, segmentation_map, LABELS))

    assert np.array_equal(shown[:5], np.asarray(photo)[:5])


def test_pictures_carry_no_metadata(photo, segmentation_map, tmp_path):
    exif = Image.Exif()
    exif[270] = "a patient's name"
    photo.save(tmp_path / "photo.jpg", exif=exif)
    with_exif = Image.open(tmp_path / "photo.jpg")

    overlay(with_exif, segmentation_map, LABELS).save(tmp_path / "overlay.png")
    colour_map(segmentation_map, LABELS).save(tmp_path / "map.png")

    for name in ("overlay.png", "map.png"):
        saved = Image.open(tmp_path / name)
        assert dict(saved.getexif()) == {}
        assert saved.info == {}


def test_a_sheet_of_overlays_has_a_column_per_photo_and_rows_that_say_what_they_are(photo, segmentation_map, tmp_path):
    titles = ["tone I-II", "tone V-VI"]

    figure = draw_overlays([photo] * 2, [segmentation_map] * 2, [segmentation_map] * 2, LABELS, titles)

    figure.savefig(tmp_path / "sheet.png")
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:2]] == titles
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["photo", "truth", "prediction"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "background: as it is",
        "lesion",
        "marker",
        "ruler",
        "skin",
    ]


def test_a_map_file_is_laid_over_a_photo_of_another_size(tmp_path):
    """Masks of the release have 256 pixels, whatever the size of the photo."""
    Image.new("RGB", (60, 40), "black").save(tmp_path / "photo.png")
    halves = np.repeat(np.array([[0, 1]], np.uint8), 4, axis=0)
    Image.fromarray(halves).save(tmp_path / "map.png")

    shown = np.asarray(open_overlay(tmp_path / "photo.png", tmp_path / "map.png"))

    assert shown.shape == (40, 60, 3)
    assert not shown[:, :30].any()
    assert (shown[:, 30:, 0] > 100).all()
