import io
import logging

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from scipy import ndimage

from composite_photos import linear_rgb_to_lab, measure_classes, paint_composite, paint_over
from fedd_hf.data.masks import encode_png
from fedd_hf.data.painted.layout import paint_surroundings
from fedd_hf.data.painted.textures import lab_to_linear_rgb
from fedd_hf.data.schema import FEATURES, make_dataset

BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)
SIZE = 96
SHADOW = 5  # pixels: 9 at 256, rounded up, and one for the slant


def generator(*key):
    return np.random.default_rng(key)


def skin_photo(brightness=1.0, size=SIZE):
    """Noise in the colour of skin, so that any change of a pixel shows."""
    photo = np.array([205, 160, 135]) * brightness + generator(1).normal(0, 6, (size, size, 3))
    return np.clip(photo, 0, 255).astype(np.uint8)


def disc(radius, centre=(0.5, 0.5), size=SIZE):
    y, x = np.mgrid[:size, :size] / size
    return np.where(np.hypot(y - centre[0], x - centre[1]) < radius, LESION, SKIN).astype(np.uint8)


def jpeg(photo):
    """A JPEG that says who took it where, as phones do."""
    exif = Image.Exif()
    exif[0x010F], exif[0x9286] = "Maker of a phone", "name of a patient"
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", exif=exif, quality=95)
    return {"bytes": buffer.getvalue(), "path": None}


def photo_row(name, mask, **fields):
    photo = jpeg(skin_photo(size=80)[:64])
    return {"image_id": name, "image": photo, "mask": None if mask is None else encode_png(mask), **fields}


@pytest.fixture(scope="module")
def composites():
    """Forty photos painted over: (map, difference to the photo per pixel)."""
    photo, mask = skin_photo(), disc(0.15)
    painted = [paint_over(photo, mask, generator(2, index)) for index in range(40)]
    return [(classes, np.abs(image.astype(int) - photo).max(axis=-1)) for image, classes in painted]


@pytest.fixture
def photos():
    """Three rows with a lesion in the upper left quarter of an oblong photo, and one without a mask."""
    mask = np.full((64, 80), SKIN, np.uint8)
    mask[8:32, 8:40] = LESION
    known = {"skin_tone": "III-IV", "malignant": True, "disease": "BCC", "group_id": "PAT_1", "split": "test"}
    rows = [photo_row("a", mask, **known), photo_row("b", mask), photo_row("c", None), photo_row("d", mask)]
    return make_dataset(rows, source="pad-ufes-20")


def encoded(dataset, column):
    return [row["bytes"] for row in dataset.data.column(column).to_pylist()]


def test_lab_is_the_inverse_of_linear_rgb():
    levels = np.linspace(0.0, 1.2, 15)
    linear_rgb = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(15, -1, 3)

    np.testing.assert_allclose(lab_to_linear_rgb(linear_rgb_to_lab(linear_rgb)), linear_rgb, atol=1e-12)


def test_the_lesion_keeps_every_pixel_and_its_place(composites):
    lesion = disc(0.15) == LESION

    for classes, difference in composites:
        np.testing.assert_array_equal(classes == LESION, lesion)
        assert not difference[lesion].any()


def test_skin_changes_only_beside_what_is_painted(composites):
    for classes, difference in composites:
        border = ndimage.distance_transform_edt(np.isin(classes, (LESION, SKIN)))
        shadow = ndimage.distance_transform_edt(~np.isin(classes, (BACKGROUND, RULER)))
        is_beside = border < 2.0 * np.sqrt(2.0) + 0.1
        if np.isin(classes, (BACKGROUND, RULER)).any():
            is_beside |= shadow <= SHADOW
        assert not difference[(classes == SKIN) & ~is_beside].any()


def test_what_the_mask_names_is_painted(composites):
    for label in (BACKGROUND, MARKER, RULER):
        changes = [difference[classes == label] for classes, difference in composites if (classes == label).any()]
        assert len(changes) > 15
        assert np.mean(np.concatenate(changes) > 10) > 0.9


def test_ruler_marks_and_cloth_are_as_frequent_as_in_ddi():
    lesion = disc(0.08) == LESION
    maps = [paint_surroundings(generator(3, index), lesion) for index in range(200)]
    rates = [np.mean([(classes == label).any() for classes in maps]) for label in (MARKER, RULER)]

    assert rates == pytest.approx([21 / 30, 22 / 30], abs=0.1)  # three standard errors


@pytest.mark.parametrize(
    "mask",
    [disc(0.4, (0.0, 0.0)), disc(0.6), disc(0.45, (0.5, 1.0)), disc(0.02, (0.02, 0.5)), disc(0.45) * 1],
    ids=["corner", "all but the corners", "right half", "a dot at the border", "cropped tight"],
)
def test_any_place_and_size_of_a_lesion_is_painted_around(mask):
    photo = skin_photo()

    for index in range(6):
        image, classes = paint_over(photo, mask, generator(5, index))

        np.testing.assert_array_equal(classes == LESION, mask == LESION)
        np.testing.assert_array_equal(image[mask == LESION], photo[mask == LESION])


