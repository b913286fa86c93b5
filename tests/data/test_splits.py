from collections import Counter
from io import BytesIO

import pytest

from fedd_hf.data.leakage import find_leakage
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES, make_dataset, tone_labels
from fedd_hf.data.splits import (
    draw_nested,
    rank_photos,
    select_label_fraction,
    select_photos,
    split_photos,
)

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


# Nested choices

STRATA = {f"photo-{index}": TONES[index % 3] for index in range(36)}


def test_a_smaller_choice_is_part_of_a_larger_one_for_a_hundred_seeds():
    sizes = [{"I-II": size, "III-IV": size, "V-VI": size} for size in (1, 2, 5, 12)]

    for seed in range(100):
        choices = [draw_nested(STRATA, size, seed) for size in sizes]

        assert all(smaller < larger for smaller, larger in zip(choices, choices[1:], strict=False)), seed


def test_a_stratum_with_too_few_photos_is_refused_by_name():
    with pytest.raises(ValueError, match=r"13 photos of V-VI are to be drawn, but there are 12\."):
        draw_nested(STRATA, {"I-II": 2, "V-VI": 13}, seed=0)


# Label fractions


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


@pytest.mark.parametrize(("percent", "size"), [(7, 100), (29, 100), (55, 20), (58, 50)])
def test_a_whole_number_of_photos_is_not_rounded_up_by_an_error_of_floats(percent, size):
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


@pytest.mark.parametrize("label_fraction", [0.0, -0.1, 1.01, 5, float("nan")])
def test_a_label_fraction_outside_its_range_is_refused(label_fraction):
    with pytest.raises(ValueError, match=rf"`label_fraction` must lie in \(0, 1\], got {label_fraction}"):
        select_label_fraction(rows_of_tones(light=4), label_fraction)


# Tones and names


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


def test_drawn_splits_never_leak(grouped):
    for seed in range(6):
        assert find_leakage(split_photos(grouped, seed)).empty, seed


def test_groups_and_copies_stay_together_in_drawn_splits(grouped, painted):
    groups = dict(zip(grouped["image_id"], grouped["group_id"], strict=True))

    for seed in range(4):
        place = split_of_photo(split_photos(grouped, seed))

        places = {(groups[name], split) for name, split in place.items() if groups[name]}
        assert max(Counter(group for group, _ in places).values()) == 1, seed
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


def test_too_few_patients_to_draw_are_refused_however_many_photos_there_are(painted):
    with pytest.raises(ValueError, match="at least 10 patients, lesions or single photos, got 3"):
        split_photos(with_values(painted, group_id=["P", "Q", "R"] * 20))


@pytest.mark.parametrize("num_photos", [10, 11, 24, 30])
def test_ten_photos_are_enough_to_draw_though_no_stratum_has_ten(painted, num_photos):
    for seed in range(5):
        sizes = split_photos(painted.select(range(num_photos)), seed).num_rows

        assert list(sizes) == ["train", "validation", "test"]
        assert sizes["train"] == pytest.approx(0.7 * num_photos, abs=3)
