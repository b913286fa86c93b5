import logging

import numpy as np
import pytest
from datasets import DatasetDict

from fedd_hf.data import loading
from fedd_hf.data.leakage import find_leakage
from fedd_hf.data.loading import DataArguments, load_rows, load_splits
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.repository import write_repository
from fedd_hf.data.schema import FEATURES, tone_labels

SPLITS = ["train", "train", "test", "validation", "test"]


@pytest.fixture(scope="module")
def painted():
    """Thirty photos of 32 pixels, ten of each tone, without recorded splits."""
    return paint_dataset(num_per_tone=10, seed=2, size=32)


@pytest.fixture
def write_folder(painted, tmp_path):
    """Write painted photos as a user keeps them; `cells` changes the cells of a row by its position."""

    def write(num_photos=30, with_masks=range(30), cells=None, splits=SPLITS):
        root = tmp_path / "mine"
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        lines = ["image_id,skin_tone,malignant,group_id,split"]
        for index, row in enumerate(painted.select(range(num_photos))):
            row["image"].save(root / "images" / f"{row['image_id']}.png")
            if index in with_masks:
                row["mask"].save(root / "masks" / f"{row['image_id']}.png")
            values = {"malignant": int(row["malignant"]), "group_id": "", "split": ""}
            values["skin_tone"] = FEATURES["skin_tone"].int2str(row["skin_tone"])
            values["split"] = splits[index % len(splits)] if splits else ""
            values |= (cells or {}).get(index, {})
            lines.append(",".join(str(values.get(name, row["image_id"])) for name in lines[0].split(",")))
        (root / "metadata.csv").write_text("\n".join(lines) + "\n")
        return str(root)

    return write


def from_folder(root, **options):
    return DataArguments(dataset="folder", root=root, **options)


# Arguments


def test_an_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`dataset` must be one of .*'folder', 'rows'\], got 'imagenet'\."):
        load_splits(DataArguments(dataset="imagenet", root="somewhere"))


@pytest.mark.parametrize("dataset", ["ddi", "folder", "rows"])
def test_a_dataset_without_its_folder_is_refused(dataset):
    with pytest.raises(ValueError, match=rf"`root` is None, but the dataset '{dataset}' needs the folder"):
        load_splits(DataArguments(dataset=dataset))


@pytest.mark.parametrize("dataset", ["ddi", "folder"])
def test_a_malignancy_policy_is_refused_where_malignancy_is_recorded(dataset):
    with pytest.raises(ValueError, match=f"`malignancy_policy` is for ham10000 and isic; {dataset} has malignancy"):
        load_splits(DataArguments(dataset=dataset, root="somewhere", malignancy_policy="strict"))


@pytest.mark.parametrize("dataset", ["ddi", "pad-ufes-20", "ham10000", "isic", "folder", "rows"])
def test_a_folder_that_is_not_there_is_named(tmp_path, dataset):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_splits(DataArguments(dataset=dataset, root=str(tmp_path / "nowhere")))


# What each dataset gets


def test_ddi_gets_its_arguments(monkeypatch):
    calls = []
    monkeypatch.setattr(loading, "load_ddi", lambda *given, **options: calls.append((given, options)))

    load_splits(
        DataArguments(dataset="ddi", root="r", masks="m", label_fraction=0.1, skin_tone="V-VI", label_seed=4),
        "classification",
    )

    options = {"task": "classification", "label_fraction": 0.1, "skin_tone": "V-VI", "seed": 4}
    assert calls == [(("r", "m"), options | {"allow_leakage": False})]


@pytest.mark.parametrize(("policy", "options"), [(None, {}), ("strict", {"malignancy_policy": "strict"})])
@pytest.mark.parametrize("dataset", ["ham10000", "isic"])
def test_a_malignancy_policy_is_handed_on_where_it_is_given(monkeypatch, painted, dataset, policy, options):
    calls = []

    def load(root, **given):
        calls.append((root, given))
        return painted

    monkeypatch.setitem(loading.LOADERS, dataset, load)
    load_splits(DataArguments(dataset=dataset, root="r", malignancy_policy=policy))

    assert calls == [("r", options)]


# Painted


@pytest.fixture
def few_painted(monkeypatch):
    monkeypatch.setattr(loading, "PAINTED_PER_TONE", {"train": 2, "validation": 1, "test": 1})


@pytest.mark.usefixtures("few_painted")
def test_painted_photos_are_split_by_the_painter_and_share_nothing():
    splits = load_splits(DataArguments())

    assert splits.num_rows == {"train": 6, "validation": 3, "test": 3}
    assert all(set(rows["split"]) == {name} for name, rows in splits.items())
    assert find_leakage(splits).empty


# One's own folder


def test_splits_of_a_folder_without_them_are_drawn_with_the_seed(write_folder):
    root = write_folder(splits=None)

    first, again, other = (
        load_splits(from_folder(root, label_seed=seed))["test"]["image_id"][:] for seed in (None, 0, 1)
    )

    assert first == again
    assert first != other


