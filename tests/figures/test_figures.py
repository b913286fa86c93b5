import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from fedd_hf.figures.by_tone import draw_by_tone
from fedd_hf.figures.overlays import OPACITY, colour_map, draw_overlays, overlay
from fedd_hf.figures.style import CLASS_COLOURS, TONE_COLOURS
from fedd_hf.skin_tone import SkinTone

LABELS = dict(enumerate(("background", "lesion", "marker", "ruler", "skin")))
TONES = ["all", *(tone.label for tone in SkinTone)]


def report_row(metric, tone, value=0.6, low=0.5, high=0.7, n=20):
    return {"metric": metric, "skin_tone": tone, "n": n, "value": value, "low": low, "high": high}


@pytest.fixture
def rows():
    return [report_row(metric, tone, n=10 + i) for metric in ("mean_iou", "auroc") for i, tone in enumerate(TONES)]


@pytest.fixture
def segmentation_map():
    return np.random.default_rng(0).integers(0, 5, (20, 30), dtype=np.uint8)


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def tick_labels(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


# --- bars by tone ----------------------------------------------------------------------------------------------------


def test_bars_have_one_panel_per_metric_with_its_name(rows):
    figure = draw_by_tone(rows, "a title")

    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "a title"
    assert [axis.get_title() for axis in figure.axes] == ["mean IoU over classes", "malignancy AUROC"]


def test_bars_name_each_tone_in_the_order_of_the_report_with_its_number_of_photos(rows):
    figure = draw_by_tone(rows, "")

    for axis in figure.axes:
        assert tick_labels(axis) == ["all\nn=10", "I-II\nn=11", "III-IV\nn=12", "V-VI\nn=13"]


def test_bars_are_as_high_as_the_values_and_in_the_colours_of_the_tones():
    values = [0.2, 0.4, 0.6, 0.8]

    figure = draw_by_tone([report_row("auroc", *pair) for pair in zip(TONES, values, strict=True)], "")

    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == values
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [TONE_COLOURS[tone] for tone in TONES]


def test_every_axis_shows_the_whole_range_from_0_to_1(rows):
    assert {axis.get_ylim() for axis in draw_by_tone(rows, "").axes} == {(0.0, 1.0)}


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_value_that_cannot_be_said_leaves_its_place_empty(nothing, tmp_path):
    rows = [report_row("auroc", "I-II"), report_row("auroc", "V-VI", nothing, nothing, nothing)]

    figure = draw_by_tone(rows, "")

    figure.savefig(tmp_path / "figure.png")
    first, second = figure.axes[0].patches
    assert first.get_height() == 0.6
    assert np.isnan(second.get_height())
    assert tick_labels(figure.axes[0]) == ["I-II\nn=20", "V-VI\nn=20"]


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_value_without_an_interval_has_no_whisker(nothing):
    """A whisker of length 0 would say that the value is certain."""
    rows = [report_row("auroc", "I-II"), report_row("auroc", "V-VI", 0.5, nothing, nothing)]

    figure = draw_by_tone(rows, "")

    assert len(figure.axes[0].containers) == 3  # two bars, one whisker


def test_a_whisker_reaches_from_low_to_high():
    figure = draw_by_tone([report_row("auroc", "I-II", 0.6, 0.45, 0.8)], "")

    (whisker,) = figure.axes[0].collections
    assert whisker.get_segments()[0][:, 1].tolist() == pytest.approx([0.45, 0.8])


# --- maps and overlays -----------------------------------------------------------------------------------------------


def test_a_saved_map_keeps_its_class_ids(segmentation_map, tmp_path):
    colour_map(segmentation_map, LABELS).save(tmp_path / "map.png")

    assert np.array_equal(np.array(Image.open(tmp_path / "map.png")), segmentation_map)


def test_a_map_is_shown_in_the_colours_of_its_classes(segmentation_map, tmp_path):
    colour_map(segmentation_map, LABELS).save(tmp_path / "map.png")

    shown = np.array(Image.open(tmp_path / "map.png").convert("RGB"))
    for label, name in LABELS.items():
        assert np.unique(shown[segmentation_map == label], axis=0).tolist() == [list(CLASS_COLOURS[name])]


def test_a_class_without_a_colour_of_its_own_is_grey():
    shown = colour_map(np.array([[0, 1]], np.uint8), {0: "background", 1: "freckle"}).convert("RGB")

    assert shown.getpixel((1, 0)) == (128, 128, 128)


def test_the_order_in_which_labels_are_listed_does_not_matter(photo, segmentation_map):
    listed_backwards = dict(reversed(LABELS.items()))

    assert overlay(photo, segmentation_map, listed_backwards) == overlay(photo, segmentation_map, LABELS)
    assert colour_map(segmentation_map, listed_backwards) == colour_map(segmentation_map, LABELS)


def test_an_overlay_leaves_the_background_untouched(photo, segmentation_map):
    shown = np.asarray(overlay(photo, segmentation_map, LABELS))

    background = segmentation_map == 0
    assert background.any()
    assert np.array_equal(shown[background], np.asarray(photo)[background])


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
    assert [text.get_text() for text in legend.get_texts()] == ["lesion", "marker", "ruler", "skin"]


def test_a_sheet_draws_truth_and_prediction_where_they_belong(photo):
    truth, prediction = np.full((20, 30), 1, np.uint8), np.full((20, 30), 4, np.uint8)

    figure = draw_overlays([photo], [truth], [prediction], LABELS, [""])

    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert np.array_equal(shown[0], np.asarray(photo))
    assert np.array_equal(shown[1], np.asarray(overlay(photo, truth, LABELS)))
    assert np.array_equal(shown[2], np.asarray(overlay(photo, prediction, LABELS)))
