"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write a file or a folder, which then becomes `path`.

    After an error or an interrupt, `path` is what it was before. What a killed process left in that place is deleted.

    Example:
        >>> with write_whole(Path("report.json")) as partial:  # doctest: +SKIP
        ...     partial.write_text("{}")
    """
    partial = path.with_name(f".{path.name}.partial")
    _delete(partial)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        _delete(partial)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
