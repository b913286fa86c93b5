import ast
import io
import json
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import label
from transformers import AutoImageProcessor
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_utils import ChannelDimension
from transformers.utils import TensorType

from fedd_hf import image_processing_fedd
from fedd_hf.image_processing_fedd import IGNORE_INDEX, LESION, MAX_PIXELS, FEDDImageProcessor, read_image

MODULE_PATH = image_processing_fedd.__file__


def paint_photo(height=90, width=120, seed=0):
    """Coarse random patches, uint8 of shape `(height, width, 3)`: edges to resize, and no photo of anybody."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    return coarse.repeat(6, axis=0).repeat(6, axis=1)[:height, :width]


def paint_map(height=90, width=120, seed=0):
    class_map = np.random.default_rng(seed).integers(0, 5, (height, width), dtype=np.uint8)
    class_map[:3, :3] = IGNORE_INDEX
    return class_map


def pixel_values_of(image, **kwargs):
    return FEDDImageProcessor(**kwargs)(image, return_tensors="pt")["pixel_values"]


def labels_of(class_map, image=None, **kwargs):
    image = paint_photo() if image is None else image
    return FEDDImageProcessor(**kwargs)(image, class_map, return_tensors="pt")["labels"]


def rgb_of(image, **kwargs):
    """Undo the scaling at the image's own size: uint8 of shape `(height, width, 3)`."""
    height, width = (image.height, image.width) if isinstance(image, Image.Image) else kwargs.pop("at")
    values = pixel_values_of(image, size={"height": height, "width": width}, **kwargs)[0]
    return np.rint((values.numpy() * 0.5 + 0.5) * 255).astype(np.uint8).transpose(1, 2, 0)


# Photos


def test_pixel_values_are_float32_of_the_default_size():
    values = pixel_values_of(Image.fromarray(paint_photo()))

    assert values.shape == (1, 3, 256, 256)
    assert values.dtype == torch.float32


def test_black_is_minus_one_and_white_is_one():
    assert pixel_values_of(Image.new("RGB", (9, 7), "black")).unique().tolist() == [-1.0]
    assert pixel_values_of(Image.new("RGB", (9, 7), "white")).unique().tolist() == [1.0]


@pytest.mark.parametrize("photo_size", [(500, 700), (256, 256), (33, 1000), (20, 31)])
def test_resize_is_the_antialiased_bilinear_filter_of_pil(photo_size):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*photo_size, 3), dtype=np.uint8))

    expected = np.asarray(photo.resize((64, 48), Image.Resampling.BILINEAR), np.float32) / 255 * 2 - 1
    actual = pixel_values_of(photo, size={"height": 48, "width": 64})[0].permute(1, 2, 0)

    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_shrinking_averages_instead_of_sampling():
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)

    values = pixel_values_of(Image.fromarray(checkerboard), size={"height": 32, "width": 32})

    assert values.abs().max() < 0.01  # grey; sampling would give black or white


@pytest.mark.parametrize("size", [64, {"height": 64, "width": 64}])
def test_an_integer_size_is_a_square(size):
    assert pixel_values_of(paint_photo(), size=size).shape == (1, 3, 64, 64)


def test_options_can_be_changed_for_one_call():
    processor = FEDDImageProcessor()

    once = processor(paint_photo(), size={"height": 40, "width": 24}, do_normalize=False, return_tensors="np")

    assert once["pixel_values"].shape == (1, 3, 40, 24)
    assert once["pixel_values"].min() >= 0
    assert processor(paint_photo(), return_tensors="np")["pixel_values"].shape == (1, 3, 256, 256)


@pytest.mark.parametrize("option", ["crop_size", "geometri", "preprocess"])
def test_unknown_options_are_refused(option):
    with pytest.raises(TypeError, match=option):
        FEDDImageProcessor()(paint_photo(), **{option: 1})
    with pytest.raises(TypeError, match=rf"takes the options \[.*'geometry', .*\], got also \['{option}'\]"):
        FEDDImageProcessor(**{option: 1})


FIXED = [
    ("do_convert_rgb", True, False),
    ("do_reduce_labels", False, True),
    ("do_center_crop", False, True),
    ("do_pad", False, True),
    ("data_format", "channels_first", "channels_last"),
    ("data_format", ChannelDimension.FIRST, ChannelDimension.LAST),
    ("device", "cpu", "cuda"),
    ("device", torch.device("cpu"), torch.device("cuda", 1)),
]


@pytest.mark.parametrize(("name", "only", "other"), FIXED)
def test_options_of_transformers_that_have_one_value_here(name, only, other):
    for harmless in (only, None):
        processor = FEDDImageProcessor(**{name: harmless})
        assert only in (getattr(processor, name), str(getattr(processor, name)))
        assert processor.to_dict() == FEDDImageProcessor().to_dict()
        assert name not in processor.to_dict()  # a part of the address of stored features
        values = processor(PHOTO, **{name: harmless}, return_tensors="pt")["pixel_values"]
        assert torch.equal(values, pixel_values_of(PHOTO))

    for refuse in (FEDDImageProcessor, lambda **option: FEDDImageProcessor()(PHOTO, **option)):
        with pytest.raises(ValueError, match=rf"^`{name}` can only be .*, got .*: .*\.$") as caught:
            refuse(**{name: other})
        assert "\n" not in str(caught.value)


def test_the_official_segmentation_example_finds_its_option():
    assert FEDDImageProcessor().do_reduce_labels is False


def test_result_is_a_batch_feature_as_pipelines_use_it():
    photo = Image.fromarray(paint_photo())
    processor = FEDDImageProcessor()

    segmentation = processor(images=[photo], return_tensors="pt")
    classification = processor(images=photo, return_tensors="pt")
    halved = processor(photo, paint_map(), return_tensors="pt").to(torch.bfloat16)

    assert torch.equal(segmentation["pixel_values"], classification.pixel_values)
    assert halved["pixel_values"].dtype == torch.bfloat16
    assert halved["labels"].dtype == torch.int64


