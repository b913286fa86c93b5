"""Results that a run which was killed does not compute again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fedd_hf.evaluation.report import read_report, write_report


def keep(
    path: Path, settings: dict[str, Any], compute: Callable[[], dict[str, Any]], accelerator: Accelerator
) -> dict[str, Any]:
    """Return a result as it is kept, or compute it and keep it, whole or not at all.

    Args:
        path (`Path`):
            JSON file of the result.
        settings (`dict`):
            What the result depends on, as JSON.
        compute (`Callable[[], dict]`):
            Returns the result; all processes call it, and the first writes.
        accelerator (`accelerate.Accelerator`):
            As which of how many processes.

    Raises:
        ValueError: If the file is a result of other settings.
    """
    if not is_kept(path, settings):
        result = compute()
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_report({"settings": settings, "result": result}, path)
        accelerator.wait_for_everyone()
    return dict(read_report(path)["result"])


def is_kept(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a result is there.

    Raises:
        ValueError: If it is one of other settings.
    """
    if not path.is_file():
        return False
    if read_report(path).get("settings") != json.loads(json.dumps(settings)):
        raise ValueError(
            f"{path} is of a run with other photos or arguments. Give the same ones to go on, or another `output_dir`."
        )
    return True
