"""The photos that are labelled, at the paper's numbers."""

from collections import Counter

import numpy as np
import pytest

from fedd_hf.compare.photo_sets import draw_labelled
from fedd_hf.data.ddi.ddi_seg import CELLS, draw_classification
from fedd_hf.data.ddi.local_copy import METADATA_FILE, read_ddi_metadata
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import tone_labels


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