def test_the_label_fraction_is_one_of_the_training_photos_only(write_folder):
    root = write_folder()
    whole = load_splits(from_folder(root))

    splits = load_splits(from_folder(root, label_fraction=0.5))

    assert whole.num_rows == {"train": 12, "validation": 6, "test": 12}
    assert splits.num_rows == {"train": 6, "validation": 6, "test": 12}
    assert set(splits["train"]["image_id"]) < set(whole["train"]["image_id"])


def test_a_label_fraction_of_no_training_photos_is_refused(write_folder):
    root = write_folder(num_photos=4, splits=["test"])

    with pytest.raises(ValueError, match=r"The split 'train' is needed, but the dataset has only \['test'\]"):
        load_splits(from_folder(root, label_fraction=0.5))


def test_one_skin_tone_is_kept_in_every_split(write_folder):
    splits = load_splits(from_folder(write_folder(), skin_tone="V-VI"))

    assert {tone for rows in splits.values() for tone in tone_labels(rows)} == {"V-VI"}
    assert sum(splits.num_rows.values()) == 10


def test_a_skin_tone_of_no_photo_is_refused(write_folder):
    root = write_folder(num_photos=2, splits=["train", "test"])

    with pytest.raises(ValueError, match=r"No photo is of skin tone V-VI\."):
        load_splits(from_folder(root, skin_tone="V-VI"))


def test_leakage_is_refused_and_allowed(write_folder):
    root = write_folder(num_photos=3, cells={1: {"group_id": "P"}, 2: {"group_id": "P"}})

    with pytest.raises(ValueError, match=r"same patient or lesion: .*1 \(train\) and .*2 \(test\)"):
        load_splits(from_folder(root))
    assert load_splits(from_folder(root, allow_leakage=True)).num_rows == {"train": 2, "test": 1}


# What the task needs


@pytest.mark.parametrize(("task", "column", "kept"), [("segmentation", "mask", 8), ("classification", "malignant", 9)])
def test_photos_without_what_the_task_learns_from_are_left_out_and_counted(write_folder, caplog, task, column, kept):
    root = write_folder(num_photos=10, with_masks=range(8), cells={0: {"malignant": ""}})

    with caplog.at_level(logging.WARNING, logger="fedd_hf.data.loading"):
        splits = load_splits(from_folder(root), task)

    assert sum(splits.num_rows.values()) == kept
    assert all(None not in rows[column] for rows in splits.values())
    assert [record.getMessage() for record in caplog.records] == [
        f"{10 - kept} of 10 photos are left out: no `{column}` is known."
    ]


def test_photos_that_teach_nothing_are_refused(write_folder):
    with pytest.raises(ValueError, match=r"No photo has what segmentation learns from: the column `mask` is empty\."):
        load_splits(from_folder(write_folder(num_photos=4, with_masks=[])), "segmentation")


def test_photos_that_are_left_out_cannot_leak(write_folder):
    cells = {1: {"group_id": "P"}, 2: {"group_id": "P"}}
    root = write_folder(num_photos=5, with_masks=[0, 1, 3, 4], cells=cells)

    assert load_splits(from_folder(root)).num_rows == {"train": 2, "validation": 1, "test": 1}


# Rows


@pytest.fixture
def write_rows(painted, tmp_path, monkeypatch):
    """Write a dataset repository of painted photos."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def write(dataset=painted):
        splits = DatasetDict(train=dataset.select(range(20)), test=dataset.select(range(20, 30)))
        write_repository(tmp_path / "rows", {"all": splits}, lambda yaml: f"---\n{yaml}\n---\n", {})
        return str(tmp_path / "rows")

    return write


def with_splits(painted):
    splits = ["train"] * 16 + ["validation"] * 4 + ["test"] * 10
    return painted.remove_columns("split").add_column("split", splits).select_columns(list(FEATURES)).cast(FEATURES)


def test_a_repository_of_rows_is_loaded_with_its_recorded_splits(write_rows, painted):
    splits = load_splits(DataArguments(dataset="rows", root=write_rows(with_splits(painted))))

    assert splits.num_rows == {"train": 16, "validation": 4, "test": 10}
    assert splits["test"]["image_id"][:] == painted["image_id"][20:]
    assert np.array_equal(np.asarray(splits["train"][0]["mask"]), np.asarray(painted[0]["mask"]))


def test_rows_without_a_recorded_split_keep_the_split_of_their_table(write_rows):
    assert load_splits(DataArguments(dataset="rows", root=write_rows())).num_rows == {"train": 20, "test": 10}


def test_rows_of_another_format_are_refused_with_the_missing_columns(write_rows, painted):
    root = write_rows(painted.remove_columns(["mask", "skin_tone"]))

    with pytest.raises(ValueError, match=r"lacks the columns \['mask', 'skin_tone'\] of the row format \['image_id'"):
        load_rows(root)


# Splits by name
