"""The name of a dataset and its folder -> splits of rows, the same way for every source and every command."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset

from fedd_hf.labels import SkinTone

from .ddi import load_ddi
from .painted import paint_dataset
from .schema import FEATURES
from .sources import load_folder, load_ham10000, load_isic, load_pad_ufes_20
from .splits import select_label_fraction, select_skin_tones, split_photos

logger = logging.getLogger(__name__)

PAINTED_PER_TONE = {"train": 40, "validation": 10, "test": 20}
LOADERS: dict[str, Callable[..., Dataset]] = {
    "pad-ufes-20": load_pad_ufes_20,
    "ham10000": load_ham10000,
    "isic": load_isic,
    "folder": load_folder,
}
DATASETS = ("painted", "ddi", *LOADERS, "rows")


@dataclass(frozen=True, kw_only=True)
class DataArguments:
    """Which photos a command reads. Every dataset takes the same options.

    Args:
        dataset (`str`): `painted`, `ddi`, `pad-ufes-20`, `ham10000`, `isic`, `folder` or `rows`.
        root (`str`, *optional*): Folder of the dataset; not for `painted`.
        masks (`str`): ddi-seg, for `ddi`.
        label_fraction (`float`, *optional*): Share of the training photos that are labelled.
        label_seed (`int`, *optional*): Seed of the choice of labelled photos, and of splits where none are recorded.
        skin_tone (`str`, *optional*): Keep one group.
        malignancy_policy (`str`, *optional*): What makes a diagnosis malignant, where sources disagree.
        allow_leakage (`bool`): Go on when splits share photos or patients.
    """

    dataset: str = field(default="painted", metadata={"help": f"one of {', '.join(DATASETS)}"})
    root: str | None = field(default=None, metadata={"help": "folder of the dataset; not for painted"})
    masks: str = field(default="fedd/ddi-seg", metadata={"help": "ddi-seg as a repository id or folder, for ddi"})
    label_fraction: float | None = field(
        default=None,
        metadata={"help": "share of the training photos that are labelled; of DDI 0.05, 0.10, 0.15 or 0.20 of all"},
    )
    label_seed: int | None = field(
        default=None, metadata={"help": "draw labelled photos with this seed; by default DDI's published ones, else 0"}
    )
    skin_tone: str | None = field(default=None, metadata={"help": "keep one group: I-II, III-IV or V-VI"})
    malignancy_policy: str | None = field(default=None, metadata={"help": "for ham10000 and isic"})
    allow_leakage: bool = field(default=False, metadata={"help": "go on when splits share photos or patients"})


def load_splits(arguments: DataArguments, task: str = "segmentation") -> DatasetDict:
    """Load the splits of a dataset for one task.

    Args:
        arguments ([`DataArguments`]):
            Which photos.
        task (`str`, *optional*, defaults to `"segmentation"`):
            `"segmentation"` keeps photos with a mask, `"classification"` those of known malignancy, `"pretraining"`
            all; how many are left out is logged.

    Returns:
        `datasets.DatasetDict` of rows of [`~fedd_hf.data.schema.FEATURES`].

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If an argument is unknown or does not go with the dataset, files are damaged, or splits share
            photos or patients.
    """
    _check(arguments)
    if arguments.dataset == "ddi":
        return load_ddi(
            str(arguments.root),
            arguments.masks,
            task=task,
            label_fraction=arguments.label_fraction,
            skin_tone=arguments.skin_tone,
            seed=arguments.label_seed,
            allow_leakage=arguments.allow_leakage,
        )
    seed = arguments.label_seed or 0
    splits = split_photos(_keep_labelled(_load_rows(arguments), task), seed, arguments.allow_leakage)
    if arguments.skin_tone is not None:
        splits = _keep_skin_tone(splits, arguments.skin_tone)
    if arguments.label_fraction is not None:
        splits["train"] = select_label_fraction(need_split(splits, "train"), arguments.label_fraction, seed)
    return splits


def need_split(splits: DatasetDict, name: str) -> Dataset:
    """Return a split.

    Raises:
        ValueError: If there is none of this name; the others are listed.
    """
    if name not in splits:
        raise ValueError(f"The split {name!r} is needed, but the dataset has only {list(splits)}.")
    return splits[name]


def _check(arguments: DataArguments) -> None:
    if arguments.dataset not in DATASETS:
        raise ValueError(f"`dataset` must be one of {list(DATASETS)}, got {arguments.dataset!r}.")
    if (arguments.root is None) != (arguments.dataset == "painted"):
        need = "is painted and has no folder" if arguments.dataset == "painted" else "needs the folder where it lies"
        raise ValueError(f"`root` is {arguments.root!r}, but the dataset {arguments.dataset!r} {need}.")
    if arguments.skin_tone is not None:
        SkinTone.from_label(arguments.skin_tone)
    if arguments.malignancy_policy is not None and arguments.dataset not in ("ham10000", "isic"):
        raise ValueError(f"`malignancy_policy` is for ham10000 and isic; {arguments.dataset} has malignancy recorded.")


def _keep_skin_tone(splits: DatasetDict, skin_tone: str) -> DatasetDict:
    """Keep the photos of one group, and the splits that have any."""
    kept = {name: select_skin_tones(rows, [skin_tone]) for name, rows in splits.items()}
    if not any(len(rows) for rows in kept.values()):
        raise ValueError(f"No photo is of skin tone {skin_tone}.")
    return DatasetDict({name: rows for name, rows in kept.items() if len(rows)})


def _load_rows(arguments: DataArguments) -> Dataset:
    if arguments.dataset == "painted":
        return paint_splits()
    if arguments.dataset == "rows":
        return load_rows(str(arguments.root))
    policy = {} if arguments.malignancy_policy is None else {"malignancy_policy": arguments.malignancy_policy}
    return LOADERS[arguments.dataset](arguments.root, **policy)


def paint_splits() -> Dataset:
    """Paint 120 training photos, 30 to validate and 60 to test, of photos that nobody has to ask for."""
    parts = []
    for seed, (split, per_tone) in enumerate(PAINTED_PER_TONE.items()):
        parts.append(_fill_split(paint_dataset(per_tone, seed), split))
    return concatenate_datasets(parts)


def load_rows(name_or_path: str | Path) -> Dataset:
    """Load a dataset repository that is in the one row format already, such as a composite one.

    Where there are several tables, a row without a recorded `split` is of the split that its table is.

    Raises:
        ValueError: If its columns are others.
    """
    parts = load_dataset(str(name_or_path))
    missing = [column for column in FEATURES if column not in next(iter(parts.values())).column_names]
    if missing:
        raise ValueError(f"{name_or_path} lacks the columns {missing} of the row format {list(FEATURES)}.")
    tables = {name: rows.select_columns(list(FEATURES)).cast(FEATURES) for name, rows in parts.items()}
    if len(tables) > 1:
        tables = {name: _fill_split(rows, name) for name, rows in tables.items()}
    return concatenate_datasets(list(tables.values()))


def _fill_split(rows: Dataset, name: str) -> Dataset:
    splits = [split or name for split in rows["split"]]
    return rows.remove_columns("split").add_column("split", splits).select_columns(list(FEATURES)).cast(FEATURES)


def _keep_labelled(rows: Dataset, task: str) -> Dataset:
    if task == "pretraining":
        return rows
    column = {"segmentation": "mask", "classification": "malignant"}[task]
    known = rows.select_columns(column).with_format("arrow")[:][column].is_valid().to_pylist()
    if not any(known):
        raise ValueError(f"No photo has what {task} learns from: the column `{column}` is empty.")
    if not all(known):
        logger.warning("%d of %d photos are left out: no `%s` is known.", known.count(False), len(known), column)
    return rows.select([index for index, is_known in enumerate(known) if is_known])
