import logging
from io import BytesIO

import pytest

from fedd_hf.data.leakage import COLUMNS, check_leakage, find_leakage
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import make_dataset


def encode(image, image_format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos():
    """Sixty painted photos, none like another."""
    return [row["image"].convert("RGB") for row in paint_dataset(num_per_tone=20, seed=5, size=48)]


def split_of(**photos):
    """Make a split of photos by their id: an image or the bytes of a file, alone or with the group of the photo."""
    rows = []
    for image_id, photo in photos.items():
        image, group_id = photo if isinstance(photo, tuple) else (photo, None)
        data = image if isinstance(image, bytes) else encode(image)
        rows.append({"image_id": image_id, "image": {"bytes": data, "path": None}, "group_id": group_id})
    return make_dataset(rows, source="test")


def leaks(splits):
    return [tuple(row) for row in find_leakage(splits).itertuples(index=False)]


def test_splits_that_share_nothing_pass(photos):
    splits = {"train": split_of(a=photos[0], b=photos[1]), "test": split_of(c=photos[2])}

    found = check_leakage(splits)

    assert found.empty
    assert found.columns.tolist() == COLUMNS == ["kind", "first", "first_split", "second", "second_split"]


def test_within_one_split_nothing_is_reported(photos):
    splits = {
        "train": split_of(a=(photos[0], "P1"), b=(photos[0], "P1"), c=(encode(photos[0], "BMP"), "P1")),
        "test": split_of(d=(photos[1], "P2"), e=(encode(photos[1], "JPEG", quality=50), "P2")),
    }

    assert leaks(splits) == []


def test_two_photos_are_reported_once_by_the_strongest_of_what_they_share(photos):
    png, bmp = encode(photos[0], "PNG"), encode(photos[0], "BMP")

    assert leaks({"train": split_of(a=(png, "P")), "test": split_of(b=(png, "P"))})[0][0] == "same file"
    assert leaks({"train": split_of(a=(png, "P")), "test": split_of(b=(bmp, "P"))}) == [
        ("same pixels", "a", "train", "b", "test")
    ]


def test_the_same_photo_in_three_splits_is_found_in_each(photos):
    splits = {name: split_of(**{f"in_{name}": photos[0]}) for name in ("train", "validation", "test")}

    found = find_leakage(splits)

    assert set(found["first"]) | set(found["second"]) == {"in_train", "in_validation", "in_test"}
    assert {("train", "validation"), ("train", "test")} <= set(
        zip(found["first_split"], found["second_split"], strict=True)
    )


@pytest.fixture
def leaking(photos):
    """Splits that share a file, the pixels of another, a near-duplicate and a patient."""
    return {
        "train": split_of(a=photos[0], b=photos[1], c=photos[2], d=(photos[3], "P")),
        "validation": split_of(e=photos[0], f=encode(photos[2], "JPEG", quality=50)),
        "test": split_of(g=encode(photos[1], "BMP"), h=(photos[4], "P"), i=photos[5]),
    }


LEAKS = [
    "same file: a (train) and e (validation)",
    "same pixels: b (train) and g (test)",
    "near-duplicate: c (train) and f (validation)",
    "same patient or lesion: d (train) and h (test)",
]


def test_everything_that_is_shared_is_in_one_error_with_both_photos_and_splits(leaking):
    with pytest.raises(ValueError, match="Splits share photos or patients") as caught:
        check_leakage(leaking)

    title, *lines = str(caught.value).splitlines()
    assert "`allow_leakage=True` (`--allow-leakage`)" in title
    assert lines == [f"- {leak}" for leak in LEAKS]


def test_allowed_leakage_is_logged_one_by_one_and_returned(leaking, caplog):
    with caplog.at_level(logging.WARNING, logger="fedd_hf.data.leakage"):
        found = check_leakage(leaking, allow_leakage=True)

    assert [record.getMessage() for record in caplog.records] == [f"Leakage allowed: {leak}" for leak in LEAKS]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert found["first"].tolist() == ["a", "b", "c", "d"]
