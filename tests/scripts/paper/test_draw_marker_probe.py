import pytest
from matplotlib.colors import to_hex

from draw_marker_probe import CONTROL_MARKER, draw_marker_probe
from fedd_hf.figures.style import TONE_COLOURS

CONTROL = {"control_shift": 0.002, "control_low": -0.01, "control_high": 0.012}


def shift_row(tone, shift=-0.03, n=20, **given):
    row = {"skin_tone": tone, "n": n, "shift": shift, "low": shift - 0.02, "high": shift + 0.04, "p_value": 0.02}
    return row | {"mean_absolute_shift": 0.05} | given


def drawn_by(figure):
    return [line.get_xydata().tolist() for line in figure.axes[0].lines]


def test_each_tone_has_a_shift_with_its_interval_and_number_of_photos():
    figure = draw_marker_probe([shift_row("all", n=66), shift_row("V-VI", 0.01, low=-0.01, high=0.05)])

    assert [[-0.03, 0]] in drawn_by(figure)
    assert [[-0.01, 1], [0.05, 1]] in drawn_by(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["all (n = 66)", "V-VI (n = 20)"]


def test_a_control_is_drawn_below_and_named():
    figure = draw_marker_probe([shift_row("all", **CONTROL)])

    (control,) = (line for line in figure.axes[0].lines if line.get_marker() == CONTROL_MARKER)
    (shift,) = (line for line in figure.axes[0].lines if line.get_marker() == "D")
    assert list(control.get_xdata()) == [0.002]
    assert control.get_ydata()[0] > 0 > shift.get_ydata()[0]  # the axis runs downwards
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["pen marks and rulers painted over", "control: as much skin painted over"]


def test_tones_have_their_colours_and_flagged_ones_are_hollow():
    figure = draw_marker_probe([shift_row("III-IV"), shift_row("V-VI", flag="coverage < 90 %")])

    markers = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    faces = [to_hex(line.get_markerfacecolor()).upper() for line in markers]
    assert faces == [TONE_COLOURS["III-IV"], "#FFFFFF"]
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_shift_that_cannot_be_said_leaves_its_place_empty(nothing):
    names = ("shift", "low", "high", "p_value")

    figure = draw_marker_probe([shift_row("I-II") | dict.fromkeys(names, nothing), shift_row("V-VI")])

    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[0].texts] == ["no value", "−0.030  p = 0.020"]
    assert {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "None"} == {1}


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no `rows` of the marker probe"):
        draw_marker_probe([])
