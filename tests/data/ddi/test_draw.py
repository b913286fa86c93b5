"""The classification splits on the painted double, against the supplement's Table 1."""

import hashlib

import pytest

from fedd_hf.data.ddi.ddi_seg import draw_classification, hash_draw
from painted_double import paint_metadata

TONES = ["I-II", "III-IV", "V-VI"]


@pytest.fixture(scope="module")
def metadata():
    return paint_metadata()


@pytest.fixture(scope="module")
def drawn(metadata):
    return draw_classification(metadata)


def count_cells(rows):
    return {tone: rows.loc[rows["skin_tone"] == tone, "malignant"].value_counts().to_dict() for tone in TONES}


@pytest.mark.parametrize("fraction", [5, 10, 15, 20])
def test_each_tone_has_as_many_malignant_as_benign_training_photos(drawn, fraction):
    train = drawn[drawn["label_fraction"] <= fraction]

    assert set(train["split"]) == {"train"}
    assert count_cells(train) == dict.fromkeys(TONES, {True: fraction, False: fraction})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_each_tone_has_five_malignant_and_five_benign_held_out_photos(drawn, split):
    assert count_cells(drawn[drawn["split"] == split]) == dict.fromkeys(TONES, {True: 5, False: 5})


def test_all_others_are_the_large_test_set(drawn):
    large = drawn[drawn["split"] == "large_test"]

    assert len(large) == 476
    assert large["skin_tone"].value_counts().to_dict() == {"I-II": 148, "III-IV": 181, "V-VI": 147}
    assert count_cells(large) == {
        "I-II": {True: 49 - 30, False: 159 - 30},
        "III-IV": {True: 74 - 30, False: 167 - 30},
        "V-VI": {True: 48 - 30, False: 159 - 30},
    }


def test_photos_of_a_cell_are_taken_in_the_order_of_their_hash(drawn):
    """Computed anew, photo by photo."""
    cell = drawn[(drawn["skin_tone"] == "V-VI") & drawn["malignant"]]
    order = sorted(cell["image_id"], key=lambda name: hashlib.sha256(f"0/{name}".encode()).hexdigest())
    split_of = cell.set_index("image_id")["split"]

    expected = ["train"] * 20 + ["validation"] * 5 + ["test"] * 5 + ["large_test"] * 18
    assert [split_of[name] for name in order] == expected


def test_the_draw_of_the_painted_double_never_changes(drawn):
    """A changed hash means changed splits: those of everybody who evaluated on them before."""
    assert hash_draw(drawn) == "24271345a7c91048097e4c272d36b015ae930c27241ea2dae62026809773547c"


def test_too_few_photos_of_a_cell_are_refused(metadata):
    few = metadata[~((metadata["skin_tone"] == "V-VI") & metadata["malignant"])]

    with pytest.raises(ValueError, match=r"30 photos of \('V-VI', True\) are to be drawn, but there are 0"):
        draw_classification(few)