PHOTO = paint_photo()
SAME_PHOTO = {
    "pil": Image.fromarray(PHOTO),
    "array_hwc": PHOTO,
    "array_chw": PHOTO.transpose(2, 0, 1),
    "array_uint16": PHOTO.astype(np.uint16) * 257,
    "array_int64": PHOTO.astype(np.int64),
    "array_float_255": PHOTO.astype(np.float32),
    "array_rgba": np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)]),
    "tensor_chw": torch.from_numpy(PHOTO).permute(2, 0, 1),
    "tensor_hwc": torch.from_numpy(PHOTO),
    "batch_of_one": PHOTO[None],
    "list": [PHOTO],
    "nested_list": [[Image.fromarray(PHOTO)]],
}


@pytest.mark.parametrize("kind", SAME_PHOTO)
def test_every_kind_of_input_gives_the_same_pixel_values(kind):
    assert torch.equal(pixel_values_of(SAME_PHOTO[kind]), pixel_values_of(SAME_PHOTO["pil"]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, torch.float32, torch.float64])
def test_float_photo_in_unit_range_equals_its_bytes(dtype):
    unit = torch.from_numpy(PHOTO / 255).to(dtype) if isinstance(dtype, torch.dtype) else (PHOTO / 255).astype(dtype)

    assert torch.equal(pixel_values_of(unit, do_rescale=False), pixel_values_of(PHOTO))


def test_bfloat16_tensors_are_read():
    values = pixel_values_of(torch.from_numpy(PHOTO / 255).to(torch.bfloat16), do_rescale=False)

    assert (values - pixel_values_of(PHOTO)).abs().max() < 0.02


def test_float_photo_of_zeros_and_ones_is_still_antialiased():
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)

    values = pixel_values_of(checkerboard, do_rescale=False, size={"height": 8, "width": 8})

    assert values.abs().max() < 0.02


@pytest.mark.parametrize("grey", [PHOTO[..., 0], PHOTO[..., :1], PHOTO[None, ..., 0], Image.fromarray(PHOTO[..., 0])])
def test_grey_photo_gives_three_equal_channels(grey):
    values = pixel_values_of(grey)

    assert torch.equal(values, pixel_values_of(PHOTO[..., :1].repeat(3, axis=2)))


def test_photos_of_mixed_kinds_and_sizes_make_one_batch(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    photos = [tmp_path / "photo.png", paint_photo(30, 50), Image.new("L", (300, 20)), torch.from_numpy(PHOTO)]

    values = pixel_values_of(photos)

    assert values.shape == (4, 3, 256, 256)
    assert torch.equal(values[0], values[3])


@pytest.mark.parametrize(
    ("image", "options", "error", "words"),
    [
        (PHOTO / 255, {}, ValueError, r"do_rescale=False"),
        (PHOTO, {"do_rescale": False}, ValueError, r"got uint8 in \[0, 255\]: leave `do_rescale=True`"),
        (PHOTO.astype(float), {"do_rescale": False}, ValueError, r"got float64 in \[0, 255\]"),
        (Image.new("RGB", (8, 8)), {"do_rescale": False}, ValueError, r"got a PIL image"),
        (PHOTO.astype(np.int32) - 10, {}, ValueError, r"must lie in .* got \[-10, 245\]"),
        (PHOTO.astype(np.int32) * 300, {}, ValueError, r"must lie in .* got \[0, 76500\]"),
        (np.full((8, 8, 3), np.nan), {}, ValueError, r"nan"),
        (PHOTO > 9, {}, TypeError, r"dtype bool"),
        (PHOTO.astype(object), {}, TypeError, r"dtype object"),
        (PHOTO[..., :2], {}, ValueError, r"1, 3 or 4 channels, got \(90, 120, 2\)"),
        (np.zeros(5, np.uint8), {}, ValueError, r"got \(5,\)"),
        ([np.zeros((2, 9, 9, 3), np.uint8)], {}, ValueError, r"got \(2, 9, 9, 3\)"),
        (np.zeros((3, 50, 4), np.uint8), {}, ValueError, r"`input_data_format` may be .*'channels_first'"),
        (PHOTO, {"input_data_format": "channels_first"}, ValueError, r"\(90, 120, 3\) as channels_first"),
        (PHOTO, {"input_data_format": "HWC"}, ValueError, r"as HWC"),
        (object(), {}, TypeError, r"got object"),
        (None, {}, TypeError, r"got NoneType"),
        ([], {}, ValueError, r"empty"),
        (Image.new("RGB", (1, 1)), {}, ValueError, r"at least 2 x 2 pixels, got 1 x 1"),
        (Image.new("RGB", (40, 1)), {}, ValueError, r"at least 2 x 2 pixels, got 1 x 40"),
        (np.zeros((1, 1, 3), np.uint8), {"input_data_format": "channels_last"}, ValueError, r"got 1 x 1"),
        (np.zeros((0, 9, 3), np.uint8), {}, ValueError, r"got 0 x 9"),
    ],
)
def test_bad_image_is_refused_in_one_clear_line(image, options, error, words):
    with pytest.raises(error, match=words) as caught:
        FEDDImageProcessor()(image, **options)

    assert "\n" not in str(caught.value)


def test_input_data_format_settles_an_ambiguous_shape():
    narrow = np.random.default_rng(0).integers(0, 256, (3, 50, 3), dtype=np.uint8)

    first = rgb_of(narrow, at=(50, 3), input_data_format="channels_first")
    last = rgb_of(narrow, at=(3, 50), input_data_format="channels_last")

    np.testing.assert_array_equal(first, narrow.transpose(1, 2, 0))
    np.testing.assert_array_equal(last, narrow)


# Colour modes


def save_and_open(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


GREY = PHOTO[..., 0]
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
PALETTE = Image.fromarray(PHOTO).quantize(16)
ALPHA = np.random.default_rng(5).integers(0, 256, GREY.shape, dtype=np.uint8)


def over_white(rgb, alpha):
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share))


