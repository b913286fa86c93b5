"""One cache of finished results: work is described by JSON, and its result stored under the hash of that."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fedd_hf.evaluation.report import read_report, write_report
from fedd_hf.features import hash_json

DESCRIPTION, RESULT = "description.json", "result.json"


def cache_folder(
    root: Path, name: str, description: dict[str, Any], fill: Callable[[Path], None], accelerator: Accelerator
) -> Path:
    """Return the folder of a result, which is filled unless it is there; it is there as a whole or not at all.

    Args:
        root (`Path`):
            Folder of all results of a kind.
        name (`str`):
            With what the folder's name begins, for those who look; the hash of the description follows.
        description (`dict`):
            All that the result depends on, as JSON.
        fill (`Callable[[Path], None]`):
            Computes the result and writes it into an empty folder. All processes call it; the first writes.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes.

    Returns:
        `Path`: the folder, with `description.json` and what `fill` wrote.
    """
    folder = root / f"{_plain(name)}-{hash_json(description)[:12]}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    start = time.perf_counter()
    fill(partial)
    if accelerator.is_main_process:
        seconds = round(time.perf_counter() - start, 2)
        write_report({"description": description, "seconds": seconds}, partial / DESCRIPTION)
        partial.rename(folder)
    accelerator.wait_for_everyone()
    return folder


def cache_json(
    root: Path,
    name: str,
    description: dict[str, Any],
    compute: Callable[[], dict[str, Any]],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Return a result that is JSON itself, computed unless it is there. Arguments are those of [`cache_folder`]."""

    def fill(folder: Path) -> None:
        result = compute()
        if accelerator.is_main_process:
            write_report(result, folder / RESULT)

    return dict(read_report(cache_folder(root, name, description, fill, accelerator) / RESULT))


def read_seconds(folder: Path) -> float:
    """Return how long the result of a folder took."""
    return float(read_report(folder / DESCRIPTION)["seconds"])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80]
