"""What may be published: a folder -> nothing, or one error that names the first file that may not be."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image
from safetensors import SafetensorError, safe_open

from fedd_hf.files import hash_file

SECRETS = re.compile(r"hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY")
ABSOLUTE_PATHS = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|mnt|data|var|opt|private)/\w|\b[A-Za-z]:\\+\w")
PHOTO_COLUMNS = {"image", "photo", "pixel_values"}


def check_folder(folder: Path, pictures: Collection[str] = ()) -> None:
    """Refuse a folder that holds what may not be published.

    Only safetensors, Parquet without photos, text and known pictures may; so pickles may not, whatever their name.

    Args:
        folder (`Path`):
            What would be uploaded.
        pictures (`Collection[str]`):
            SHA-256 of each PNG that may be among them: pictures that are painted, or drawn of painted ones.

    Raises:
        ValueError: If a file is of another kind, a link, a picture that nobody painted, or holds a token or an
            absolute path.
    """
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name} is a link, and may not be published.")
        check = CHECKS.get(path.suffix)
        if check is None:
            raise ValueError(f"{name} may not be published: only {', '.join(CHECKS)} may.")
        check(path, name)
        if path.suffix == ".png" and hash_file(path) not in pictures:
            raise ValueError(f"{name} may not be published: it is no picture that was painted, or drawn of such.")


def list_files(folder: Path) -> list[Path]:
    """Return all files below a folder, hidden ones too, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _check_text(path: Path, name: str) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} may not be published: it is no text, though its name says so.") from error
    _check_words(text, name)


def _check_json(path: Path, name: str) -> None:
    _check_text(path, name)
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} may not be published: it is damaged: {error}") from error


def _check_safetensors(path: Path, name: str) -> None:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{name} may not be published: it is no safetensors file: {error}") from error
    _check_words(json.dumps(metadata), name)


def _check_parquet(path: Path, name: str) -> None:
    """Refuse columns of photos, which are embedded under these names in every table of the project."""
    try:
        table = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} may not be published: it is no Parquet file: {error}") from error
    photos = PHOTO_COLUMNS & set(table.schema_arrow.names)
    if photos:
        raise ValueError(f"{name} may not be published: its columns {sorted(photos)} hold photos.")
    for column in table.read().flatten().columns:
        if str(column.type) in ("string", "large_string"):
            _check_words("\n".join(value for value in column.to_pylist() if value), name)


def _check_png(path: Path, name: str) -> None:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            told = [key for key in picture.info if key not in ("transparency", "dpi", "gamma")]
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} may not be published: it is no PNG: {error}") from error
    if told:
        raise ValueError(f"{name} may not be published: it carries the metadata {told}.")


def _check_words(text: str, name: str) -> None:
    secret, path = SECRETS.search(text), ABSOLUTE_PATHS.search(text)
    if secret is not None:
        raise ValueError(f"{name} may not be published: it holds a token or key, {secret.group()[:6]}...")
    if path is not None:
        raise ValueError(f"{name} may not be published: it names a path of this machine, {path.group()}...")


CHECKS: dict[str, Callable[[Path, str], None]] = {
    ".safetensors": _check_safetensors,
    ".parquet": _check_parquet,
    ".png": _check_png,
    ".json": _check_json,
    ".md": _check_text,
    ".py": _check_text,
    ".txt": _check_text,
    ".html": _check_text,
}