MODES = {
    "RGB": (Image.fromarray(PHOTO), PHOTO),
    "L": (Image.fromarray(GREY), GREY_RGB),
    "1": (Image.fromarray(GREY > 128), (GREY_RGB > 128) * 255),
    "P": (PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "RGBA_opaque": (Image.fromarray(np.dstack([PHOTO, np.full_like(GREY, 255)])), PHOTO),
    "RGBA_transparent": (Image.fromarray(np.dstack([PHOTO, ALPHA])), over_white(PHOTO, ALPHA)),
    "LA": (Image.fromarray(np.dstack([GREY, ALPHA])), over_white(GREY_RGB, ALPHA)),
    "P_transparent": (
        save_and_open(PALETTE, transparency=3),
        over_white(np.asarray(PALETTE.convert("RGB")), np.where(np.asarray(PALETTE) == 3, 0, 255)),
    ),
    "L_transparent": (
        save_and_open(Image.fromarray(GREY), transparency=int(GREY[0, 0])),
        over_white(GREY_RGB, np.where(GREY[0, 0] == GREY, 0, 255)),
    ),
    "CMYK": (Image.merge("CMYK", [*Image.fromarray(255 - PHOTO).split(), Image.new("L", (120, 90))]), PHOTO),
    "YCbCr": (Image.fromarray(PHOTO).convert("YCbCr"), PHOTO),
    "HSV": (Image.fromarray(PHOTO).convert("HSV"), PHOTO),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY_RGB),
    "I;16B": (Image.frombytes("I;16B", (120, 90), (GREY.astype(">u2") * 257).tobytes()), GREY_RGB),
    "I_8_bit": (Image.fromarray(GREY.astype(np.int32)), GREY_RGB),
    "I_16_bit": (Image.fromarray(GREY.astype(np.int32) * 257), GREY_RGB),
    "F_unit": (Image.fromarray((GREY / 255).astype(np.float32)), GREY_RGB),
    "F_8_bit": (Image.fromarray(GREY.astype(np.float32)), GREY_RGB),
    "F_16_bit": (Image.fromarray(GREY.astype(np.float32) * 257), GREY_RGB),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_colour_mode_comes_out_as_rgb(mode):
    image, expected = MODES[mode]
    tolerance = {"YCbCr": 3, "HSV": 5, "LA": 1, "RGBA_transparent": 1}.get(mode, 0)  # PIL rounds in these

    actual = rgb_of(image)

    assert image.mode == mode.split("_")[0]
    np.testing.assert_allclose(actual.astype(int), expected, atol=tolerance)


def test_dark_16_bit_photo_stays_dark():
    dark = Image.fromarray(np.full((8, 8), 255, np.uint16))

    assert rgb_of(dark).max() == 1


def test_transparent_array_is_composited_as_the_same_pil_image():
    rgba = np.dstack([PHOTO, ALPHA])

    assert torch.equal(pixel_values_of(rgba), pixel_values_of(Image.fromarray(rgba)))
    assert torch.equal(pixel_values_of(rgba / 255, do_rescale=False), pixel_values_of(rgba))


def test_processing_leaves_the_caller_s_image_as_it_was():
    image, array = save_and_open(PALETTE, transparency=3), PHOTO.copy()

    FEDDImageProcessor()([image, array])

    assert (image.mode, image.info["transparency"]) == ("P", 3)
    np.testing.assert_array_equal(array, PHOTO)


LOSSLESS = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}

# EXIF orientation: what a camera that was turned would have stored for this scene
STORED = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: scene.transpose(1, 0, 2),
    6: lambda scene: scene.transpose(1, 0, 2)[::-1],
    7: lambda scene: scene.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda scene: scene.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_photo_is_turned_upright_by_its_exif_orientation(tmp_path, orientation, image_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{image_format.lower()}"
    stored = np.ascontiguousarray(STORED[orientation](PHOTO))
    Image.fromarray(stored).save(path, image_format, exif=exif, **LOSSLESS.get(image_format, {}))

    np.testing.assert_array_equal(np.asarray(read_image(path)), PHOTO)
    with Image.open(path) as opened:
        assert torch.equal(pixel_values_of(opened), pixel_values_of(PHOTO))


def test_turned_jpeg_has_the_size_of_the_upright_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.jpg", exif=exif)

    assert read_image(tmp_path / "photo.jpg").size == (20, 40)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_unknown_orientation_changes_nothing(value):
    image = Image.fromarray(PHOTO)
    image.getexif()[0x0112] = value

    assert torch.equal(pixel_values_of(image), pixel_values_of(PHOTO))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_cost_the_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Camera", 72.0
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    start = data.index(b"Exif") + 6
    flipper = random.Random(0)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[start + flipper.randrange(60)] ^= 1 << flipper.randrange(8)
        (tmp_path / "photo.jpg").write_bytes(damaged)
        assert sorted(read_image(tmp_path / "photo.jpg").size) == [20, 40]


# Maps


@pytest.mark.parametrize("kind", ["pil", "palette", "array", "int64", "tensor", "list", "batch", "I;16"])
def test_every_kind_of_map_gives_the_same_labels(kind):
    class_map = paint_map()
    palette = Image.fromarray(class_map)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    given = {
        "pil": Image.fromarray(class_map),
        "palette": palette,
        "array": class_map,
        "int64": class_map.astype(np.int64),
        "tensor": torch.from_numpy(class_map),
        "list": [class_map],
        "batch": class_map[None],
        "I;16": Image.fromarray(class_map.astype(np.uint16)),
    }[kind]

    labels = labels_of(given, size={"height": 90, "width": 120})

    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels[0], class_map)


@pytest.mark.parametrize("size", [(256, 256), (17, 31), (90, 120), (64, 200)])
@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
def test_resizing_a_map_invents_no_class(size, geometry):
    class_map = np.full((77, 131), 1, np.uint8)
    class_map[20:60, 40:90] = 4
    class_map[30:40, 50:60] = IGNORE_INDEX

    labels = labels_of(class_map, paint_photo(77, 131), geometry=geometry, size={"height": size[0], "width": size[1]})

    assert labels.shape == (1, *size)
    assert labels.unique().tolist() == [1, 4, IGNORE_INDEX]


def test_map_is_resized_by_nearest_neighbour():
    class_map = paint_map()

    expected = Image.fromarray(class_map).resize((64, 64), Image.Resampling.NEAREST)

    np.testing.assert_array_equal(labels_of(class_map, size=64)[0], np.asarray(expected))


def test_map_with_exif_orientation_turns_with_its_photo():
    photo, class_map = Image.fromarray(PHOTO), Image.fromarray(paint_map())
    for image in (photo, class_map):
        image.getexif()[0x0112] = 6

    batch = FEDDImageProcessor(size={"height": 120, "width": 90})(photo, class_map, return_tensors="np")

    np.testing.assert_array_equal(batch["labels"][0], np.rot90(paint_map(), -1))


def test_maps_must_match_the_upright_photo():
    photo = Image.fromarray(PHOTO)
    photo.getexif()[0x0112] = 6

    with pytest.raises(ValueError, match=r"\(120, 90\), got \(90, 120\)"):
        FEDDImageProcessor()(photo, paint_map())


