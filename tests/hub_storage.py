"""What a Hub keeps: repositories, whose commits are trees of files that never change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

MAIN = "main"
GITATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.npz", "*.parquet", "*.zip")
).encode()
LARGEST_REGULAR_FILE = 10 * 2**20


class HubError(Exception):
    """A refusal, with the status and the `X-Error-Code` by which clients choose the exception that they raise."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: Commit | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.commit = status, code, commit


def belongs_in_lfs(path: str, size: int, sample: bytes) -> bool:
    """Say whether git would keep a file in its large file storage, from its name, its size and its first bytes."""
    patterns = [line.split()[0] for line in GITATTRIBUTES.decode().splitlines()]
    named = any(fnmatch(path.rpartition("/")[2], pattern) for pattern in patterns)
    return size > 0 and (named or size > LARGEST_REGULAR_FILE or b"\0" in sample)


@dataclass(frozen=True)
class File:
    """The content of a file, and whether git holds it or only a pointer to it."""

    content: bytes
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The hash by which the large file storage knows the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def in_git(self) -> bytes:
        """The bytes that git holds: the content or the pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return pointer.encode() if self.is_lfs else self.content

    @cached_property
    def blob_id(self) -> str:
        """The hash by which git knows the file."""
        return hashlib.sha1(b"blob %d\0" % len(self.in_git) + self.in_git).hexdigest()

    @property
    def etag(self) -> str:
        """The hash by which clients know the file, and name it in their caches."""
        return self.sha256 if self.is_lfs else self.blob_id


Tree = Mapping[str, File]


def files_under(tree: Tree, path: str) -> dict[str, File]:
    """Return the file at `path`, or the files in the folder at `path`; the root is the empty path."""
    folder = f"{path}/" if path else ""
    return {name: file for name, file in tree.items() if name == path or name.startswith(folder)}


def folders_of(tree: Tree) -> set[str]:
    """Return the folders in which files are."""
    return {str(folder) for path in tree for folder in PurePosixPath(path).parents} - {"."}


@dataclass(frozen=True)
class Commit:
    """One state of a repository and the way to it."""

    tree: Tree
    title: str
    message: str = ""
    parent: Commit | None = None
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")

    @cached_property
    def sha(self) -> str:
        """The hash of the commit."""
        files = sorted((path, file.blob_id) for path, file in self.tree.items())
        parent = self.parent.sha if self.parent else None
        return hashlib.sha1(repr((files, self.title, self.message, self.date, parent)).encode()).hexdigest()

    def history(self) -> Iterator[Commit]:
        """Go back from this commit to the first one."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent

    def last_change(self, path: str) -> Commit:
        """Return the newest commit that changed the file or folder."""
        for commit in self.history():
            before = commit.parent.tree if commit.parent else {}
            if files_under(commit.tree, path) != files_under(before, path):
                return commit
        raise HubError(404, f"{path} does not exist in {self.sha}", "EntryNotFound", self)


@dataclass
class Repository:
    """One of the models, datasets or spaces (`kind`): who may see it, and its branches and tags."""

    id: str
    kind: str
    owner: str
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    sdk: str | None = None
    branches: dict[str, Commit] = field(
        default_factory=lambda: {MAIN: Commit({".gitattributes": File(GITATTRIBUTES)}, "initial commit")}
    )
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        """The newest commit on main."""
        return self.branches[MAIN]

    @property
    def files(self) -> dict[str, bytes]:
        """What main holds, except for what it was created with."""
        return {path: file.content for path, file in self.head.tree.items() if path != ".gitattributes"}

    @property
    def address(self) -> str:
        """The path of the repository's page."""
        return f"/{self.id}" if self.kind == "models" else f"/{self.kind}/{self.id}"

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag or a hash names."""
        heads = [*self.branches.values(), *self.tags.values()]
        commits = {commit.sha: commit for head in heads for commit in head.history()}
        for names in (self.branches, self.tags, commits):
            if revision in names:
                return names[revision]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, tree: Tree, title: str, message: str = "", branch: str = MAIN) -> Commit:
        """Make `tree` the newest state of a branch. Like the Hub, do so even if nothing differs from the last."""
        self.branches[branch] = Commit(dict(tree), title, message, self.branches[branch])
        return self.branches[branch]
