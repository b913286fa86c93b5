import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedd_hf.data.schema import FEATURES, tone_labels
from fedd_hf.data.sources import load_pad_ufes_20

DATA = Path(os.environ.get("FEDD_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))

TABLE = """\
image,mask,malignant,fitzpatrick,split
images/a.jpg,masks/a.png,1,1.0,train
images/b.jpg,masks/b.png,0,,train
images/c.jpg,,1,3.0,train
images/d.jpg,masks/d.png,0,4.0,validation
images/e.jpg,masks/e.png,1,6.0,test
"""


@pytest.fixture
def root(tmp_path):
    """A folder of the layout of PAD-UFES-20: oblong photos whose upper third is lesion in a 1-bit mask."""
    (tmp_path / "metadata.csv").write_text(TABLE)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for shade, name in enumerate("abcde"):
        Image.new("RGB", (12, 9), (200, 150, 40 * shade)).save(tmp_path / "images" / f"{name}.jpg")
        lesion = np.zeros((9, 12), dtype=bool)
        lesion[:3] = True
        Image.fromarray(lesion).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def test_rows_with_a_mask_are_loaded_in_the_one_row_format(root):
    dataset = load_pad_ufes_20(root)

    assert dataset.features == FEATURES
    assert dataset["image_id"] == ["a", "b", "d", "e"]
    assert dataset["malignant"] == [True, False, False, True]


def test_masks_become_lesion_and_skin_at_the_size_of_their_photo(root):
    row = load_pad_ufes_20(root)[0]

    mask = np.asarray(row["mask"])
    assert row["mask"].mode == "L"
    assert row["mask"].size == row["image"].size == (12, 9)
    assert (mask[:3] == 1).all()
    assert (mask[3:] == 4).all()


def test_photos_are_those_of_the_table(root):
    dataset = load_pad_ufes_20(root)

    for row in dataset:
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(root / f"images/{row['image_id']}.jpg")))


def test_the_tone_is_the_group_of_the_fitzpatrick_type_and_null_where_none_is_recorded(root):
    assert tone_labels(load_pad_ufes_20(root)) == ["I-II", None, "III-IV", "V-VI"]


def test_a_table_in_which_every_photo_has_a_tone_is_read(root):
    (root / "metadata.csv").write_text(TABLE.replace(",,train", ",2,train"))

    assert tone_labels(load_pad_ufes_20(root)) == ["I-II", "I-II", "III-IV", "V-VI"]


def test_a_table_in_which_no_photo_has_a_tone_is_read(root):
    lines = [",".join([*line.split(",")[:3], "", line.split(",")[4]]) for line in TABLE.splitlines()[1:]]
    (root / "metadata.csv").write_text("\n".join([TABLE.splitlines()[0], *lines]))

    assert tone_labels(load_pad_ufes_20(root)) == [None] * 4


@pytest.mark.parametrize(
    ("split", "image_ids"), [("train", ["a", "b"]), ("validation", ["d"]), ("test", ["e"])], ids=str
)
def test_a_split_is_loaded_alone(root, split, image_ids):
    assert load_pad_ufes_20(root, split)["image_id"] == image_ids


def test_an_unknown_split_is_refused(root):
    with pytest.raises(ValueError, match=r"`split` must be one of .*train.*, got 'dev'"):
        load_pad_ufes_20(root, "dev")


def test_a_missing_folder_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/metadata.csv does not exist"):
        load_pad_ufes_20(tmp_path / "nowhere")


def test_a_missing_mask_file_is_refused_by_name(root):
    (root / "masks" / "d.png").unlink()

    with pytest.raises(FileNotFoundError, match=r"masks/d\.png"):
        load_pad_ufes_20(root)


def test_a_folder_may_be_given_as_a_string(root):
    assert len(load_pad_ufes_20(str(root))) == 4


@pytest.mark.parametrize(("split", "count"), [("train", 494), ("validation", 80), ("test", 277)])
def test_the_real_photos_with_a_mask_are_all_found(split, count):
    folder = DATA / "pad_ufes_20"
    if not folder.is_dir():
        pytest.skip(f"The real photos are not in {folder}; set FEDD_DATA to the folder that holds pad_ufes_20.")

    dataset = load_pad_ufes_20(folder, split)

    assert len(dataset) == count
    row = dataset[0]
    assert row["mask"].size == row["image"].size
    assert set(np.unique(np.asarray(row["mask"])).tolist()) <= {1, 4}