def test_without_maps_there_are_no_labels():
    assert set(FEDDImageProcessor()(PHOTO)) == {"pixel_values"}


MAP = paint_map()
FOREIGN = np.where(MAP == 3, 9, MAP).astype(np.uint8)


@pytest.mark.parametrize(
    ("class_map", "error", "words"),
    [
        (MAP[:, :50], ValueError, r"segmentation_maps\[0\].*of its image, \(90, 120\), got \(90, 50\)"),
        (MAP.T, ValueError, r"\(90, 120\), got \(120, 90\)"),
        (MAP.astype(np.float32), TypeError, r"integer dtype, got float32"),
        (torch.from_numpy(MAP).float(), TypeError, r"integer dtype, got float32"),
        (Image.fromarray(MAP.astype(np.float32)), TypeError, r"integer dtype, got float32"),
        (FOREIGN, ValueError, r"class ids 0\.\.4 and 255, found also \[9\]"),
        (Image.fromarray(FOREIGN), ValueError, r"found also \[9\]"),
        (MAP.astype(np.int16) - 1, ValueError, r"found also \[-1, 254\]"),
        (MAP.astype(np.int64) + 1000, ValueError, r"found also \[1000, 1001"),
        (np.dstack([MAP] * 3), ValueError, r"shape \(height, width\), got \(90, 120, 3\)"),
        (Image.fromarray(np.dstack([MAP] * 3)), ValueError, r"got \(90, 120, 3\)"),
        ([MAP[None]], ValueError, r"got \(1, 90, 120\)"),
        (MAP[0], ValueError, r"got \(120,\)"),
        (MAP > 0, TypeError, r"got bool: convert the mask to class ids"),
        (Image.fromarray(MAP > 0), TypeError, r"got bool: convert the mask to class ids"),
        (torch.from_numpy(MAP) > 0, TypeError, r"got bool: convert the mask to class ids"),
        ([MAP, MAP], ValueError, r"one map per image: 1, got 2"),
        ([], ValueError, r"one map per image: 1, got 0"),
        ("map.png", TypeError, r"must be a PIL image, array or tensor, got str"),
        ([None], TypeError, r"got NoneType"),
    ],
)
def test_bad_map_is_refused_in_one_clear_line(class_map, error, words):
    with pytest.raises(error, match=words) as caught:
        FEDDImageProcessor()(PHOTO, class_map)

    assert "\n" not in str(caught.value)


def test_error_names_the_map_of_the_batch():
    with pytest.raises(ValueError, match=r"segmentation_maps\[2\]"):
        FEDDImageProcessor()([PHOTO] * 3, [MAP, MAP, FOREIGN])


def test_num_labels_decides_which_ids_are_allowed():
    assert 9 in labels_of(FOREIGN, num_labels=10)
    with pytest.raises(ValueError, match=r"0\.\.1 and 255, found also \[2, 3, 4\]"):
        labels_of(MAP, num_labels=2)


# Geometry


@pytest.mark.parametrize(("height", "width"), [(90, 120), (120, 90), (101, 64), (64, 101), (77, 77), (2, 500)])
def test_center_crop_sees_the_largest_centred_square(height, width):
    photo, class_map = paint_photo(height, width), paint_map(height, width)
    side, top, left = min(height, width), max(0, height - width) // 2, max(0, width - height) // 2
    square = np.s_[top : top + side, left : left + side]

    cropped = FEDDImageProcessor(geometry="center_crop")(photo, class_map, return_tensors="pt")
    squashed = FEDDImageProcessor()(photo[square], class_map[square], return_tensors="pt")

    assert torch.equal(cropped["pixel_values"], squashed["pixel_values"])
    assert torch.equal(cropped["labels"], squashed["labels"])


def test_squash_sees_the_whole_photo():
    photo = np.zeros((40, 200, 3), np.uint8)
    photo[:, :12] = photo[:, -12:] = 255

    values = pixel_values_of(photo, size=50)

    assert values[..., 0].min() == values[..., -1].min() == 1


def test_outside_share_is_what_the_geometry_leaves_out():
    crop = FEDDImageProcessor(geometry="center_crop")

    assert crop.outside_share((100, 400)) == 0.75
    assert crop.outside_share((300, 200)) == pytest.approx(1 / 3)
    assert crop.outside_share((70, 70)) == 0.0
    assert FEDDImageProcessor().outside_share((100, 400)) == 0.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"geometry": "pad"}, r"\['squash', 'center_crop'\], got 'pad'"),
        ({"size": {"shortest_edge": 256}}, r"'height'.*got \{'shortest_edge': 256\}"),
        ({"size": {"height": 0, "width": 256}}, r"got \{'height': 0"),
        ({"num_labels": 0}, r"1\.\.255, got 0"),
        ({"num_labels": 256}, r"1\.\.255, got 256"),
        ({"num_labels": "5"}, r"1\.\.255, got '5'"),
    ],
)
def test_impossible_processor_is_refused_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        FEDDImageProcessor(**options)


def test_geometry_cannot_change_for_one_call_because_maps_could_not_go_back():
    with pytest.raises(ValueError, match="belongs to the processor"):
        FEDDImageProcessor()(PHOTO, geometry="center_crop")


# Logits to maps


def outputs_of(logits, **others):
    return SimpleNamespace(logits=logits, **others)


def upsample(scores, size):
    return torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def photo_logits(seed, num_labels=5, height=16, width=12):
    """Logits of a blurred photo: several lesions of different sizes."""
    coarse = torch.randn(1, num_labels, height // 3, width // 3, generator=torch.Generator().manual_seed(seed))
    return upsample(3 * coarse, (height, width))


def one_hot(class_map, num_labels=5):
    return torch.nn.functional.one_hot(torch.as_tensor(class_map).long(), num_labels).permute(2, 0, 1).float()


def test_without_target_sizes_maps_have_the_size_of_the_logits():
    logits = torch.randn(2, 5, 24, 20)

    maps = FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(logits))

    assert [segmentation.dtype for segmentation in maps] == [torch.int64] * 2
    assert torch.equal(torch.stack(maps), logits.argmax(dim=1))


