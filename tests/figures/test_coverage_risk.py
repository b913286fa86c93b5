import pytest

from fedd_hf.figures.coverage_risk import draw_coverage_risk


def risk_row(tone, n=40, **given):
    row = {"skin_tone": tone, "n": n, "aurc": 0.2, "low": 0.1, "high": 0.3}
    row |= {"risk_at_80": 0.25, "risk_at_80_low": 0.2, "risk_at_80_high": 0.35}
    return row | {"coverage_at_80": 0.8, "coverage_at_80_low": 0.7, "coverage_at_80_high": 0.9} | given


@pytest.fixture
def coverage_risk():
    values = {"all": [(0.5, 0.1), (1.0, 0.3)], "I-II": [(0.5, 0.0), (1.0, 0.2)], "V-VI": [(1.0, 0.5)]}
    curve = [
        {"skin_tone": tone, "coverage": coverage, "risk": risk}
        for tone, points in values.items()
        for coverage, risk in points
    ]
    return {"rows": [risk_row("all"), risk_row("I-II", 20), risk_row("V-VI", 10, aurc=0.4)], "curve": curve}


def test_each_group_has_its_curve(coverage_risk):
    curves = draw_coverage_risk(coverage_risk).axes[0].lines[:3]

    assert [line.get_xydata().tolist() for line in curves] == [
        [[0.5, 0.1], [1.0, 0.3]],
        [[0.5, 0.0], [1.0, 0.2]],
        [[1.0, 0.5]],
    ]
    assert [line.get_label() for line in curves] == ["all (n = 40)", "I-II (n = 20)", "V-VI (n = 10)"]
    assert len({line.get_marker() for line in curves}) == 3


def test_what_the_joint_threshold_does_is_drawn_with_intervals(coverage_risk):
    _, *panels = draw_coverage_risk(coverage_risk).axes

    titles = ["area under the curve (AURC)", "risk of the kept photos", "share of photos kept"]
    assert [axis.get_title() for axis in panels] == titles
    expected = [((0.1, 0.3), 0.2), ((0.2, 0.35), 0.25), ((0.7, 0.9), 0.8)]
    for axis, (ends, value) in zip(panels, expected, strict=True):
        whisker, marker = axis.lines[:2]
        assert tuple(whisker.get_xdata()) == ends
        assert list(marker.get_xdata()) == [value]
        assert [label.get_text() for label in axis.get_yticklabels()] == ["all", "I-II", "V-VI"]


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_what_cannot_be_said_leaves_its_place_empty(coverage_risk, nothing):
    coverage_risk["rows"][1] |= {"aurc": nothing, "low": nothing, "high": nothing}

    figure = draw_coverage_risk(coverage_risk)

    figure.draw_without_rendering()
    places = {float(line.get_ydata()[0]) for line in figure.axes[1].lines}
    assert places == {0, 2}
