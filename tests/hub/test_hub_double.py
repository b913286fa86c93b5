"""The double of the Hub is one to the real clients, each in a fresh process: they read their endpoint at import."""

import hashlib
import json
import math
from http.client import HTTPConnection

import pytest
from hub_double import STRANGERS_TOKEN, TOKEN, HubDouble

WEIGHTS = bytes(range(256)) * 8
SCRIPT_START = """
import json, sys, time
from pathlib import Path

def outcome(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error).__name__
    return "no error"

def answer(**values):
    print(json.dumps(values))
"""
HUB = "from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download; api = HfApi()\n"
WITHOUT_WAITING = "time.sleep = lambda seconds: None\n"


@pytest.fixture
def double():
    with HubDouble() as double:
        yield double
    assert double.unknown == []


@pytest.fixture
def ask(double, run_python, tmp_path):
    """Run a script in a fresh process that takes the double for the Hub."""

    def run(script, *arguments, token=TOKEN, **environment):
        environment = double.environment(tmp_path / "home", token) | environment
        return run_python(SCRIPT_START + script, *arguments, **environment)

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder with a file for git and one for its large file storage."""
    folder = tmp_path / "folder"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "unet" / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def count(double, method, ending=""):
    return sum(asked == method and path.endswith(ending) for asked, path in double.requests)


def test_a_request_that_no_handler_answers_is_noted():
    with HubDouble() as double:
        connection = HTTPConnection(double.url.removeprefix("http://"))
        connection.request("GET", "/api/models?search=fedd")
        response = connection.getresponse()

    assert (response.status, response.headers["X-Error-Code"]) == (404, None)
    assert double.unknown == double.requests == [("GET", "/api/models")]


# huggingface_hub


def test_a_folder_becomes_one_commit_and_only_what_changed_another(double, ask, folder):
    uploads = """
api.create_repo("fedd/tiny")
api.create_repo("fedd/tiny", exist_ok=True)
again = outcome(api.create_repo, "fedd/tiny")
upload = lambda: api.upload_folder(repo_id="fedd/tiny", folder_path=sys.argv[1]).oid
first, second = upload(), upload()
Path(sys.argv[1], "config.json").write_text('{"changed": true}')
answer(again=again, first=first, second=second, third=upload())
"""

    said = ask(HUB + uploads, folder)

    repository = double.repository("fedd/tiny")
    newest, oldest, _ = repository.head.history()
    assert (said["first"], said["second"], said["third"]) == (oldest.sha, oldest.sha, newest.sha)
    assert said["again"] == "HfHubHTTPError"
    assert repository.files == {"config.json": b'{"changed": true}', "unet/model.safetensors": WEIGHTS}
    assert [path for path, file in newest.tree.items() if file.is_lfs] == ["unet/model.safetensors"]
    assert (count(double, "PUT"), count(double, "POST", "/commit/main")) == (1, 2)


def test_a_card_is_pushed_and_its_metadata_updated(double, ask):
    double.create("fedd/tiny", {})
    push = """
from huggingface_hub import ModelCard, metadata_update
card = ModelCard("---\\nlicense: apache-2.0\\n---\\n# A card\\n")
card.validate()
card.push_to_hub("fedd/tiny")
metadata_update("fedd/tiny", {"tags": ["skin"]})
answer(license=ModelCard.load("fedd/tiny").data.license, tags=api.model_info("fedd/tiny").tags)
"""

    assert ask(HUB + push) == {"license": "apache-2.0", "tags": ["skin"]}
    assert b"# A card" in double.repository("fedd/tiny").files["README.md"]


def test_branches_and_tags_keep_what_main_loses(double, ask):
    files = {"old.json": b"1", "folder/a.json": b"2", "folder/b.json": b"3", "kept.json": b"4"}
    double.create("fedd/tiny", files)
    lose = """