@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_maps_come_back_at_the_photos_own_odd_sizes(geometry, as_tensor):
    sizes = [(37, 53), (301, 199), (2, 3), (1, 7)]
    processor = FEDDImageProcessor(geometry=geometry)

    maps = processor.post_process_semantic_segmentation(
        outputs_of(torch.randn(4, 5, 16, 16)), target_sizes=torch.tensor(sizes) if as_tensor else sizes
    )

    assert [tuple(segmentation.shape) for segmentation in maps] == sizes
    assert {segmentation.dtype for segmentation in maps} == {torch.int64}


def test_logits_are_upsampled_before_the_argmax():
    logits = torch.randn(1, 5, 8, 8)

    (segmentation,) = FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(logits), [(40, 56)])

    upsampled = torch.nn.functional.interpolate(logits, size=(40, 56), mode="bilinear")
    assert torch.equal(segmentation, upsampled.argmax(dim=1)[0])
    assert not torch.equal(segmentation, logits.argmax(dim=1)[0].repeat_interleave(5, 0).repeat_interleave(7, 1))


def test_ties_go_to_the_smallest_class_id():
    (segmentation,) = FEDDImageProcessor().post_process_semantic_segmentation(
        outputs_of(torch.zeros(1, 5, 4, 4)), [(9, 9)]
    )

    assert segmentation.unique().tolist() == [0]


def test_half_precision_logits_with_gradient_are_accepted():
    logits = torch.randn(1, 5, 8, 8, dtype=torch.bfloat16, requires_grad=True)

    (segmentation,) = FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(logits), [(16, 16)])

    assert segmentation.numpy().shape == (16, 16)


@pytest.mark.parametrize(("height", "width"), [(64, 101), (101, 64), (64, 64)])
def test_center_crop_goes_back_to_its_place_with_background_around(height, width):
    side, top, left = 64, (height - 64) // 2, (width - 64) // 2
    processor = FEDDImageProcessor(geometry="center_crop", size=side)

    (segmentation,) = processor.post_process_semantic_segmentation(
        outputs_of(one_hot(np.full((side, side), 4))[None]), [(height, width)]
    )

    expected = np.zeros((height, width), int)
    expected[top : top + side, left : left + side] = 4
    np.testing.assert_array_equal(segmentation, expected)
    assert (segmentation == 0).float().mean().item() == pytest.approx(processor.outside_share((height, width)))


@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
def test_a_map_survives_the_way_there_and_back(geometry):
    class_map = np.zeros((120, 96), np.uint8)
    class_map[40:80, 30:70] = 1
    processor = FEDDImageProcessor(geometry=geometry)

    labels = processor(paint_photo(120, 96), class_map, return_tensors="pt")["labels"]
    (back,) = processor.post_process_semantic_segmentation(outputs_of(one_hot(labels[0])[None]), [(120, 96)])

    np.testing.assert_array_equal(back, class_map)


@pytest.mark.parametrize(
    ("target_sizes", "words"),
    [
        ([(8, 8)], r"one size per image: 2, got 1"),
        ([(8, 8)] * 3, r"one size per image: 2, got 3"),
        ((8, 8), r"\(height, width\) in pixels, got 8"),
        ([(8, 8), (8, 8, 3)], r"got \(8, 8, 3\)"),
        ([(8, 8), (0, 8)], r"got \(0, 8\)"),
    ],
)
def test_wrong_target_sizes_are_refused(target_sizes, words):
    with pytest.raises(ValueError, match=words):
        FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(torch.zeros(2, 5, 4, 4)), target_sizes)


@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
@pytest.mark.parametrize("target_sizes", [None, [(37, 53), (16, 12)]])
def test_where_there_are_votes_the_map_is_theirs(geometry, target_sizes):
    processor, logits = FEDDImageProcessor(geometry=geometry), torch.randn(2, 5, 16, 12)
    votes = torch.randint(0, 6, (2, 5, 16, 12)).to(torch.bfloat16)

    maps = processor.post_process_semantic_segmentation(outputs_of(logits, votes=votes), target_sizes)

    expected = processor.post_process_semantic_segmentation(outputs_of(votes), target_sizes)
    by_logits = processor.post_process_semantic_segmentation(outputs_of(logits, votes=None), target_sizes)
    for i in range(2):
        assert torch.equal(maps[i], expected[i])
        assert not torch.equal(maps[i], by_logits[i])


@pytest.mark.parametrize("target_sizes", [None, [(37, 53), (9, 4)]])
def test_scores_are_the_logits_at_the_size_of_the_map(target_sizes):
    logits, processor = torch.randn(2, 5, 16, 12), FEDDImageProcessor()

    results = processor.post_process_semantic_segmentation(outputs_of(logits), target_sizes, True)

    maps = processor.post_process_semantic_segmentation(outputs_of(logits), target_sizes)
    for i, size in enumerate(target_sizes or [(16, 12)] * 2):
        assert isinstance(results[i], SemanticSegmentationPostProcessorOutput)
        assert set(results[i]) == {"segmentation", "segmentation_scores"}
        assert torch.equal(results[i].segmentation, maps[i])
        assert torch.equal(results[i].segmentation_scores, upsample(logits[i : i + 1], size)[0])
        assert torch.equal(results[i].segmentation_scores.softmax(dim=0).argmax(dim=0), maps[i])


def test_scores_stay_those_of_the_logits_where_votes_make_the_map():
    logits, votes = torch.randn(1, 5, 8, 8), torch.randint(0, 6, (1, 5, 8, 8)).float()

    (result,) = FEDDImageProcessor().post_process_semantic_segmentation(
        outputs_of(logits, votes=votes), [(20, 20)], return_segmentation_scores=True
    )

    assert torch.equal(result.segmentation, upsample(votes, (20, 20)).argmax(dim=1)[0])
    assert torch.equal(result.segmentation_scores, upsample(logits, (20, 20))[0])


def test_outside_the_crop_background_is_certain():
    logits = torch.randn(1, 5, 8, 8)

    (result,) = FEDDImageProcessor(geometry="center_crop").post_process_semantic_segmentation(
        outputs_of(logits), [(30, 50)], return_segmentation_scores=True
    )

    probabilities = result.segmentation_scores.softmax(dim=0)
    assert torch.equal(result.segmentation_scores[..., 10:40], upsample(logits, (30, 30))[0])
    for outside in (probabilities[..., :10], probabilities[..., 40:]):
        assert outside[0].unique().tolist() == [1]
        assert outside[1:].unique().tolist() == [0]


