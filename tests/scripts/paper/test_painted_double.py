"""The painted double of DDI: its layout, its balance, and that a painting can be interrupted."""

import zipfile

import numpy as np
import pandas as pd
import pytest

import painted_double as ddi
from fedd_hf.data.ddi.local_copy import METADATA_FILE, read_ddi_metadata
from fedd_hf.data.ddi.release import read_released_masks, released_splits
from fedd_hf.data.painted.photos import paint_photo
from painted_double import MASKS_FILE, NUM_PHOTOS, paint_ddi, paint_metadata


@pytest.fixture(scope="module")
def masked():
    """Invented tone and diagnosis of the photos that have a mask, with their released split."""
    return paint_metadata().merge(released_splits(), on="image_id", suffixes=("", "_released"))


@pytest.fixture
def few(monkeypatch):
    """Paint the first eight photos only."""
    full = paint_metadata()
    monkeypatch.setattr(ddi, "paint_metadata", lambda seed: full.head(8))
    monkeypatch.setattr(ddi, "_zip_release", lambda masks: b"")


def test_tones_and_diagnoses_have_the_counts_of_ddi():
    counts = paint_metadata().groupby(["skin_tone", "malignant"]).size().to_dict()

    assert counts == {
        ("I-II", False): 159,
        ("I-II", True): 49,
        ("III-IV", False): 167,
        ("III-IV", True): 74,
        ("V-VI", False): 159,
        ("V-VI", True): 48,
    }


def test_the_nested_training_sets_have_the_tones_and_malignant_photos_of_the_release(masked):
    for fraction, per_tone, num_malignant in ((5, 10, 4), (10, 20, 11), (15, 30, 16), (20, 40, 18)):
        train = masked[masked["label_fraction"] <= fraction]
        assert train["skin_tone"].value_counts().to_dict() == dict.fromkeys(("I-II", "III-IV", "V-VI"), per_tone)
        assert train["malignant"].sum() == num_malignant


def test_validation_and_test_have_the_tones_and_malignant_photos_of_the_release(masked):
    validation, test = (masked[masked["split"] == split] for split in ("validation", "test"))

    assert validation["skin_tone"].value_counts().to_dict() == {"I-II": 5, "III-IV": 5, "V-VI": 5}
    assert validation["malignant"].sum() == 2
    assert test.groupby("skin_tone")["malignant"].sum().to_dict() == {"I-II": 11, "III-IV": 15, "V-VI": 7}
    assert (test["skin_tone"] == test["skin_tone_released"]).all()


def test_the_folder_looks_like_ddi(painted_ddi):
    names = sorted(path.name for path in (painted_ddi / "images").iterdir())

    assert names == [f"{number:06d}.png" for number in range(1, NUM_PHOTOS + 1)]
    columns = pd.read_csv(painted_ddi / METADATA_FILE).columns.tolist()
    assert columns == ["Unnamed: 0", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease"]
    assert read_ddi_metadata(painted_ddi / METADATA_FILE)["file"].tolist() == names


def test_masks_come_in_the_layout_of_the_release(painted_ddi):
    assert len(zipfile.ZipFile(painted_ddi / MASKS_FILE).namelist()) == 622
    masks = read_released_masks(painted_ddi / MASKS_FILE)
    assert len(masks) == 333
    assert all((mask == 1).any() for mask in masks.values())


def test_photos_may_be_painted_over_the_released_masks(few, tmp_path, released_zip, monkeypatch):
    seen = []
    monkeypatch.setattr(ddi, "paint_photo", lambda mask, *rest: seen.append(mask) or paint_photo(mask, *rest))

    paint_ddi(tmp_path / "ddi", masks=released_zip, photo_size=256)

    released = read_released_masks(released_zip)
    masked = [number for number in range(1, 9) if f"{number:06d}" in released]
    assert masked == [1, 6, 7]
    assert all(np.array_equal(seen[number - 1], released[f"{number:06d}"]) for number in masked)
    assert not (tmp_path / "ddi" / MASKS_FILE).exists()


def test_an_interrupted_painting_goes_on_where_it_stopped_and_ends_the_same(few, tmp_path, monkeypatch):
    paint_ddi(tmp_path / "whole", photo_size=32)
    calls = []

    def paint_until_interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return paint_photo(*arguments)

    monkeypatch.setattr(ddi, "paint_photo", paint_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        paint_ddi(tmp_path / "resumed", photo_size=32)
    paint_ddi(tmp_path / "resumed", photo_size=32)

    assert len(calls) == 4 + 5
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "resumed" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_folder_that_is_no_painting_is_left_alone(tmp_path):
    (tmp_path / "000001.png").write_bytes(b"a licensed photo")

    with pytest.raises(FileExistsError, match="holds other files"):
        paint_ddi(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000001.png"]


def test_a_painting_of_other_arguments_is_left_alone(few, tmp_path):
    paint_ddi(tmp_path / "ddi", photo_size=32)

    with pytest.raises(FileExistsError, match='was painted with other arguments: .*"photo_size": 32'):
        paint_ddi(tmp_path / "ddi", photo_size=64)


@pytest.mark.parametrize("option", [{"photo_size": 16}, {"seed": -1}])
def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path, option):
    with pytest.raises(ValueError, match="must"):
        paint_ddi(tmp_path / "ddi", **option)
    assert not (tmp_path / "ddi").exists()
