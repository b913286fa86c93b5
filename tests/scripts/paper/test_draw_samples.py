import numpy as np
import pytest
from PIL import Image

from draw_samples import draw_samples
from fedd_hf.figures.overlays import LABELS, overlay


@pytest.fixture
def make_sample(tmp_path):
    """Write a photo and its map, and return their row."""

    def make(name, tone, label=1):
        photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        classes = np.full((16, 16), label, np.uint8)
        classes[:8] = 0
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
        Image.fromarray(classes).save(tmp_path / f"{name}_truth.png")
        paths = {"photo_path": f"{name}.png", "truth_path": f"{name}_truth.png"}
        return {"image_id": name, "skin_tone": tone} | paths

    return make


def test_each_tone_has_a_row_with_its_name(make_sample, tmp_path):
    samples = [make_sample(f"{tone}{n}", tone) for tone in ("I-II", "III-IV", "V-VI") for n in range(2)]

    figure = draw_samples(samples, tmp_path)

    assert [axis.get_ylabel() for axis in figure.axes] == ["I-II", "", "III-IV", "", "V-VI", ""]
    assert [axis.get_title() for axis in figure.axes] == [sample["image_id"] for sample in samples]


def test_the_true_map_lies_over_the_photo_and_the_background_stays_clear(make_sample, tmp_path):
    figure = draw_samples([make_sample("one", "I-II")], tmp_path)

    photo, truth = (Image.open(tmp_path / name) for name in ("one.png", "one_truth.png"))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal(shown, np.asarray(overlay(photo, np.array(truth), LABELS)))
    assert np.array_equal(shown[:8], np.asarray(photo)[:8])


def test_a_photo_of_unknown_tone_is_in_a_row_of_its_own(make_sample, tmp_path):
    figure = draw_samples([make_sample("a", "I-II"), make_sample("b", None)], tmp_path)

    assert [axis.get_ylabel() for axis in figure.axes] == ["I-II", "unknown"]


def test_without_a_sample_the_error_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="no sample to draw: give rows with `skin_tone`"):
        draw_samples([], tmp_path)
