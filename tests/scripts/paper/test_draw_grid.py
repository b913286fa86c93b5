import numpy as np
import pytest

from draw_grid import CHOICES, draw_grid

TIMESTEPS = (0, 50, 100)


def point(fraction, block, timestep, accuracy=0.6, **given):
    row = {"label_fraction": fraction, "photos": round(600 * fraction), "block": block, "timestep": timestep}
    return row | {"accuracy": accuracy, "accuracy_std": 0.05, "auroc": 0.9, "auroc_std": 0.01} | given


@pytest.fixture
def report():
    points = [
        point(fraction, block, timestep, 0.5 + block / 100 + timestep / 1000)
        for fraction in (0.05, 0.10, 0.15, 0.20)
        for block in (2, 4, 6)
        for timestep in TIMESTEPS
    ]
    chosen = {fraction: next(row for row in points if row["label_fraction"] == fraction) for fraction in (0.05, 0.10)}
    paper = [row for row in points if (row["block"], row["timestep"]) == (4, 50)]
    photos = {"test": [f"{number}" for number in range(30)]}
    return {"points": points, "best": list(chosen.values()), "paper": paper, "num_seeds": 3, "photos": photos}


def curves_of(axis):
    return {line.get_label(): line for line in axis.lines if line.get_label().startswith("block")}


def rings_of(axis):
    return {line.get_label(): line for line in axis.lines if line.get_label() in {c.label for c in CHOICES.values()}}


def test_each_label_fraction_has_a_panel_with_a_line_per_block(report):
    figure = draw_grid(report)

    assert len(figure.axes) == 4
    for axis, fraction in zip(figure.axes, (0.05, 0.10, 0.15, 0.20), strict=True):
        assert axis.get_title().startswith(f"{100 * fraction:.0f} % labelled, {600 * fraction:.0f} photos")
        curves = curves_of(axis)
        assert list(curves) == ["block 2", "block 4", "block 6"]
        for block in (2, 4, 6):
            values = [0.5 + block / 100 + timestep / 1000 for timestep in TIMESTEPS]
            assert curves[f"block {block}"].get_ydata().tolist() == values


def test_blocks_differ_by_colour_and_marker_and_stand_close_to_their_timestep(report):
    curves = curves_of(draw_grid(report).axes[0]).values()

    assert len({curve.get_color() for curve in curves}) == len({curve.get_marker() for curve in curves}) == 3
    for curve in curves:
        assert np.abs(curve.get_xdata() - TIMESTEPS).max() < 25  # half the way to the next timestep


def test_thin_bars_are_the_standard_deviation_over_seeds(report):
    axis = draw_grid(report).axes[0]

    first = axis.collections[0].get_segments()[0]
    assert first[:, 1].tolist() == pytest.approx([0.52 - 0.05, 0.52 + 0.05])


def test_the_chosen_points_are_marked_and_named(report):
    axis = draw_grid(report).axes[0]

    rings = rings_of(axis)
    assert list(rings["chosen on validation"].get_ydata()) == pytest.approx([0.52])
    assert list(rings["choice of the paper"].get_ydata()) == pytest.approx([0.59])
    assert len({ring.get_marker() for ring in rings.values()}) == 2
    assert axis.get_title().splitlines()[1:] == [
        "validation: block 2, t = 0 (0.52)",
        "paper: block 4, t = 50 (0.59)",
    ]


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_missing_values_and_spreads_leave_their_place_empty(report, nothing):
    report["points"][0] |= {"accuracy": nothing, "accuracy_std": nothing}
    report["points"][1] |= {"accuracy_std": nothing}

    figure = draw_grid(report | {"best": []})

    figure.draw_without_rendering()
    assert np.isnan(curves_of(figure.axes[0])["block 2"].get_ydata()).tolist() == [True, False, False]


def test_a_report_without_points_is_refused():
    with pytest.raises(ValueError, match="no `points`"):
        draw_grid({"points": []})
