import re
import zlib
from itertools import combinations

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedd_hf.evaluation.by_tone import MEAN_OF_TONES, OVERALL
from fedd_hf.evaluation.by_tone import TONES as TONES_OF_ROWS
from fedd_hf.evaluation.titles import TITLES
from fedd_hf.figures import style
from fedd_hf.labels import PixelClass

DECISIONS = ("accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity")


@pytest.fixture
def figure():
    drawn = Figure(figsize=(3, 2), layout="constrained")
    axis = drawn.subplots()
    axis.plot([0, 1], [0.2, 0.7], label="a line")
    axis.set_title("a title")
    style.add_legend(drawn, axis.lines)
    style.add_caption(drawn, ["a note"])
    return drawn


def png_chunks(content):
    place, kinds = 8, []
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kinds.append(content[place + 4 : place + 8])
        place += 12 + length
    return kinds


# --- names and colours -----------------------------------------------------------------------------------------------


def test_every_metric_has_a_title_of_its_own():
    names = ["mean_iou", "lesion_iou", "lesion_dice", "mean_dice", "auroc", "auprc", *DECISIONS]
    names += [f"{name}_per_image" for name in ("mean_iou", "lesion_iou", "lesion_dice", "mean_dice")]
    names += [f"{score}_{kind.label}" for score in ("iou", "dice") for kind in PixelClass]
    names += [f"{name}_{rule}" for name in DECISIONS for rule in ("test_youden", "validation_youden")]

    titles = [TITLES[name] for name in names]

    assert len(set(titles)) == len(names)


def test_every_group_of_photos_has_colour_marker_and_line():
    groups = {OVERALL, *TONES_OF_ROWS, MEAN_OF_TONES}

    assert set(style.TONE_COLOURS) == set(style.TONE_MARKERS) == set(style.TONE_LINES) == groups
    assert len(set(style.TONE_COLOURS.values())) == len(set(style.TONE_MARKERS.values())) == len(groups)


def test_methods_differ_by_colour_and_by_marker():
    styles = style.style_methods([*style.METHOD_COLOURS, "A", "B", "C"]).values()

    for one, other in combinations(styles, 2):
        assert one.colour != other.colour
        assert one.marker != other.marker


def test_fedd_comes_first_is_strongest_and_lies_on_top():
    styles = style.style_methods(["another", "VGG16", "FEDD", "VGG16"])

    assert list(styles) == ["FEDD", "VGG16", "another"]
    assert styles["FEDD"].linewidth > max(styles[name].linewidth for name in ("VGG16", "another"))
    assert styles["FEDD"].zorder > max(styles[name].zorder for name in ("VGG16", "another"))


# --- small parts of figures ------------------------------------------------------------------------------------------


def test_a_point_reaches_from_low_to_high():
    axis = Figure().subplots()

    style.draw_point(axis, 3, {"value": 0.5, "low": 0.4, "high": 0.7}, "#0072B2", "s")

    whisker, marker = axis.lines
    assert whisker.get_xydata().tolist() == [[3, 0.4], [3, 0.7]]
    assert marker.get_xydata().tolist() == [[3, 0.5]]
    assert (marker.get_marker(), marker.get_markerfacecolor()) == ("s", "#0072B2")


def test_a_flagged_point_is_hollow():
    axis = Figure().subplots()

    style.draw_point(axis, 3, {"value": 0.5, "flag": "coverage < 90 %"}, "#0072B2", "s")

    assert axis.lines[0].get_markerfacecolor() == "white"


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_point_without_a_value_is_not_drawn_and_one_without_an_interval_has_no_whisker(nothing):
    axis = Figure().subplots()

    style.draw_point(axis, 1, {"value": nothing, "low": nothing, "high": nothing}, "#0072B2", "s")
    assert not axis.lines
    style.draw_point(axis, 2, {"value": 0.5, "low": nothing, "high": nothing}, "#0072B2", "s")

    assert [line.get_xydata().tolist() for line in axis.lines] == [[[2, 0.5]]]


def test_p_values_are_never_zero_and_numbers_have_their_sign():
    p_values = (0.04, 0.001, 0.0004, None, float("nan"))

    assert [style.say_p(p_value) for p_value in p_values] == ["p = 0.040", "p = 0.001", "p < 0.001", "", ""]
    assert [style.signed(value) for value in (0.04, -0.04)] == ["+0.040", "−0.040"]


def test_a_long_note_is_wrapped_within_the_figure():
    figure = Figure(figsize=(3, 2), layout="constrained")

    style.add_caption(figure, ["many words " * 20, ""])

    figure.draw_without_rendering()
    caption = figure._supxlabel.get_window_extent()
    assert caption.x0 >= 0
    assert caption.x1 <= figure.bbox.x1


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_figure_becomes_a_pdf_and_a_png(figure, tmp_path):
    vector, png = style.save_figure(figure, tmp_path / "figure-4.1")

    assert (vector, png) == (tmp_path / "figure-4.1.pdf", tmp_path / "figure-4.1.png")
    assert vector.read_bytes().startswith(b"%PDF")
    assert Image.open(png).size == (3 * style.DPI, 2 * style.DPI)
    assert sorted(tmp_path.iterdir()) == [vector, png]


def test_the_same_figure_gives_the_same_bytes(figure, tmp_path):
    first = [path.read_bytes() for path in style.save_figure(figure, tmp_path / "figure")]
    second = [path.read_bytes() for path in style.save_figure(figure, tmp_path / "other")]

    assert first == second


def test_fonts_are_embedded_as_outlines_that_editors_can_read(figure, tmp_path):
    content = style.save_figure(figure, tmp_path / "figure")[0].read_bytes()

    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_files_say_nothing_of_when_where_and_by_what_they_were_written(figure, tmp_path):
    vector, png = style.save_figure(figure, tmp_path / "figure")

    assert set(png_chunks(png.read_bytes())) <= {b"IHDR", b"pHYs", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
    plain = vector.read_bytes()
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", plain, re.DOTALL):
        try:
            plain += zlib.decompress(found[1])
        except zlib.error:  # not compressed
            continue
    for word in (b"CreationDate", b"Producer", b"Creator", bytes(tmp_path)):
        assert word not in plain


def test_a_figure_that_cannot_be_drawn_leaves_the_old_file(figure, tmp_path):
    paths = style.save_figure(figure, tmp_path / "figure")
    before = [path.read_bytes() for path in paths]
    figure.axes[0].set_title("$\\nonsense$")

    with pytest.raises(ValueError, match="nonsense"):
        style.save_figure(figure, tmp_path / "figure")

    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == sorted(paths)