def test_rulers_and_cloth_are_darker_in_darker_photos():
    medians = []
    for brightness in (0.35, 0.7, 1.0):
        painted = [paint_over(skin_photo(brightness), disc(0.1), generator(7, index)) for index in range(12)]
        pixels = [image[np.isin(classes, (BACKGROUND, RULER))] for image, classes in painted]
        medians.append(np.median(np.concatenate(pixels)))

    assert medians[0] + 20 < medians[1] < medians[2] - 10


def test_skin_beside_a_ruler_lies_in_its_shadow():
    photo, mask = skin_photo(size=192), disc(0.15, size=192)
    changes = []
    for index in range(8):
        image, classes = paint_over(photo, mask, generator(12, index))
        distance = ndimage.distance_transform_edt(classes != RULER)
        is_beside = (classes == SKIN) & (distance > 3.0) & (distance < 4.0)
        if (classes == RULER).any() and is_beside.any():
            changes.append((image.astype(float) - photo)[is_beside].mean())

    assert len(changes) > 2
    assert max(changes) <= 0.0
    assert np.mean(changes) < -1.0


@pytest.mark.parametrize(
    ("photo", "mask", "message"),
    [
        (skin_photo()[:64], disc(0.1), r"must be uint8 of shape \(size, size, 3\)"),
        (skin_photo() / 255.0, disc(0.1), "got float64"),
        (skin_photo(size=16), disc(0.1, size=16), "`size` must be at least 32 pixels, got 16"),
        (skin_photo(), np.full((SIZE, SIZE), SKIN, np.uint8), r"must hold 1 lesion and 4 skin only, got \[4\]"),
        (skin_photo(), np.where(disc(0.1) == LESION, LESION, 255), "got .*255"),
    ],
    ids=["oblong", "floats", "tiny", "no lesion", "other classes"],
)
def test_what_is_no_photo_with_a_lesion_is_refused(photo, mask, message):
    with pytest.raises(ValueError, match=message):
        paint_over(photo, mask, generator(9))


def test_rows_have_the_one_row_format_and_keep_what_is_known_of_them(photos):
    composite = paint_composite(photos, size=64)

    assert composite.features == FEATURES
    changed = {"image", "mask", "source"}
    kept = [name for name in FEATURES if name not in changed]
    assert composite.select_columns(kept).to_list() == photos.select([0, 1, 3]).select_columns(kept).to_list()
    assert set(composite["source"]) == {"composite-pad-ufes-20"}


def test_rows_without_a_lesion_mask_are_left_out_and_counted(photos, caplog):
    no_lesion = make_dataset([photo_row("e", np.full((64, 80), SKIN, np.uint8))], source="pad-ufes-20").to_list()
    both = Dataset.from_list(photos.to_list() + no_lesion, features=FEATURES)

    with caplog.at_level(logging.INFO):
        composite = paint_composite(both, size=64)

    assert composite["image_id"] == ["a", "b", "d"]
    assert "2 of 5 photos have no lesion mask and are left out." in caplog.text


def test_photo_and_mask_are_squashed_to_a_square(photos):
    row, photo = paint_composite(photos, size=64)[0], photos[0]["image"]

    mask = np.asarray(row["mask"])
    lesion = np.zeros((64, 64), bool)
    lesion[8:32, 6:32] = True  # columns 8 to 40 of 80
    np.testing.assert_array_equal(mask == LESION, lesion)
    squashed = np.asarray(photo.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(row["image"])[lesion], squashed[lesion])


def test_same_seed_gives_the_same_bytes_and_another_seed_others(photos):
    first, again, other = (paint_composite(photos, seed=seed, size=64) for seed in (3, 3, 4))

    for column in ("image", "mask"):
        assert encoded(first, column) == encoded(again, column)
        assert set(encoded(first, column)).isdisjoint(encoded(other, column))


def test_stored_images_are_png_without_metadata(photos):
    composite = paint_composite(photos, size=64)

    for data in encoded(composite, "image") + encoded(composite, "mask"):
        image = Image.open(io.BytesIO(data))
        image.load()
        assert (image.format, dict(image.getexif()), image.info) == ("PNG", {}, {})
        assert b"patient" not in data


def test_a_dataset_without_any_lesion_mask_is_refused(photos):
    with pytest.raises(ValueError, match="composite has no photos to load"):
        paint_composite(photos.select([2]))


def test_classes_are_measured_by_pixels_and_photos():
    maps = [np.full((2, 4), SKIN, np.uint8), np.full((2, 4), LESION, np.uint8)]
    maps[0][0] = [BACKGROUND, BACKGROUND, BACKGROUND, RULER]
    rows = [photo_row(str(index), mask) for index, mask in enumerate(maps)]

    table = measure_classes({"train": make_dataset(rows, "drawn"), "test": make_dataset(rows[1:], "drawn")})

    assert table["split"].tolist() == ["train"] * 5 + ["test"] * 5
    assert table["pixel_class"].tolist() == ["background", "lesion", "marker", "ruler", "skin"] * 2
    assert table["pixel_share"].tolist() == [3 / 16, 8 / 16, 0, 1 / 16, 4 / 16, 0, 1, 0, 0, 0]
    assert table["photos"].tolist() == [1, 1, 0, 1, 1, 0, 1, 0, 0, 0]
