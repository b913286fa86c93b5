import pandas as pd
import pytest

from fedd_hf.data.masks import encode_png
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES, count_photos, make_dataset, refuse, tone_labels


def rows_of_tones(tones):
    return make_dataset(
        ({"image_id": f"{index}", "skin_tone": tone} for index, tone in enumerate(tones)), source="test"
    )


# Rows


def test_columns_that_a_source_lacks_are_null():
    (row,) = make_dataset([{"image_id": "a"}], source="clinic")

    assert row == dict.fromkeys(FEATURES) | {"image_id": "a", "source": "clinic"}


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"^clinic has no photos to load\.$"):
        make_dataset([], source="clinic")


def test_an_id_that_occurs_twice_is_refused_once():
    with pytest.raises(ValueError, match="The rows of clinic are not usable") as caught:
        make_dataset([{"image_id": name} for name in "abaca"], source="clinic")

    assert str(caught.value).splitlines()[1:] == ["- `image_id` 'a' occurs twice"]


def test_unknown_splits_are_refused_with_the_known_ones():
    rows = [{"image_id": f"{index}", "split": split} for index, split in enumerate(["val", "train", None, "dev"])]

    with pytest.raises(ValueError, match="are not usable") as caught:
        make_dataset(rows, source="clinic")

    allowed = "`split` must be one of ['train', 'validation', 'test', 'large_test']"
    assert str(caught.value).splitlines()[1:] == [f"- {allowed}, got 'dev'", f"- {allowed}, got 'val'"]


# Refusals


def test_of_more_than_twenty_problems_the_others_are_counted():
    with pytest.raises(ValueError, match="wrong") as caught:
        refuse("Much is wrong", [f"problem {index}" for index in range(123)])

    assert str(caught.value).splitlines()[20:] == ["- problem 19", "- and 103 more"]


# Tones


def test_tone_labels_are_the_names_of_the_groups_and_none_where_no_tone_is_recorded():
    assert tone_labels(rows_of_tones([2, None, 0, 1])) == ["V-VI", None, "I-II", "III-IV"]


# Counts


def test_photos_are_counted_by_split_and_tone_and_what_is_unknown_as_well():
    mask = encode_png(paint_dataset(num_per_tone=1, seed=0, size=32)[0]["mask"])
    train = make_dataset(
        [
            {"image_id": "a", "skin_tone": "V-VI", "malignant": True, "mask": mask},
            {"image_id": "b", "skin_tone": "V-VI", "malignant": False, "mask": mask},
            {"image_id": "c", "skin_tone": "V-VI", "malignant": None},
            {"image_id": "d", "skin_tone": "I-II", "malignant": True},
            {"image_id": "e", "skin_tone": None, "malignant": False},
        ],
        source="test",
    )
    test = make_dataset([{"image_id": "f", "skin_tone": "III-IV", "mask": mask}], source="test")

    counts = count_photos({"train": train, "test": test})

    expected = pd.DataFrame(
        [
            ("train", "I-II", 1, 0, 1, 0, 0),
            ("train", "V-VI", 3, 2, 1, 1, 1),
            ("train", "unknown", 1, 0, 0, 1, 0),
            ("test", "III-IV", 1, 1, 0, 0, 1),
        ],
        columns=["split", "skin_tone", "photos", "masks", "malignant", "benign", "unlabelled"],
    )
    pd.testing.assert_frame_equal(counts, expected)
