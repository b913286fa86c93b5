import numpy as np
import pytest
from skimage.color import lab2rgb

from fedd_hf.data import contrast
from fedd_hf.data.contrast import lesion_contrast

LESION, SKIN = 1, 4


def two_colours(lesion, skin):
    """A photo whose left half is lesion and whose right half is skin, each of one colour."""
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[:, :3], photo[:, 3:] = lesion, skin
    return photo, np.repeat([[LESION] * 3 + [SKIN] * 3], 4, axis=0).astype(np.uint8)


def test_black_on_white_is_100():
    # L is 0 and 100, a and b are 0; at the mean L of 50 the lightness weight is 1, so the difference is that of L.
    assert lesion_contrast(*two_colours((0, 0, 0), (255, 255, 255))) == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("lab", "published"),
    [((73, 25, -18), 27.1492), ((61, -5, 29), 22.8977), ((56, -27, -3), 31.9030), ((58, 24, 15), 19.4535)],
    ids=str,
)
def test_pairs_of_colours_have_the_published_difference(lab, published):
    """Pairs 17 to 20 of table 1 of Sharma, Wu and Dalal (2005), dithered, since they lie between 8-bit colours."""
    rng = np.random.default_rng(0)
    areas = [lab2rgb(np.array(colour, float)) * 255 + rng.random((200, 200, 3)) for colour in ((50, 2.5, 0), lab)]
    mask = np.repeat([[LESION] * 200 + [SKIN] * 200], 200, axis=0)

    assert lesion_contrast(np.hstack(areas).astype(np.uint8), mask) == pytest.approx(published, abs=0.05)


def test_colours_are_averaged_in_lab_over_the_pixels_of_a_class():
    photo, mask = two_colours((0, 0, 0), (255, 255, 255))
    photo[:2, :3] = 255  # half of the lesion: its mean L is 50, whatever the mean grey

    # Mean L is 75: the weight of lightness is 1 + 0.015 * 25**2 / sqrt(20 + 25**2).
    expected = 50 / (1 + 0.015 * 625 / np.sqrt(645))
    assert lesion_contrast(photo, mask) == pytest.approx(expected, abs=1e-3)


def test_other_classes_and_pixels_that_do_not_count_are_left_out():
    photo, mask = two_colours((139, 85, 57), (230, 190, 166))
    expected = lesion_contrast(photo, mask)

    mask[0], photo[0] = [0, 2, 3, 255, 0, 2], 7

    assert lesion_contrast(photo, mask) == pytest.approx(expected)


@pytest.mark.parametrize("label", [LESION, SKIN, 0, 255])
def test_without_lesion_or_without_skin_there_is_no_contrast(label):
    photo, _ = two_colours((0, 0, 0), (255, 255, 255))

    assert np.isnan(lesion_contrast(photo, np.full(photo.shape[:2], label, np.uint8)))


def test_the_size_of_the_parts_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    photo, mask = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), rng.choice([LESION, SKIN], (20, 30))
    expected = lesion_contrast(photo, mask)

    monkeypatch.setattr(contrast, "_PIXELS_AT_ONCE", 7)

    assert lesion_contrast(photo, mask) == pytest.approx(expected)


def test_a_mask_of_another_size_is_refused():
    photo, mask = two_colours((0, 0, 0), (255, 255, 255))

    with pytest.raises(ValueError, match=r"of one size, got \(6, 4\) and \(4, 6\)"):
        lesion_contrast(photo, mask.T)
