import pytest

from fedd_hf.figures.reliability import draw_reliability


def calibration_row(tone, n=40, **given):
    row = {"skin_tone": tone, "n": n, "ece": 0.1, "low": 0.05, "high": 0.2, "temperature": 1.3}
    scaled = {"ece_with_temperature": 0.04, "ece_with_temperature_low": 0.02, "ece_with_temperature_high": 0.09}
    return row | scaled | given


def bin_row(tone, confidence, accuracy, count):
    return {"skin_tone": tone, "confidence": confidence, "accuracy": accuracy, "count": count}


@pytest.fixture
def calibration():
    curve = [bin_row("all", 0.55, 0.5, 30), bin_row("all", 0.95, 0.9, 10), bin_row("V-VI", 0.95, 1.0, 5)]
    return {"rows": [calibration_row("all"), calibration_row("V-VI", 5)], "curve": curve}


def of_photos(calibration):
    return calibration | {"rows": [row | {"brier": 0.2} for row in calibration["rows"]]}


def test_each_group_has_a_curve_above_the_shares_of_its_decisions(calibration):
    curves, shares = draw_reliability(calibration).axes[:2], draw_reliability(calibration).axes[2:]

    assert [axis.lines[1].get_xydata().tolist() for axis in curves] == [[[0.55, 0.5], [0.95, 0.9]], [[0.95, 1.0]]]
    assert [[bar.get_height() for bar in axis.patches] for axis in shares] == [[0.75, 0.25], [1.0]]
    assert all(axis.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]] for axis in curves)


def test_titles_say_group_photos_and_errors_with_intervals(calibration):
    titles = [axis.get_title() for axis in draw_reliability(calibration).axes]

    assert titles[0] == "all, n = 40\nECE 0.100 [0.050, 0.200]\nscaled 0.040 [0.020, 0.090]"
    assert titles[1].startswith("V-VI, n = 5\n")


def test_bins_of_photos_have_wilson_intervals(calibration):
    axis = draw_reliability(of_photos(calibration)).axes[0]

    low, high = axis.collections[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.3315, 0.6685), abs=1e-4)  # 15 of 30


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_without_validation_photos_nothing_is_said_of_a_temperature(calibration, nothing):
    names = ("temperature", "ece_with_temperature", "ece_with_temperature_low", "ece_with_temperature_high")
    rows = [row | dict.fromkeys(names, nothing) for row in calibration["rows"]]

    figure = draw_reliability(calibration | {"rows": rows})

    assert "scaled" not in figure.axes[0].get_title()
    assert "temperature" not in figure.get_supxlabel()


@pytest.mark.parametrize("has_scores", [False, True])
def test_a_group_without_decisions_keeps_its_panel(has_scores):
    rows = [calibration_row("I-II", ece=None, low=None, high=None)]
    calibration = {"rows": rows, "curve": []}

    figure = draw_reliability(of_photos(calibration) if has_scores else calibration)

    figure.draw_without_rendering()
    assert figure.axes[0].get_title().startswith("I-II, n = 40\nscaled")
