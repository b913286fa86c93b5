import zipfile

import numpy as np
import pytest

from fedd_hf.data.sources import collection
from fedd_hf.data.sources.collection import (
    Photo,
    collection_folder,
    make_collection,
    make_rows,
    photo_and_lesion,
    upright_size,
)
from fedd_hf.data.sources.tables import NO_ROW


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_turned_photo_is_that_of_the_decoded_upright_one(tmp_path, save_photo, orientation):
    path = save_photo(tmp_path / "a.jpg", orientation=orientation)

    assert upright_size(path) == np.asarray(collection_image(path)).shape[:2]


def collection_image(path):
    """Decode a photo as the `Image` feature of a dataset does."""
    row = {"image_id": path.stem, "image": str(path)}
    return make_collection([row], [], path.parent, source="test")[0]["image"]


def test_a_photo_that_is_too_large_is_refused_by_its_header(tmp_path, save_photo, monkeypatch):
    monkeypatch.setattr(collection, "MAX_PIXELS", 100)

    with pytest.raises(ValueError, match=r"a\.png has 9 x 12 pixels, more than 100"):
        upright_size(save_photo(tmp_path / "a.png"))


def test_a_mask_of_the_size_of_the_photo_as_it_is_stored_is_refused(tmp_path, save_photo, save_lesion):
    image = save_photo(tmp_path / "a.jpg", orientation=6)
    mask = save_lesion(tmp_path / "a.png", size=(12, 9))
    problems = []

    photo_and_lesion(Photo(image, mask, NO_ROW), problems)

    assert problems == [
        f"{mask} must be of the size of its upright photo, 12 x 9 (height x width), but is 9 x 12.",
    ]


def test_rows_and_problems_keep_the_order_of_the_photos(tmp_path):
    photos = [Photo(tmp_path / f"{index}.jpg", None, NO_ROW) for index in range(50)]
    problems = ["the table"]

    rows = make_rows(photo_and_lesion, photos, problems, "test")

    assert [row["image_id"] for row in rows] == [f"{index}" for index in range(50)]
    assert problems == ["the table", *(f"There is no image file at {photo.image}." for photo in photos)]


def test_two_photos_of_one_id_are_refused_with_their_names(tmp_path):
    rows = [{"image_id": "a", "image": "images/a.jpg"}, {"image_id": "a", "image": "images/a.png"}]

    with pytest.raises(ValueError, match=r"images/a\.png has the `image_id` 'a', as has images/a\.jpg"):
        make_collection(rows, [], tmp_path, source="test")


def test_a_zip_file_is_refused_with_the_remedy(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("metadata.csv", "image\n")

    with pytest.raises(ValueError, match=r"`root` must be a folder, but .*photos\.zip is a file\. Unzip it"):
        collection_folder(tmp_path / "photos.zip")
