"""The photos of a comparison: those that are labelled, and those that are predicted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from datasets import DatasetDict

from fedd_hf.compare import photo_sets
from fedd_hf.compare.photo_sets import draw_labelled, load_numbered_sets, load_photo_sets
from fedd_hf.data import loading
from fedd_hf.data.ddi.ddi_seg import CELLS, draw_classification
from fedd_hf.data.ddi.local_copy import METADATA_FILE, read_ddi_metadata
from fedd_hf.data.loading import DataArguments, load_splits
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import SPLITS, tone_labels


@pytest.fixture(scope="module")
def train():
    """Painted photos: 10 of each tone and kind."""
    return paint_dataset(20, seed=0, size=32)


@pytest.mark.parametrize(("label_fraction", "per_cell"), [(0.05, 5), (0.10, 10)])
def test_labelled_photos_are_balanced_by_tone_and_malignancy(train, label_fraction, per_cell):
    rows = draw_labelled(train, label_fraction)

    cells = list(zip(tone_labels(train), train["malignant"], strict=True))
    assert Counter(cells[row] for row in rows) == dict.fromkeys(CELLS, per_cell)


def test_a_smaller_fraction_is_part_of_a_larger_one(train):
    assert set(draw_labelled(train, 0.05)) < set(draw_labelled(train, 0.10))


def test_photos_without_a_tone_are_balanced_by_malignancy(train):
    toneless = train.remove_columns("skin_tone").add_column("skin_tone", [None] * 60).cast(train.features)

    rows = draw_labelled(toneless, 0.05)

    assert Counter(np.array(toneless["malignant"])[rows].tolist()) == {True: 15, False: 15}


def test_of_ddi_the_labelled_photos_are_those_of_its_own_draw(painted_ddi):
    drawn = draw_classification(read_ddi_metadata(painted_ddi / METADATA_FILE))
    train = drawn[drawn["split"] == "train"].reset_index(drop=True)
    template = paint_dataset(1, seed=0, size=32)
    rows = [
        template[0] | {"image_id": row.image_id, "skin_tone": row.skin_tone, "malignant": row.malignant}
        for row in train.itertuples()
    ]

    labelled = draw_labelled(template.from_list(rows, features=template.features), 0.10)

    assert set(train["image_id"][labelled]) == set(train.loc[train["label_fraction"] <= 10, "image_id"])


def test_too_few_photos_are_an_error_that_counts_them(train):
    with pytest.raises(ValueError, match="15 photos of .* are to be drawn, but there are 10"):
        draw_labelled(train, 0.15)


@pytest.mark.parametrize(
    ("task", "tests"),
    [
        ("segmentation", {"validation": 15, "test": 16, "large_test": 198}),
        ("classification", {"validation": 30, "test": 30, "large_test": 476}),
    ],
)
def test_of_ddi_the_photos_are_those_of_the_paper(painted_ddi, ddi_seg, task, tests):
    data = DataArguments(dataset="ddi", root=str(painted_ddi), masks=str(ddi_seg))

    photos = load_photo_sets(data, task, [0.05, 0.20])

    assert {name: len(rows) for name, rows in photos.scored.items()} == tests
    small, large = (set(photos.train[fraction]["image_id"]) for fraction in (0.05, 0.20))
    assert (len(small), len(large)) == (30, 120)
    assert small < large
    assert not large & set(photos.photos["image_id"])
    by_loader = load_splits(replace(data, label_fraction=0.05), "segmentation" if "seg" in task else "classification")
    assert list(photos.train[0.05]["image_id"]) == list(by_loader["train"]["image_id"])
    ids = list(photos.photos["image_id"])
    assert len(ids) == len(set(ids)) == (213 if task == "segmentation" else 536)


def test_of_another_dataset_a_fraction_is_a_share_of_the_training_photos(monkeypatch):
    monkeypatch.setattr(loading, "paint_dataset", lambda per_tone, seed: paint_dataset(per_tone, seed, size=32))

    photos = load_photo_sets(DataArguments(), "segmentation", [0.05, 0.5])

    assert {fraction: len(rows) for fraction, rows in photos.train.items()} == {0.05: 6, 0.5: 60}
    assert list(photos.tests) == ["test"]
    with pytest.raises(ValueError, match="`task` must be one of"):
        load_photo_sets(DataArguments(), "malignancy", [0.05])


@pytest.fixture
def half_with_tones(monkeypatch):
    """Painted splits of which some photos have no skin tone, as in PAD-UFES-20."""
    painted = paint_dataset(num_per_tone=8, seed=0, size=32)
    tones = [None if row % 3 == 0 else tone for row, tone in enumerate(tone_labels(painted))]
    rows = painted.remove_columns("skin_tone").add_column("skin_tone", tones).cast(painted.features)
    splits = {name: rows.select(range(start, start + 8)) for name, start in zip(SPLITS, (0, 8, 16), strict=False)}
    monkeypatch.setattr(photo_sets, "load_splits", lambda *_: DatasetDict(splits))


def test_numbers_of_labelled_photos_are_nested_shares_of_the_training_photos(half_with_tones):
    photos = load_numbered_sets(DataArguments(), "segmentation", [6, 3], max_scored=5)

    assert {fraction: len(rows) for fraction, rows in photos.train.items()} == {3 / 8: 3, 6 / 8: 6}
    few, more = (set(rows["image_id"]) for rows in photos.train.values())
    assert few < more
    assert {name: len(rows) for name, rows in photos.scored.items()} == {"validation": 5, "test": 5}


def test_malignancy_is_compared_on_photos_that_have_a_tone(half_with_tones):
    photos = load_numbered_sets(DataArguments(), "classification", [3])

    assert None not in tone_labels(photos.photos) + tone_labels(photos.train[3 / 5])
    assert {name: len(rows) for name, rows in photos.scored.items()} == {"validation": 5, "test": 6}
