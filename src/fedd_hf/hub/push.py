"""Folders -> repositories of the Hub: one commit each, of what has changed and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, RevisionNotFoundError

from .guard import list_files


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A folder and the repository that it becomes.

    Args:
        repo_id (`str`):
            Name on the Hub.
        repo_type (`str`):
            `"model"`, `"dataset"` or `"space"`.
        folder (`Path`):
            Its files.
        space_sdk (`str`, *optional*):
            What runs a Space.
        is_whole (`bool`, *optional*, defaults to `True`):
            Whether these are all of its files; if not, others that are there stay.
    """

    repo_id: str
    repo_type: str
    folder: Path
    space_sdk: str | None = None
    is_whole: bool = True


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """How repositories are published.

    Args:
        private (`bool`):
            Whether new repositories are seen by their owners alone.
        gated (`str`, *optional*):
            `"auto"` or `"manual"`: readers have to ask, and are let in at once or one by one.
        tag (`str`, *optional*):
            Name that the commits get.

    Raises:
        ValueError: If `gated` is something else.
    """

    private: bool = False
    gated: str | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        if self.gated not in (None, "auto", "manual"):
            raise ValueError(f"`gated` must be None, 'auto' or 'manual', got {self.gated!r}.")


def push_repository(repository: Repository, arguments: PushArguments, api: HfApi) -> str:
    """Make a repository what a folder is, and return its commit.

    Files that are the same are not uploaded again, and those that a whole folder lacks are deleted, all in one commit;
    without a change there is none. What failed leaves the files of the repository as they were.

    Args:
        repository ([`Repository`]):
            What to publish, and where.
        arguments ([`PushArguments`]):
            How.
        api (`HfApi`):
            As whom.

    Raises:
        OSError: If the Hub refuses, cannot be reached, or hangs up.
        ValueError: If the tag is that of another commit.
    """
    try:
        _open(repository, arguments, api)
        commit = _upload(repository, api)
        if arguments.tag is not None:
            _tag(repository, arguments.tag, commit, api)
    except (HTTPError, RuntimeError) as error:  # RuntimeError: an upload that was cut
        told = " ".join(str(error).split())
        raise OSError(f"{repository.repo_id} was not published: {told} Typed again, the command goes on.") from error
    return commit


def _open(repository: Repository, arguments: PushArguments, api: HfApi) -> None:
    """Create a repository that does not exist, and gate it before there is anything to read."""
    name, kind = repository.repo_id, repository.repo_type
    api.create_repo(name, repo_type=kind, private=arguments.private, exist_ok=True, space_sdk=repository.space_sdk)
    if arguments.gated is not None and kind != "space":
        api.update_repo_settings(name, repo_type=kind, gated=cast(Literal["auto", "manual"], arguments.gated))


def _upload(repository: Repository, api: HfApi) -> str:
    return api.upload_folder(
        repo_id=repository.repo_id,
        repo_type=repository.repo_type,
        folder_path=repository.folder,
        commit_message="Publish a folder that was checked",
        delete_patterns="*" if repository.is_whole else None,
    ).oid


def _tag(repository: Repository, tag: str, commit: str, api: HfApi) -> None:
    name, kind = repository.repo_id, repository.repo_type
    try:
        tagged = api.repo_info(name, repo_type=kind, revision=tag).sha
    except RevisionNotFoundError:
        api.create_tag(name, repo_type=kind, tag=tag, revision=commit)
        return
    if tagged != commit:
        raise ValueError(f"The tag {tag!r} of {name} is that of the commit {tagged}. Choose another one.")


def describe_repository(repository: Repository) -> str:
    """Return a line for each file with its size in bytes."""
    files = list_files(repository.folder)
    lines = [f"  {path.stat().st_size:>12,}  {path.relative_to(repository.folder).as_posix()}" for path in files]
    total = sum(path.stat().st_size for path in files)
    return "\n".join([f"{repository.repo_type} {repository.repo_id}: {len(files)} files, {total:,} bytes", *lines])
