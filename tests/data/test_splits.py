import hashlib
import math
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedd_hf.data.leakage import find_leakage
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES, make_dataset, tone_labels
from fedd_hf.data.splits import (
    draw_nested,
    keep_photos,
    rank_photos,
    select_label_fraction,
    select_photos,
    select_skin_tones,
    split_photos,
)
from fedd_hf.labels import SkinTone

TONES = ["I-II", "III-IV", "V-VI", None]


def encode(image, image_format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def rows_of_tones(**counts):
    """Make rows without photos, by turns of each tone; the keyword `unknown` counts those without one."""
    tones = {"light": "I-II", "medium": "III-IV", "dark": "V-VI", "unknown": None}
    left = {tones[name]: count for name, count in counts.items()}
    rows = []
    while any(left.values()):
        for tone in [tone for tone, count in left.items() if count]:
            left[tone] -= 1
            rows.append({"image_id": f"photo-{len(rows)}", "skin_tone": tone})
    return make_dataset(rows, source="test")


# The order


def test_the_order_of_photos_is_fixed_for_ever():
    names = ["a", "b", "c", "d", "e", "f"]

    assert rank_photos(names, seed=0) == ["f", "c", "b", "e", "d", "a"]
    assert rank_photos(names, seed=1) == ["d", "e", "f", "a", "b", "c"]


def test_the_order_is_that_of_the_hashes_of_seed_and_name():
    names = [f"photo-{index}" for index in range(200)]
    hashes = {hashlib.new("sha256", b"%d/%s" % (7, name.encode())).digest(): name for name in names}

    assert rank_photos(names, seed=7) == [hashes[digest] for digest in sorted(hashes)]


def test_the_order_does_not_depend_on_the_order_given():
    names = [f"photo-{index}" for index in range(50)]

    assert rank_photos(reversed(names), seed=3) == rank_photos(names, seed=3)


# Nested choices

STRATA = {f"photo-{index}": TONES[index % 3] for index in range(36)}


def test_a_smaller_choice_is_part_of_a_larger_one_for_a_thousand_seeds():
    sizes = [{"I-II": size, "III-IV": size, "V-VI": size} for size in (1, 2, 5, 12)]

    for seed in range(1000):
        choices = [draw_nested(STRATA, size, seed) for size in sizes]

        assert all(smaller < larger for smaller, larger in zip(choices, choices[1:], strict=False)), seed


def test_every_stratum_gets_its_number_for_a_thousand_seeds():
    numbers = {"I-II": 4, "III-IV": 1, "V-VI": 7}

    for seed in range(1000):
        assert Counter(STRATA[name] for name in draw_nested(STRATA, numbers, seed)) == numbers, seed


def test_every_photo_of_a_stratum_is_drawn_about_as_often_as_another():
    drawn = Counter(name for seed in range(1000) for name in draw_nested(STRATA, {"I-II": 3}, seed))

    assert len(drawn) == 12
    assert all(abs(count - 250) < 4.5 * math.sqrt(1000 * 0.25 * 0.75) for count in drawn.values())


def test_the_choice_does_not_depend_on_the_order_of_the_photos():
    backwards = dict(reversed(STRATA.items()))
    numbers = {"I-II": 5, "V-VI": 2}

    assert draw_nested(backwards, numbers, seed=0) == draw_nested(STRATA, dict(reversed(numbers.items())), seed=0)


def test_other_photos_of_a_stratum_change_nothing_elsewhere():
    more = STRATA | {f"more-{index}": "V-VI" for index in range(20)}
    numbers = {"I-II": 5, "III-IV": 5}

    assert draw_nested(more, numbers, seed=2) == draw_nested(STRATA, numbers, seed=2)


def test_a_stratum_that_is_not_asked_for_is_not_drawn():
    assert {STRATA[name] for name in draw_nested(STRATA, {"V-VI": 3}, seed=0)} == {"V-VI"}


def test_a_stratum_with_too_few_photos_is_refused_by_name():
    with pytest.raises(ValueError, match=r"13 photos of V-VI are to be drawn, but there are 12\."):
        draw_nested(STRATA, {"I-II": 2, "V-VI": 13}, seed=0)


# Label fractions


def test_a_smaller_label_fraction_is_part_of_a_larger_one_for_a_hundred_seeds():
    dataset = rows_of_tones(light=40, medium=20, dark=10, unknown=3)

    for seed in range(100):
        choices = [set(select_label_fraction(dataset, fraction, seed)["image_id"]) for fraction in (0.05, 0.1, 0.2)]

        assert all(smaller < larger for smaller, larger in zip(choices, choices[1:], strict=False)), seed


@pytest.mark.parametrize(
    ("label_fraction", "counts"),
    [
        (0.05, [2, 1, 1, 1]),  # of 40, 20, 10 and 3: 2, 1, 0.5 and 0.15, rounded up
        (0.1, [4, 2, 1, 1]),
        (0.15, [6, 3, 2, 1]),
        (0.2, [8, 4, 2, 1]),
        (0.5, [20, 10, 5, 2]),
        (1.0, [40, 20, 10, 3]),
    ],
)
def test_every_tone_keeps_its_share_rounded_up(label_fraction, counts):
    dataset = rows_of_tones(light=40, medium=20, dark=10, unknown=3)

    for seed in range(20):
        kept = Counter(tone_labels(select_label_fraction(dataset, label_fraction, seed)))

        assert [kept[tone] for tone in TONES] == counts, seed


@pytest.mark.parametrize("size", [10, 20, 50, 100, 300])
@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 56, 57, 58])
def test_a_whole_number_of_photos_is_not_rounded_up_by_an_error_of_floats(size, percent):
    kept = select_label_fraction(rows_of_tones(light=size), percent / 100)

    assert len(kept) == -(-percent * size // 100)


# Numbers of photos


@pytest.mark.parametrize("number", [1, 7, 30, 73])
def test_of_a_number_of_photos_every_stratum_has_its_share(number):
    dataset = rows_of_tones(light=40, medium=20, dark=10, unknown=3)

    for seed in range(20):
        kept = select_photos(dataset, number, tone_labels(dataset), seed)

        counts = Counter(tone_labels(kept))
        assert len(kept) == number
        assert all(abs(counts[tone] - number * size / 73) <= 1 for tone, size in Counter(tone_labels(dataset)).items())


def test_a_smaller_number_of_photos_is_part_of_a_larger_one():
    dataset = rows_of_tones(light=40, medium=20, dark=10, unknown=3)

    for seed in range(20):
        chosen = [set(select_photos(dataset, n, tone_labels(dataset), seed)["image_id"]) for n in (10, 11, 30, 60)]

        assert all(smaller < larger for smaller, larger in zip(chosen, chosen[1:], strict=False)), seed


@pytest.mark.parametrize("number", [0, 11])
def test_a_number_of_photos_that_there_are_not_is_refused(number):
    dataset = rows_of_tones(light=10)

    with pytest.raises(ValueError, match=rf"`number` must lie in \[1, 10\], .* got {number}"):
        select_photos(dataset, number, tone_labels(dataset))


def test_kept_rows_are_whole_and_in_their_order():
    dataset = rows_of_tones(light=10, dark=10)

    kept = select_label_fraction(dataset, 0.3, seed=1)

    positions = [dataset["image_id"].index(name) for name in kept["image_id"]]
    assert positions == sorted(positions)
    assert kept.features == FEATURES
    assert kept[0] == dataset[positions[0]]


def test_another_seed_chooses_other_photos():
    dataset = rows_of_tones(light=30, dark=30)

    assert len({tuple(select_label_fraction(dataset, 0.2, seed)["image_id"]) for seed in range(20)}) == 20


@pytest.mark.parametrize("label_fraction", [0.0, -0.1, 1.01, 5, float("nan")])
def test_a_label_fraction_outside_its_range_is_refused(label_fraction):
    with pytest.raises(ValueError, match=rf"`label_fraction` must lie in \(0, 1\], got {label_fraction}"):
        select_label_fraction(rows_of_tones(light=4), label_fraction)


# Tones and names


@pytest.mark.parametrize("wanted", [["V-VI"], [SkinTone.V_VI]])
def test_photos_of_one_tone_are_kept(wanted):
    kept = select_skin_tones(rows_of_tones(light=2, dark=2, unknown=1), wanted)

    assert tone_labels(kept) == ["V-VI", "V-VI"]


def test_photos_of_two_tones_are_kept_in_their_order():
    kept = select_skin_tones(rows_of_tones(light=2, medium=2, dark=2), ["V-VI", SkinTone.I_II])

    assert tone_labels(kept) == ["I-II", "V-VI", "I-II", "V-VI"]


@pytest.mark.parametrize("tone", ["dark", "56", "v-vi"])
def test_an_unknown_tone_is_refused_with_the_known_ones(tone):
    with pytest.raises(ValueError, match=rf"must be one of \['I-II', 'III-IV', 'V-VI'\], got '{tone}'"):
        select_skin_tones(rows_of_tones(light=2), [tone])


def test_photos_are_kept_by_name_in_their_order():
    assert keep_photos(rows_of_tones(light=5), {"photo-3", "photo-1"})["image_id"] == ["photo-1", "photo-3"]


# Recorded splits


@pytest.fixture(scope="module")
def painted():
    """Sixty photos, none like another, without recorded splits."""
    return paint_dataset(num_per_tone=20, seed=1, size=32)


def with_values(dataset, **columns):
    """Set the values of columns."""
    for column, values in columns.items():
        dataset = dataset.remove_columns(column).add_column(column, values).select_columns(list(FEATURES))
    return dataset.cast(FEATURES)


def test_recorded_splits_are_kept_as_they_are(painted):
    recorded = with_values(
        painted.select(range(6)), split=["test", "train", "validation", "train", "large_test", "test"]
    )

    splits = split_photos(recorded)

    names = recorded["image_id"]
    assert {name: rows["image_id"][:] for name, rows in splits.items()} == {
        "train": [names[1], names[3]],
        "validation": [names[2]],
        "test": [names[0], names[5]],
        "large_test": [names[4]],
    }
    assert list(splits) == ["train", "validation", "test", "large_test"]


def test_a_split_that_does_not_occur_is_absent(painted):
    assert list(split_photos(with_values(painted.select(range(2)), split=["test", "train"]))) == ["train", "test"]


def test_the_seed_does_not_touch_recorded_splits(painted):
    recorded = with_values(painted, split=["train", "test"] * 30)

    assert split_photos(recorded, seed=1)["test"]["image_id"] == split_photos(recorded, seed=2)["test"]["image_id"]


def test_recorded_splits_of_unknown_names_are_refused_instead_of_left_out(painted):
    with pytest.raises(ValueError, match=r"`split` must be one of \['train', .*\], got also \['dev', 'val'\]\."):
        split_photos(with_values(painted.select(range(4)), split=["train", "val", "dev", "test"]))


def test_partly_recorded_splits_are_refused(painted):
    partly = with_values(painted.select(range(4)), split=["train", None, "test", None])

    with pytest.raises(ValueError, match="Every photo must have a `split`, or none: ") as caught:
        split_photos(partly)

    assert str([painted["image_id"][1], painted["image_id"][3]]) in str(caught.value)


def test_recorded_splits_that_share_a_patient_are_refused(painted):
    leaking = with_values(painted.select(range(3)), split=["train", "test", "test"], group_id=["P", "P", "Q"])

    with pytest.raises(ValueError, match=r"same patient or lesion: .*000000 \(train\) and .*000001 \(test\)"):
        split_photos(leaking)


def test_recorded_splits_that_share_a_patient_are_kept_where_that_is_allowed(painted):
    leaking = with_values(painted.select(range(2)), split=["train", "test"], group_id=["P", "P"])

    assert split_photos(leaking, allow_leakage=True).num_rows == {"train": 1, "test": 1}


# Drawn splits


@pytest.fixture(scope="module")
def grouped(painted):
    """120 photos: sixty painted ones in 24 groups and sixty without, some of which look like those of a group."""
    rows = [row | {"image": encode(row["image"]), "mask": None} for row in painted]
    for index, row in enumerate(rows):
        row["group_id"] = f"P{index % 24}" if index % 2 else None
    copies = []
    for index, row in enumerate(painted):
        photo = row["image"].convert("RGB")
        image = {0: encode(photo, "BMP"), 1: encode(photo, "JPEG", quality=80), 2: encode(photo.rotate(90))}[index % 3]
        copies.append(rows[index] | {"image_id": f"copy-{index}", "image": image, "group_id": None})
    return make_dataset(rows + copies, source="test")


def split_of_photo(splits):
    return {image_id: name for name, rows in splits.items() for image_id in rows["image_id"]}


def test_every_photo_is_in_one_drawn_split(painted):
    splits = split_photos(painted)

    assert list(splits) == ["train", "validation", "test"]
    assert sorted(name for rows in splits.values() for name in rows["image_id"]) == sorted(painted["image_id"])


def test_drawn_splits_are_about_seventy_ten_and_twenty_percent(painted):
    for seed in range(10):
        sizes = split_photos(painted, seed).num_rows

        assert sizes["train"] == pytest.approx(42, abs=6)
        assert sizes["validation"] == pytest.approx(6, abs=3)
        assert sizes["test"] == pytest.approx(12, abs=4)


def test_drawn_splits_hold_every_tone_and_both_labels(painted):
    for seed in range(10):
        splits = split_photos(painted, seed)

        for name in ("train", "test"):
            assert set(tone_labels(splits[name])) == {"I-II", "III-IV", "V-VI"}, seed
            assert set(splits[name]["malignant"]) == {True, False}, seed


def test_one_seed_draws_one_split(painted):
    assert split_of_photo(split_photos(painted, 4)) == split_of_photo(split_photos(painted, 4))


def test_another_seed_draws_another_split(painted):
    assert len({tuple(split_photos(painted, seed)["test"]["image_id"]) for seed in range(8)}) == 8


def test_drawn_splits_never_leak(grouped):
    for seed in range(6):
        assert find_leakage(split_photos(grouped, seed)).empty, seed


def test_groups_stay_together_in_drawn_splits(grouped):
    groups = dict(zip(grouped["image_id"], grouped["group_id"], strict=True))

    for seed in range(8):
        places = {(groups[name], split) for name, split in split_of_photo(split_photos(grouped, seed)).items()}

        assert max(Counter(group for group, _ in places if group).values()) == 1, seed


def test_copies_stay_with_their_photo_in_drawn_splits(grouped, painted):
    for seed in range(8):
        place = split_of_photo(split_photos(grouped, seed))

        for index, name in enumerate(painted["image_id"]):
            assert index % 3 == 2 or place[name] == place[f"copy-{index}"], (seed, name)


def test_a_chain_of_patients_and_look_alikes_stays_together(painted):
    photos = [row["image"].convert("RGB") for row in painted]
    chain = [
        {"image_id": "first", "image": encode(photos[0]), "group_id": "P"},
        {"image_id": "second", "image": encode(photos[1]), "group_id": "P"},
        {"image_id": "third", "image": encode(photos[1], "JPEG", quality=80), "group_id": "Q"},
        {"image_id": "fourth", "image": encode(photos[2]), "group_id": "Q"},
    ]
    others = [{"image_id": f"{index}", "image": encode(photo)} for index, photo in enumerate(photos[3:30])]
    dataset = make_dataset(chain + others, source="test")

    for seed in range(8):
        place = split_of_photo(split_photos(dataset, seed))

        assert len({place[row["image_id"]] for row in chain}) == 1, seed


def test_too_few_photos_to_draw_are_refused_with_the_remedy(painted):
    with pytest.raises(ValueError, match=r"at least 10 patients, .* got 9\. Write the split of each photo"):
        split_photos(painted.select(range(9)))


def test_too_few_patients_to_draw_are_refused_however_many_photos_there_are(painted):
    with pytest.raises(ValueError, match="at least 10 patients, lesions or single photos, got 3"):
        split_photos(with_values(painted, group_id=["P", "Q", "R"] * 20))


@pytest.mark.parametrize("num_photos", [10, 11, 24, 30])
def test_ten_photos_are_enough_to_draw_though_no_stratum_has_ten(painted, num_photos):
    for seed in range(5):
        sizes = split_photos(painted.select(range(num_photos)), seed).num_rows

        assert list(sizes) == ["train", "validation", "test"]
        assert sizes["train"] == pytest.approx(0.7 * num_photos, abs=3)


def test_small_sets_are_still_drawn_by_malignancy(painted):
    for seed in range(10):
        splits = split_photos(painted.select(range(30)), seed)

        assert sum(splits["train"]["malignant"]) == pytest.approx(len(splits["train"]) / 2, abs=1.5), seed


def test_photos_of_unknown_label_and_tone_are_drawn_too(painted):
    unknown = with_values(painted.select(range(20)), malignant=[None] * 20, skin_tone=[None] * 20)

    assert sum(split_photos(unknown).num_rows.values()) == 20


def test_drawing_warns_of_nothing(painted, recwarn):
    split_photos(with_values(painted.select(range(21)), skin_tone=[0] * 18 + [2] * 3))

    assert [warning for warning in recwarn if "class" in str(warning.message)] == []


def test_rows_keep_their_photos_when_they_are_split(painted):
    place = {name: np.asarray(image) for name, image in zip(painted["image_id"], painted["image"], strict=True)}

    for rows in split_photos(painted).values():
        for row in rows:
            assert np.array_equal(np.asarray(row["image"]), place[row["image_id"]])
            assert isinstance(row["image"], Image.Image)
