import pytest
from matplotlib.patches import Rectangle

from fedd_hf.figures.gaps import draw_gaps


def gap_row(metric, reference, tone, difference=-0.1, **given):
    row = {"metric": metric, "reference": reference, "skin_tone": tone, "n_reference": 59, "n": 80}
    row |= {"difference": difference, "low": difference - 0.05, "high": difference + 0.06, "ratio": 0.9}
    return row | {"p_value": 0.01, "p_holm": 0.03, "minimum_detectable_gap": 0.2, "flag": ""} | given


@pytest.fixture
def rows():
    pairs = (("I-II", "III-IV"), ("I-II", "V-VI"), ("III-IV", "V-VI"))
    return [gap_row(metric, *pair) for metric in ("mean_iou", "lesion_iou", "f1") for pair in pairs]


def bands_of(axis):
    return [patch for patch in axis.patches if isinstance(patch, Rectangle)]


def texts_of(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_each_metric_has_a_panel_with_a_line_per_pair_of_tones(rows):
    figure = draw_gaps(rows, ["lesion_iou", "mean_iou"])

    assert [axis.get_title(loc="left") for axis in figure.axes] == ["lesion IoU", "mean IoU over classes"]
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_yticklabels()] == [
            "III-IV minus I-II  (n = 80, 59)",
            "V-VI minus I-II  (n = 80, 59)",
            "V-VI minus III-IV  (n = 80, 59)",
        ]


def test_gaps_are_points_with_whiskers_bands_and_a_line_at_zero():
    row = gap_row("f1", "I-II", "V-VI", -0.16, low=-0.26, high=-0.04, minimum_detectable_gap=0.13)

    (axis,) = draw_gaps([row], ["f1"]).axes

    drawn = [line.get_xydata().tolist() for line in axis.lines]
    assert [[-0.26, 0], [-0.04, 0]] in drawn
    assert [[-0.16, 0]] in drawn
    assert [0, 0] in [list(line.get_xdata()) for line in axis.lines]
    (band,) = bands_of(axis)
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.13, 0.26))
    low, high = axis.get_xlim()
    assert low == -high < -0.26


def test_numbers_stand_beside_the_points():
    figure = draw_gaps([gap_row("f1", "I-II", "V-VI", -0.16, low=-0.26, high=0.04, p_holm=0.0002)], ["f1"])

    assert "−0.160 [−0.260, +0.040]  p < 0.001" in texts_of(figure)


def test_a_flagged_gap_is_hollow_and_the_caption_says_why(rows):
    rows[1]["flag"] = "coverage < 90 %"

    figure = draw_gaps(rows, ["mean_iou"])

    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert [face == "white" for face in faces] == [False, True, False]
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_gap_that_cannot_be_said_leaves_its_place_empty(nothing):
    names = ("difference", "low", "high", "ratio", "p_value", "p_holm", "minimum_detectable_gap")
    rows = [gap_row("f1", "I-II", "V-VI") | dict.fromkeys(names, nothing)]

    figure = draw_gaps(rows, ["f1"])

    figure.draw_without_rendering()
    assert "no value" in texts_of(figure)
    assert not bands_of(figure.axes[0])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["V-VI minus I-II  (n = 80, 59)"]