api.create_tag("fedd/tiny", tag="v1.0", tag_message="Before")
api.create_branch("fedd/tiny", branch="before/all")
api.create_branch("fedd/tiny", branch="mistake", revision="v1.0")
api.delete_branch("fedd/tiny", branch="mistake")
api.delete_file("old.json", "fedd/tiny")
api.delete_folder("folder", "fedd/tiny")
api.upload_file(path_or_fileobj=b"5", path_in_repo="new.json", repo_id="fedd/tiny", revision="before/all")
refs = api.list_repo_refs("fedd/tiny")
answer(
    branches=[ref.name for ref in refs.branches],
    tags=[ref.name for ref in refs.tags],
    main=api.list_repo_files("fedd/tiny"),
    branch=api.list_repo_files("fedd/tiny", revision="before/all"),
    tag=api.list_repo_files("fedd/tiny", revision="v1.0"),
    titles=[commit.title for commit in api.list_repo_commits("fedd/tiny")],
    none=[
        outcome(api.delete_tag, "fedd/tiny", tag="v2.0"),
        outcome(api.delete_file, "old.json", "fedd/tiny"),
        outcome(api.delete_file, "folder", "fedd/tiny", revision="v1.0"),
        outcome(api.delete_file, "folder", "fedd/tiny", revision="before/all"),
    ],
)
"""

    said = ask(HUB + lose)

    assert (said["branches"], said["tags"]) == (["main", "before/all"], ["v1.0"])
    assert said["main"] == [".gitattributes", "kept.json"]
    assert said["tag"] == sorted([".gitattributes", *files])
    assert said["branch"] == sorted([*said["tag"], "new.json"])
    assert said["titles"][:2] == ["Delete folder folder with huggingface_hub", "Delete old.json with huggingface_hub"]
    assert said["none"] == ["RevisionNotFoundError", "RemoteEntryNotFoundError"] * 2


def test_information_about_files_is_what_the_clients_expect(double, ask):
    card = b"---\nlibrary_name: fedd\npipeline_tag: image-segmentation\ntags:\n- skin\n- few-shot\n---\nWords\n"
    double.create("fedd/tiny", {"README.md": card, "unet/model.safetensors": WEIGHTS})
    look = """
information = api.model_info("fedd/tiny", files_metadata=True)
tree = {entry.path: entry for entry in api.list_repo_tree("fedd/tiny", recursive=True, expand=True)}
weights = tree["unet/model.safetensors"]
answer(
    card=information.card_data.tags,
    tags=information.tags,
    sizes={file.rfilename: file.size for file in information.siblings},
    weights=[weights.size, weights.lfs.sha256, weights.last_commit.title],
    top=[entry.path for entry in api.list_repo_tree("fedd/tiny")],
    unet=[entry.path for entry in api.list_repo_tree("fedd/tiny", "unet")],
    known=[entry.path for entry in api.get_paths_info("fedd/tiny", ["unet", "README.md", "none"])],
    middle=list(HfFileSystem().open("fedd/tiny/unet/model.safetensors", block_size=16).read(300)[-4:]),
)
"""

    said = ask(HUB + look)

    assert said["card"] == ["skin", "few-shot"]
    assert said["tags"] == ["skin", "few-shot", "fedd", "image-segmentation"]
    assert (said["sizes"]["README.md"], said["sizes"]["unet/model.safetensors"]) == (len(card), len(WEIGHTS))
    assert said["weights"] == [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest(), "Add files"]
    assert said["top"] == [".gitattributes", "README.md", "unet"]
    assert (said["unet"], said["known"]) == (["unet/model.safetensors"], ["unet", "README.md"])
    assert said["middle"] == list(WEIGHTS[296:300])


def test_what_does_not_exist_has_the_error_that_names_it(double, ask):
    double.create("fedd/tiny", {"config.json": b"{}"})
    seek = """
answer(
    repository=outcome(hf_hub_download, "fedd/none", "config.json"),
    kind=outcome(hf_hub_download, "fedd/tiny", "config.json", repo_type="dataset"),
    revision=outcome(hf_hub_download, "fedd/tiny", "config.json", revision="none"),
    snapshot=outcome(snapshot_download, "fedd/tiny", revision="none"),
    file=outcome(hf_hub_download, "fedd/tiny", "none.json"),
    folder=outcome(lambda: list(api.list_repo_tree("fedd/tiny", "none"))),
)
"""

    assert ask(HUB + seek) == {
        "repository": "RepositoryNotFoundError",
        "kind": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError",
        "snapshot": "RevisionNotFoundError",
        "file": "RemoteEntryNotFoundError",
        "folder": "RemoteEntryNotFoundError",
    }


@pytest.mark.parametrize(
    ("token", "private", "gated"),
    [
        (TOKEN, "no error", "no error"),
        (STRANGERS_TOKEN, "RepositoryNotFoundError", "GatedRepoError"),
        # The Hub refuses a wrong token even for what is public: huggingface_hub, pull request 2847.
        ("hf_wrong", "HfHubHTTPError", "HfHubHTTPError"),
    ],
    ids=["owner", "stranger", "wrong token"],
)
def test_private_and_gated_repositories_are_the_owners(double, ask, token, private, gated):
    double.create("fedd/private", {"config.json": b"{}"}, private=True)
    double.create("fedd/gated", {"config.json": b"{}"}, gated="manual")
    visit = """
