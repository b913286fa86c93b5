import numpy as np
import pytest

from fedd_hf.data.schema import FEATURES, tone_labels
from fedd_hf.data.sources import load_pad_ufes_20

TABLE = """\
image,mask,label,malignant,fitzpatrick,patient_id,split
images/a.jpg,masks/a.png,BCC,1,1.0,PAT_1,train
images/b.jpg,masks/b.png,NEV,0,,PAT_2,train
images/c.jpg,,MEL,1,3.0,PAT_2,train
images/d.jpg,masks/d.png,SEK,0,4.0,PAT_3,validation
images/e.jpg,masks/e.png,SCC,1,6.0,PAT_4,test
"""


@pytest.fixture
def root(tmp_path, save_photo, save_lesion):
    """A folder of the layout of PAD-UFES-20, in which photo c has no mask."""
    (tmp_path / "metadata.csv").write_text(TABLE)
    for name in "abcde":
        save_photo(tmp_path / "images" / f"{name}.jpg")
        save_lesion(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture(scope="module")
def real_photos(real_data):
    return load_pad_ufes_20(real_data("pad_ufes_20"))


def test_every_photo_is_loaded_in_the_one_row_format(root):
    dataset = load_pad_ufes_20(root)

    assert dataset.features == FEATURES
    assert dataset["image_id"] == ["a", "b", "c", "d", "e"]
    assert set(dataset["source"]) == {"pad-ufes-20"}


def test_labels_groups_and_splits_are_the_recorded_ones(root):
    dataset = load_pad_ufes_20(root)

    assert dataset["malignant"] == [True, False, True, False, True]
    assert dataset["disease"] == ["BCC", "NEV", "MEL", "SEK", "SCC"]
    assert dataset["group_id"] == ["PAT_1", "PAT_2", "PAT_2", "PAT_3", "PAT_4"]
    assert dataset["split"] == ["train", "train", "train", "validation", "test"]
    assert set(dataset["malignancy_policy"]) == {"recorded"}


def test_masks_become_lesion_and_skin_at_the_size_of_their_photo(root):
    row = load_pad_ufes_20(root)[0]

    mask = np.asarray(row["mask"])
    assert row["mask"].mode == "L"
    assert row["mask"].size == row["image"].size == (12, 9)
    assert (mask[:3] == 1).all()
    assert (mask[3:] == 4).all()


def test_the_tone_is_the_group_of_the_fitzpatrick_type_and_null_where_none_is_recorded(root):
    assert tone_labels(load_pad_ufes_20(root)) == ["I-II", None, "III-IV", "III-IV", "V-VI"]


def test_everything_that_is_wrong_is_told_at_once(root, save_lesion):
    (root / "images" / "a.jpg").unlink()
    (root / "images" / "b.jpg").write_text("no photo")
    (root / "masks" / "b.png").unlink()
    save_lesion(root / "masks" / "d.png", size=(9, 12))
    (root / "metadata.csv").write_text(TABLE.replace("SCC,1,6.0,PAT_4,test", "SCC,2,7,PAT_4,dev"))

    with pytest.raises(ValueError, match="pad-ufes-20 in .* cannot be loaded") as caught:
        load_pad_ufes_20(root)

    table = root / "metadata.csv"
    assert str(caught.value).split("\n- ")[1:] == [
        f"There is no image file at {root}/images/a.jpg.",
        f"{root}/images/b.jpg is not an image that can be read; it must be JPEG, PNG, WEBP, BMP, TIFF.",
        f"There is no mask file at {root}/masks/b.png.",
        f"{root}/masks/d.png must be of the size of its upright photo, 9 x 12 (height x width), but is 12 x 9.",
        f"{table}, line 6: `fitzpatrick` must be one of 1, 2, 3, 4, 5, 6, I, II, III, IV, V, VI, or empty; got '7'.",
        f"{table}, line 6: `malignant` must be one of 0, 1, false, true, benign, malignant, or empty; got '2'.",
        f"{table}, line 6: `split` must be one of train, validation, val, test, or empty; got 'dev'.",
    ]


def test_the_real_photos_are_all_found_and_those_with_a_mask_counted(real_photos):
    has_mask = real_photos.data["mask"].is_valid().to_pylist()

    assert len(real_photos) == 878
    assert sum(has_mask) == 851
    photos = {split: real_photos["split"].count(split) for split in ("train", "validation", "test")}
    assert photos == {"train": 513, "validation": 81, "test": 284}


def test_the_real_photos_have_the_tones_that_were_recorded(real_photos):
    tones = tone_labels(real_photos)

    assert {tone: tones.count(tone) for tone in ("I-II", "III-IV", "V-VI", None)} == {
        "I-II": 370,
        "III-IV": 167,
        "V-VI": 4,
        None: 337,
    }


def test_no_real_patient_is_in_two_splits(real_photos):
    pairs = set(zip(real_photos["group_id"], real_photos["split"], strict=True))

    assert len(pairs) == len({group_id for group_id, _ in pairs}) == 648


PUBLISHED = """\
patient_id,lesion_id,smoke,fitspatrick,diagnostic,img_id,biopsed
PAT_8,15,False,1.0,BCC,PAT_8_15_820.png,True
PAT_46,881,,,ACK,PAT_46_881_939.png,False
PAT_46,882,,3.0,MEL,PAT_46_882_1.png,True
"""


@pytest.fixture
def published(tmp_path, save_photo, save_lesion):
    """A folder as the publisher's files unpack, with a mask for one photo."""
    (tmp_path / "metadata.csv").write_text(PUBLISHED)
    for number, name in enumerate(("PAT_8_15_820", "PAT_46_881_939", "PAT_46_882_1"), start=1):
        save_photo(tmp_path / f"imgs_part_{number}" / f"imgs_part_{number}" / f"{name}.png")
    save_lesion(tmp_path / "masks" / "PAT_8_15_820.png")
    return tmp_path


def test_the_publishers_layout_is_read(published):
    dataset = load_pad_ufes_20(published)

    assert dataset["image_id"] == ["PAT_8_15_820", "PAT_46_881_939", "PAT_46_882_1"]
    assert dataset["disease"] == ["BCC", "ACK", "MEL"]
    assert dataset["malignant"] == [True, False, True]
    assert dataset["group_id"] == ["PAT_8", "PAT_46", "PAT_46"]
    assert set(dataset["split"]) == {None}
    assert tone_labels(dataset) == ["I-II", None, "III-IV"]
    assert [row["mask"] is not None for row in dataset] == [True, False, False]


def test_a_published_photo_that_is_missing_and_an_unknown_diagnosis_are_listed(published):
    (published / "imgs_part_2" / "imgs_part_2" / "PAT_46_881_939.png").unlink()
    (published / "metadata.csv").write_text(PUBLISHED.replace("MEL", "XXX"))

    with pytest.raises(ValueError, match="pad-ufes-20 in .* cannot be loaded") as error:
        load_pad_ufes_20(published)

    assert "line 3: there is no photo 'PAT_46_881_939.png'" in str(error.value)
    assert "line 4: `diagnostic` must be one of BCC, SCC, MEL, ACK, NEV, SEK" in str(error.value)
