import numpy as np
import pytest
from matplotlib.colors import to_hex

from fedd_hf.figures.label_curves import draw_label_efficiency
from fedd_hf.figures.style import METHOD_COLOURS, METHOD_MARKERS
from published import published_results

PHOTOS = {0.05: 30, 0.10: 60, 0.15: 90, 0.20: 120}


def curve_row(method, fraction, value=0.5, tone="I-II", metric="mean_iou", **given):
    row = {"method": method, "label_fraction": fraction, "photos": PHOTOS[fraction], "test": "large_test"}
    row |= {"metric": metric, "skin_tone": tone, "n": 59, "value": value, "low": value - 0.1, "high": value + 0.1}
    return row | {"flag": ""} | given


def lines_of(axis):
    """Lines that join points, by method."""
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def markers_of(axis):
    return [line for line in axis.lines if line.get_linestyle() == "None"]


@pytest.fixture(scope="module")
def published():
    table = published_results().rename(columns={"published": "value"})
    table = table.assign(low=None, high=None, n=198, photos=table["label_fraction"].map(PHOTOS), flag="")
    return table.to_dict("records")


def test_the_published_curves_are_drawn_as_they_were_published(published):
    figure = draw_label_efficiency(published, "large_test")

    assert len(figure.axes) == 6
    panels = iter(figure.axes)
    for metric in ("mean_iou", "lesion_iou"):
        for tone in ("mean of tones", "I-II", "V-VI"):
            lines = lines_of(next(panels))
            assert set(lines) == {"FEDD", "EfficientNetB0", "VGG16", "DenseNet121", "ResNet50", "MobileNetV2"}
            for method, line in lines.items():
                chosen = [row for row in published if (row["method"], row["metric"]) == (method, metric)]
                values = [row["value"] for row in chosen if row["skin_tone"] == tone and row["test"] == "large_test"]
                assert line.get_ydata().tolist() == values


def test_panels_say_what_they_show(published):
    figure = draw_label_efficiency(published, "large_test")

    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "mean of the skin tones, n = 198",
        "skin tone I-II, n = 198",
        "skin tone V-VI, n = 198",
        "",
        "",
        "",
    ]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["mean IoU over classes", "lesion IoU"]
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == [
        "30\n5 %",
        "60\n10 %",
        "90\n15 %",
        "120\n20 %",
    ]
    (legend,) = figure.legends
    assert next(text.get_text() for text in legend.get_texts()) == "FEDD"


def test_methods_differ_by_colour_and_marker_and_stand_side_by_side():
    rows = [curve_row(method, fraction) for method in ("FEDD", "VGG16", "other") for fraction in (0.05, 0.10)]

    (axis,) = draw_label_efficiency(rows, "large_test", ["mean_iou"], ["I-II"]).axes

    lines = lines_of(axis)
    for method in ("FEDD", "VGG16"):
        assert to_hex(lines[method].get_color()).upper() == METHOD_COLOURS[method]
    assert {METHOD_MARKERS["FEDD"], METHOD_MARKERS["VGG16"]} < {line.get_marker() for line in markers_of(axis)}
    places = [line.get_xdata()[0] for line in lines.values()]
    assert np.mean(places) == pytest.approx(30)
    assert len(set(places)) == 3
    assert max(places) - min(places) < 15  # half the way to the next number of photos


def test_a_flagged_point_is_hollow_and_the_caption_says_why():
    rows = [curve_row("FEDD", 0.05), curve_row("FEDD", 0.10, flag="coverage < 90 %")]

    figure = draw_label_efficiency(rows, "large_test", ["mean_iou"], ["I-II"])

    faces = [line.get_markerfacecolor() for line in markers_of(figure.axes[0])]
    assert faces == [METHOD_COLOURS["FEDD"], "white"]
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_missing_value_leaves_a_hole(nothing):
    rows = [curve_row("FEDD", 0.05), curve_row("FEDD", 0.10) | {"value": nothing, "low": nothing, "high": nothing}]

    (axis,) = draw_label_efficiency(rows, "large_test", ["mean_iou"], ["I-II"]).axes

    assert np.isnan(lines_of(axis)["FEDD"].get_ydata()).tolist() == [False, True]
    assert len(markers_of(axis)) == 1


def test_a_test_without_curves_is_refused():
    with pytest.raises(ValueError, match="No curve of the test 'tset'"):
        draw_label_efficiency([curve_row("FEDD", 0.05)], "tset")
