import hashlib
import json
import shutil
from io import BytesIO

import numpy as np
import pytest
import yaml
from datasets import DatasetDict, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

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


def test_the_folder_holds_the_tables_the_card_and_the_manifest(folder):
    tables = [table_of(folder, *names) for names in (("large", "train"), ("large", "validation"))]
    tables += [table_of(folder, *names) for names in (("small", "train"), ("small", "test"))]

    assert set(folder.rglob("*.*")) == {*tables, folder / "README.md", folder / "manifest.json"}


def test_tables_are_named_by_their_split_and_their_hash(folder):
    table = table_of(folder, "small", "test")

    assert table.name == f"test-00000-of-00001-{hashlib.sha256(table.read_bytes()).hexdigest()[:16]}.parquet"


@pytest.mark.parametrize("name", ["small", "large"])
def test_every_configuration_loads_as_it_was_written(folder, configurations, name):
    loaded = load_dataset(str(folder), name)

    assert list(loaded) == list(configurations[name])
    for split, rows in configurations[name].items():
        assert rows_of(loaded[split]) == rows_of(rows)
        assert loaded[split].features == FEATURES


def test_the_first_configuration_is_the_default(folder, configurations):
    assert load_dataset(str(folder))["test"]["image_id"][:] == configurations["small"]["test"]["image_id"][:]
    assert sorted(get_dataset_config_names(str(folder))) == ["large", "small"]


def test_chosen_rows_are_written_and_no_others(folder, painted):
    written = load_dataset("parquet", data_files=str(table_of(folder, "large", "train")), split="train")

    assert written["image_id"][:] == [painted["image_id"][index] for index in (5, 0, 3)]


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


def test_the_card_is_what_was_rendered_of_the_configurations(folder):
    card = DatasetCard.load(folder / "README.md")

    assert card.text.strip() == "# Painted photos – größer als nichts"
    assert card.data.license == "cc0-1.0"
    is_default = {part["config_name"]: part.get("default", False) for part in card.data.configs}
    assert is_default == {"small": True, "large": False}


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


def test_an_empty_folder_may_be_there_already(configurations, tmp_path):
    (tmp_path / "empty").mkdir()

    write_repository(tmp_path / "empty", configurations, render_card, {})

    assert (tmp_path / "empty" / "README.md").is_file()


def test_folders_above_are_made(configurations, tmp_path):
    write_repository(str(tmp_path / "new" / "repository"), configurations, render_card, {})

    assert [path.name for path in (tmp_path / "new").iterdir()] == ["repository"]


def test_others_may_read_the_folder(configurations, tmp_path):
    (tmp_path / "usual").mkdir()

    write_repository(tmp_path / "repository", configurations, render_card, {})

    assert (tmp_path / "repository").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_that_holds_files_is_refused_and_left_as_it_is(configurations, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")

    with pytest.raises(FileExistsError, match=r"must be new or empty, but .*full holds files"):
        write_repository(tmp_path / "full", configurations, render_card, {})

    assert files_of(tmp_path) == {"full/mine.txt": b"mine"}


def test_a_file_in_the_place_of_the_folder_is_refused_and_left_as_it_is(configurations, tmp_path):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(OSError, match="file"):
        write_repository(tmp_path / "file", configurations, render_card, {})

    assert files_of(tmp_path) == {"file": b"mine"}


def test_a_card_that_fails_leaves_nothing_behind(configurations, tmp_path):
    def fail(_):
        raise RuntimeError("no template")

    with pytest.raises(RuntimeError, match="no template"):
        write_repository(tmp_path / "repository", configurations, fail, {})

    assert list(tmp_path.iterdir()) == []


def test_a_card_that_fails_leaves_an_empty_folder_empty(configurations, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(KeyError):
        write_repository(tmp_path / "empty", configurations, {}.__getitem__, {})

    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


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


def test_rows_without_a_mask_are_written(painted, tmp_path):
    rows = make_dataset([painted.cast_column("image", FEATURES["image"])[0] | {"mask": None}], source="test")

    write_repository(tmp_path / "repository", {"all": DatasetDict(train=rows)}, render_card, {})

    assert load_dataset(str(tmp_path / "repository"), split="train")[0]["mask"] is None


# Reading the manifest


@pytest.fixture
def folder_copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_the_manifest_of_a_whole_repository_is_returned(folder):
    assert read_manifest(str(folder)) == json.loads((folder / "manifest.json").read_text())


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


def test_a_missing_manifest_is_named(folder_copy):
    (folder_copy / "manifest.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        read_manifest(folder_copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": '])
def test_a_damaged_manifest_is_named(folder_copy, text):
    (folder_copy / "manifest.json").write_text(text)

    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_manifest(folder_copy)
