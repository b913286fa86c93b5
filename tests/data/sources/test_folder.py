import numpy as np
import pytest
from PIL import Image

from fedd_hf.data.masks import read_lesion_mask
from fedd_hf.data.schema import tone_labels
from fedd_hf.data.sources import load_folder


@pytest.fixture
def root(tmp_path, save_photo):
    """A folder with three photos of three formats and nothing else."""
    for name in ("a.jpg", "b.PNG", "c.webp"):
        save_photo(tmp_path / "images" / name)
    return tmp_path


def save_ids(path, ids=(0, 1, 2, 3, 4, 255), size=(12, 9)):
    """Save a mask in which each of these class ids stands in columns of its own."""
    path.parent.mkdir(exist_ok=True)
    row = np.resize(np.asarray(ids), size[0])
    mask = np.tile(row, (size[1], 1))
    if path.suffix == ".npy":
        np.save(path, mask)
    else:
        Image.fromarray(mask.astype(np.uint8)).save(path)
    return mask


def write_table(root, *lines):
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def problems_of(root):
    with pytest.raises(ValueError, match="folder in .* cannot be loaded") as caught:
        load_folder(root)
    return str(caught.value).split("\n- ")[1:]


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_masks_of_class_ids_are_loaded_for_the_photos_that_have_one(root, suffix):
    ids = save_ids(root / "masks" / f"b{suffix}")

    rows = load_folder(root)

    assert [row["mask"] is None for row in rows] == [True, False, True]
    assert np.array_equal(np.asarray(rows[1]["mask"]), ids)


def test_a_mask_fits_the_upright_photo(tmp_path, save_photo):
    save_photo(tmp_path / "images" / "a.jpg", orientation=6)
    save_ids(tmp_path / "masks" / "a.png", size=(9, 12))

    (row,) = load_folder(tmp_path)

    assert row["mask"].size == row["image"].size == (9, 12)


def test_photos_are_named_by_id_or_by_file(root):
    by_id = write_table(root, "image_id,disease", "c,z", "a,x", "b,y")
    diseases = load_folder(by_id)["disease"]
    by_file = write_table(root, "file_name,disease", "c.webp,z", "a.jpg,x", "b.PNG,y")

    assert diseases == load_folder(by_file)["disease"] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("column", "cells", "labels"),
    [
        ("skin_tone", ["I-II", "v-vi", ""], ["I-II", "V-VI", None]),
        ("skin_tone", ["12", "34", "56"], ["I-II", "III-IV", "V-VI"]),
        ("skin_tone", ["12.0", "", "56.0"], ["I-II", None, "V-VI"]),
        ("fitzpatrick", ["1", "4", "6"], ["I-II", "III-IV", "V-VI"]),
        ("fitzpatrick", ["II", "", "V"], ["I-II", None, "V-VI"]),
    ],
)
def test_tones_are_read_in_every_notation(root, column, cells, labels):
    write_table(root, f"image_id,{column}", *(f"{name},{cell}" for name, cell in zip("abc", cells, strict=True)))

    assert tone_labels(load_folder(root)) == labels


@pytest.mark.parametrize("column", ["ita", "monk_skin_tone"])
def test_other_scales_of_colour_never_become_a_tone(root, column):
    write_table(root, f"image_id,{column}", "a,1", "b,4", "c,6")

    assert tone_labels(load_folder(root)) == [None] * 3


def test_the_group_is_the_given_one_else_the_patient_else_the_lesion(root):
    write_table(root, "image_id,group_id,patient_id,lesion_id", "a,G,P,L", "b,,P,L", "c,,,L")

    assert load_folder(root)["group_id"] == ["G", "P", "L"]


def test_a_table_of_paths_is_loaded_in_its_own_order(tmp_path, save_photo):
    save_photo(tmp_path / "clinic" / "b.jpg")
    save_photo(tmp_path / "clinic" / "a.jpg")
    ids = save_ids(tmp_path / "drawn" / "b_ids.png")
    (tmp_path / "photos.csv").write_text("image,mask,fitzpatrick\nclinic/b.jpg,drawn/b_ids.png,5\nclinic/a.jpg,,\n")

    dataset = load_folder(tmp_path / "photos.csv")

    assert dataset["image_id"] == ["b", "a"]
    assert tone_labels(dataset) == ["V-VI", None]
    assert np.array_equal(np.asarray(dataset[0]["mask"]), ids)
    assert dataset[1]["mask"] is None