# Lesions


def slowly_largest(mask):
    """The largest component by scikit-image, of equals the one that comes first."""
    components = label(mask, connectivity=2)
    largest = max(range(1, components.max() + 1), key=lambda i: (components == i).sum(), default=-1)
    return components == largest


def slowly_expected_dice(probabilities):
    """Every number of pixels is tried."""
    order, total = np.argsort(-probabilities.ravel(), kind="stable"), probabilities.sum()
    ranked = probabilities.ravel()[order]
    dice = [2 * ranked[:k].sum() / (k + total) for k in range(1, len(ranked) + 1)]
    mask = np.zeros(len(ranked), bool)
    mask[order[: int(np.argmax(dice)) + 1]] = True
    return mask.reshape(probabilities.shape)


def slowly_chosen(segmentation, scores, keep_largest_lesion, maximize_expected_dice):
    lesion = segmentation == LESION
    if maximize_expected_dice:
        exponents = np.exp(scores.astype(np.float64))
        lesion = slowly_expected_dice(exponents[LESION] / exponents.sum(axis=0))
    if keep_largest_lesion:
        lesion = slowly_largest(lesion)
    expected = segmentation.copy()
    for pixel in np.ndindex(segmentation.shape):
        if lesion[pixel]:
            expected[pixel] = LESION
        elif segmentation[pixel] == LESION:
            others = [i for i in range(len(scores)) if i != LESION]
            expected[pixel] = max(others, key=lambda i: scores[i][pixel])
    return expected


@pytest.mark.parametrize("keep_largest_lesion", [False, True])
@pytest.mark.parametrize("maximize_expected_dice", [False, True])
@pytest.mark.parametrize("num_labels", [2, 5])
@pytest.mark.parametrize("voting", [False, True])
@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
def test_chosen_lesion_equals_a_slow_version(
    keep_largest_lesion, maximize_expected_dice, num_labels, voting, geometry
):
    options = {"keep_largest_lesion": keep_largest_lesion, "maximize_expected_dice": maximize_expected_dice}
    processor, changed = FEDDImageProcessor(geometry=geometry), 0
    for seed in range(8):
        outputs = outputs_of(photo_logits(seed, num_labels))
        if voting:
            outputs.votes = torch.randint(0, 4, outputs.logits.shape, generator=torch.Generator().manual_seed(seed))
        (plain,) = processor.post_process_semantic_segmentation(outputs, [(31, 23)], True)

        (result,) = processor.post_process_semantic_segmentation(outputs, [(31, 23)], True, **options)

        assert torch.equal(result.segmentation_scores, plain.segmentation_scores)
        expected = slowly_chosen(plain.segmentation.numpy(), plain.segmentation_scores.numpy(), **options)
        np.testing.assert_array_equal(result.segmentation, expected)
        changed += not torch.equal(result.segmentation, plain.segmentation)
    assert bool(changed) == any(options.values())


def lesion_of(probabilities, **options):
    """The lesion of a two-class model of these lesion probabilities."""
    probabilities = torch.as_tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([1 - probabilities, probabilities]).log()[None]
    (segmentation,) = FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(logits), **options)
    return segmentation.tolist()


def test_lesions_that_touch_at_a_corner_are_one_and_of_equals_the_topmost_stays():
    mask = [[0, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]

    assert lesion_of(mask, keep_largest_lesion=True) == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5]


def test_a_photo_without_lesion_has_no_largest_one():
    assert lesion_of([[0.1, 0.2], [0.3, 0.4]], keep_largest_lesion=True) == [[0, 0], [0, 0]]


def test_expected_dice_finds_a_lesion_that_no_pixel_has_a_majority_for():
    probabilities = [
        [0.4, 0.3, 0.01],
        [0.0, 0.0, 0.0],
    ]  # 2 * .4 / 1.71 = .47, 2 * .7 / 2.71 = .52, 2 * .71 / 3.71 = .38

    assert lesion_of(probabilities) == [[0, 0, 0], [0, 0, 0]]
    assert lesion_of(probabilities, maximize_expected_dice=True) == [[1, 1, 0], [0, 0, 0]]


def test_equal_probabilities_are_lesion_together_and_zero_never_is():
    assert lesion_of(np.full((3, 3), 0.2), maximize_expected_dice=True) == [[1] * 3] * 3
    assert lesion_of(np.zeros((3, 3)), maximize_expected_dice=True) == [[0] * 3] * 3


@pytest.mark.parametrize("option", ["keep_largest_lesion", "maximize_expected_dice"])
def test_a_model_without_the_class_of_lesions_chooses_none(option):
    with pytest.raises(ValueError, match="class 1, takes logits of 2 classes, got 1"):
        FEDDImageProcessor().post_process_semantic_segmentation(outputs_of(torch.zeros(1, 1, 4, 4)), **{option: True})


def test_only_semantic_post_processing_is_offered_to_pipelines():
    assert not hasattr(FEDDImageProcessor, "post_process_panoptic_segmentation")
    assert not hasattr(FEDDImageProcessor, "post_process_instance_segmentation")


# Saving


def test_every_attribute_survives_saving(tmp_path):
    processor = FEDDImageProcessor(
        size={"height": 96, "width": 64},
        geometry="center_crop",
        num_labels=3,
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.2, 0.3],
    )
    processor.save_pretrained(tmp_path)

    reloaded = FEDDImageProcessor.from_pretrained(tmp_path)

    assert reloaded.to_dict() == processor.to_dict()
    assert (reloaded.geometry, reloaded.num_labels) == ("center_crop", 3)
    photo = paint_photo()
    assert torch.equal(
        reloaded(photo, return_tensors="pt")["pixel_values"], processor(photo, return_tensors="pt")["pixel_values"]
    )


@pytest.mark.parametrize(
    "options",
    [{name: value} for name, value, _ in FIXED]
    + [
        {"size": 8},
        {"resample": Image.Resampling.NEAREST, "do_resize": False},
        {"do_rescale": False, "do_normalize": False, "rescale_factor": 0.5},
        {"image_mean": (0.1, 0.2, 0.3), "image_std": 0.5},
        {"input_data_format": ChannelDimension.LAST, "return_tensors": TensorType.PYTORCH},
    ],
)
@pytest.mark.parametrize("reload", [FEDDImageProcessor.from_pretrained, AutoImageProcessor.from_pretrained])
def test_what_is_saved_is_read_back(tmp_path, options, reload):
    processor = FEDDImageProcessor(**options)
    (file,) = processor.save_pretrained(tmp_path)

    reloaded = reload(tmp_path)

    assert type(reloaded) is FEDDImageProcessor
    assert reloaded.to_json_string() == processor.to_json_string()
    assert FEDDImageProcessor.from_json_file(file).to_json_string() == processor.to_json_string()


