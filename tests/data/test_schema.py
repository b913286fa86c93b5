import pandas as pd
import pytest

from fedd_hf.data.masks import encode_png
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES, SPLITS, count_photos, make_dataset, refuse, tone_labels


def rows_of_tones(tones):
    return make_dataset(
        ({"image_id": f"{index}", "skin_tone": tone} for index, tone in enumerate(tones)), source="test"
    )


# Rows


def test_columns_that_a_source_lacks_are_null():
    (row,) = make_dataset([{"image_id": "a"}], source="clinic")

    assert row == dict.fromkeys(FEATURES) | {"image_id": "a", "source": "clinic"}


def test_a_row_may_name_another_source():
    (row,) = make_dataset([{"image_id": "a", "source": "elsewhere"}], source="clinic")

    assert row["source"] == "elsewhere"


def test_every_dataset_has_the_one_row_format():
    assert make_dataset([{"image_id": "a"}], source="clinic").features == FEATURES
    assert paint_dataset(num_per_tone=1, seed=0, size=32).features == FEATURES


def test_rows_may_come_one_at_a_time_and_stay_in_order():
    assert make_dataset(({"image_id": name} for name in "cab"), source="clinic")["image_id"] == ["c", "a", "b"]


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"^clinic has no photos to load\.$"):
        make_dataset([], source="clinic")


def test_an_id_that_occurs_twice_is_refused_once():
    with pytest.raises(ValueError, match="The rows of clinic are not usable") as caught:
        make_dataset([{"image_id": name} for name in "abaca"], source="clinic")

    assert str(caught.value).splitlines()[1:] == ["- `image_id` 'a' occurs twice"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_known_split_is_accepted(split):
    assert make_dataset([{"image_id": "a", "split": split}], source="clinic")["split"] == [split]


def test_unknown_splits_are_refused_with_the_known_ones():
    rows = [{"image_id": f"{index}", "split": split} for index, split in enumerate(["val", "train", None, "dev"])]

    with pytest.raises(ValueError, match="are not usable") as caught:
        make_dataset(rows, source="clinic")

    allowed = "`split` must be one of ['train', 'validation', 'test', 'large_test']"
    assert str(caught.value).splitlines()[1:] == [f"- {allowed}, got 'dev'", f"- {allowed}, got 'val'"]


# Refusals


def test_nothing_is_refused_where_there_are_no_problems():
    refuse("Nothing is wrong", [])


def test_every_problem_is_a_line_of_one_error():
    with pytest.raises(ValueError, match="wrong") as caught:
        refuse("Two things are wrong", ["this", "that"])

    assert str(caught.value) == "Two things are wrong:\n- this\n- that"


def test_twenty_problems_are_written_out():
    with pytest.raises(ValueError, match="wrong") as caught:
        refuse("Much is wrong", [f"problem {index}" for index in range(20)])

    assert str(caught.value).splitlines()[1:] == [f"- problem {index}" for index in range(20)]


def test_of_more_than_twenty_problems_the_others_are_counted():
    with pytest.raises(ValueError, match="wrong") as caught:
        refuse("Much is wrong", [f"problem {index}" for index in range(123)])

    assert str(caught.value).splitlines()[20:] == ["- problem 19", "- and 103 more"]


# Tones


def test_tone_labels_are_the_names_of_the_groups_and_none_where_no_tone_is_recorded():
    assert tone_labels(rows_of_tones([2, None, 0, 1])) == ["V-VI", None, "I-II", "III-IV"]


def test_tones_may_be_given_by_name():
    assert tone_labels(rows_of_tones(["I-II", None, "V-VI"])) == ["I-II", None, "V-VI"]


def test_an_unknown_tone_is_refused():
    with pytest.raises(ValueError, match="dark"):
        rows_of_tones(["dark"])


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


def test_chosen_rows_are_counted_and_no_others():
    painted = paint_dataset(num_per_tone=2, seed=0, size=32)

    counts = count_photos({"test": painted.select([2, 5])})

    assert counts[["skin_tone", "photos", "masks"]].values.tolist() == [["V-VI", 2, 2]]


def test_an_empty_split_counts_nothing():
    assert count_photos({"test": rows_of_tones([0]).select([])}).empty


def test_every_photo_is_malignant_benign_or_unlabelled():
    rows = [{"image_id": f"{index}", "malignant": value} for index, value in enumerate([True, False, None] * 7)]

    (counts,) = count_photos({"train": make_dataset(rows, source="test")}).to_dict("records")

    assert counts["photos"] == counts["malignant"] + counts["benign"] + counts["unlabelled"] == 21
    assert counts["malignant"] == counts["benign"] == counts["unlabelled"] == 7
