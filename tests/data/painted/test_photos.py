import numpy as np
import pytest
from scipy import ndimage

from fedd_hf.data.painted import paint_dataset, paint_mask, paint_photo
from fedd_hf.labels import SkinTone

BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)


def generator(*key):
    return np.random.default_rng(key)


def luminance(photo):
    return photo @ np.array([0.2126, 0.7152, 0.0722])


def isoperimetric_ratio(region):
    """4 pi area / perimeter^2 of the smoothed region: 1 for a disc, lower the more ragged. Perimeter by coarea."""
    smooth = ndimage.gaussian_filter(1.0 * region, 1.0)
    perimeter = np.hypot(*np.gradient(smooth)).sum()
    return 4.0 * np.pi * region.sum() / perimeter**2


@pytest.fixture(scope="module")
def masks():
    return [paint_mask(generator(11, index), size=128, malignant=bool(index % 2)) for index in range(300)]


@pytest.fixture(scope="module")
def shares(masks):
    return np.array([np.bincount(mask.ravel(), minlength=5) / mask.size for mask in masks])


@pytest.fixture(scope="module")
def dataset():
    return paint_dataset(num_per_tone=8, seed=7, size=64)


def encoded(dataset, column):
    return [row["bytes"] for row in dataset.data.column(column).to_pylist()]


def test_a_row_does_not_depend_on_how_many_are_painted(dataset):
    shorter = paint_dataset(num_per_tone=2, seed=7, size=64)

    assert encoded(shorter, "image") == encoded(dataset, "image")[:6]
    assert encoded(shorter, "mask") == encoded(dataset, "mask")[:6]
    assert shorter["malignant"] == dataset["malignant"][:6]


def test_photos_are_stored_without_loss():
    row = paint_dataset(num_per_tone=1, seed=3, size=64)[2]
    rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(2,)))

    mask = paint_mask(rng, 64, malignant=False)
    photo = paint_photo(mask, SkinTone.V_VI, False, rng)

    np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
    np.testing.assert_array_equal(np.asarray(row["image"]), photo)


@pytest.mark.parametrize(("malignant_fraction", "num_malignant"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_malignancy_is_balanced_within_each_tone(malignant_fraction, num_malignant):
    painted = paint_dataset(num_per_tone=8, seed=0, size=32, malignant_fraction=malignant_fraction)

    tones, malignant = np.array(painted["skin_tone"]), np.array(painted["malignant"])

    assert [malignant[tones == tone].sum() for tone in range(3)] == [num_malignant] * 3


def test_lesion_is_always_there_and_never_touches_the_border(masks):
    for mask in masks:
        rows, columns = np.nonzero(mask == LESION)
        assert set(np.unique(mask)) <= {BACKGROUND, LESION, MARKER, RULER, SKIN}
        assert len(rows) > 0
        assert min(rows.min(), columns.min()) > 0
        assert max(rows.max(), columns.max()) < 127


def test_class_shares_are_those_of_ddi(shares):
    ddi = [0.108, 0.015, 0.0044, 0.092, 0.780]
    tolerance = [0.03, 0.006, 0.0012, 0.02, 0.04]  # about three standard errors of the mean of 300 masks

    assert (np.abs(shares.mean(axis=0) - ddi) < tolerance).all()


def test_lesion_sizes_are_those_of_ddi(shares):
    p5, median, p95 = np.quantile(shares[:, LESION], [0.05, 0.5, 0.95])

    assert p5 == pytest.approx(0.0008, rel=0.4)
    assert median == pytest.approx(0.0061, rel=0.25)
    assert p95 == pytest.approx(0.071, rel=0.4)
    assert shares[:, LESION].max() < 0.32


def test_ruler_and_marker_are_as_frequent_as_in_ddi(shares):
    tolerance = 0.08  # three standard errors of a rate near 0.7 in 300 masks

    assert (shares[:, RULER] > 0).mean() == pytest.approx(22 / 30, abs=tolerance)
    assert (shares[:, MARKER] > 0).mean() == pytest.approx(21 / 30, abs=tolerance)


def test_malignant_lesions_are_less_regular_and_larger_but_overlap(masks, shares):
    regularity = np.array([isoperimetric_ratio(mask == LESION) for mask in masks])
    is_large_enough = shares[:, LESION] > 0.006
    benign, malignant = regularity[::2][is_large_enough[::2]], regularity[1::2][is_large_enough[1::2]]

    assert np.median(malignant) < np.median(benign) - 0.05
    assert malignant.max() > np.median(benign)
    assert np.median(shares[1::2, LESION]) > np.median(shares[::2, LESION])


def test_borders_of_the_photo_lie_on_the_borders_of_the_mask():
    mask = np.full((128, 128), SKIN, np.uint8)
    mask[:, 64:] = BACKGROUND
    jumps = []
    for index in range(12):
        photo = luminance(paint_photo(mask, SkinTone.III_IV, False, generator(6, index)))
        columns = np.median(photo, axis=0)
        jumps.append(np.abs(np.diff(columns)))

    assert np.argmax(np.mean(jumps, axis=0)) == 63


def test_median_skin_luminance_falls_from_tone_to_tone():
    medians = []
    for tone in SkinTone:
        photos = [
            (mask := paint_mask(generator(8, i), 64), paint_photo(mask, tone, False, generator(9, i)))
            for i in range(30)
        ]
        medians.append(np.median([np.median(luminance(photo)[mask == SKIN]) for mask, photo in photos]))

    assert medians[0] > medians[1] + 10
    assert medians[1] > medians[2] + 10


def test_lesions_differ_from_the_skin_around_them_in_every_tone():
    for tone in SkinTone:
        differences = []
        for index in range(20):
            mask = paint_mask(generator(10, index), 64)
            photo = paint_photo(mask, tone, bool(index % 2), generator(12, index)).astype(float)
            ring = ndimage.binary_dilation(mask == LESION, iterations=5) & (mask == SKIN)
            differences.append(np.abs(photo[mask == LESION].mean(axis=0) - photo[ring].mean(axis=0)).max())

        assert np.median(differences) > 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_per_tone": 0, "seed": 0}, "`num_per_tone` must be at least 1, got 0"),
        ({"num_per_tone": 1, "seed": -1}, "`seed` must not be negative, got -1"),
        ({"num_per_tone": 1, "seed": 0, "size": 16}, "`size` must be at least 32 pixels, got 16"),
        (
            {"num_per_tone": 1, "seed": 0, "malignant_fraction": 1.5},
            r"`malignant_fraction` must lie in \[0, 1\], got 1.5",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        paint_dataset(**arguments)


@pytest.mark.parametrize("mask", [np.full((64, 64), 5, np.uint8), np.zeros((64, 64, 3), np.uint8)])
def test_photo_of_something_that_is_no_class_map_is_refused(mask):
    with pytest.raises(ValueError, match=r"`mask` must be a map of class ids 0\.\.4"):
        paint_photo(mask, SkinTone.I_II, False, generator(0))
