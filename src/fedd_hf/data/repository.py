"""Tables of rows -> the folder of a dataset repository: Parquet, README.md, and a manifest of checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, DatasetDict, Image, SplitDict, SplitInfo
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm

MANIFEST = "manifest.json"
Configurations = dict[str, DatasetDict]


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
            New or empty folder. It gets `<configuration>/<split>.parquet`, `README.md` and `manifest.json`.
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
    with TemporaryDirectory(prefix=f".{output_dir.name}-", dir=output_dir.parent) as temporary:
        folder = Path(temporary) / "repository"
        checksums = _write_tables(folder, configurations)
        (folder / "README.md").write_text(render_card(_configurations_yaml(folder, configurations)))
        (folder / MANIFEST).write_text(json.dumps({"files": checksums, **facts}, indent=1, sort_keys=True) + "\n")
        folder.rename(output_dir)


def _write_tables(folder: Path, configurations: Configurations) -> dict[str, str]:
    checksums = {}
    tables = [(name, split) for name, splits in configurations.items() for split in splits]
    for name, split in tqdm(tables, desc="Writing Parquet", unit="table", leave=False):
        path = folder / name / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_embedded(configurations[name][split], f"{name}/{split}")
        configurations[name][split].to_parquet(path)
        checksums[f"{name}/{split}.parquet"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return checksums


def _check_embedded(dataset: Dataset, name: str) -> None:
    """Refuse images that are not embedded: `to_parquet` would write their paths, which are of no use elsewhere."""
    columns = [column for column, feature in dataset.features.items() if isinstance(feature, Image)]
    table = dataset.select_columns(columns).with_format("arrow")[:]
    for column in columns:
        paths = [cell["path"] for cell in table[column].to_pylist() if cell and cell["bytes"] is None]
        if paths:
            raise ValueError(f"Images must be embedded, but {name} has {column!r} as a path: {paths[0]}.")


def _configurations_yaml(folder: Path, configurations: Configurations) -> str:
    """Return `configs` and `dataset_info` as `datasets` itself writes them."""
    default = next(iter(configurations))
    metadata = DatasetCardData()
    infos = {name: _dataset_info(folder, name, splits) for name, splits in configurations.items()}
    DatasetInfosDict(infos).to_dataset_card_data(metadata)
    files = {
        name: {
            "data_files": [{"split": split, "path": f"{name}/{split}.parquet"} for split in splits],
            **({"default": True} if name == default else {}),
        }
        for name, splits in configurations.items()
    }
    MetadataConfigs(files).to_dataset_card_data(metadata)
    return metadata.to_yaml()


def _dataset_info(folder: Path, name: str, splits: DatasetDict) -> DatasetInfo:
    rows = {
        split: SplitInfo(name=split, num_bytes=dataset.with_format("arrow")[:].nbytes, num_examples=len(dataset))
        for split, dataset in splits.items()
    }
    return DatasetInfo(
        features=next(iter(splits.values())).features,
        splits=SplitDict(rows),
        download_size=sum((folder / name / f"{split}.parquet").stat().st_size for split in splits),
        dataset_size=sum(row.num_bytes for row in rows.values()),
        config_name=name,
    )
