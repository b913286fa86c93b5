"""scripts/build_ddi_seg.py: the dataset repository, opened as its users open it."""

import hashlib
import json
import re
import runpy
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import datasets
import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from card_rules import check_card
from datasets import get_dataset_config_names, load_dataset
from PIL import Image

from fedd_hf.data.ddi.local_copy import METADATA_FILE
from fedd_hf.data.ddi.release import read_released_masks
from fedd_hf.data.leakage import hash_pixels
from fedd_hf.labels import PixelClass
from painted_double import MASKS_FILE

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_ddi_seg.py"
TONES = ["I-II", "III-IV", "V-VI"]


@pytest.fixture(scope="session")
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="session")
def real(main, released_zip, tmp_path_factory):
    """ddi-seg as it can be published: from the real masks, without metadata."""
    folder = tmp_path_factory.mktemp("real") / "ddi-seg"
    main(["--masks", str(released_zip), "--output-dir", str(folder)])
    return folder


@pytest.fixture
def paths(painted_ddi, tmp_path):
    """Arguments of a build from the double."""
    return {
        "--masks": painted_ddi / MASKS_FILE,
        "--metadata": painted_ddi / METADATA_FILE,
        "--output-dir": tmp_path / "ddi-seg",
    }


def run(main, paths):
    main([str(word) for pair in paths.items() for word in pair])


def card_of(folder):
    return (folder / "README.md").read_text()


def table_of(card, first_cell):
    """Rows of the first table of a card that starts with this cell, as dictionaries."""
    lines = card[card.index(f"| {first_cell} |") :].split("\n\n")[0].splitlines()
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]
    return [dict(zip(header, row, strict=True)) for row in rows]


# the real masks


@pytest.mark.parametrize("configuration", [None, "segmentation"])
def test_all_masks_of_the_release_come_back_pixel_for_pixel(real, released_zip, configuration):
    archive = zipfile.ZipFile(released_zip)
    arrays = {Path(name).stem: np.load(BytesIO(archive.read(name))) for name in archive.namelist() if ".npy" in name}

    loaded = load_dataset(str(real), configuration)

    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == len(arrays) == 333
    for row in rows:
        assert row["mask"].mode == "L"
        assert np.array_equal(np.asarray(row["mask"]), arrays[row["image_id"]])
        assert np.array_equal(np.asarray(row["mask_preview"]), arrays[row["image_id"]])


def test_the_splits_are_120_15_and_198_and_nested(real):
    loaded = load_dataset(str(real))

    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 120, "validation": 15, "test": 198}
    fractions = np.array(loaded["train"]["label_fraction"])
    assert [(fractions <= fraction).sum() for fraction in (5, 10, 15, 20)] == [30, 60, 90, 120]
    assert set(loaded["validation"]["label_fraction"]) | set(loaded["test"]["label_fraction"]) == {None}


def test_tones_are_known_for_the_test_set_alone(real):
    loaded = load_dataset(str(real))

    assert loaded["test"].features["skin_tone"].names == TONES
    assert [list(loaded["test"]["skin_tone"]).count(tone) for tone in range(3)] == [59, 80, 59]
    assert set(loaded["train"]["skin_tone"]) | set(loaded["validation"]["skin_tone"]) == {None}
    assert "malignant" not in loaded["test"].column_names


