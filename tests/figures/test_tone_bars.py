import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fedd_hf.figures.style import TONE_COLOURS
from fedd_hf.figures.tone_bars import draw_by_tone
from fedd_hf.labels import SkinTone

TONES = ["all", *(tone.label for tone in SkinTone)]


def report_row(metric, tone, value=0.6, low=0.5, high=0.7, n=20, flag=""):
    row = {"metric": metric, "skin_tone": tone, "n": n, "value": value, "low": low, "high": high}
    return row | {"flag": flag}


@pytest.fixture
def rows():
    return [report_row(metric, tone, n=10 + i) for metric in ("mean_iou", "auroc") for i, tone in enumerate(TONES)]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


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


def test_a_flagged_bar_is_hollow_and_the_caption_says_why():
    figure = draw_by_tone([report_row("auroc", "I-II"), report_row("auroc", "V-VI", flag="coverage < 90 %")], "")

    trusted, flagged = figure.axes[0].patches
    assert to_hex(trusted.get_facecolor()).upper() == TONE_COLOURS["I-II"]
    assert to_hex(flagged.get_facecolor()) == "#ffffff"
    assert to_hex(flagged.get_edgecolor()).upper() == TONE_COLOURS["V-VI"]
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("metrics", [["auprc"], ["auroc", "auprc"]])
def test_a_metric_without_rows_is_refused(rows, metrics):
    with pytest.raises(ValueError, match=r"must be of \['mean_iou', 'auroc'\].*auprc"):
        draw_by_tone(rows, "", metrics)