def test_an_attribute_that_a_user_added_is_no_obstacle(tmp_path):
    processor = FEDDImageProcessor()
    processor.note = "mine"
    processor.save_pretrained(tmp_path)

    assert not hasattr(FEDDImageProcessor.from_pretrained(tmp_path), "note")


def edit_saved(folder, **fields):
    (file,) = FEDDImageProcessor().save_pretrained(folder)
    Path(file).write_text(json.dumps(json.loads(Path(file).read_text()) | fields))


@pytest.mark.parametrize("reload", [FEDDImageProcessor.from_pretrained, AutoImageProcessor.from_pretrained])
def test_unknown_fields_are_named_in_one_warning_and_dropped(tmp_path, caplog, reload):
    edit_saved(tmp_path, preprocess="stranger", tomorrow=1, feature_extractor_type="ViTFeatureExtractor")

    processor = reload(tmp_path)

    (record,) = [record for record in caplog.records if record.name == image_processing_fedd.__name__]
    assert record.levelname == "WARNING"
    assert "no fields ['feature_extractor_type', 'preprocess', 'tomorrow']" in record.message
    assert vars(processor).keys() - {"auto_map"} == vars(FEDDImageProcessor()).keys() | {"image_processor_type"}
    assert processor(PHOTO)["pixel_values"][0].shape == (3, 256, 256)


@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoImageProcessor": "stranger/code--image_processing_fedd.FEDDImageProcessor"},
        {"AutoImageProcessor": "image_processing_fedd.FEDDImageProcessor", "AutoProcessor": "a/b--c.D"},
        {"AutoImageProcessor": "../elsewhere.FEDDImageProcessor"},
        {"AutoImageProcessor": "FEDDImageProcessor"},
        {"AutoImageProcessor": [None, "a/b--c.D"]},
        {"AutoImageProcessor": None},
        "a/b--c.D",
        None,
    ],
)
def test_code_of_another_repository_is_refused(tmp_path, auto_map):
    edit_saved(tmp_path, auto_map=auto_map)

    with pytest.raises(
        ValueError, match=r"^`auto_map` may only name a 'module\.Class' of its own repository, got .*$"
    ):
        FEDDImageProcessor.from_pretrained(tmp_path)


def test_the_file_of_another_processor_is_refused(tmp_path):
    edit_saved(tmp_path, image_processor_type="ViTImageProcessor")

    with pytest.raises(ValueError, match="is of a 'ViTImageProcessor': open it with AutoImageProcessor"):
        FEDDImageProcessor.from_pretrained(tmp_path)


def test_a_subclass_opens_the_file_of_its_parent(tmp_path):
    class Mine(FEDDImageProcessor):
        pass

    edit_saved(tmp_path, geometry="center_crop", processor_class="FEDDProcessor")

    assert Mine.from_pretrained(tmp_path).geometry == "center_crop"


def test_attributes_can_be_changed_while_loading(tmp_path):
    FEDDImageProcessor().save_pretrained(tmp_path)

    assert FEDDImageProcessor.from_pretrained(tmp_path, geometry="center_crop").geometry == "center_crop"
    with pytest.raises(ValueError, match="geometry"):
        FEDDImageProcessor.from_pretrained(tmp_path, geometry="pad")


def test_two_processors_share_no_attribute():
    first, second = FEDDImageProcessor(), FEDDImageProcessor()
    first.size["height"] = 8

    assert second.size == {"height": 256, "width": 256}
    assert FEDDImageProcessor().size == {"height": 256, "width": 256}


# Remote code, and a computer without torchvision

CHILD = """
import sys
from pathlib import Path
sys.modules["torchvision"] = sys.modules["fedd_hf"] = None
import numpy as np
import torch
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available
assert not is_torchvision_available()
folder = Path(sys.argv[1])
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
given = np.load(folder / "given.npz")
batch = processor(given["photo"], given["class_map"], return_tensors="np")
(back,) = processor.post_process_semantic_segmentation(
    type("Outputs", (), {"logits": torch.from_numpy(given["logits"])}), [given["photo"].shape[:2]]
)
np.savez(folder / "found.npz", back=back.numpy(), **batch)
"""


def test_remote_code_without_torchvision_equals_the_package_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(FEDDImageProcessor, "_auto_class", "AutoImageProcessor")
    processor = FEDDImageProcessor(size=40, geometry="center_crop")
    processor.save_pretrained(tmp_path)
    photo, class_map, logits = paint_photo(101, 133), paint_map(101, 133), torch.randn(1, 5, 40, 40)
    np.savez(tmp_path / "given.npz", photo=photo, class_map=class_map, logits=logits.numpy())

    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert child.returncode == 0, child.stderr
    found = np.load(tmp_path / "found.npz")
    batch = processor(photo, class_map, return_tensors="np")
    (back,) = processor.post_process_semantic_segmentation(outputs_of(logits), [photo.shape[:2]])
    np.testing.assert_array_equal(found["pixel_values"], batch["pixel_values"])
    np.testing.assert_array_equal(found["labels"], batch["labels"])
    np.testing.assert_array_equal(found["back"], back)


def test_module_imports_only_what_remote_code_may_need():
    with open(MODULE_PATH, encoding="utf-8") as file:
        nodes = list(ast.walk(ast.parse(file.read())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    origins = [(node.level, node.module) for node in nodes if isinstance(node, ast.ImportFrom)]

    packages = {name.partition(".")[0] for name in plain + [module for _, module in origins]}

    assert all(level == 0 for level, _ in origins)
    assert packages - set(sys.stdlib_module_names) == {"numpy", "PIL", "scipy", "torch", "transformers"}


# Files


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP", "TIFF", "JPEG"])
def test_read_image_opens_the_formats_of_clinics(tmp_path, image_format):
    (tmp_path / "photo").write_bytes(encode(Image.fromarray(PHOTO), image_format, **LOSSLESS.get(image_format, {})))

    image = read_image(str(tmp_path / "photo"))

    assert (type(image), image.mode, image.size) == (Image.Image, "RGB", (120, 90))
    np.testing.assert_allclose(np.asarray(image, int), PHOTO, atol=6 if image_format == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["1", "P_transparent", "RGBA_transparent", "I;16", "CMYK", "F_unit"])
def test_read_image_converts_colours_as_the_processor_does(tmp_path, mode):
    image, _ = MODES[mode]
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "F_unit") else "photo.png")
    image.save(path)

    np.testing.assert_array_equal(np.asarray(read_image(path)), rgb_of(image))


