import hashlib
from io import BytesIO

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fedd_hf.data import fingerprints
from fedd_hf.data.fingerprints import (
    MAX_COARSE_DISTANCE,
    MAX_FINE_DISTANCE,
    fingerprint_photos,
    hash_pixels,
    near_duplicates,
    perceptual_hash,
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


def test_photos_of_other_shape_with_the_same_bytes_have_other_checksums():
    assert hash_pixels(Image.new("RGB", (4, 2))) != hash_pixels(Image.new("RGB", (2, 4)))


def test_a_grey_photo_has_the_checksum_of_the_same_in_rgb():
    grey = Image.new("L", (4, 4), 77)

    assert hash_pixels(grey) == hash_pixels(grey.convert("RGB"))


def test_the_same_pixels_in_another_format_differ_as_files_only(photos):
    table = fingerprint_photos(dataset_of([encode(photos[0], "PNG"), encode(photos[0], "BMP")]))

    assert table["file"].nunique() == 2
    assert table["pixels"].nunique() == 1


def test_a_photo_turned_by_its_orientation_has_the_pixels_of_the_upright_one(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = photos[0].transpose(Image.Transpose.ROTATE_90)

    table = fingerprint_photos(dataset_of([encode(photos[0]), encode(lying, exif=exif)]))

    assert table["pixels"].nunique() == 1


def test_one_changed_pixel_changes_the_checksum(photos):
    changed = photos[0].copy()
    red, green, blue = changed.getpixel((5, 5))
    changed.putpixel((5, 5), (red ^ 1, green, blue))

    assert hash_pixels(changed) != hash_pixels(photos[0])


# The table


def test_each_photo_has_its_row_in_order(photos):
    rows = [
        {"image_id": name, "group_id": group, "image": {"bytes": encode(photo), "path": None}}
        for name, group, photo in zip("cab", ["P", None, "P"], photos, strict=False)
    ]

    table = fingerprint_photos(make_dataset(rows, source="test"))

    assert table.columns.tolist() == ["image_id", "group_id", "file", "pixels", "coarse", "fine"]
    assert table["image_id"].tolist() == ["c", "a", "b"]
    assert table["group_id"].fillna("none").tolist() == ["P", "none", "P"]
    assert table["file"].tolist() == [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows]
    assert table["pixels"].tolist() == [hash_pixels(photo) for photo in photos[:3]]


def test_photos_on_disk_have_the_fingerprints_of_embedded_ones(photos, tmp_path):
    (tmp_path / "photo.png").write_bytes(encode(photos[0]))
    on_disk = make_dataset([{"image_id": "0", "image": str(tmp_path / "photo.png")}], source="test")

    embedded = fingerprint_photos(dataset_of([photos[0]])).iloc[0]
    found = fingerprint_photos(on_disk).iloc[0]

    assert (found["file"], found["pixels"]) == (embedded["file"], embedded["pixels"])
    assert np.array_equal(found["fine"], embedded["fine"])


def test_a_missing_photo_is_named(photos, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photos[0]))
    dataset = make_dataset([{"image_id": "0", "image": str(path)}], source="test")
    path.unlink()

    with pytest.raises(FileNotFoundError, match=r"photo\.png"):
        fingerprint_photos(dataset)


def test_a_damaged_photo_on_disk_is_named_by_its_path(photos, tmp_path):
    (tmp_path / "photo.png").write_bytes(encode(photos[0])[:900])
    dataset = make_dataset([{"image_id": "0", "image": str(tmp_path / "photo.png")}], source="test")

    with pytest.raises(ValueError, match=r"Cannot read .*photo\.png"):
        fingerprint_photos(dataset)


def test_a_damaged_embedded_photo_is_named_by_its_id(photos):
    rows = [{"image_id": "photo-7", "image": {"bytes": encode(photos[0])[:900], "path": None}}]

    with pytest.raises(ValueError, match="Cannot read photo-7"):
        fingerprint_photos(make_dataset(rows, source="test"))


# Near-duplicates


@pytest.mark.parametrize("side", [8, 16])
def test_the_perceptual_hash_holds_the_bits_of_imagehash(photos, side):
    bits = np.unpackbits(perceptual_hash(photos[0], side))

    assert bits.reshape(side, side).tolist() == imagehash.phash(photos[0], hash_size=side).hash.tolist()


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


@pytest.mark.parametrize("chunk", [1024, 7, 1, 40])
def test_near_duplicates_are_those_of_a_double_loop(planted, monkeypatch, chunk):
    monkeypatch.setattr(fingerprints, "CHUNK", chunk)

    pairs = near_duplicates(fingerprint_photos(dataset_of(planted)))

    assert pairs == double_loop(planted)
    assert len(pairs) == 12


@pytest.mark.parametrize("chunk", [1024, 7, 1])
def test_random_hashes_near_both_limits_are_told_apart_as_in_a_double_loop(monkeypatch, chunk):
    monkeypatch.setattr(fingerprints, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    table = fingerprint_photos(dataset_of([Image.new("RGB", (8, 8))])).iloc[[0] * 40].reset_index(drop=True)
    bits = {
        name: rng.integers(0, 2, size).repeat(40).reshape(size, 40).T for name, size in (("coarse", 64), ("fine", 256))
    }
    for column, highest in (("coarse", 6), ("fine", 26)):
        for row in bits[column]:
            row[rng.choice(len(row), rng.integers(highest // 2, highest), replace=False)] ^= 1
        table[column] = list(np.packbits(bits[column], axis=1))

    pairs = near_duplicates(table)

    limits = {"coarse": MAX_COARSE_DISTANCE, "fine": MAX_FINE_DISTANCE}
    expected = [
        (first, second)
        for first in range(40)
        for second in range(first + 1, 40)
        if all(sum(bits[column][first] != bits[column][second]) <= limit for column, limit in limits.items())
    ]
    assert pairs == expected
    assert 100 < len(pairs) < 680


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


def test_one_photo_has_no_near_duplicate(photos):
    assert near_duplicates(fingerprint_photos(dataset_of(photos[:1]))) == []