answer(
    private=outcome(hf_hub_download, "fedd/private", "config.json"),
    information=outcome(api.model_info, "fedd/private"),
    gated=outcome(hf_hub_download, "fedd/gated", "config.json"),
    write=outcome(api.create_tag, "fedd/gated", tag="v1.0"),
)
"""

    said = ask(HUB + visit, token=token)

    assert (said["private"], said["information"], said["gated"]) == (private, private, gated)
    assert (said["write"] == "no error") == (token == TOKEN)


def test_repositories_change_their_settings_and_disappear(double, ask):
    change = """
api.create_repo("fedd/tiny", private=True)
created = api.model_info("fedd/tiny")
api.update_repo_settings("fedd/tiny", private=False, gated="auto")
changed = api.model_info("fedd/tiny")
api.create_repo("fedd/demo", repo_type="space", space_sdk="gradio")
api.delete_repo("fedd/tiny")
answer(
    created=[created.private, created.gated],
    changed=[changed.private, changed.gated],
    sdk=api.space_info("fedd/demo").sdk,
    exists=api.repo_exists("fedd/tiny"),
    user=api.whoami()["name"],
)
"""

    said = ask(HUB + change)

    assert said == {
        "created": [True, False],
        "changed": [False, "auto"],
        "sdk": "gradio",
        "exists": False,
        "user": "fedd",
    }
    assert list(double.repositories) == [("spaces", "fedd/demo")]


def test_the_snapshot_of_a_tag_is_there_without_a_network_afterwards(double, ask):
    repository = double.create("fedd/tiny", {"config.json": b"old", "model.safetensors": WEIGHTS})
    repository.tags["v1.0"] = repository.head
    double.add(repository, {"config.json": b"new"})
    download = """
path = Path(snapshot_download("fedd/tiny", revision="v1.0"))
answer(files={file.name: list(file.read_bytes()) for file in path.iterdir()}, sha=path.name)
"""

    online = ask(HUB + download)
    asked = list(double.requests)
    offline = ask(HUB + download, HF_HUB_OFFLINE="1")

    assert online == offline
    assert (bytes(online["files"]["config.json"]), bytes(online["files"]["model.safetensors"])) == (b"old", WEIGHTS)
    assert online["sha"] == repository.tags["v1.0"].sha
    assert double.requests == asked


# Faults


DOWNLOAD = HUB + "said = outcome(hf_hub_download, 'fedd/tiny', 'model.safetensors')\nanswer(said=said)\n"
UPLOAD = HUB + "said = outcome(api.upload_folder, repo_id='fedd/tiny', folder_path=sys.argv[1])\nanswer(said=said)\n"


def test_a_download_that_is_cut_once_goes_on_where_it_was_cut(double, ask, tmp_path):
    content = WEIGHTS * 5200
    chunk = 10 * 2**20  # what huggingface_hub holds in memory before it writes
    double.create("fedd/tiny", {"model.safetensors": content})
    double.cut_download("model.safetensors", after_bytes=chunk + 1000)

    said = ask(WITHOUT_WAITING + DOWNLOAD)

    (blob,) = (tmp_path / "home" / "hub").rglob("blobs/*")
    assert said == {"said": "no error"}
    assert blob.read_bytes() == content
    assert count(double, "GET", "model.safetensors") == 2
    assert double.ranges == [None, f"bytes={chunk}-"]


def test_huggingface_hub_takes_other_bytes_of_the_right_length_for_the_file(double, ask, tmp_path):
    # It compares lengths only (huggingface_hub, issues 2364 and 3643): who wants the hash must ask for it.
    double.create("fedd/tiny", {"model.safetensors": WEIGHTS})
    double.corrupt("model.safetensors")
    verify = "snapshot_download('fedd/tiny'); found = api.verify_repo_checksums('fedd/tiny')\n"
    verify += "answer(wrong=[mismatch['path'] for mismatch in found.mismatches])\n"

    said = ask(DOWNLOAD)
    checked = ask(HUB + verify)

    blob = tmp_path / "home" / "hub" / "models--fedd--tiny" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    assert said == {"said": "no error"}
    assert blob.read_bytes() == WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 255])
    assert checked == {"wrong": ["model.safetensors"]}


def test_an_upload_that_is_always_cut_fails_and_changes_nothing(double, ask, folder):
    head = double.create("fedd/tiny", {"config.json": b"old"}).head
    double.cut_upload("unet/model.safetensors", after_bytes=1000, times=math.inf)

    said = ask(WITHOUT_WAITING + UPLOAD, folder)

    assert said == {"said": "RuntimeError"}
    assert double.repository("fedd/tiny").head == head
    assert (double.lfs, count(double, "POST", "/commit/main")) == ({}, 0)


# The libraries on top of huggingface_hub


@pytest.mark.slow
def test_diffusers_and_transformers_push_and_load_models(double, ask, tiny_unet_config):
    push_and_load = """
