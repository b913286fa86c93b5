import pytest
from datasets import Dataset

from fedd_hf.data.schema import FEATURES, take_per_tone, tone_labels
from fedd_hf.data.synthetic import paint_dataset


def make_dataset(tones):
    rows = [
        {"image_id": f"{index}", "image": None, "mask": None, "skin_tone": tone, "malignant": False}
        for index, tone in enumerate(tones)
    ]
    return Dataset.from_list(rows, features=FEATURES)


def test_tone_labels_are_the_names_of_the_groups_and_none_where_no_tone_is_recorded():
    dataset = make_dataset([2, None, 0, 1])

    assert tone_labels(dataset) == ["V-VI", None, "I-II", "III-IV"]


def test_tones_may_be_given_by_name():
    assert tone_labels(make_dataset(["I-II", None, "V-VI"])) == ["I-II", None, "V-VI"]


def test_the_first_rows_of_each_tone_are_taken_in_their_order():
    dataset = make_dataset([2, 0, 1, 0, None, 2, 1, 0, 2, 1])

    taken = take_per_tone(dataset, 2)

    assert taken["image_id"] == ["0", "1", "2", "3", "5", "6"]


def test_a_smaller_choice_is_part_of_a_larger_one():
    dataset = make_dataset([0, 1, 2] * 4)

    smaller, larger = (take_per_tone(dataset, count)["image_id"] for count in (2, 3))

    assert set(smaller) < set(larger)


def test_a_group_that_does_not_occur_is_not_missed():
    assert take_per_tone(make_dataset([0, 0, 1, 1, None]), 2)["image_id"] == ["0", "1", "2", "3"]


def test_a_group_with_too_few_rows_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`num_per_tone` is 3, but tone V-VI has 2 rows"):
        take_per_tone(make_dataset([0, 0, 0, 1, 1, 1, 2, 2]), 3)


def test_the_painted_photos_are_of_the_one_row_format():
    assert paint_dataset(num_per_tone=1, seed=0, size=32).features == FEATURES
