import hashlib
import json
import shutil
from io import BytesIO

import numpy as np
import pytest
import yaml
from datasets import DatasetDict, load_dataset

from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.repository import read_manifest, write_repository
from fedd_hf.data.schema import FEATURES, make_dataset


def render_card(configurations_yaml):
    return f"---\nlicense: cc0-1.0\n{configurations_yaml}\n---\n\n# Painted photos – größer als nichts\n"


@pytest.fixture(scope="module")
def painted():
    return paint_dataset(num_per_tone=2, seed=0, size=32)


@pytest.fixture(scope="module")
def configurations(painted):
    """Two configurations, of which the default one is the last in the alphabet."""
    return {
        "small": DatasetDict(train=painted.select(range(2)), test=painted.select(range(2, 4))),
        "large": DatasetDict(train=painted.select([5, 0, 3]), validation=painted.select([4])),
    }


@pytest.fixture(scope="module")
def folder(configurations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "repository"
    write_repository(folder, configurations, render_card, {"seed": 7, "painter": "größer"})
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table_of(folder, configuration, split):
    """Return the only file of a split."""
    (table,) = (folder / configuration).glob(f"{split}-*.parquet")
    return table


def rows_of(dataset):
    """Return rows with the pixels of images instead of images."""
    return [
        {name: np.asarray(cell).tolist() if name in ("image", "mask") else cell for name, cell in row.items()}
        for row in dataset
    ]


@pytest.mark.parametrize("name", ["small", "large"])
def test_every_configuration_loads_as_it_was_written(folder, configurations, name):
    loaded = load_dataset(str(folder), name)

    assert list(loaded) == list(configurations[name])
    for split, rows in configurations[name].items():
        assert rows_of(loaded[split]) == rows_of(rows)
        assert loaded[split].features == FEATURES


def test_two_writes_give_identical_bytes(folder, configurations, tmp_path):
    write_repository(tmp_path / "again", configurations, render_card, {"painter": "größer", "seed": 7})

    assert files_of(tmp_path / "again") == files_of(folder)


def test_the_manifest_holds_the_facts_and_the_checksums_of_the_files(folder):
    manifest = json.loads((folder / "manifest.json").read_text())

    tables = {name: data for name, data in files_of(folder).items() if name.endswith(".parquet")}
    assert manifest == {
        "seed": 7,
        "painter": "größer",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    }


def test_the_card_counts_the_rows_and_the_bytes_of_the_files(folder, configurations):
    header = (folder / "README.md").read_text().split("---\n")[1]

    for info in yaml.safe_load(header)["dataset_info"]:
        splits = configurations[info["config_name"]]
        tables = [table_of(folder, info["config_name"], split) for split in splits]
        assert {part["name"]: part["num_examples"] for part in info["splits"]} == splits.num_rows
        assert info["download_size"] == sum(table.stat().st_size for table in tables)
        assert info["dataset_size"] == sum(part["num_bytes"] for part in info["splits"])


def test_other_rows_written_to_the_same_place_are_loaded_instead_of_cached_ones(painted, tmp_path):
    for row in (0, 1):
        configurations = {"all": DatasetDict(train=painted.select([row]))}
        write_repository(tmp_path / "repository", configurations, render_card, {})

        loaded = load_dataset(str(tmp_path / "repository"), split="train")

        assert loaded["image_id"][:] == [painted["image_id"][row]]
        shutil.rmtree(tmp_path / "repository")


def test_a_folder_that_holds_files_is_refused_and_left_as_it_is(configurations, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")

    with pytest.raises(FileExistsError, match=r"must be new or empty, but .*full holds files"):
        write_repository(tmp_path / "full", configurations, render_card, {})

    assert files_of(tmp_path) == {"full/mine.txt": b"mine"}


def test_a_card_that_fails_leaves_nothing_behind(configurations, tmp_path):
    def fail(_):
        raise RuntimeError("no template")

    with pytest.raises(RuntimeError, match="no template"):
        write_repository(tmp_path / "repository", configurations, fail, {})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", ["image", "mask"])
def test_an_image_that_is_a_path_is_refused_and_nothing_is_left(painted, tmp_path, column):
    buffer = BytesIO()
    painted[0]["image"].save(buffer, "PNG")
    (tmp_path / "photo.png").write_bytes(buffer.getvalue())
    embedded = {"image_id": "a", "image": {"bytes": buffer.getvalue(), "path": None}}
    rows = [embedded, embedded | {"image_id": "b", column: str(tmp_path / "photo.png")}]
    configurations = {"small": DatasetDict(test=make_dataset(rows, source="test"))}

    with pytest.raises(ValueError, match=rf"small/test has '{column}' as a path: .*photo\.png"):
        write_repository(tmp_path / "repository", configurations, render_card, {})

    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


# Reading the manifest


@pytest.fixture
def folder_copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_every_file_that_is_missing_or_changed_is_told(folder_copy):
    gone, changed = (table_of(folder_copy, "small", split) for split in ("train", "test"))
    gone.unlink()
    changed.write_bytes(changed.read_bytes()[:-1])

    with pytest.raises(ValueError, match="copy is not whole") as caught:
        read_manifest(folder_copy)

    assert sorted(str(caught.value).splitlines()[1:]) == [
        f"- changed or half-written: small/{changed.name}",
        f"- missing: small/{gone.name}",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": '])
def test_a_damaged_manifest_is_named(folder_copy, text):
    (folder_copy / "manifest.json").write_text(text)

    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_manifest(folder_copy)
