"""Folders become repositories of the Hub, in one commit each, over HTTP and with the client that users have."""

import math
import time
from dataclasses import replace

import pytest
from hub_double import STRANGERS_TOKEN, HubDouble
from huggingface_hub import HfApi

from fedd_hf.hub.push import PushArguments, Repository, push_repository

FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "config.json": b"{}",
    "heads.safetensors": bytes(range(256)) * 8,
    "unet/model.safetensors": bytes(range(255, -1, -1)) * 9,
}
AS_THEY_ARE = PushArguments()


@pytest.fixture
def api(hub):
    """The owner's client."""
    return HfApi()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return Repository(repo_id="fedd/tiny", repo_type="model", folder=folder)


@pytest.fixture
def without_waiting(monkeypatch):
    """Clients wait before they send a file again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def uploads(hub):
    return sum(method == "PUT" and path.startswith("/lfs/") for method, path in hub.requests)


def commits(hub):
    """Commits but for the one with which a repository begins, newest first."""
    return [commit.sha for commit in hub.repository("fedd/tiny").head.history()][:-1]


def test_a_folder_becomes_one_commit_and_later_only_what_changed_is_uploaded(hub, api, repository):
    first = push_repository(repository, AS_THEY_ARE, api)
    assert hub.repository("fedd/tiny").files == FILES
    assert (commits(hub), uploads(hub)) == ([first], 2)
    assert not hub.repository("fedd/tiny").private
    assert not hub.repository("fedd/tiny").gated

    assert push_repository(repository, AS_THEY_ARE, api) == first
    assert (commits(hub), uploads(hub)) == ([first], 2)

    (repository.folder / "heads.safetensors").write_bytes(b"\0other heads")
    second = push_repository(repository, AS_THEY_ARE, api)
    assert (commits(hub), uploads(hub)) == ([second, first], 3)
    assert hub.repository("fedd/tiny").files == FILES | {"heads.safetensors": b"\0other heads"}


def test_a_file_that_vanished_from_the_folder_is_deleted(hub, api, repository):
    hub.create("fedd/tiny", {"pytorch_model.bin": b"\x80\x02.", "config.json": b"old"})

    push_repository(repository, AS_THEY_ARE, api)

    assert hub.repository("fedd/tiny").files == FILES
    assert ".gitattributes" in hub.repository("fedd/tiny").head.tree


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_models_and_datasets_are_private_and_gated_if_that_is_wanted_and_spaces_private(
    hub, api, repository, repo_type
):
    repository = replace(repository, repo_type=repo_type, space_sdk="static" if repo_type == "space" else None)

    push_repository(repository, PushArguments(private=True, gated="manual"), api)

    pushed = hub.repository("fedd/tiny", f"{repo_type}s")
    assert pushed.private
    assert pushed.gated == (False if repo_type == "space" else "manual")
    assert pushed.sdk == repository.space_sdk
    assert pushed.files == FILES


def test_a_repository_is_gated_before_there_is_anything_to_read(hub, api, repository):
    push_repository(repository, PushArguments(gated="auto"), api)

    asked = [path for _, path in hub.requests]
    assert asked.index("/api/models/fedd/tiny/settings") < asked.index("/api/models/fedd/tiny/preupload/main")


def test_another_way_of_gating_is_refused():
    with pytest.raises(ValueError, match="`gated` must be None, 'auto' or 'manual', got 'always'"):
        PushArguments(gated="always")


def test_a_tag_names_its_commit_may_be_given_again_and_is_never_moved(hub, api, repository):
    commit = push_repository(repository, PushArguments(tag="v1.0"), api)
    assert push_repository(repository, PushArguments(tag="v1.0"), api) == commit

    (repository.folder / "config.json").write_bytes(b'{"changed": true}')
    with pytest.raises(ValueError, match=f"The tag 'v1.0' of fedd/tiny is that of the commit {commit}"):
        push_repository(repository, PushArguments(tag="v1.0"), api)
    assert {name: tagged.sha for name, tagged in hub.repository("fedd/tiny").tags.items()} == {"v1.0": commit}


def test_an_upload_that_is_cut_leaves_the_repository_as_it_was_until_it_is_repeated(
    hub, api, repository, without_waiting
):
    hub.create("fedd/tiny", {"config.json": b"old"})
    hub.cut_upload("unet/model.safetensors", after_bytes=1000, times=math.inf)

    with pytest.raises(OSError, match=r"^fedd/tiny was not published: .*'unet/model.safetensors'.* goes on\.$"):
        push_repository(repository, AS_THEY_ARE, api)
    assert hub.repository("fedd/tiny").files == {"config.json": b"old"}

    hub.cut_upload("unet/model.safetensors", after_bytes=0, times=0)
    push_repository(repository, AS_THEY_ARE, api)
    assert hub.repository("fedd/tiny").files == FILES


def test_who_may_not_write_is_told_so_and_changes_nothing(hub, api, repository):
    hub.create("fedd/tiny", {"config.json": b"old"})

    with pytest.raises(OSError, match="^fedd/tiny was not published: .*You have no right to write to fedd/tiny"):
        push_repository(repository, AS_THEY_ARE, HfApi(token=STRANGERS_TOKEN))

    assert hub.repository("fedd/tiny").files == {"config.json": b"old"}


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_said_in_one_line(repository):
    with HubDouble() as gone:
        nobody = HfApi(endpoint=gone.url)

    with pytest.raises(OSError, match="^fedd/tiny was not published: .*refused.* Typed again"):
        push_repository(repository, AS_THEY_ARE, nobody)
