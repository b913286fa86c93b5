import hashlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fedd_hf.data.masks import check_class_ids, encode_png, hash_mask, read_class_mask, read_lesion_mask

IDS = np.array([[0, 1, 2], [3, 4, 255]], dtype=np.uint8)


def save(pixels, path, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **options)
    return path


def grey(*levels):
    return np.array([levels], dtype=np.uint8)


# Maps of class ids


def test_a_png_of_class_ids_is_read_as_it_is(tmp_path):
    ids = read_class_mask(save(IDS, tmp_path / "mask.png"))

    assert ids.dtype == np.uint8
    assert ids.tolist() == IDS.tolist()


def test_of_a_palette_image_the_ids_are_read_and_not_the_colours(tmp_path):
    palette = Image.fromarray(IDS)
    palette = Image.frombytes("P", palette.size, palette.tobytes())
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())

    assert read_class_mask(save(palette, tmp_path / "mask.png")).tolist() == IDS.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_an_array_of_any_integers_becomes_uint8(tmp_path, dtype):
    np.save(tmp_path / "mask.npy", IDS.astype(dtype))

    ids = read_class_mask(tmp_path / "mask.npy")

    assert ids.dtype == np.uint8
    assert ids.tolist() == IDS.tolist()


def test_foreign_ids_are_named_with_the_allowed_ones(tmp_path):
    path = save(grey(0, 1, 5, 128, 255), tmp_path / "mask.png")

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_class_mask(path)

    assert str(caught.value) == (
        f"{path} may hold the class ids 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin and 255, "
        "found also [5, 128]."
    )


@pytest.mark.parametrize("foreign", [-1, 256, 257, 1000])
def test_an_id_that_would_wrap_around_in_a_byte_is_refused(foreign):
    with pytest.raises(ValueError, match=rf"found also \[{foreign}\]"):
        check_class_ids(np.array([[0, foreign]]), "mask")


# Lesion masks


def test_white_is_lesion_and_all_else_skin(tmp_path):
    ids = read_lesion_mask(save(grey(0, 255, 0), tmp_path / "mask.png"))

    assert ids.dtype == np.uint8
    assert ids.tolist() == [[4, 1, 4]]


def test_blurred_borders_are_cut_at_the_middle(tmp_path):
    pixels = np.zeros((10, 20), np.uint8)
    pixels[:, 10:] = 255
    pixels[0, 9:11] = 127, 128

    ids = read_lesion_mask(save(pixels, tmp_path / "mask.png"))

    assert ids[0, 9:11].tolist() == [4, 1]


@pytest.mark.parametrize(("num_grey", "is_refused"), [(5, False), (6, True)])
def test_more_than_five_percent_of_grey_is_a_picture_and_no_mask(tmp_path, num_grey, is_refused):
    path = save(grey(*[128] * num_grey, *[0] * (100 - num_grey)), tmp_path / "mask.png")

    if is_refused:
        with pytest.raises(ValueError, match=r"mask\.png must be black and white, 0 and 255, but is a picture"):
            read_lesion_mask(path)
    else:
        assert np.bincount(read_lesion_mask(path)[0]).tolist() == [0, num_grey, 0, 0, 100 - num_grey]


def test_a_lesion_mask_of_zeros_and_ones_is_refused_instead_of_being_all_skin(tmp_path):
    with pytest.raises(ValueError, match=r"mask\.png must be black and white, 0 and 255, but its highest value is 1"):
        read_lesion_mask(save(grey(0, 1, 1), tmp_path / "mask.png"))


# Files


@pytest.mark.parametrize("read", [read_class_mask, read_lesion_mask])
def test_a_missing_mask_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"There is no mask file at .*nowhere\.png"):
        read(tmp_path / "nowhere.png")


@pytest.mark.parametrize("read", [read_class_mask, read_lesion_mask])
@pytest.mark.parametrize(
    ("name", "data"),
    [("mask.png", b""), ("mask.png", b"no picture"), ("mask.npy", b""), ("mask.npy", b"no array")],
)
def test_a_file_that_is_no_mask_is_named(tmp_path, read, name, data):
    (tmp_path / name).write_bytes(data)

    with pytest.raises(ValueError, match=rf"Cannot read the mask .*{name}: ."):
        read(tmp_path / name)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([print], dtype=object), allow_pickle=True)

    with pytest.raises(ValueError, match=r"Cannot read the mask .*mask\.npy: .*allow_pickle=False"):
        read_class_mask(tmp_path / "mask.npy")


# Encoding


def test_metadata_of_an_image_is_not_encoded(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "name of a patient"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "name of a patient")
    icc = b"profile of a patient"
    save(IDS, tmp_path / "photo.png", exif=exif, pnginfo=text, icc_profile=icc, dpi=(72, 72))

    with Image.open(tmp_path / "photo.png") as image:
        cell = encode_png(image)

    assert cell["bytes"] == encode_png(IDS)["bytes"]


# Checksums


def test_the_checksum_is_that_of_the_bytes_row_by_row():
    assert hash_mask(IDS) == hashlib.sha256(bytes([0, 1, 2, 3, 4, 255])).hexdigest()


def test_a_lesion_mask_of_16_bits_is_refused(tmp_path):
    Image.fromarray(np.full((6, 8), 65535, dtype=np.uint16)).save(tmp_path / "mask.png")

    with pytest.raises(ValueError, match=r"mask\.png must be a black and white image, got uint16"):
        read_lesion_mask(tmp_path / "mask.png")
