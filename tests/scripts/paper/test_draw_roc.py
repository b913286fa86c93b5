import pytest

from draw_roc import DERMATOLOGISTS, draw_roc
from published import dermatologists

CURVE = {"fpr": [0.0, 0.0, 0.5, 1.0], "tpr": [0.0, 0.6, 0.8, 1.0]}


def roc_row(method, fraction, **given):
    return {"method": method, "label_fraction": fraction, "test": "test"} | CURVE | given


def curves_of(axis):
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def test_each_label_fraction_has_a_panel_with_the_curve_of_each_method():
    rows = [roc_row(method, fraction) for method in ("VGG16", "FEDD") for fraction in (0.10, 0.05)]

    figure = draw_roc(rows)

    assert [axis.get_title() for axis in figure.axes] == ["5 % labelled", "10 % labelled"]
    for axis in figure.axes:
        curves = curves_of(axis)
        assert list(curves) == ["FEDD", "VGG16"]
        assert list(curves["FEDD"].get_xdata()) == CURVE["fpr"]
        assert list(curves["FEDD"].get_ydata()) == CURVE["tpr"]
        assert curves["FEDD"].get_marker() != curves["VGG16"].get_marker()


def test_chance_and_dermatologists_are_in_every_panel():
    figure = draw_roc([roc_row("FEDD", 0.05), roc_row("FEDD", 0.20)], dermatologists=(0.4, 0.9))

    for axis in figure.axes:
        drawn = [line.get_xydata().tolist() for line in axis.lines]
        assert [[0, 0], [1, 1]] in drawn
        assert [[0.4, 0.9]] in drawn
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["FEDD", "dermatologists, all of DDI", "chance"]


def test_the_point_of_dermatologists_is_the_published_one():
    assert pytest.approx((1 - dermatologists("specificity"), dermatologists("sensitivity"))) == DERMATOLOGISTS


def test_no_curves_are_refused():
    with pytest.raises(ValueError, match="no ROC curve"):
        draw_roc([])