def test_read_image_keeps_no_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "name of a patient"
    exif[0x0112] = 3
    Image.fromarray(PHOTO).save(tmp_path / "photo.jpg", exif=exif, comment="name of a patient", dpi=(72, 72))

    image = read_image(tmp_path / "photo.jpg")

    assert image.info == {}
    assert dict(image.getexif()) == {}
    assert b"patient" not in encode(image, "PNG")


def test_read_image_does_not_keep_the_file_open(tmp_path):
    (tmp_path / "photo.png").write_bytes(encode(Image.fromarray(PHOTO), "PNG"))
    image = read_image(tmp_path / "photo.png")

    (tmp_path / "photo.png").unlink()

    np.testing.assert_array_equal(np.asarray(image), PHOTO)


def test_first_page_of_a_stack_is_read(tmp_path):
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])

    assert read_image(tmp_path / "pages.tif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["missing.jpg", "folder"])
def test_missing_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()

    with pytest.raises(FileNotFoundError, match=name):
        read_image(tmp_path / name)


PNG = encode(Image.fromarray(PHOTO), "PNG")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not an image"),
        (b"lesion,skin_tone\n1,12\n", "JPEG, PNG, WEBP, BMP, TIFF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        (encode(Image.fromarray(PHOTO), "GIF"), "is not an image that can be read"),
        (encode(Image.fromarray(PHOTO), "PPM"), "is not an image that can be read"),
        (PNG[: len(PNG) // 2], "Cannot read"),
        (encode(Image.fromarray(PHOTO), "JPEG")[:-400], "Cannot read .*truncated"),
        (encode(Image.new("RGB", (1, 1)), "PNG"), "at least 2 x 2 pixels, got 1 x 1"),
        (png_that_claims(40_000, 40_000), "1600000000 pixels.* exceeds 100,000,000"),
        (png_that_claims(9_000, 12_000), "12000 x 9000 pixels.* exceeds 100,000,000"),
        (png_that_claims(2**31 - 1, 2**31 - 1), "exceeds 100,000,000"),
        (png_that_claims(0, 10), "photo.png"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_file_is_refused_in_one_clear_line_that_names_it(tmp_path, data, words):
    (tmp_path / "photo.png").write_bytes(data)

    with pytest.raises(ValueError, match=words) as caught:
        read_image(tmp_path / "photo.png")

    assert "photo.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (10_000, 10_001)])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(width, height))
    assert width * height > MAX_PIXELS

    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")
    duration_s = time.perf_counter() - start
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert duration_s < 0.5
    assert peak_bytes < 2_000_000


def test_a_user_without_pil_s_own_limit_is_still_protected(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png_that_claims(40_000, 40_000))

    with pytest.raises(ValueError, match=r"40000 x 40000 pixels.* exceeds 100,000,000"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_damaged_file_gives_an_image_or_a_value_error(tmp_path, image_format, mode):
    image = PALETTE if mode == "P" and image_format not in ("JPEG", "WEBP") else Image.fromarray(PHOTO)
    data = encode(image, image_format)
    flipper = random.Random(f"{image_format} {mode}")
    cuts = [data[: flipper.randrange(len(data))] for _ in range(30)]
    flips = [bytearray(data) for _ in range(60)]
    for flipped in flips:
        for _ in range(flipper.choice([1, 3, 10])):
            flipped[flipper.choice([flipper.randrange(len(data)), flipper.randrange(120)])] ^= 1 << flipper.randrange(
                8
            )

    for damaged in cuts + flips:
        (tmp_path / "photo").write_bytes(damaged)
        try:
            image = read_image(tmp_path / "photo")
        except ValueError as error:
            assert "photo" in str(error)  # noqa: PT017
        else:
            assert (image.mode, np.asarray(image).dtype) == ("RGB", np.uint8)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_read_image_takes_a_binary_stream(image_format):
    stream = io.BytesIO(encode(Image.fromarray(PHOTO), image_format))

    np.testing.assert_array_equal(np.asarray(read_image(stream, name="photo 7")), PHOTO)


def test_read_image_takes_an_open_file_and_leaves_it_open(tmp_path):
    (tmp_path / "photo.png").write_bytes(PNG)

    with (tmp_path / "photo.png").open("rb") as file:
        image = read_image(file)

        assert not file.closed
    np.testing.assert_array_equal(np.asarray(image), PHOTO)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "photo 7 is not an image that can be read; it must be JPEG, PNG, WEBP, BMP, TIFF."),
        (b"no picture", "photo 7 is not an image that can be read; it must be JPEG, PNG, WEBP, BMP, TIFF."),
        (PNG[: len(PNG) // 2], "Cannot read photo 7: "),
        (encode(Image.new("RGB", (1, 1)), "PNG"), "Cannot read photo 7: An image must have at least 2 x 2 pixels"),
        (png_that_claims(9_000, 12_000), "Cannot read photo 7: Image size (12000 x 9000 pixels) exceeds 100,000,000"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_stream_is_refused_by_the_name_that_it_is_given(data, message):
    with pytest.raises(ValueError, match="photo 7") as caught:
        read_image(io.BytesIO(data), name="photo 7")

    assert str(caught.value).startswith(message)


def test_a_name_stands_for_a_path_in_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no image file at photo 7\."):
        read_image(tmp_path / "missing.png", name="photo 7")


def test_processor_reads_paths_as_read_image_does(tmp_path):
    (tmp_path / "photo.png").write_bytes(PNG)
    (tmp_path / "text.png").write_text("not an image")

    assert torch.equal(pixel_values_of(str(tmp_path / "photo.png")), pixel_values_of(PHOTO))
    with pytest.raises(ValueError, match=r"text\.png is not an image"):
        pixel_values_of(tmp_path / "text.png")