def test_photos_that_cannot_be_decoded_to_their_end_are_told_with_other_files(root, save_photo):
    damaged = root / "images" / "a.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-150])
    (root / "images" / "notes.txt").write_text("no photo")
    (root / "images" / "more").mkdir()
    (root / "images" / "b.PNG").write_bytes(b"")

    cut, *others = problems_of(root)

    formats = "it must be JPEG, PNG, WEBP, BMP, TIFF."
    assert cut.startswith(f"Cannot read {damaged}: ")
    assert others == [
        f"{root}/images/b.PNG is not an image that can be read; {formats}",
        f"{root}/images/more is a folder; photos must lie in {root}/images itself.",
        f"{root}/images/notes.txt is not an image that can be read; {formats}",
    ]


def test_masks_that_are_not_usable_are_told(root):
    save_ids(root / "masks" / "a.png", ids=(1, 4, 7))
    np.save(root / "masks" / "b.npy", np.ones((9, 12), dtype=np.float32))
    save_ids(root / "masks" / "c.png", size=(9, 12))

    assert problems_of(root) == [
        f"{root}/masks/a.png may hold the class ids 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin and 255, "
        "found also [7].",
        f"{root}/masks/b.npy must hold class ids, which are integers, but holds float32.",
        f"{root}/masks/c.png must be of the size of its upright photo, 9 x 12 (height x width), but is 12 x 9.",
    ]


def test_masks_that_belong_to_no_photo_are_told(root):
    save_ids(root / "masks" / "a_mask.png")
    save_ids(root / "masks" / "b.png")
    save_ids(root / "masks" / "b.npy")
    (root / "masks" / "c.gif").write_text("")

    assert problems_of(root) == [
        f"{root}/masks/a_mask.png is the mask of no photo: there is no photo 'a_mask'.",
        f"{root}/masks/b.png is a second mask of 'b', beside b.npy.",
        f"{root}/masks/c.gif must be a .png or .npy file.",
    ]


def test_the_conversion_that_the_hint_names_makes_a_mask_that_is_loaded(root, save_lesion):
    mask = save_lesion(root / "masks" / "a.png", bits=8)

    Image.fromarray(read_lesion_mask(mask)).save(mask)

    assert sorted(np.unique(np.asarray(load_folder(root)[0]["mask"]))) == [1, 4]


def test_unknown_values_are_told_with_their_row_and_the_allowed_ones(root):
    write_table(root, "image_id,skin_tone,malignant,split", "a,lt1,0,train", "b,12,maybe,train", "c,56,1,dev")

    table = root / "metadata.csv"
    assert problems_of(root) == [
        f"{table}, line 2: `skin_tone` must be one of I-II, III-IV, V-VI, 12, 34, 56, or empty; got 'lt1'.",
        f"{table}, line 3: `malignant` must be one of 0, 1, false, true, benign, malignant, or empty; got 'maybe'.",
        f"{table}, line 4: `split` must be one of train, validation, val, test, or empty; got 'dev'.",
    ]


def test_a_table_with_two_scales_of_tone_is_refused(root):
    write_table(root, "image_id,skin_tone,fitzpatrick", "a,12,", "b,,4", "c,,")

    assert problems_of(root) == [
        f"{root}/metadata.csv has both `skin_tone` and `fitzpatrick`; keep the one that was recorded."
    ]


def test_rows_without_a_photo_and_photos_without_a_row_are_told(root):
    write_table(root, "image_id", "a", "b", "x")

    assert problems_of(root) == [
        f"{root}/metadata.csv, line 4: there is no photo 'x'.",
        f"{root}/images/c.webp has no row in {root}/metadata.csv.",
    ]


def test_a_folder_without_images_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*images. Put the photos there, or give a CSV"):
        load_folder(tmp_path)
