"""Photos with marks painted over: what the painting does, and what the probe says of classifiers that are known."""

import json

import numpy as np
import pandas as pd
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from scipy import ndimage

import marker_probe
from fedd_hf import FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import make_dataset
from fedd_hf.evaluation.report import read_report
from fedd_hf.labels import SEGMENTATION_LABELS
from marker_probe import probe_markers, tabulate_shifts
from painting_over import choose_skin, paint_over, widen

BACKGROUND, LESION, MARKER, RULER, SKIN = range(len(SEGMENTATION_LABELS))
SKIN_COLOUR, BLUE, CLOTH_COLOUR = (200, 150, 120), (30, 30, 220), (10, 120, 10)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def draw(name, tone, with_marks=True, size=64):
    """Skin of one colour with a lesion and, if wanted, blue marks of 128 pixels."""
    mask = np.full((size, size), SKIN, np.uint8)
    mask[28:36, 28:36] = LESION
    pixels = np.full((size, size, 3), SKIN_COLOUR, np.uint8)
    pixels[mask == LESION] = (80, 40, 40)
    if with_marks:
        mask[4:12, 4:12], mask[50:58, 20:28] = MARKER, RULER
        pixels[(mask == MARKER) | (mask == RULER)] = BLUE
    image, labels = Image.fromarray(pixels), Image.fromarray(mask)
    return {"image_id": name, "image": image, "mask": labels, "skin_tone": tone, "malignant": False}


@pytest.fixture(scope="module")
def photos():
    """Four photos with marks of each tone, and one without."""
    rows = [draw(f"{tone}-{number}", tone) for tone in ("I-II", "III-IV", "V-VI") for number in range(4)]
    return make_dataset([*rows, draw("bare", "I-II", with_marks=False)], source="drawn")


@pytest.fixture
def run(classifier, tmp_path, accelerator, photos, monkeypatch):
    """Probe a classifier whose score of a photo is a function of its pixels."""
    scored = []

    def run(score=None, name="probe", photos=photos, allowed=None, seed=0):
        def score_photos(model, processor, images):
            if len(scored) == allowed:
                raise KeyboardInterrupt
            scored.append(len(images))
            return [score(np.asarray(image).astype(float)) for image in images]

        if score is not None:
            monkeypatch.setattr(marker_probe, "score_photos", score_photos)
        (tmp_path / name).mkdir(exist_ok=True)
        processor = FEDDImageProcessor(size=classifier.config.image_size)
        return probe_markers(classifier, processor, photos, tmp_path / name, accelerator, seed)

    run.scored = scored
    return run


def share_of_blue(pixels):
    return float((pixels[..., 2] > pixels[..., 0] + 50).mean())


def by_tone(report):
    return {row["skin_tone"]: row for row in report["rows"]}


def without_times(report):
    return {name: value for name, value in report.items() if name not in ("seconds", "machine")}


# --- painting over ---------------------------------------------------------------------------------------------------


def test_marks_become_the_skin_around_them_and_nothing_else_changes():
    row = draw("photo", "I-II")
    pixels, mask = np.asarray(row["image"]), np.asarray(row["mask"])
    marks = (mask == MARKER) | (mask == RULER)

    painted = paint_over(pixels, marks, [mask == SKIN])

    np.testing.assert_allclose(painted[marks], np.broadcast_to(SKIN_COLOUR, (128, 3)), atol=1)
    assert np.array_equal(painted[~marks], pixels[~marks])


def test_painted_skin_has_the_grain_of_the_skin():
    rng = np.random.default_rng(0)
    pixels = np.clip(150 + rng.normal(scale=12, size=(64, 64, 3)), 0, 255).astype(np.uint8)
    region = np.zeros((64, 64), dtype=bool)
    region[24:40, 24:40] = True

    painted = paint_over(pixels, region, [~region])

    grain = painted.astype(float) - ndimage.uniform_filter(painted.astype(float), (5, 5, 0))
    assert 0.7 < grain[region].std() / grain[~region].std() < 1.3


def test_the_rim_of_a_mark_is_painted_over_too_but_no_lesion():
    mask = np.full((64, 64), SKIN, np.uint8)
    mask[10:20, 10:20], mask[10:20, 20:30] = MARKER, LESION

    marks = widen(mask == MARKER, [mask == SKIN])

    assert marks[9, 15]
    assert not marks[8, 15]
    assert not marks[mask == LESION].any()


