import pytest
from PIL import Image

from fedd_hf.data.schema import FEATURES, tone_labels
from fedd_hf.data.sources import load_isic

CHALLENGES = {
    "2017": [
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "train"),
        ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", "validation"),
        ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "test"),
    ],
    "2018": [
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "train"),
        ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", "validation"),
        ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "test"),
    ],
}

ARCHIVE = """\
isic_id,attribution,diagnosis_1,diagnosis_3,fitzpatrick_skin_type,patient_id,lesion_id
ISIC_0000001,A,Benign,Nevus,I,IP_1,IL_1
ISIC_0000002,A,Indeterminate,Atypical melanocytic neoplasm,IV,IP_1,IL_2
ISIC_0000003,A,Malignant,"Melanoma, NOS",VI,,IL_3
ISIC_0000004,A,,,,,
"""


@pytest.fixture
def challenge(tmp_path, save_photo, save_lesion):
    """Make the folders of a challenge, one photo in each, all with a mask."""

    def make(year):
        for index, (photos, masks, _) in enumerate(CHALLENGES[year]):
            save_photo(tmp_path / photos / f"ISIC_000000{index}.jpg")
            save_lesion(tmp_path / masks / f"ISIC_000000{index}_segmentation.png", bits=8)
        return tmp_path

    return make


@pytest.fixture
def archive(tmp_path, save_photo):
    """Four photos as the archive gives them, with `metadata.csv`."""
    for index in range(1, 5):
        save_photo(tmp_path / "images" / f"ISIC_000000{index}.jpg")
    (tmp_path / "metadata.csv").write_text(ARCHIVE)
    return tmp_path


def label_2017(root, split="Training", rows="ISIC_0000000,1.0,0.0"):
    path = root / f"ISIC-2017_{split}_Part3_GroundTruth.csv"
    path.write_text(f"image_id,melanoma,seborrheic_keratosis\n{rows}\n")
    return path


@pytest.mark.parametrize("year", CHALLENGES)
def test_photos_and_masks_of_a_challenge_are_loaded_in_the_one_row_format(challenge, year):
    dataset = load_isic(challenge(year))

    assert dataset.features == FEATURES
    assert sorted(dataset["image_id"]) == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"]
    assert dataset.data["mask"].null_count == 0
    assert [sorted(set(row["mask"].get_flattened_data())) for row in dataset] == [[1, 4]] * 3
    assert set(dataset["source"]) == {"isic"}


@pytest.mark.parametrize("year", CHALLENGES)
def test_the_split_follows_from_the_name_of_the_folder(challenge, year):
    dataset = load_isic(challenge(year))

    splits = dict(zip(dataset["image_id"], dataset["split"], strict=True))
    assert splits == {f"ISIC_000000{index}": split for index, (_, _, split) in enumerate(CHALLENGES[year])}


@pytest.mark.parametrize("folder", ["images", "."])
def test_photos_of_no_challenge_have_no_split_and_their_masks_in_a_folder_masks(
    tmp_path, save_photo, save_lesion, folder
):
    save_photo(tmp_path / folder / "ISIC_0000007.png")
    save_lesion(tmp_path / "masks" / "ISIC_0000007_segmentation.png")

    (row,) = load_isic(tmp_path)

    assert (row["image_id"], row["split"]) == ("ISIC_0000007", None)
    assert row["mask"].size == (12, 9)


def test_in_2017_melanoma_is_malignant_and_the_others_are_benign(challenge):
    root = challenge("2017")
    label_2017(root, "Training", "ISIC_0000000,1.0,0.0")
    label_2017(root, "Validation", "ISIC_0000001,0.0,1.0")
    label_2017(root, "Test_v2", "ISIC_0000002,0.0,0.0")

    labels = {row["image_id"][-1]: (row["malignant"], row["disease"]) for row in load_isic(root)}

    assert labels == {"0": (True, "melanoma"), "1": (False, "seborrheic_keratosis"), "2": (False, "nevus")}
    assert set(load_isic(root)["malignancy_policy"]) == {"recorded"}


