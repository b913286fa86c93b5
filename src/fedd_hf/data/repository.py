"""Tables of rows -> the folder of a dataset repository: Parquet, README.md, and a manifest of checksums."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Image, SplitDict, SplitInfo
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm

from fedd_hf.files import hash_file, write_whole

from .schema import refuse

MANIFEST = "manifest.json"
Configurations = dict[str, DatasetDict]
Files = dict[str, dict[str, str]]  # configuration -> split -> path in the repository


def write_repository(
    output_dir: str | Path,
    configurations: Configurations,
    render_card: Callable[[str], str],
    facts: dict[str, Any],
) -> None:
    """Write a dataset repository that `load_dataset` opens from disk and from the Hub.

    The folder appears whole or not at all, and the same rows give the same bytes.

    Args:
        output_dir (`str` or `Path`):
            New or empty folder. It gets a Parquet file of each split, `README.md` and `manifest.json`.
        configurations (`dict[str, datasets.DatasetDict]`):
            Splits of each configuration, whose images are embedded as bytes; the first one is the default.
        render_card (`Callable[[str], str]`):
            Takes the YAML of the configurations and their features and returns the README.
        facts (`dict`):
            What the manifest says besides the SHA-256 of each Parquet file.

    Raises:
        FileExistsError: If `output_dir` is not empty.
        ValueError: If a row names an image file instead of holding its bytes.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise FileExistsError(f"`output_dir` must be new or empty, but {output_dir} holds files: choose another one.")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(output_dir) as folder:
        files = _write_tables(folder, configurations)
        checksums = {path: hash_file(folder / path) for paths in files.values() for path in paths.values()}
        (folder / "README.md").write_text(render_card(_configurations_yaml(folder, configurations, files)))
        (folder / MANIFEST).write_text(json.dumps({"files": checksums, **facts}, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return what the manifest of a repository on disk says, after checking its files.

    Raises:
        FileNotFoundError: If there is no manifest.
        ValueError: If it is damaged, or files that it names are missing or have another checksum.
    """
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text())
    except ValueError as error:
        raise ValueError(f"{Path(folder) / MANIFEST} is damaged: {error}") from error
    if not isinstance(manifest, dict) or "files" not in manifest:
        raise ValueError(f"{Path(folder) / MANIFEST} names no files.")
    problems = []
    for path, checksum in manifest["files"].items():
        if not (Path(folder) / path).is_file():
            problems.append(f"missing: {path}")
        elif hash_file(Path(folder) / path) != checksum:
            problems.append(f"changed or half-written: {path}")
    refuse(f"{folder} is not whole", problems)
    return manifest


def _write_tables(folder: Path, configurations: Configurations) -> Files:
    """Write each split to a file with its hash in the name: `datasets` caches a local folder by the names in it."""
    files: Files = {name: {} for name in configurations}
    tables = [(name, split) for name, splits in configurations.items() for split in splits]
    for name, split in tqdm(tables, desc="Writing Parquet", unit="table", leave=False):
        partial = folder / name / f"{split}.parquet"
        partial.parent.mkdir(parents=True, exist_ok=True)
        _check_embedded(configurations[name][split], f"{name}/{split}")
        configurations[name][split].to_parquet(partial)
        files[name][split] = f"{name}/{split}-00000-of-00001-{hash_file(partial)[:16]}.parquet"
        partial.rename(folder / files[name][split])
    return files


def _check_embedded(dataset: Dataset, name: str) -> None:
    """Refuse images that are not embedded: `to_parquet` would write their paths, which are of no use elsewhere."""
    columns = [column for column, feature in dataset.features.items() if isinstance(feature, Image)]
    table = dataset.select_columns(columns).with_format("arrow")[:]
    for column in columns:
        paths = [cell["path"] for cell in table[column].to_pylist() if cell and cell["bytes"] is None]
        if paths:
            raise ValueError(f"Images must be embedded, but {name} has {column!r} as a path: {paths[0]}.")


def _configurations_yaml(folder: Path, configurations: Configurations, files: Files) -> str:
    """Return `configs` and `dataset_info` as `datasets` itself writes them."""
    default = next(iter(configurations))
    metadata = DatasetCardData()
    infos = {name: _dataset_info(folder, name, splits, files[name]) for name, splits in configurations.items()}
    DatasetInfosDict(infos).to_dataset_card_data(metadata)
    configs = {
        name: {
            "data_files": [{"split": split, "path": path} for split, path in paths.items()],
            **({"default": True} if name == default else {}),
        }
        for name, paths in files.items()
    }
    MetadataConfigs(configs).to_dataset_card_data(metadata)
    return metadata.to_yaml()


def _dataset_info(folder: Path, name: str, splits: DatasetDict, paths: dict[str, str]) -> DatasetInfo:
    rows = {
        split: SplitInfo(name=split, num_bytes=dataset.with_format("arrow")[:].nbytes, num_examples=len(dataset))
        for split, dataset in splits.items()
    }
    return DatasetInfo(
        features=next(iter(splits.values())).features,
        splits=SplitDict(rows),
        download_size=sum((folder / path).stat().st_size for path in paths.values()),
        dataset_size=sum(row.num_bytes for row in rows.values()),
        config_name=name,
    )
