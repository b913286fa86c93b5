"""A double of the Hugging Face Hub on loopback, which keeps everything in memory and can be told to misbehave.

`huggingface_hub`, and with it transformers, diffusers, datasets and evaluate, takes it for the Hub in a fresh process
with `double.environment(home)`:

    with HubDouble() as double:
        subprocess.run(command, env=os.environ | double.environment(tmp_path))
        assert double.repository("fedd/tiny").files["config.json"] == b"{}"
        assert double.unknown == []

Endpoints, headers and JSON fields are those that huggingface_hub 2.4 asks for without xet. Left out: pull requests,
`.gitignore` rules, multi-part uploads, paging, ids without a namespace, and copies between repositories.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from hub_http import Request, Response, Route, Routes, Server, as_json, part_of
from hub_storage import MAIN, Commit, File, HubError, Repository, belongs_in_lfs, files_under, folders_of

TOKEN, STRANGERS_TOKEN = "hf_owner", "hf_stranger"
USERS = {TOKEN: "fedd", STRANGERS_TOKEN: "stranger"}
CACHES = ("HUB", "ASSETS", "DATASETS", "MODULES", "EVALUATE", "METRICS")
ROUTES = Routes(
    kind="(?P<kind>models|datasets|spaces)",
    prefix="(?:(?P<kind>datasets|spaces)/)?",
    repo="(?P<repo_id>[^/]+/[^/]+)",
    revision="(?P<revision>[^/]+)",
    ref="(?P<ref>branch|tag)",
    name="(?P<name>[^/]+)",
    folder="(?:/(?P<folder>.+))?",
    path="(?P<path>.+)",
    oid="(?P<oid>[0-9a-f]{64})",
)


@dataclass
class Fault:
    """What goes wrong, `times` times; infinity is a number of times."""

    times: float = 0
    after_bytes: int = 0

    def happens(self) -> bool:
        """Use the fault up once, and say whether it was still there."""
        self.times -= 1
        return self.times >= 0


def refusal(error: HubError) -> Response:
    """Answer with an error, in the headers that clients look at."""
    headers = {"X-Error-Message": str(error)}
    headers |= {"X-Error-Code": error.code} if error.code else {}
    headers |= {"X-Repo-Commit": error.commit.sha} if error.commit else {}
    return as_json({"error": str(error)}, error.status, headers)


def front_matter(card: bytes) -> dict[str, str | list[str]]:
    """Read those fields of a card that are one word or a list of words; they are all that clients ask the Hub for."""
    fields: dict[str, Any] = {}
    block = re.match(r"---\n(.*?)\n---", card.decode(), re.DOTALL)
    for line in block[1].splitlines() if block else []:
        if pair := re.fullmatch(r"([\w-]+): *(.*)", line):
            key, text = pair.groups()
            fields[key] = text.strip("\"'") or []
        elif (item := re.fullmatch(r" *- ([^:]+)", line)) and isinstance(fields.get(key), list):
            fields[key].append(item[1].strip("\"'"))
    return {key: value for key, value in fields.items() if value}


def describe(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """Describe a file or a folder as the listings of a tree do."""
    file = commit.tree.get(path)
    if file is None:
        inside = [(name, file.blob_id) for name, file in files_under(commit.tree, path).items()]
        folder_id = hashlib.sha1(repr(sorted(inside)).encode()).hexdigest()
        entry: dict[str, Any] = {"type": "directory", "path": path, "oid": folder_id, "size": 0}
    else:
        entry = {"type": "file", "path": path, "oid": file.blob_id, "size": len(file.content)}
    if file and file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.in_git)}
    if expand:
        change = commit.last_change(path)
        entry["lastCommit"] = {"id": change.sha, "title": change.title, "date": change.date}
    return entry


def describe_sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    """Describe a file as the information about a repository does."""
    entry: dict[str, Any] = {"rfilename": path}
    if blobs:
        entry |= {"size": len(file.content), "blobId": file.blob_id}
    if blobs and file.is_lfs:
        entry["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.in_git)}
    return entry


class HubDouble:
    """The Hub, as long as the context lasts; see the top of this file.

    `requests` lists method and path of all that was asked, `unknown` those that no handler answers, and `ranges` which
    part of a file each download asked for.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.ranges: list[str | None] = []
        self._download_cuts: dict[str, Fault] = {}
        self._upload_cuts: dict[str, Fault] = {}
        self._corrupt: set[str] = set()
        self._failing_commits = Fault()
        self._failing_repository: str | None = None
        self._announced_sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server = Server(self._answer, self._interrupt)
        self.url = self._server.url

    def __enter__(self) -> HubDouble:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # For tests: what is there, and what goes wrong.

    def environment(self, home: Path, token: str = TOKEN) -> dict[str, str]:
        """Return the environment in which clients ask the double, and keep what they keep in `home`."""
        switches = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        switches |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "0")
        switches |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        caches = {f"HF_{name}_CACHE": str(home / name.lower()) for name in CACHES}
        own = {"HF_ENDPOINT": self.url, "HF_TOKEN": token, "HF_TOKEN_PATH": str(home / "token"), "HF_HOME": str(home)}
        return switches | caches | own

    def create(self, repo_id: str, files: Mapping[str, bytes], kind: str = "models", **flags: Any) -> Repository:
        """Make a repository of the owner's without a client, with files if there are any."""
        repository = self.repositories[kind, repo_id] = Repository(repo_id, kind, USERS[TOKEN], **flags)
        if files:
            self.add(repository, files)
        return repository

    def add(self, repository: Repository, files: Mapping[str, bytes]) -> Commit:
        """Commit files to main without a client."""
        added = {path: File(data, belongs_in_lfs(path, len(data), data)) for path, data in files.items()}
        self.lfs |= {file.sha256: file.content for file in added.values() if file.is_lfs}
        return repository.commit({**repository.head.tree, **added}, "Add files")

    def repository(self, repo_id: str, kind: str = "models") -> Repository:
        """Return what the double holds of a repository."""
        return self.repositories[kind, repo_id]

    def cut_download(self, path: str, after_bytes: int, times: float = 1) -> None:
        """Hang up in the middle of a file that is downloaded."""
        self._download_cuts[path] = Fault(times, after_bytes)

    def cut_upload(self, path: str, after_bytes: int, times: float = 1) -> None:
        """Hang up in the middle of an LFS file that is uploaded."""
        self._upload_cuts[path] = Fault(times, after_bytes)

    def corrupt(self, path: str) -> None:
        """Serve a file with another last byte, under its true length and hash."""
        self._corrupt.add(path)

    def fail_commit(self, times: float = 1, repo_id: str | None = None) -> None:
        """Answer commits, to any repository or to one, with an internal error."""
        self._failing_commits, self._failing_repository = Fault(times), repo_id

    # For the server: who asks what, and who may.

    def _answer(self, request: Request) -> Response:
        self.requests.append((request.method, request.path))
        if (found := ROUTES.find(request)) is None:
            self.unknown.append((request.method, request.path))
            return as_json({"error": "The double of the Hub does not know this endpoint."}, 404)
        try:
            with self._lock:
                return self._handle(request, *found)
        except HubError as error:
            return refusal(error)

    def _interrupt(self, method: str, size: int) -> int | None:
        # An upload names a hash: which file it is shows only in the size that was announced.
        with self._lock:
            for path, fault in self._upload_cuts.items():
                if method == "PUT" and self._announced_sizes.get(path) == size and fault.happens():
                    return fault.after_bytes
        return None

    def _handle(self, request: Request, route: Route, found: dict[str, str | None]) -> Response:
        names: dict[str, Any] = {name: text and unquote(text) for name, text in found.items()}
        if "repo_id" in names:
            kind, repo_id = names.pop("kind") or "models", names.pop("repo_id")
            names["repository"] = self._admit(request, kind, repo_id, route.writes)
        return route.handler(self, request, **names)

    def _user(self, request: Request) -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in USERS:
            raise HubError(401, "Invalid credentials in Authorization header")
        return USERS.get(token)

    def _admit(self, request: Request, kind: str, repo_id: str, writes: bool) -> Repository:
        user = self._user(request)
        repository = self.repositories.get((kind, repo_id))
        if repository is None or (repository.private and user != repository.owner):
            # As huggingface_hub says: 401 is what the Hub answers to nobody, also where there is nothing.
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if writes and user != repository.owner:
            raise HubError(403 if user else 401, f"You have no right to write to {repo_id}")
        return repository

    # Accounts and repositories.

    @ROUTES.add("GET", "/api/whoami-v2")
    def _whoami(self, request: Request) -> Response:
        user = self._user(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return as_json({"type": "user", "name": user, "fullname": user, "orgs": []})

    @ROUTES.add("GET", "/api/agent-harnesses")
    def _agent_harnesses(self, request: Request) -> Response:
        return as_json({"standardEnvVars": [], "harnesses": {}})

    @ROUTES.add("POST", "/api/repos/create")
    def _create(self, request: Request) -> Response:
        user, wanted = self._user(request), request.json
        if user is None:
            raise HubError(401, "Invalid username or password.")
        kind, repo_id = f"{wanted.get('type') or 'model'}s", f"{wanted.get('organization') or user}/{wanted['name']}"
        exists = (kind, repo_id) in self.repositories
        private = wanted.get("visibility") == "private"
        created = Repository(repo_id, kind, user, private, sdk=wanted.get("sdk"))
        repository = self.repositories.setdefault((kind, repo_id), created)
        answer = {"url": self.url + repository.address, "name": repo_id}
        return as_json(answer | {"error": "You already created this repo"}, 409) if exists else as_json(answer)

    @ROUTES.add("DELETE", "/api/repos/delete")
    def _delete(self, request: Request) -> Response:
        named = request.json
        kind, owner = f"{named.get('type') or 'model'}s", named.get("organization") or self._user(request)
        repository = self._admit(request, kind, f"{owner}/{named['name']}", writes=True)
        del self.repositories[repository.kind, repository.id]
        return Response()

    @ROUTES.add("PUT", "/api/{kind}/{repo}/settings", writes=True)
    def _settings(self, request: Request, repository: Repository) -> Response:
        wanted = request.json
        repository.gated = wanted.get("gated", repository.gated)
        if "visibility" in wanted:
            repository.private = wanted["visibility"] == "private"
        return as_json({"private": repository.private, "gated": repository.gated})

    @ROUTES.add("GET", "/api/{kind}/{repo}")
    @ROUTES.add("GET", "/api/{kind}/{repo}/revision/{revision}")
    def _info(self, request: Request, repository: Repository, revision: str = MAIN) -> Response:
        commit, blobs = repository.resolve(revision), request.says("blobs")
        information = {
            "id": repository.id,
            "author": repository.id.split("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "private": repository.private,
            "gated": repository.gated,
            "siblings": [describe_sibling(path, file, blobs) for path, file in sorted(commit.tree.items())],
        }
        card = front_matter(commit.tree["README.md"].content) if "README.md" in commit.tree else {}
        searched = {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
        information |= searched | {"cardData": card, "tags": [*card.get("tags", []), *searched.values()]}
        return as_json(information | ({"sdk": repository.sdk} if repository.kind == "spaces" else {}))

    @ROUTES.add("POST", "/api/validate-yaml")
    def _validate_yaml(self, request: Request) -> Response:
        missing = {"message": "empty or missing yaml metadata in repo card"}
        return as_json({"errors": [], "warnings": [] if request.json["content"].startswith("---\n") else [missing]})

    # Reading.

    @ROUTES.add("GET", "/{prefix}{repo}/resolve/{revision}/{path}")
    def _resolve(self, request: Request, repository: Repository, revision: str, path: str) -> Response:
        user = self._user(request)
        if repository.gated and user != repository.owner:
            raise HubError(403 if user else 401, f"Access to {repository.id} is restricted", "GatedRepo")
        commit = repository.resolve(revision)
        if path not in commit.tree:
            raise HubError(404, "Entry not found", "EntryNotFound", commit)
        file = commit.tree[path]
        response = self._file(request, path, file.content)
        response.headers |= {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.is_lfs:
            response.headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        return response

    def _file(self, request: Request, path: str, content: bytes) -> Response:
        if path in self._corrupt:
            content = content[:-1] + bytes([content[-1] ^ 255])
        response = part_of(content, request.headers.get("Range"))
        cut = self._download_cuts.get(path)
        if request.method == "GET":
            self.ranges.append(request.headers.get("Range"))
        if request.method == "GET" and cut and cut.happens():
            response.cut_after = cut.after_bytes
        return response

    @ROUTES.add("GET", "/api/{kind}/{repo}/tree/{revision}{folder}")
    def _tree(self, request: Request, repository: Repository, revision: str, folder: str | None) -> Response:
        commit, folder = repository.resolve(revision), (folder or "").rstrip("/")
        inside = files_under(commit.tree, folder)
        if folder and (not inside or folder in inside):
            raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit)
        below = sorted(path for path in {*inside, *folders_of(inside)} if len(path) > len(folder))
        depth = folder.count("/") + (1 if folder else 0)
        listed = [path for path in below if request.says("recursive") or path.count("/") == depth]
        return as_json([describe(commit, path, request.says("expand")) for path in listed])

    @ROUTES.add("POST", "/api/{kind}/{repo}/paths-info/{revision}")
    def _paths_info(self, request: Request, repository: Repository, revision: str) -> Response:
        asked, commit = parse_qs(request.body.decode()), repository.resolve(revision)
        expand = asked.get("expand") == ["true"]
        known = {*commit.tree, *folders_of(commit.tree)}
        paths = [path.rstrip("/") for path in asked.get("paths", [])]
        return as_json([describe(commit, path, expand) for path in paths if path in known])

    @ROUTES.add("GET", "/api/{kind}/{repo}/refs")
    def _refs(self, request: Request, repository: Repository) -> Response:
        def listed(folder: str, commits: dict[str, Commit]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": c.sha} for n, c in commits.items()]

        branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
        return as_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    @ROUTES.add("GET", "/api/{kind}/{repo}/commits/{revision}")
    def _commits(self, request: Request, repository: Repository, revision: str) -> Response:
        authors = [{"user": repository.owner}]
        facts = [
            {"id": commit.sha, "title": commit.title, "message": commit.message, "date": commit.date}
            for commit in repository.resolve(revision).history()
        ]
        return as_json([fact | {"authors": authors} for fact in facts])

    # Writing.

    @ROUTES.add("POST", "/api/{kind}/{repo}/preupload/{revision}", writes=True)
    def _preupload(self, request: Request, repository: Repository, revision: str) -> Response:
        tree, modes = repository.resolve(revision).tree, []
        for file in request.json["files"]:
            path, size = file["path"], file["size"]
            self._announced_sizes[path] = size
            mode = "lfs" if belongs_in_lfs(path, size, base64.b64decode(file["sample"])) else "regular"
            known = {"oid": tree[path].etag} if path in tree else {}
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | known)
        return as_json({"files": modes})

    @ROUTES.add("POST", "/{prefix}{repo}.git/info/lfs/objects/batch", writes=True)
    def _lfs_batch(self, request: Request, repository: Repository) -> Response:
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in request.json["objects"]]
        for wanted in objects:
            href = f"{self.url}/lfs/{wanted['oid']}"
            if wanted["oid"] not in self.lfs:
                wanted["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return as_json({"transfer": "basic", "objects": objects})

    @ROUTES.add("PUT", "/lfs/{oid}")
    def _lfs_upload(self, request: Request, oid: str) -> Response:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, f"What was uploaded does not have the hash {oid}")
        self.lfs[oid] = request.body
        return Response()

    @ROUTES.add("POST", "/lfs/{oid}/verify")
    def _lfs_verify(self, request: Request, oid: str) -> Response:
        if len(self._uploaded(oid)) != request.json["size"]:
            raise HubError(400, f"What was uploaded does not have the size that was announced: {oid}")
        return as_json({})

    @ROUTES.add("POST", "/api/{kind}/{repo}/commit/{revision}", writes=True)
    def _commit(self, request: Request, repository: Repository, revision: str) -> Response:
        if self._failing_repository in (None, repository.id) and self._failing_commits.happens():
            raise HubError(500, "Internal error")
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        head = self._branch_to_write(request, repository, revision, header["value"])
        tree = dict(head.tree)
        for operation in operations:
            self._apply(operation["key"], operation["value"], tree)
        said = header["value"]
        commit = repository.commit(tree, said["summary"], said.get("description", ""), revision)
        url = f"{self.url}{repository.address}/commit/{commit.sha}"
        return as_json({"success": True, "commitOid": commit.sha, "commitUrl": url})

    def _branch_to_write(self, request: Request, repository: Repository, branch: str, header: dict) -> Commit:
        if request.says("create_pr"):
            raise HubError(501, "The double of the Hub has no pull requests")
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = repository.branches[branch]
        if header.get("parentCommit", head.sha) != head.sha:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        return head

    def _apply(self, operation: str, value: dict[str, Any], tree: dict[str, File]) -> None:
        path = value["path"].rstrip("/")
        if operation == "file":
            tree[path] = File(base64.b64decode(value["content"]))
        elif operation == "lfsFile":
            tree[path] = File(self._uploaded(value["oid"]), is_lfs=True)
        else:
            deleted = [path] if operation == "deletedFile" else list(files_under(tree, path))
            if not deleted or not tree.keys() >= set(deleted):
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in deleted:
                del tree[name]

    def _uploaded(self, oid: str) -> bytes:
        if oid not in self.lfs:
            raise HubError(404, f"There is no such file in the large file storage: {oid}")
        return self.lfs[oid]

    @ROUTES.add("POST", "/api/{kind}/{repo}/branch/{name}", writes=True)
    def _create_branch(self, request: Request, repository: Repository, name: str) -> Response:
        start = repository.resolve(request.json.get("startingPoint", MAIN))
        return self._enter(repository.branches, name, start)

    @ROUTES.add("POST", "/api/{kind}/{repo}/tag/{revision}", writes=True)
    def _create_tag(self, request: Request, repository: Repository, revision: str) -> Response:
        return self._enter(repository.tags, request.json["tag"], repository.resolve(revision))

    def _enter(self, names: dict[str, Commit], name: str, commit: Commit) -> Response:
        if name in names:
            raise HubError(409, f"Reference already exists: {name}")
        names[name] = commit
        return as_json({})

    @ROUTES.add("DELETE", "/api/{kind}/{repo}/{ref}/{name}", writes=True)
    def _delete_ref(self, request: Request, repository: Repository, ref: str, name: str) -> Response:
        names = repository.branches if ref == "branch" else repository.tags
        if names is repository.branches and name == MAIN:
            raise HubError(403, "The default branch cannot be deleted")
        if names.pop(name, None) is None:
            raise HubError(404, f"Reference not found: {name}", "RevisionNotFound")
        return as_json({})
