import pytest
from matplotlib.colors import to_hex

from draw_malignancy import DERMATOLOGISTS, draw_malignancy
from fedd_hf.figures.style import METHOD_COLOURS
from published import dermatologists

METRICS = ("auroc", "accuracy", "accuracy_test_youden")


def curve_row(method, fraction, metric, value=0.6, **given):
    row = {"method": method, "label_fraction": fraction, "photos": round(600 * fraction), "test": "test"}
    row |= {"metric": metric, "skin_tone": "all", "n": 30, "value": value, "low": value - 0.1, "high": value + 0.1}
    return row | {"flag": ""} | given


@pytest.fixture
def curves():
    return [
        curve_row(method, fraction, metric, 0.4 + fraction + 0.1 * (method == "FEDD"))
        for method in ("VGG16", "FEDD")
        for fraction in (0.05, 0.20)
        for metric in METRICS
    ]


def levels_of(axis):
    return [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]


def test_bars_are_as_high_as_the_values_fedd_first(curves):
    figure = draw_malignancy(curves)

    axis = figure.axes[0]
    bars = {round(bar.get_x() + bar.get_width() / 2, 3): bar.get_height() for bar in axis.patches}
    assert [bars[place] for place in sorted(bars)] == pytest.approx([0.55, 0.45, 0.70, 0.60])
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["30 (5 %)", "120 (20 %)"]


def test_the_rule_that_chose_on_test_is_hatched(curves):
    hatches = [{bool(bar.get_hatch()) for bar in axis.patches} for axis in draw_malignancy(curves).axes]

    assert hatches == [{False}, {False}, {True}]


def test_whiskers_are_the_intervals():
    axis = draw_malignancy([curve_row("FEDD", 0.05, "auroc", 0.8, low=0.62, high=0.93)]).axes[0]

    assert [0.62, 0.93] in [list(line.get_ydata()) for line in axis.lines]


def test_dermatologists_are_a_line_of_auroc_and_always_benign_one_of_accuracy(curves):
    figure = draw_malignancy(curves, dermatologists=0.75, always_benign=0.83)

    assert [sorted(levels_of(axis)) for axis in figure.axes] == [[0.5, 0.75], [0.5, 0.83], [0.5, 0.83]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-3:] == ["dermatologists, all of DDI (0.75)", "chance (0.5)", "always benign (0.83)"]


def test_the_line_of_dermatologists_is_the_published_one(curves):
    assert dermatologists("auroc") == DERMATOLOGISTS
    assert DERMATOLOGISTS in levels_of(draw_malignancy(curves).axes[0])


def test_a_flagged_bar_is_hollow_and_the_caption_says_why():
    rows = [curve_row("FEDD", 0.05, "auroc"), curve_row("VGG16", 0.05, "auroc", flag="coverage < 90 %")]

    figure = draw_malignancy(rows)

    assert [to_hex(bar.get_facecolor()).upper() for bar in figure.axes[0].patches] == [
        METHOD_COLOURS["FEDD"],
        "#FFFFFF",
    ]
    assert "Hollow: coverage < 90 %" in figure.get_supxlabel()


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_missing_value_leaves_its_place_empty(nothing):
    nothings = {"value": nothing, "low": nothing, "high": nothing}
    rows = [curve_row("FEDD", 0.05, "auroc"), curve_row("VGG16", 0.05, "auroc") | nothings]

    figure = draw_malignancy(rows)

    figure.draw_without_rendering()
    assert [line.get_marker() for line in figure.axes[0].lines if line.get_linestyle() == "None"] == ["o"]


def test_a_test_without_curves_is_refused(curves):
    with pytest.raises(ValueError, match="No curve of the test 'tset'"):
        draw_malignancy(curves, "tset")