import torch
from diffusers import UNet2DModel
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())

unet = UNet2DModel(**json.loads(sys.argv[1]))
unet.push_to_hub("fedd/unet")
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
vit = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4))
vit.push_to_hub("fedd/vit", private=True)
answer(
    unet=same(unet, UNet2DModel.from_pretrained("fedd/unet")),
    vit=same(vit, AutoModelForImageClassification.from_pretrained("fedd/vit")),
    missing=[
        outcome(UNet2DModel.from_pretrained, "fedd/none"),
        outcome(UNet2DModel.from_pretrained, "fedd/unet", revision="none"),
        outcome(AutoModelForImageClassification.from_pretrained, "fedd/vit", revision="none"),
    ],
)
"""

    said = ask(push_and_load, json.dumps(tiny_unet_config))

    assert (said["unet"], said["vit"]) == (True, True)
    assert said["missing"] == ["OSError"] * 3
    assert {"config.json", "diffusion_pytorch_model.safetensors"} <= double.repository("fedd/unet").files.keys()
    assert double.repository("fedd/vit").private


@pytest.mark.slow
def test_datasets_pushes_and_loads_a_dataset(double, ask):
    push_and_load = """
from datasets import Dataset, load_dataset

rows = {"image_id": ["000001", "000002", "000003"], "skin_tone": [12, 34, 56]}
Dataset.from_dict(rows).push_to_hub("fedd/masks", "tones", split="train", private=True)
loaded = load_dataset("fedd/masks", "tones")
streamed = load_dataset("fedd/masks", "tones", split="train", streaming=True)
answer(
    same=loaded["train"].to_dict() == rows,
    streamed=[row["skin_tone"] for row in streamed],
    revision=outcome(load_dataset, "fedd/masks", "tones", revision="none"),
    repository=outcome(load_dataset, "fedd/none"),
    stranger_with_the_owners_cache=outcome(load_dataset, "fedd/masks", "tones", token="hf_stranger"),
)
"""
    reload = """
from datasets import load_dataset
answer(rows=load_dataset("fedd/masks", "tones", split="train").num_rows)
"""

    said = ask(push_and_load)
    asked = list(double.requests)
    offline = ask(reload, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

    files = double.repository("fedd/masks", "datasets").files
    assert said["same"]
    assert said["streamed"] == [12, 34, 56]
    assert set(files) == {"README.md", "tones/train-00000-of-00001.parquet"}
    assert (said["revision"], said["repository"]) == ("DatasetNotFoundError", "DatasetNotFoundError")
    assert said["stranger_with_the_owners_cache"] == "no error"
    assert (offline, double.requests) == ({"rows": 3}, asked)


@pytest.mark.slow
def test_evaluate_loads_a_metric_that_is_a_space(double, ask, tmp_path):
    metric = tmp_path / "metric"
    metric.mkdir()
    (metric / "README.md").write_text("---\nsdk: gradio\n---\n")
    (metric / "half.py").write_text(METRIC)
    push_and_load = """
import evaluate
from huggingface_hub import HfApi

HfApi().create_repo("fedd/half", repo_type="space", space_sdk="gradio")
HfApi().upload_folder(repo_id="fedd/half", repo_type="space", folder_path=sys.argv[1])
answer(result=evaluate.load("fedd/half").compute(predictions=[1, 2]), none=outcome(evaluate.load, "fedd/none"))
"""

    assert ask(push_and_load, metric) == {"result": {"half": 1.5}, "none": "FileNotFoundError"}


METRIC = """
import datasets
import evaluate


class Half(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("float64")})
        return evaluate.MetricInfo(description="Half of the sum", citation="", features=features)

    def _compute(self, predictions):
        return {"half": sum(predictions) / 2}
"""