@pytest.mark.parametrize(
    ("policy", "indeterminate"), [("indeterminate-unknown", None), ("indeterminate-malignant", True)]
)
def test_an_indeterminate_photo_is_unknown_or_malignant_and_never_benign(archive, policy, indeterminate):
    dataset = load_isic(archive, malignancy_policy=policy)

    assert dataset["malignant"] == [False, indeterminate, True, None]
    assert set(dataset["malignancy_policy"]) == {policy}


def test_tone_disease_and_group_are_those_of_the_archive(archive):
    dataset = load_isic(archive)

    assert tone_labels(dataset) == ["I-II", "III-IV", "V-VI", None]
    assert dataset["disease"] == ["Nevus", "Atypical melanocytic neoplasm", "Melanoma, NOS", None]
    assert dataset["group_id"] == ["IP_1", "IP_1", "IL_3", None]


def test_an_unknown_policy_is_refused_with_the_allowed_names(archive):
    with pytest.raises(
        ValueError, match=r"one of \['indeterminate-unknown', 'indeterminate-malignant'\], got 'indeterminate-benign'"
    ):
        load_isic(archive, malignancy_policy="indeterminate-benign")


def test_everything_that_is_wrong_is_told_at_once(challenge, save_lesion, save_photo):
    root = challenge("2017")
    photos, masks = root / "ISIC-2017_Training_Data", root / "ISIC-2017_Training_Part1_GroundTruth"
    (photos / "ISIC_0000000.jpg").write_text("no photo")
    save_photo(photos / "ISIC_0000003.jpg")
    save_photo(photos / "ISIC_0000004.jpg", orientation=8)
    save_lesion(masks / "ISIC_0000004_segmentation.png", size=(12, 9))
    save_photo(photos / "ISIC_0000005.jpg")
    Image.linear_gradient("L").save(masks / "ISIC_0000005_segmentation.png")
    rows = ["ISIC_0000000,1.0,0.0", "ISIC_0000003,2.0,0.0", "ISIC_0000004,0.0,0.0", "ISIC_0000009,0.0,0.0"]
    table = label_2017(root, rows="\n".join(rows))

    with pytest.raises(ValueError, match="isic in .* cannot be loaded") as caught:
        load_isic(root)

    assert str(caught.value).split("\n- ")[1:] == [
        f"{table}, line 5: there is no photo 'ISIC_0000009'.",
        f"{photos}/ISIC_0000005.jpg has no row in {table}.",
        f"{photos}/ISIC_0000000.jpg is not an image that can be read; it must be JPEG, PNG, WEBP, BMP, TIFF.",
        f"There is no mask file at {masks}/ISIC_0000003_segmentation.png.",
        f"{table}, line 3: `melanoma` must be one of 0, 1, or empty; got '2.0'.",
        f"{masks}/ISIC_0000004_segmentation.png must be of the size of its upright photo, 12 x 9 (height x width), "
        "but is 9 x 12.",
        f"{masks}/ISIC_0000005_segmentation.png must be black and white, 0 and 255, but is a picture of many greys.",
    ]


def test_a_photo_that_lies_in_two_challenges_is_refused_with_both_files(challenge):
    challenge("2017")

    with pytest.raises(ValueError, match=r"ISIC2018_.*ISIC_0000000\.jpg has the `image_id` 'ISIC_0000000', as has"):
        load_isic(challenge("2018"))


def test_a_folder_without_photos_is_refused_with_the_names_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds no photos ISIC_\*\.jpg or \.png.*ISIC-2017_Training_Data"):
        load_isic(tmp_path)


def test_the_real_photos_of_2017_are_all_found(real_data):
    dataset = load_isic(real_data("isic2017_256"))

    assert len(dataset) == 2000
    assert dataset["malignant"].count(True) == 374
    assert dataset.data["mask"].null_count == 2000
