"""scripts/build_composite.py, end to end on a tiny folder of the layout of PAD-UFES-20."""

import io
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from card_rules import check_card
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from fedd_hf.data.schema import FEATURES

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_composite.py"

TABLE = """\
image,mask,label,malignant,fitzpatrick,patient_id,split
images/a.jpg,masks/a.png,BCC,1,1.0,PAT_1,train
images/b.jpg,masks/b.png,NEV,0,,PAT_2,train
images/c.jpg,,NEV,0,3.0,PAT_2,train
images/d.jpg,masks/d.png,SEK,0,4.0,PAT_3,validation
images/e.jpg,masks/e.png,MEL,1,6.0,PAT_4,test
"""


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pad"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "metadata.csv").write_text(TABLE)
    exif = Image.Exif()
    exif[0x010F] = "Maker of a phone"
    for shade, name in enumerate("abcde"):
        Image.new("RGB", (48, 40), (200, 150, 100 + 10 * shade)).save(folder / "images" / f"{name}.jpg", exif=exif)
        lesion = np.zeros((40, 48), dtype=bool)
        lesion[15:25, 20:30] = True
        Image.fromarray(lesion).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def built(main, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "composite"
    main(["--root", str(root), "--output-dir", str(folder), "--size", "64", "--seed", "5"])
    return folder


def test_the_folder_opens_as_a_dataset_with_the_splits_of_the_source(built, tmp_path):
    splits = load_dataset(str(built), cache_dir=str(tmp_path))

    assert {name: split["image_id"][:] for name, split in splits.items()} == {
        "train": ["a", "b"],
        "validation": ["d"],
        "test": ["e"],
    }
    assert all(split.features == FEATURES for split in splits.values())
    row = splits["test"][0]
    assert row["image"].size == row["mask"].size == (64, 64)
    assert (row["disease"], row["group_id"], row["split"]) == ("MEL", "PAT_4", "test")
    assert row["source"] == "composite-pad-ufes-20"


def test_two_builds_are_equal_byte_by_byte(main, root, built, tmp_path):
    main(["--root", str(root), "--output-dir", str(tmp_path / "again"), "--size", "64", "--seed", "5"])

    first, again = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (built, tmp_path / "again")
    )
    assert len(first) == 5
    assert first == again


def test_the_card_follows_the_rules_of_the_hub(built):
    assert check_card((built / "README.md").read_text(), "dataset") == []


def test_the_card_has_no_placeholder_and_states_what_the_data_are(built):
    card = DatasetCard.load(built / "README.md")

    assert re.findall(r"\{\{ |\{%|More Information|TODO|None|\bnan\b", card.content) == []
    assert "composite" in card.data.pretty_name
    assert (card.data.license, card.data.task_categories) == ("other", ["image-segmentation"])
    assert card.data.size_categories == ["n<1K"]
    for statement in (
        "not real five-class annotation",
        "not a medical device",
        "not for clinical use",
        "No published result may call these data real",
        "Pacheco et al. 2020",
        "CC BY 4.0",
        "state no licence",
    ):
        assert statement in card.text


def test_the_numbers_of_the_card_are_those_of_the_data(built, tmp_path):
    splits = load_dataset(str(built), cache_dir=str(tmp_path))
    card = (built / "README.md").read_text()

    masks = np.stack([np.asarray(row["mask"]) for row in splits["train"]])
    assert "4 photos of 64 x 64 pixels with a mask each, painted with seed 5." in card
    assert "1 photo of the source has no lesion mask and is left out." in card
    assert "| train | I-II | 1 | 1 | 0 |" in card
    assert "| train | unknown | 1 | 0 | 1 |" in card
    assert f"| train | lesion | {100 * np.mean(masks == 1):.2f} % | 2 |" in card
    assert f"| train | skin | {100 * np.mean(masks == 4):.2f} % | 2 |" in card


def test_no_metadata_of_a_phone_is_left(built, tmp_path):
    splits = load_dataset(str(built), cache_dir=str(tmp_path))

    for split in splits.values():
        for cell in split.data.column("image").to_pylist():
            assert b"Maker" not in cell["bytes"]
            assert dict(Image.open(io.BytesIO(cell["bytes"])).getexif()) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "`seed` must not be negative, got -1"),
        (["--size", "8"], "`size` must be at least 32 pixels, got 8"),
        (["--root", "nowhere"], "nowhere"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(main, root, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["--root", str(root), "--output-dir", str(tmp_path / "composite"), *arguments])

    assert str(exit_info.value).startswith("build_composite: ")
    assert message in str(exit_info.value)
    assert list(tmp_path.iterdir()) == []