def test_the_control_has_as_many_pixels_all_of_skin():
    skin = np.zeros((64, 64), dtype=bool)
    skin[:, :40] = True

    chosen = choose_skin(skin, 200, np.random.default_rng(0))

    assert chosen.sum() == 200
    assert not chosen[~skin].any()
    assert choose_skin(skin, 10_000, np.random.default_rng(0)).sum() == skin.sum() // 2


# --- the probe -------------------------------------------------------------------------------------------------------


def test_a_classifier_that_reads_the_colour_of_marks_is_found_out(run):
    report = run(share_of_blue)

    blue = 128 / 64**2  # what is lost when all of it is painted over
    for tone, number in (("all", 12), ("I-II", 4), ("III-IV", 4), ("V-VI", 4)):
        row = by_tone(report)[tone]
        assert row["n"] == number
        assert row["shift"] == pytest.approx(-blue)
        assert row["mean_absolute_shift"] == pytest.approx(blue)
        assert row["control_shift"] == 0
        assert row["excess_mean_absolute_shift"] == pytest.approx(blue)
    assert report["left_out"] == 1


def test_a_classifier_that_reads_the_lesion_is_not_moved(run):
    report = run(lambda pixels: float(pixels[32, 32, 0] / 255))

    assert {row["shift"] for row in report["rows"]} == {0.0}
    assert {row["mean_absolute_shift"] for row in report["rows"]} == {0.0}


def test_shifts_by_tone_are_means_with_paired_intervals_and_p_values():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.8, size=40)
    up = rng.normal(0.1, 0.05, size=40)
    table = pd.DataFrame(
        {
            "image_id": [f"{number:02d}" for number in range(40)],
            "group_id": None,
            "skin_tone": ["I-II"] * 20 + ["V-VI"] * 20,
            "y_score": scores,
            "y_score_without": scores + np.where(np.arange(40) < 20, up, 0.0),
            "y_score_control": scores + rng.normal(0, 0.05, size=40),
        }
    )

    rows = {row["skin_tone"]: row for row in tabulate_shifts(table)}

    assert list(rows) == ["all", "I-II", "V-VI"]
    assert rows["I-II"]["shift"] == pytest.approx(up[:20].mean())
    assert rows["I-II"]["low"] < up[:20].mean() < rows["I-II"]["high"]
    assert rows["I-II"]["p_value"] < 0.001
    assert rows["I-II"]["mean_absolute_shift"] == pytest.approx(np.abs(up[:20]).mean())
    assert rows["I-II"]["control_p_value"] > 0.05
    assert rows["I-II"]["excess_mean_absolute_shift_p_value"] < 0.05
    assert rows["V-VI"]["shift"] == 0
    assert rows["all"]["shift"] == pytest.approx(up[:20].mean() / 2)


def test_a_real_classifier_is_probed_and_examples_are_written(run, tmp_path):
    report = run(photos=paint_dataset(5, seed=5, size=32))

    assert json.loads(json.dumps(report)) == report == read_report(tmp_path / "probe" / "report.json")
    assert report["rows"][0]["mean_absolute_shift"] > 0
    for row in report["examples"]:
        paths = [tmp_path / "probe" / row[f"{name}_path"] for name in ("photo", "without", "control")]
        versions = [np.asarray(Image.open(path)) for path in paths]
        assert {version.shape for version in versions} == {(32, 32, 3)}
        assert not np.array_equal(versions[0], versions[1])
        assert not np.array_equal(versions[0], versions[2])


def test_a_probe_that_was_killed_goes_on_with_the_next_photo(run):
    wanted = run(share_of_blue, "whole")
    run.scored.clear()
    with pytest.raises(KeyboardInterrupt):
        run(share_of_blue, "killed", allowed=5)

    report = run(share_of_blue, "killed")

    assert run.scored == [3] * 12  # three versions of each photo, once
    assert without_times(report) == without_times(wanted)
    run(share_of_blue, "killed", allowed=12)  # scores nothing more


def test_another_seed_or_model_is_probed_beside_what_is_there(run, classifier):
    run(share_of_blue)

    run(share_of_blue, seed=1)
    classifier.classifier[0].bias.data += 1
    run(share_of_blue)

    assert run.scored == [3] * 3 * 12


def test_photos_without_marks_cannot_be_probed(run):
    bare = make_dataset([draw("bare", "I-II", with_marks=False)], source="drawn")

    with pytest.raises(ValueError, match="None of 1 photos"):
        run(share_of_blue, photos=bare)
