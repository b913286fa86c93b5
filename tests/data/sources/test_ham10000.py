import zipfile

import numpy as np
import pytest

from fedd_hf.data.schema import FEATURES, tone_labels
from fedd_hf.data.sources import load_ham10000

DIAGNOSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
NAMES = [f"ISIC_002430{index}" for index in range(7)]
MALIGNANT = {"akiec-malignant": True, "akiec-benign": False, "akiec-unknown": None}


@pytest.fixture
def listed(tmp_path, save_photo, save_lesion):
    """A folder whose `metadata.csv` names photos and masks and contradicts the diagnosis in its other columns."""
    lines = ["image,mask,label,malignant,skin_tone,lesion_id,ita"]
    for name, diagnosis in zip(NAMES, DIAGNOSES, strict=True):
        save_photo(tmp_path / "images" / f"{name}.jpg")
        save_lesion(tmp_path / "masks" / f"{name}.png")
        lines.append(f"images/{name}.jpg,masks/{name}.png,{diagnosis},0,lt1,HAM_1,40.15")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def published(tmp_path, save_photo, save_lesion):
    """A folder as the publisher's files unpack: photos in two parts, 8-bit masks, a table without a suffix."""
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for index, (name, diagnosis) in enumerate(zip(NAMES, DIAGNOSES, strict=True)):
        save_photo(tmp_path / f"HAM10000_images_part_{1 + index % 2}" / f"{name}.jpg")
        save_lesion(tmp_path / "HAM10000_segmentations_lesion_tschandl" / f"{name}_segmentation.png", bits=8)
        lines.append(f"HAM_{index // 2},{name},{diagnosis},histo,55.0,male,back")
    (tmp_path / "HAM10000_metadata").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture(scope="session")
def real_root(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ham10000")
    with zipfile.ZipFile(real_data("ham10000_200px.zip")) as archive:
        archive.extractall(folder)
    return next(folder.rglob("metadata.csv")).parent


@pytest.mark.parametrize("layout", ["listed", "published"])
def test_every_photo_is_loaded_in_the_one_row_format(request, layout):
    dataset = load_ham10000(request.getfixturevalue(layout))

    assert dataset.features == FEATURES
    assert dataset["image_id"] == NAMES
    assert dataset["disease"] == DIAGNOSES
    assert dataset["split"] == [None] * 7
    assert set(dataset["source"]) == {"ham10000"}


@pytest.mark.parametrize("layout", ["listed", "published"])
def test_masks_become_lesion_and_skin_at_the_size_of_their_photo(request, layout):
    for row in load_ham10000(request.getfixturevalue(layout)):
        mask = np.asarray(row["mask"])
        assert row["mask"].size == row["image"].size == (12, 9)
        assert (mask[:3] == 1).all()
        assert (mask[3:] == 4).all()


@pytest.mark.parametrize(("policy", "akiec"), MALIGNANT.items())
def test_malignant_follows_from_the_diagnosis_by_the_named_policy(published, policy, akiec):
    dataset = load_ham10000(published, malignancy_policy=policy)

    assert dataset["malignant"] == [akiec, True, False, False, True, False, False]
    assert set(dataset["malignancy_policy"]) == {policy}


def test_the_colour_classes_of_some_copies_never_become_a_tone(listed):
    assert tone_labels(load_ham10000(listed)) == [None] * 7


def test_photos_of_a_lesion_are_one_group(published):
    assert load_ham10000(published)["group_id"] == [f"HAM_{index}" for index in (0, 0, 1, 1, 2, 2, 3)]


def test_the_table_may_have_a_suffix_and_the_folders_short_names(published):
    (published / "HAM10000_metadata").rename(published / "HAM10000_metadata.csv")
    (published / "HAM10000_segmentations_lesion_tschandl").rename(published / "masks")
    (published / "images").mkdir()
    for photo in published.glob("HAM10000_images_part_*/*.jpg"):
        photo.rename(published / "images" / photo.name)

    dataset = load_ham10000(published)

    assert dataset["image_id"] == NAMES
    assert dataset.data["mask"].null_count == 0


def test_an_unknown_policy_is_refused_with_the_allowed_names(published):
    allowed = r"\['akiec-malignant', 'akiec-benign', 'akiec-unknown'\]"

    with pytest.raises(ValueError, match=rf"`malignancy_policy` must be one of {allowed}, got 'strict'"):
        load_ham10000(published, malignancy_policy="strict")


def test_everything_that_is_wrong_is_told_at_once(published, save_lesion):
    masks = published / "HAM10000_segmentations_lesion_tschandl"
    (published / "HAM10000_images_part_1" / f"{NAMES[0]}.jpg").unlink()
    (published / "HAM10000_images_part_2" / f"{NAMES[1]}.jpg").write_bytes(b"")
    (masks / f"{NAMES[2]}_segmentation.png").unlink()
    save_lesion(masks / f"{NAMES[3]}_segmentation.png", size=(6, 6))
    table = published / "HAM10000_metadata"
    table.write_text(table.read_text().replace(",mel,", ",scc,").replace(",nv,", ",,"))

    with pytest.raises(ValueError, match="ham10000 in .* cannot be loaded") as caught:
        load_ham10000(published)

    folders = "HAM10000_images_part_1 nor in HAM10000_images_part_2 nor in images"
    wrong_size = "must be of the size of its upright photo, 9 x 12 (height x width), but is 6 x 6."
    diagnosis = "the diagnosis must be one of akiec, bcc, bkl, df, mel, nv, vasc, got"
    assert str(caught.value).split("\n- ")[1:] == [
        f"There is no {NAMES[0]}.jpg in {published}, neither in {folders}.",
        f"There is no {NAMES[2]}_segmentation.png in {published}, neither in {masks.name} nor in masks.",
        f"{published}/HAM10000_images_part_2/{NAMES[1]}.jpg is not an image that can be read; "
        "it must be JPEG, PNG, WEBP, BMP, TIFF.",
        f"{masks}/{NAMES[3]}_segmentation.png {wrong_size}",
        f"{table}, line 6: {diagnosis} 'scc'.",
        f"{table}, line 7: {diagnosis} None.",
    ]


def test_a_folder_without_a_table_is_refused_with_the_names_looked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"neither metadata\.csv nor HAM10000_metadata nor HAM10000_metadata\.csv"
    ):
        load_ham10000(tmp_path)


@pytest.mark.slow
def test_the_real_photos_are_all_found_and_counted(real_root):
    dataset = load_ham10000(real_root)

    assert len(dataset) == 10015
    assert dataset.data["mask"].null_count == 0
    assert {dx: dataset["disease"].count(dx) for dx in DIAGNOSES} == {
        "akiec": 327,
        "bcc": 514,
        "bkl": 1099,
        "df": 115,
        "mel": 1113,
        "nv": 6705,
        "vasc": 142,
    }
    assert dataset["malignant"].count(True) == 327 + 514 + 1113
    assert len(set(dataset["group_id"])) == 7470
    assert tone_labels(dataset) == [None] * 10015
