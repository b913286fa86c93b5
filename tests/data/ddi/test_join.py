"""load_ddi on a painted double of DDI: the real layout, its names, and the traps of real copies."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from fedd_hf.data import load_ddi
from fedd_hf.data.ddi import join
from fedd_hf.data.ddi.ddi_seg import draw_classification
from fedd_hf.data.ddi.local_copy import METADATA_FILE, read_ddi_metadata
from fedd_hf.data.schema import FEATURES, tone_labels
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import SkinTone

TONES = ["I-II", "III-IV", "V-VI"]


@pytest.fixture(scope="module")
def joined(painted_ddi, ddi_seg):
    return load_ddi(painted_ddi, ddi_seg)


@pytest.fixture(scope="module")
def classified(painted_ddi, ddi_seg):
    return load_ddi(painted_ddi, ddi_seg, task="classification")


@pytest.fixture
def trusting(monkeypatch):
    """Skip the search for leakage, in tests of something else."""
    monkeypatch.setattr("fedd_hf.data.splits.check_leakage", lambda splits, allow_leakage: None)


def rewrite(path, photo):
    path.unlink()
    photo.save(path)


def rewrite_table(folder, change):
    text = (folder / METADATA_FILE).read_text()
    (folder / METADATA_FILE).unlink()
    (folder / METADATA_FILE).write_text(change(text))


def count_tones(rows):
    return [tone_labels(rows).count(tone) for tone in TONES]


def test_photos_and_masks_are_joined_in_the_one_row_format(joined):
    assert {name: len(rows) for name, rows in joined.items()} == {"train": 120, "validation": 15, "test": 198}
    assert all(rows.features == FEATURES for rows in joined.values())
    assert set(joined["test"]["source"]) == {"ddi"}
    assert set(joined["test"]["split"]) == {"test"}


def test_every_photo_is_the_one_of_its_name_squashed_as_the_processor_squashes(joined, painted_ddi):
    processor = FEDDImageProcessor(size=256)

    for row in joined["validation"]:
        photo = Image.open(painted_ddi / "images" / f"{row['image_id']}.png").convert("RGB")
        assert row["image"].mode == "RGB"
        assert row["image"].size == row["mask"].size == (256, 256)
        expected = processor(images=photo, return_tensors="np")["pixel_values"]
        found = processor(images=row["image"], return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tones_and_diagnoses_are_those_of_the_local_metadata(joined, painted_ddi):
    metadata = read_ddi_metadata(painted_ddi / METADATA_FILE).set_index("image_id")

    for name, rows in joined.items():
        tones = tone_labels(rows)
        for image_id, tone, malignant, disease in zip(
            rows["image_id"], tones, rows["malignant"], rows["disease"], strict=True
        ):
            assert [tone, malignant, disease] == metadata.loc[image_id, ["skin_tone", "malignant", "disease"]].tolist()
        assert None not in tones, name


def test_the_flat_layout_and_the_older_header_give_the_same_rows(joined, ddi_copy, ddi_seg, trusting):
    for path in (ddi_copy / "images").iterdir():
        path.rename(ddi_copy / path.name)
    (ddi_copy / "images").rmdir()
    rewrite_table(ddi_copy, lambda text: text.replace("malignant", "malignancy(malig=1)"))

    flat = load_ddi(str(ddi_copy), str(ddi_seg))

    for name, rows in joined.items():
        assert flat[name].data.table.equals(rows.data.table)


def test_center_crop_takes_the_middle_of_the_photo(painted_ddi, ddi_seg, trusting):
    cropped = load_ddi(painted_ddi, ddi_seg, geometry="center_crop")["validation"]

    photo = Image.open(painted_ddi / "images" / f"{cropped[0]['image_id']}.png").convert("RGB")
    left = (photo.width - photo.height) / 2
    middle = photo.crop((round(left), 0, round(left) + photo.height, photo.height)).resize((256, 256), 2)
    difference = np.abs(np.asarray(middle, dtype=int) - np.asarray(cropped[0]["image"], dtype=int))
    assert photo.width > photo.height
    assert difference.mean() < 2


# Choosing


@pytest.mark.parametrize(("fraction", "per_tone"), [(0.05, 10), (0.2, 40)])
def test_a_label_fraction_keeps_the_published_training_photos(
    joined, painted_ddi, ddi_seg, trusting, fraction, per_tone
):
    chosen = load_ddi(painted_ddi, ddi_seg, label_fraction=fraction)

    published = load_dataset(str(ddi_seg), split="train").remove_columns(["mask", "mask_preview"])
    assert chosen["train"]["image_id"] == [
        row["image_id"] for row in published if row["label_fraction"] <= 100 * fraction
    ]
    assert count_tones(chosen["train"]) == [per_tone] * 3
    assert len(chosen["test"]) == 198


def test_a_seed_draws_other_training_photos_nested_and_balanced(painted_ddi, ddi_seg, trusting):
    small, large = (load_ddi(painted_ddi, ddi_seg, label_fraction=part, seed=7)["train"] for part in (0.05, 0.1))
    published = load_ddi(painted_ddi, ddi_seg, label_fraction=0.05)["train"]

    assert set(small["image_id"]) < set(large["image_id"])
    assert count_tones(small) == [10, 10, 10]
    assert set(small["image_id"]) != set(published["image_id"])


@pytest.mark.parametrize("tone", ["V-VI", [SkinTone.V_VI]], ids=["label", "list"])
def test_one_skin_tone_may_be_kept(painted_ddi, ddi_seg, trusting, tone):
    chosen = load_ddi(painted_ddi, ddi_seg, label_fraction=0.05, skin_tone=tone)

    assert {name: len(rows) for name, rows in chosen.items()} == {"train": 10, "validation": 5, "test": 59}
    assert set(tone_labels(chosen["test"])) == {"V-VI"}


# Classification


def test_classification_is_the_draw_of_the_supplements_table_1(classified, painted_ddi):
    drawn = draw_classification(read_ddi_metadata(painted_ddi / METADATA_FILE))

    assert {name: len(rows) for name, rows in classified.items()} == {
        "train": 120,
        "validation": 30,
        "test": 30,
        "large_test": 476,
    }
    for name, rows in classified.items():
        assert rows["image_id"] == drawn.loc[drawn["split"] == name, "image_id"].tolist()


@pytest.mark.parametrize("seed", [None, 3])
def test_a_classification_fraction_has_as_many_malignant_as_benign_photos(painted_ddi, ddi_seg, trusting, seed):
    train = load_ddi(painted_ddi, ddi_seg, task="classification", label_fraction=0.05, seed=seed)["train"]

    cells = list(zip(tone_labels(train), train["malignant"], strict=True))
    assert [cells.count((tone, kind)) for tone in TONES for kind in (True, False)] == [5] * 6


# What is wrong with the copy


def test_all_that_is_wrong_with_the_photos_is_said_in_one_error(ddi_copy, ddi_seg):
    images = ddi_copy / "images"
    (images / "000006.png").unlink()
    (images / "holiday.png").write_bytes((images / "000007.png").read_bytes())
    rewrite(images / "000011.png", Image.open(images / "000011.png").resize((70, 60)))
    changed = Image.open(images / "000022.png").convert("RGB")
    changed.putpixel((3, 3), (255, 0, 255))
    rewrite(images / "000022.png", changed)
    whole = (images / "000100.png").read_bytes()
    (images / "000100.png").unlink()
    (images / "000100.png").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ValueError, match="The photos are not those of DDI") as error:
        load_ddi(ddi_copy, ddi_seg)

    lines = str(error.value).splitlines()[1:]
    assert lines[0] == "- missing: 000006.png"
    assert lines[1] == f"- not of DDI: {images / 'holiday.png'}"
    assert lines[2] == "- wrong size: 000011.png is of 70 x 60 pixels, and of 64 x 48 in the manifest"
    assert lines[3] == "- changed: 000022.png has other pixels than the manifest says"
    assert lines[4].startswith(f"- Cannot read {images / '000100.png'}")
    assert len(lines) == 5


def test_a_photo_that_is_in_two_splits_is_refused_unless_it_is_allowed(ddi_copy, ddi_seg, tmp_path, caplog):
    """DDI has no patient ids: near-duplicates are all that can be found."""
    plain = Path(shutil.copytree(ddi_seg, tmp_path / "plain"))
    manifest = json.loads((plain / "manifest.json").read_text())
    del manifest["photos"]
    (plain / "manifest.json").write_text(json.dumps(manifest))
    train, test = ddi_copy / "images" / "000081.png", ddi_copy / "images" / "000006.png"
    rewrite(test, Image.open(train).convert("RGB"))

    with pytest.raises(ValueError, match=r"same file: 000081 \(train\) and 000006 \(test\)"):
        load_ddi(ddi_copy, plain)
    assert len(load_ddi(ddi_copy, plain, allow_leakage=True)["test"]) == 198
    assert "Leakage allowed: same file: 000081 (train) and 000006 (test)" in caplog.text


def test_photos_in_both_places_are_refused(ddi_copy, ddi_seg):
    shutil.copy(ddi_copy / "images" / "000001.png", ddi_copy / "000001.png")

    with pytest.raises(ValueError, match="keep those of one place"):
        load_ddi(ddi_copy, ddi_seg)


def test_a_folder_without_photos_says_where_they_must_lie(ddi_copy, ddi_seg):
    shutil.rmtree(ddi_copy / "images")

    with pytest.raises(FileNotFoundError, match=r"no photos like 000001\.png in .*images nor in"):
        load_ddi(ddi_copy, ddi_seg)


def test_metadata_that_contradicts_the_masks_is_refused(ddi_copy, ddi_seg):
    rewrite_table(ddi_copy, lambda text: text.replace("000006.png,56", "000006.png,12"))

    with pytest.raises(ValueError, match="000006 is I-II, but lies in the test folder of V-VI"):
        load_ddi(ddi_copy, ddi_seg)


def test_another_diagnosis_than_that_of_ddi_seg_is_refused(ddi_copy, ddi_seg):
    def flip(text):
        lines = text.splitlines()
        (index,) = [number for number, line in enumerate(lines) if "000006.png" in line]
        old, new = ("True", "False") if "True" in lines[index] else ("False", "True")
        lines[index] = lines[index].replace(old, new)
        return "\n".join(lines)

    rewrite_table(ddi_copy, flip)

    with pytest.raises(ValueError, match="`malignant` of 000006 differs from that of ddi-seg"):
        load_ddi(ddi_copy, ddi_seg)


# What is wrong with the masks or the call


def test_masks_of_another_revision_than_the_manifest_are_refused(painted_ddi, ddi_seg, tmp_path):
    mixed = Path(shutil.copytree(ddi_seg, tmp_path / "mixed"))
    manifest = json.loads((mixed / "manifest.json").read_text())
    manifest["masks"]["000006"] = "0" * 64
    (mixed / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ValueError, match="the mask of 000006 is not that of the manifest"):
        load_ddi(painted_ddi, mixed)


@pytest.mark.parametrize("damage", ["manifest", "half a table", "another dataset"])
def test_a_damaged_ddi_seg_is_refused_with_the_way_to_build_it(painted_ddi, ddi_seg, tmp_path, damage):
    copy = Path(shutil.copytree(ddi_seg, tmp_path / "copy"))
    if damage == "manifest":
        (copy / "manifest.json").write_text("{")
    elif damage == "half a table":
        (table,) = (copy / "segmentation").glob("train-*.parquet")
        table.write_bytes(table.read_bytes()[:1000])
    else:
        (copy / "manifest.json").write_text("{}")

    with pytest.raises(FileNotFoundError, match=r"(?s)copy cannot be opened as ddi-seg: .*scripts/build_ddi_seg\.py"):
        load_ddi(painted_ddi, copy)


def test_without_the_hub_the_error_says_how_to_build_the_masks(painted_ddi):
    with pytest.raises(FileNotFoundError, match=r"fedd/ddi-seg cannot be opened as ddi-seg: .*build_ddi_seg\.py"):
        load_ddi(painted_ddi)


def test_of_a_repository_table_and_manifest_are_of_one_revision(painted_ddi, ddi_seg, trusting, monkeypatch):
    asked = []

    def download(repo_id, filename, *, repo_type, revision):
        asked.append((repo_id, filename, repo_type, revision))
        return str(ddi_seg / filename)

    def load(repo_id, configuration, *, revision):
        asked.append((repo_id, configuration, "dataset", revision))
        return load_dataset(str(ddi_seg), configuration)

    monkeypatch.setattr(join, "hf_hub_download", download)
    monkeypatch.setattr(join, "load_dataset", load)
    ddi = load_ddi(painted_ddi, revision="v1")

    assert len(ddi["test"]) == 198
    assert asked == [
        ("fedd/ddi-seg", "manifest.json", "dataset", "v1"),
        ("fedd/ddi-seg", "segmentation", "dataset", "v1"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "detection"}, r"`task` must be one of \['segmentation', 'classification'\], got 'detection'"),
        ({"geometry": "pad"}, r"`geometry` must be one of \['squash', 'center_crop'\], got 'pad'"),
        ({"label_fraction": 5}, r"`label_fraction` of DDI must be one of \[0.05, 0.1, 0.15, 0.2\], got 5"),
        ({"label_fraction": 0.3}, r"must be one of \[0.05, 0.1, 0.15, 0.2\], got 0.3"),
    ],
)
def test_an_unknown_option_is_refused_with_the_allowed_ones(painted_ddi, ddi_seg, options, message):
    with pytest.raises(ValueError, match=message):
        load_ddi(painted_ddi, ddi_seg, **options)


def test_an_unknown_skin_tone_is_refused(painted_ddi, ddi_seg):
    with pytest.raises(ValueError, match=r"Skin tone must be one of \['I-II', 'III-IV', 'V-VI'\], got 'dark'"):
        load_ddi(painted_ddi, ddi_seg, skin_tone="dark")
