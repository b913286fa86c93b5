import hashlib
from io import BytesIO

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fedd_hf.data import leakage
from fedd_hf.data.leakage import (
    MAX_COARSE_DISTANCE,
    MAX_FINE_DISTANCE,
    fingerprint_photos,
    hash_pixels,
    near_duplicates,
)
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import make_dataset


def encode(image, image_format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def decode(data):
    return Image.open(BytesIO(data)).convert("RGB")


ALTERATIONS = {
    "jpeg": lambda photo: decode(encode(photo, "JPEG", quality=50)),
    "shrunk": lambda photo: photo.resize((photo.width // 3, photo.height // 3), Image.Resampling.BILINEAR),
    "brighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.15),
}


def dataset_of(images):
    """Make rows of images, or of the bytes of their files."""
    encoded = [image if isinstance(image, bytes) else encode(image) for image in images]
    return make_dataset(
        ({"image_id": f"{index}", "image": {"bytes": data, "path": None}} for index, data in enumerate(encoded)),
        source="test",
    )


@pytest.fixture(scope="module")
def photos():
    """Sixty painted photos, none like another."""
    return [row["image"].convert("RGB") for row in paint_dataset(num_per_tone=20, seed=0, size=64)]


@pytest.fixture(scope="module")
def planted(photos):
    """Forty photos: twenty-eight painted, every other of the first twenty-four again and altered, far from it."""
    copies = [alter(photos[2 * index]) for index, alter in enumerate(list(ALTERATIONS.values()) * 4)]
    return photos[:28] + copies[::-1]


# Checksums


def test_the_checksum_of_pixels_is_that_of_the_size_and_the_rgb_bytes():
    photo = Image.new("RGB", (2, 1))
    photo.putdata([(1, 2, 3), (4, 5, 6)])

    assert hash_pixels(photo) == hashlib.sha256(b"2x1:" + bytes([1, 2, 3, 4, 5, 6])).hexdigest()


def test_a_photo_turned_by_its_orientation_has_the_pixels_of_the_upright_one(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = photos[0].transpose(Image.Transpose.ROTATE_90)

    table = fingerprint_photos(dataset_of([encode(photos[0]), encode(lying, exif=exif)]))

    assert table["pixels"].nunique() == 1


# The table


def test_a_damaged_photo_on_disk_is_named_by_its_path(photos, tmp_path):
    (tmp_path / "photo.png").write_bytes(encode(photos[0])[:900])
    dataset = make_dataset([{"image_id": "0", "image": str(tmp_path / "photo.png")}], source="test")

    with pytest.raises(ValueError, match=r"Cannot read .*photo\.png"):
        fingerprint_photos(dataset)


# Near-duplicates


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_photos_are_found(photos, alteration):
    altered = [ALTERATIONS[alteration](photo) for photo in photos]

    pairs = near_duplicates(fingerprint_photos(dataset_of(photos + altered)))

    assert pairs == [(index, index + len(photos)) for index in range(len(photos))]


def test_none_of_sixty_photos_is_taken_for_another(photos, record_property):
    table = fingerprint_photos(dataset_of(photos))
    coarse, fine = (
        min(
            imagehash.phash(first, side) - imagehash.phash(second, side)
            for index, first in enumerate(photos)
            for second in photos[:index]
        )
        for side in (8, 16)
    )
    record_property("nearest two of 60 painted photos, in bits of 64 and 256", (int(coarse), int(fine)))

    assert near_duplicates(table) == []
    assert coarse > MAX_COARSE_DISTANCE
    assert fine > MAX_FINE_DISTANCE


def double_loop(images):
    """Compare every two photos with the difference of imagehash itself."""
    coarse = [imagehash.phash(image, hash_size=8) for image in images]
    fine = [imagehash.phash(image, hash_size=16) for image in images]
    return [
        (first, second)
        for first in range(len(images))
        for second in range(first + 1, len(images))
        if coarse[first] - coarse[second] <= 8 and fine[first] - fine[second] <= 40
    ]


@pytest.mark.parametrize("chunk", [1024, 7])
def test_near_duplicates_are_those_of_a_double_loop(planted, monkeypatch, chunk):
    monkeypatch.setattr(leakage, "CHUNK", chunk)

    pairs = near_duplicates(fingerprint_photos(dataset_of(planted)))

    assert pairs == double_loop(planted)
    assert len(pairs) == 12


@pytest.mark.parametrize(("column", "limit"), [("coarse", MAX_COARSE_DISTANCE), ("fine", MAX_FINE_DISTANCE)])
def test_photos_at_the_limit_are_near_duplicates_and_beyond_it_not(column, limit):
    table = fingerprint_photos(dataset_of([Image.new("RGB", (8, 8))] * 3))
    for row, distance in ((1, limit), (2, limit + 1)):
        bits = np.unpackbits(table.loc[0, column])
        bits[-distance:] ^= 1
        table.at[row, column] = np.packbits(bits)

    pairs = near_duplicates(table)

    assert (0, 1) in pairs
    assert (0, 2) not in pairs
