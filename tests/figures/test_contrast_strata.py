import pytest

from fedd_hf.figures.contrast_strata import draw_contrast

EDGES = [1.0, 5.0, 12.0, 30.0]


def stratum_row(stratum, tone, value=0.6, metric="lesion_iou", n=10, **given):
    row = {"stratum": stratum, "skin_tone": tone, "n": n, "metric": metric}
    return row | {"value": value, "low": value - 0.1, "high": value + 0.1, "flag": ""} | given


@pytest.fixture
def contrast():
    rows = [
        stratum_row(stratum, tone, 0.5 + stratum / 10, metric, n=stratum + 2 * (tone == "V-VI"))
        for metric in ("lesion_iou", "lesion_iou_per_image")
        for stratum in (1, 2, 3)
        for tone in ("all", "V-VI")
    ]
    return {"edges": EDGES, "without_contrast": 0, "rows": rows}


def points_of(axis):
    """Values by place, of markers only."""
    drawn = [line for line in axis.lines if line.get_linestyle() == "None"]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in drawn)


def test_each_metric_has_a_panel_with_points_by_stratum_and_tone(contrast):
    figure = draw_contrast(contrast)

    assert [axis.get_title() for axis in figure.axes] == ["lesion IoU", "lesion IoU, mean over photos"]
    for axis in figure.axes:
        expected = [(0.8, 0.6), (1.2, 0.6), (1.8, 0.7), (2.2, 0.7), (2.8, 0.8), (3.2, 0.8)]
        assert points_of(axis) == [pytest.approx(point) for point in expected]


def test_strata_are_named_by_their_contrast_and_every_point_by_its_number_of_photos(contrast):
    figure = draw_contrast(contrast)

    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1.0 to 5.0", "5.0 to 12.0", "12.0 to 30.0"]
    numbers = [label.get_text() for label in axis.get_xticklabels(minor=True)]
    assert numbers == ["1", "3", "2", "4", "3", "5"]


def test_a_flagged_point_is_hollow_and_the_caption_says_why(contrast):
    contrast["rows"][0]["flag"] = "coverage < 90 %"

    figure = draw_contrast(contrast)

    markers = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert [line.get_markerfacecolor() == "white" for line in markers] == [True] + [False] * 5
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_stratum_that_has_no_value_keeps_its_place_and_number(nothing):
    nothings = {"value": nothing, "low": nothing, "high": nothing}
    rows = [stratum_row(1, "all"), stratum_row(2, "all", n=0) | nothings]

    figure = draw_contrast({"edges": EDGES, "rows": rows})

    (axis,) = figure.axes
    assert points_of(axis) == [(1.0, 0.6)]
    assert [label.get_text() for label in axis.get_xticklabels(minor=True)] == ["10", "0"]


def test_no_known_contrast_is_said():
    figure = draw_contrast({"edges": [], "without_contrast": 30, "rows": []})

    assert [text.get_text() for text in figure.texts] == ["no photo has a known contrast"]