def test_two_builds_of_the_real_masks_are_byte_identical(main, real, released_zip, tmp_path):
    main(["--masks", str(released_zip), "--output-dir", str(tmp_path / "again")])

    files = sorted(path.relative_to(real) for path in real.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*"))
    assert all((real / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_the_card_of_the_real_masks_says_what_the_release_really_contains(real):
    card = " ".join(card_of(real).split())

    for statement in (
        "The paper speaks of 378 annotated photos. The release holds **333 different masks**",
        "120 to train, 15 to validate and 198 to test",
        "The 16 masks of its small test folders are **inside** the 198",
        "balanced by skin tone but **not by malignancy** (18 malignant of 120)",
        "half of them cover less than 0.61 %",
        "examples of skipped photos are 25, 55 and 161; 0 of these three have a mask here",
        "their repository states **no licence**",
        "no redistribution, no re-identification",
        "Research only, not a medical device",
    ):
        assert statement in card
    assert "Stand-in" not in card


# the painted double


def test_both_configurations_open_offline_and_segmentation_is_the_default(ddi_seg):
    assert sorted(get_dataset_config_names(str(ddi_seg))) == ["classification", "segmentation"]
    assert (
        load_dataset(str(ddi_seg))["train"].column_names
        == load_dataset(str(ddi_seg), "segmentation")["train"].column_names
    )
    sizes = {name: len(rows) for name, rows in load_dataset(str(ddi_seg), "classification").items()}
    assert sizes == {"train": 120, "validation": 30, "test": 30, "large_test": 476}


def test_class_pixels_are_those_of_the_mask(ddi_seg):
    for row in load_dataset(str(ddi_seg), split="validation"):
        counts = np.bincount(np.asarray(row["mask"]).flatten(), minlength=5)
        assert [row[f"{kind.label}_pixels"] for kind in PixelClass] == counts.tolist()


def test_metadata_fills_tones_and_diagnoses(ddi_seg):
    rows = load_dataset(str(ddi_seg), split="train")

    assert [list(rows["skin_tone"]).count(tone) for tone in range(3)] == [40, 40, 40]
    assert sum(rows["malignant"]) == 18
    assert None not in rows["disease"]


@pytest.mark.parametrize("folder", ["real", "ddi_seg"])
def test_the_card_follows_the_rules_of_the_hub(folder, request):
    card = card_of(request.getfixturevalue(folder))

    assert check_card(card, "dataset") == []


def test_a_stand_in_says_that_it_is_one(ddi_seg):
    assert "must not be published as\n> theirs" in card_of(ddi_seg)


def test_the_card_counts_what_the_data_hold(ddi_seg):
    shown = {row["set"]: row for row in table_of(card_of(ddi_seg), "set | photos")}
    train = load_dataset(str(ddi_seg), split="train")

    assert list(shown) == [f"train, {fraction} %" for fraction in (5, 10, 15, 20)] + [
        "validation",
        "test",
        "small test (within test)",
    ]
    for fraction in (5, 10, 15, 20):
        rows = [row for row in train.remove_columns(["mask", "mask_preview"]) if row["label_fraction"] <= fraction]
        row = shown[f"train, {fraction} %"]
        assert int(row["photos"]) == len(rows)
        assert int(row["malignant"]) == sum(row["malignant"] for row in rows)
        assert [int(row[tone]) for tone in TONES] == [sum(r["skin_tone"] == t for r in rows) for t in range(3)]


def test_the_hash_of_the_classification_splits_is_printed_and_on_the_card(main, paths, capsys):
    run(main, paths)

    (printed,) = re.findall(r"SHA-256 ([0-9a-f]{64})", capsys.readouterr().out)
    assert printed in card_of(paths["--output-dir"])
    assert json.loads((paths["--output-dir"] / "manifest.json").read_text())["classification"] == {
        "seed": 0,
        "sha256": printed,
    }


def test_the_manifest_holds_checksums_of_files_masks_and_photos(ddi_seg, painted_ddi):
    manifest = json.loads((ddi_seg / "manifest.json").read_text())

    files = {path.relative_to(ddi_seg).as_posix(): path for path in ddi_seg.rglob("*.parquet")}
    assert manifest["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    row = load_dataset(str(ddi_seg), split="test")[3]
    assert manifest["masks"][row["image_id"]] == hashlib.sha256(np.asarray(row["mask"]).tobytes()).hexdigest()
    assert len(manifest["masks"]) == 333
    photo = Image.open(painted_ddi / "images" / "000004.png")
    assert photo.mode == "RGBA"
    assert manifest["photos"]["000004.png"] == {
        "width": photo.width,
        "height": photo.height,
        "pixel_sha256": hash_pixels(photo.convert("RGB")),
    }
    assert len(manifest["photos"]) == 656


# what users of datasets do


# what must never be in it


def images_in(folder):
    """Yield every image in every file: image files, and image cells of Parquet."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            for column in pq.read_table(path).columns:
                yield from (cell["bytes"] for cell in column.to_pylist() if isinstance(cell, dict) and "bytes" in cell)
        elif path.is_file() and path.suffix not in (".md", ".json"):
            yield path.read_bytes()


class PhotoFinder:
    """Finds photos by their pixels and by their looks, at three sizes; a map that was put in is no photo."""

    def __init__(self, photos, masks):
        self.photos = [Image.open(path).convert("RGB") for path in sorted(photos.iterdir())]
        self.pixels = {hash_pixels(photo) for photo in self.photos}
        self.bits = np.stack([imagehash.phash(photo).hash.flatten() for photo in self.photos])
        self.masks = {mask.tobytes() for mask in masks.values()}

    def is_photo(self, encoded):
        image = Image.open(BytesIO(encoded))
        if image.mode in ("L", "P") and np.asarray(image).tobytes() in self.masks:
            return False
        return hash_pixels(image.convert("RGB")) in self.pixels or self.looks_like_one(image.convert("RGB"))

    def looks_like_one(self, image):
        looks = [imagehash.phash(image.resize((side, side))).hash.flatten() for side in (64, 128, 256)]
        return min((self.bits != bits).sum(axis=1).min() for bits in looks) <= 4


@pytest.fixture(scope="session")
def finder(painted_ddi):
    return PhotoFinder(painted_ddi / "images", read_released_masks(painted_ddi / MASKS_FILE))


def encode(image, file_format):
    buffer = BytesIO()
    image.save(buffer, format=file_format, **({"quality": 60} if file_format == "JPEG" else {}))
    return buffer.getvalue()


def test_no_photo_is_in_any_file_that_was_built(ddi_seg, finder):
    images = list(images_in(ddi_seg))

    assert len(images) == 2 * 333
    assert [encoded for encoded in images if finder.is_photo(encoded)] == []


def test_a_photo_that_was_put_in_would_be_found(ddi_seg, finder, tmp_path):
    """The control: as it is, as a thumbnail in a Parquet cell, and as a damaged copy beside the tables."""
    folder = Path(shutil.copytree(ddi_seg, tmp_path / "leaking"))
    photo = finder.photos[11]
    rows = load_dataset(str(ddi_seg), split="validation").cast_column("mask", datasets.Image())
    cells = [{"bytes": encode(photo.resize((64, 64)), "PNG"), "path": None}] * len(rows)
    rows = rows.remove_columns("mask").add_column("mask", cells, feature=datasets.Image())
    rows.to_parquet(folder / "segmentation" / "validation.parquet")
    (folder / "copy.jpg").write_bytes(encode(photo.resize((96, 96)), "JPEG"))

    found = [encoded for encoded in images_in(folder) if finder.is_photo(encoded)]

    assert finder.is_photo(encode(photo, "PNG"))
    assert len(found) == len(rows) + 1


# what is refused


def edit(metadata, output, changes):
    lines = metadata.read_text().splitlines()
    rows = [changes.get(line.split(",")[2].removesuffix(".png"), lambda line: line)(line) for line in lines]
    output.write_text("\n".join(row for row in rows if row is not None) + "\n")
    return output


def with_tone(code):
    return lambda line: ",".join([*line.split(",")[:3], str(code), *line.split(",")[4:]])


def drop(_line):
    return None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"000006": with_tone(12)}, "000006 is I-II, but lies in the test folder of V-VI"),
        ({"000006": drop}, r"photos with a mask are absent: \['000006'\]"),
        ({"000009": drop}, r"photos with a mask are absent: \['000009'\]"),
    ],
    ids=["tone of a test photo", "test photo absent", "validation photo absent"],
)
def test_metadata_that_contradicts_the_release_is_refused_with_the_ids(main, paths, tmp_path, changes, message):
    paths["--metadata"] = edit(paths["--metadata"], tmp_path / "edited.csv", changes)

    with pytest.raises(SystemExit, match=message):
        run(main, paths)
    assert not paths["--output-dir"].exists()


def test_metadata_that_unbalances_the_training_tones_is_refused_with_the_ids(main, paths, tmp_path):
    lines = {line.split(",")[2]: line for line in paths["--metadata"].read_text().splitlines()}
    old = int(lines["000081.png"].split(",")[3])
    new = {12: 34, 34: 56, 56: 12}[old]
    paths["--metadata"] = edit(paths["--metadata"], tmp_path / "edited.csv", {"000081": with_tone(new)})

    with pytest.raises(SystemExit) as error:
        run(main, paths)

    message = str(error.value)
    assert "The metadata contradicts the released folders" in message
    assert re.search(r"the training set of 5 % has 10 photos of [IV-]+, but 11 here: .*'000081'", message)
    assert re.search(r"the training set of 20 % has 40 photos of [IV-]+, but 41 here", message)


def test_an_output_folder_that_holds_files_is_left_alone(main, paths):
    paths["--output-dir"].mkdir()
    (paths["--output-dir"] / "thesis.txt").write_text("mine")

    with pytest.raises(SystemExit, match="`output_dir` must be new or empty"):
        run(main, paths)
    assert [path.name for path in paths["--output-dir"].iterdir()] == ["thesis.txt"]


def test_nothing_is_left_behind_when_a_build_fails(main, paths, tmp_path):
    paths["--photos"] = tmp_path / "empty"
    paths["--photos"].mkdir()
    before = sorted(tmp_path.iterdir())

    with pytest.raises(SystemExit, match=r"no photos like 000001\.png"):
        run(main, paths)
    assert sorted(tmp_path.iterdir()) == before


def test_masks_that_are_not_there_are_refused(main, paths):
    with pytest.raises(SystemExit, match="build_ddi_seg: There are no released masks at nowhere"):
        run(main, paths | {"--masks": "nowhere"})


def test_a_folder_that_was_built_anew_is_not_read_from_the_cache(main, paths, tmp_path):
    """`datasets` caches local folders by what their README says, whatever the tables hold."""
    run(main, paths)
    before = load_dataset(str(paths["--output-dir"]), "classification", split="large_test")
    shutil.rmtree(paths["--output-dir"])
    line = next(line for line in paths["--metadata"].read_text().splitlines() if "epidermal-cyst" in line)
    swapped = {line.split(",")[2].removesuffix(".png"): lambda line: line.replace("epidermal-cyst", "cyst-epidermal")}

    run(main, paths | {"--metadata": edit(paths["--metadata"], tmp_path / "edited.csv", swapped)})

    after = load_dataset(str(paths["--output-dir"]), "classification")
    assert sum("cyst-epidermal" in list(rows["disease"]) for rows in after.values()) == 1
    assert "cyst-epidermal" not in before["disease"]
