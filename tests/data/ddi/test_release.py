"""The released masks: every fact that method.md states of them, and every way in which a copy can be wrong."""

import zipfile
from io import BytesIO

import numpy as np
import pytest

from fedd_hf.data.ddi.release import (
    FRACTIONS,
    check_released,
    read_released_masks,
    released_files,
    released_splits,
)
from painted_double import MASKS_FILE

TRAIN_5 = "training/5%/train"


@pytest.fixture(scope="session")
def arrays(released_zip):
    """Folder and id -> the array of each of the 622 files, read by the plainest code."""
    archive = zipfile.ZipFile(released_zip)
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    arrays = {tuple(name.removesuffix(".npy").split("/", 1)[1].rsplit("/", 1)): archive.read(name) for name in names}
    return {key: np.load(BytesIO(content)) for key, content in arrays.items()}


@pytest.fixture(scope="session")
def released(released_zip):
    return read_released_masks(released_zip)


def ids_of(arrays, folder):
    return {name for its_folder, name in arrays if its_folder == folder}


def shares_of(masks):
    counts = sum(np.bincount(mask.flatten(), minlength=5) for mask in masks)
    return counts / counts.sum()


def test_every_mask_of_the_release_is_read_pixel_for_pixel(released, arrays):
    assert len(arrays) == 622
    for (_, name), array in arrays.items():
        assert np.array_equal(released[name], array)
        assert released[name].dtype == np.uint8


def test_the_release_holds_333_different_masks_in_three_splits(released):
    splits = released_splits()["split"].value_counts()

    assert len(released) == 333
    assert splits.to_dict() == {"test": 198, "train": 120, "validation": 15}


def test_the_list_of_splits_is_that_of_the_folders(arrays):
    folders = {folder: set(image_ids) for folder, image_ids in released_files(released_splits()).items()}

    assert folders == {folder: ids_of(arrays, folder) for folder, _ in arrays}


def test_the_training_sets_are_nested(arrays):
    sets = [ids_of(arrays, f"training/{fraction}%/train") for fraction in FRACTIONS]

    assert [len(members) for members in sets] == [30, 60, 90, 120]
    assert sets[0] < sets[1] < sets[2] < sets[3]


def test_the_test_set_has_59_80_and_59_photos_by_tone():
    test = released_splits().query("split == 'test'")

    assert test["skin_tone"].value_counts(sort=False).to_dict() == {"V-VI": 59, "I-II": 59, "III-IV": 80}


def test_the_small_test_set_is_16_photos_inside_the_198():
    splits = released_splits()
    small = splits[splits["in_small_test"]]

    assert len(small) == 16
    assert set(small["split"]) == {"test"}
    assert small["image_id"].astype(int).tolist() == [
        11, 22, 100, 184, 202, 233, 239, 292, 294, 311, 375, 395, 417, 498, 627, 644,
    ]  # fmt: skip


def test_validation_is_the_15_known_photos():
    validation = released_splits().query("split == 'validation'")

    assert validation["image_id"].astype(int).tolist() == [
        9, 41, 56, 185, 189, 213, 249, 365, 379, 385, 398, 448, 455, 599, 631,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "shares"),
    [
        ("training/20%/train", [0.108, 0.015, 0.0044, 0.092, 0.780]),
        ("testing/test_light", [0.071, 0.011, 0.0078, 0.090, 0.819]),
        ("testing/test_med", [0.060, 0.015, 0.0062, 0.090, 0.829]),
        ("testing/test_dark", [0.116, 0.025, 0.0049, 0.052, 0.803]),
    ],
)
def test_pixel_shares_are_those_that_were_measured_before(released, arrays, folder, shares):
    found = shares_of([released[name] for name in ids_of(arrays, folder)])

    np.testing.assert_allclose(found, shares, atol=5.1e-4)
    np.testing.assert_allclose(found[2], shares[2], atol=5.1e-5)


def test_lesions_have_the_sizes_that_were_measured_before(released):
    areas = 100 * np.array([(mask == 1).mean() for mask in released.values()])

    np.testing.assert_allclose(np.percentile(areas, [5, 50, 95, 100]), [0.08, 0.61, 7.1, 31.2], atol=0.05)
    assert areas.min() > 0


def test_the_masks_of_the_authors_are_recognised(released):
    assert check_released(released)


def test_painted_masks_are_not_taken_for_those_of_the_authors(painted_ddi):
    assert not check_released(read_released_masks(painted_ddi / MASKS_FILE))


def test_a_mask_that_was_changed_is_found(released):
    changed = dict(released)
    changed["000011"] = np.full((256, 256), 4, dtype=np.uint8)

    with pytest.raises(ValueError, match=r"not all:\n- changed: 000011$"):
        check_released(changed)


def test_folder_zip_and_parent_folder_give_the_same_masks(painted_ddi, release_folder):
    copies = [read_released_masks(path) for path in (painted_ddi / MASKS_FILE, release_folder, release_folder.parent)]

    for copy in copies[1:]:
        assert copy.keys() == copies[0].keys()
        assert all(np.array_equal(mask, copies[0][name]) for name, mask in copy.items())


def replace(path, content):
    path.unlink()
    if content is not None:
        with path.open("wb") as file:
            np.save(file, content) if isinstance(content, np.ndarray) else file.write(content)


def npy_without_pixels():
    buffer = BytesIO()
    np.save(buffer, np.zeros((256, 256), dtype=np.int32))
    return buffer.getvalue()[:500]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"missing: training/5%/train/000081\.npy"),
        (b"not an array", r"training/5%/train/000081\.npy is damaged"),
        (npy_without_pixels(), r"training/5%/train/000081\.npy is damaged"),
        (np.zeros((128, 128), dtype=np.int32), r"000081\.npy must be of 256 x 256 pixels, got \(128, 128\)"),
        (np.full((256, 256), 5), r"000081\.npy may hold the class ids 0 background.*4 skin and 255, found also \[5\]"),
        (np.full((256, 256), 1.0), r"000081\.npy must hold class ids, which are integers, but holds float64"),
        (np.zeros((256, 256, 3), dtype=np.int32), r"000081\.npy must be of shape \(height, width\)"),
        (np.full((256, 256), 4), r"train/000081\.npy differs from the mask of 000081 in another folder"),
    ],
    ids=["missing", "no array", "cut off", "wrong size", "unknown class", "float", "three axes", "two masks"],
)
def test_a_damaged_release_is_refused_by_the_name_of_the_file(release_copy, content, message):
    replace(release_copy / TRAIN_5 / "000081.npy", content)

    with pytest.raises(ValueError, match=message):
        read_released_masks(release_copy)


def test_all_that_is_wrong_is_said_at_once(release_copy):
    replace(release_copy / TRAIN_5 / "000081.npy", None)
    replace(release_copy / "testing/test_dark/000006.npy", b"")
    (release_copy / "testing/test_med/000001.npy").write_bytes(b"")

    with pytest.raises(ValueError, match="is not the release of FEDD's masks") as error:
        read_released_masks(release_copy)

    message = str(error.value)
    assert "missing: training/5%/train/000081" in message
    assert "test_dark/000006.npy is damaged" in message
    assert "not in the release: testing/test_med/000001.npy" in message


def test_a_path_where_nothing_is_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no released masks at .*nowhere"):
        read_released_masks(tmp_path / "nowhere")


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "masks.zip").write_text("hello")

    with pytest.raises(ValueError, match=r"masks\.zip is neither a folder nor a zip file"):
        read_released_masks(tmp_path / "masks.zip")
