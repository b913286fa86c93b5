"""The masks that the authors of FEDD released, in their original layout -> one checked map per photo."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fedd_hf.data.masks import check_class_ids, hash_mask
from fedd_hf.data.schema import refuse
from fedd_hf.labels import SkinTone

FRACTIONS = (5, 10, 15, 20)
MASK_SIZE = 256
MAX_FILE_SIZE = 4 * 2**20
TEST_FOLDERS = {
    SkinTone.I_II.label: "test_light",
    SkinTone.III_IV.label: "test_med",
    SkinTone.V_VI.label: "test_dark",
}
AnyPath = Path | zipfile.Path


def released_splits() -> pd.DataFrame:
    """Return the splits of the release: facts about file names, of which the package carries the list.

    Returns:
        `pd.DataFrame`: one row per photo in the order of `image_id`: `split`, `label_fraction` (the smallest of 5, 10,
        15 and 20 percent that holds the photo; NaN outside `train`), `skin_tone` (of the folder it is tested in; NaN
        outside `test`), `in_small_test`, and `mask_sha256` of the class ids ([`~fedd_hf.data.masks.hash_mask`]).

    Source: hectorcarrion/FEDD, `ddi_labels/`.
    """
    table = files("fedd_hf.data.ddi").joinpath("released_splits.csv").read_text()
    return pd.read_csv(StringIO(table), dtype={"image_id": object, "skin_tone": object})


def released_files(splits: pd.DataFrame) -> dict[str, list[str]]:
    """Return the folders of the release and the photos whose masks each of them holds."""
    train, small = splits[splits["split"] == "train"], splits[splits["in_small_test"]]
    folders = {}
    for fraction in FRACTIONS:
        folders[f"training/{fraction}%/train"] = train[train["label_fraction"] <= fraction]
        folders[f"training/{fraction}%/val"] = splits[splits["split"] == "validation"]
        folders[f"training/{fraction}%/test"] = small
    for tone, folder in TEST_FOLDERS.items():
        folders[f"testing/{folder}"] = splits[(splits["split"] == "test") & (splits["skin_tone"] == tone)]
    return {folder: members["image_id"].tolist() for folder, members in folders.items()}


def read_released_masks(path: str | Path) -> dict[str, np.ndarray]:
    """Read the released masks, from the folder or the zip file.

    Args:
        path (`str` or `Path`):
            `ddi_labels`, the folder that holds it, or a zip file of either.

    Returns:
        `dict[str, np.ndarray]`: map of class ids 0..4 of each `image_id`, uint8 of shape `(256, 256)`.

    Raises:
        FileNotFoundError: If there is nothing at `path`, or it holds no `training` and `testing`.
        ValueError: If masks are missing, damaged, of another size, hold unknown classes, are not of the release, or
            differ between two folders; all of it is listed.
    """
    root = _find_release(Path(path))
    masks: dict[str, np.ndarray] = {}
    problems: list[str] = []
    expected = released_files(released_splits())
    for folder, image_ids in tqdm(expected.items(), desc="Reading masks", unit="folder", leave=False):
        found = _npy_files(root / folder)
        problems += [f"missing: {folder}/{name}.npy" for name in image_ids if name not in found]
        problems += [f"not in the release: {folder}/{name}.npy" for name in sorted(found.keys() - set(image_ids))]
        for name in sorted(found.keys() & set(image_ids)):
            try:
                mask = _read_mask(found[name], f"{folder}/{name}.npy")
                if not np.array_equal(masks.setdefault(name, mask), mask):
                    problems.append(f"{folder}/{name}.npy differs from the mask of {name} in another folder")
            except ValueError as error:
                problems.append(str(error))
    refuse(f"{path} is not the release of FEDD's masks", problems)
    return masks


def check_released(masks: Mapping[str, np.ndarray]) -> bool:
    """Return whether these are the masks that the authors of FEDD released, or all are others, such as painted ones.

    Raises:
        ValueError: If some are and some are not; the ids of those that differ are listed.
    """
    released = released_splits().set_index("image_id")["mask_sha256"]
    differing = [name for name, mask in masks.items() if hash_mask(mask) != released[name]]
    if 0 < len(differing) < len(masks):
        refuse("Most masks are those of the release, but not all", [f"changed: {name}" for name in differing])
    return not differing


def _find_release(path: Path) -> AnyPath:
    if not path.exists():
        raise FileNotFoundError(f"There are no released masks at {path}.")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a zip file.")
    root: AnyPath = zipfile.Path(path) if path.is_file() else path
    for candidate in (root, root / "ddi_labels"):
        if (candidate / "training").is_dir() and (candidate / "testing").is_dir():
            return candidate
    raise FileNotFoundError(
        f"{path} must hold `training` and `testing`, or `ddi_labels` with both: the layout of the FEDD repository."
    )


def _npy_files(folder: AnyPath) -> dict[str, AnyPath]:
    if not folder.is_dir():
        return {}
    return {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".npy")}


def _read_mask(file: AnyPath, name: str) -> np.ndarray:
    try:
        with file.open("rb") as stream:
            pixels = np.load(BytesIO(stream.read(MAX_FILE_SIZE)), allow_pickle=False)
    except Exception as error:  # a damaged array or zip entry raises one of many kinds
        raise ValueError(f"{name} is damaged: {str(error) or type(error).__name__}") from error
    ids = check_class_ids(pixels, name)
    if ids.shape != (MASK_SIZE, MASK_SIZE):
        raise ValueError(f"{name} must be of {MASK_SIZE} x {MASK_SIZE} pixels, got {ids.shape}.")
    return ids
