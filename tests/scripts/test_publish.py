"""scripts/publish.py: from a quickstart and ddi-seg to repositories, each with its card, and from there to users."""

import json
import math
import re
import runpy
import shutil
import time
from pathlib import Path

import pytest
from card_rules import check_card
from hub_double import HubDouble
from huggingface_hub import constants

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
MODELS = {"segmentation": "fedd/fedd-segmentation-painted", "classification": "fedd/fedd-malignancy-painted"}
ORDER = [
    ("models", "derm-ddpm-64"),
    ("datasets", "ddi-seg"),
    ("spaces", "classification_by_group"),
    ("spaces", "mean_iou_by_group"),
    ("models", "fedd-segmentation-painted"),
    ("models", "fedd-segmentation-painted-heads"),
    ("models", "fedd-malignancy-painted"),
    ("models", "fedd-malignancy-painted-heads"),
    ("spaces", "fedd-demo"),
]

# What users and publishers type, each in a fresh process that reports whom it called.
LISTEN = """
import json, sys
hosts = set()

def listen(event, arguments):
    if event == "socket.getaddrinfo":
        hosts.add(str(arguments[0]))
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        hosts.add(str(arguments[1][0]))

sys.addaudithook(listen)
"""
PUBLISH = """
import runpy
said = None
try:
    runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
except SystemExit as error:
    said = error.code
print(json.dumps({"said": said, "hosts": sorted(hosts)}))
"""
DEMO = """
import runpy
from huggingface_hub import snapshot_download
from fedd_hf import demo

folder, opened = snapshot_download("fedd/fedd-demo", repo_type="space"), []
demo.launch = lambda page: opened.append(type(page).__name__)
runpy.run_path(f"{folder}/app.py", run_name="__main__")
print(json.dumps({"opened": opened, "hosts": sorted(hosts)}))
"""
USE = """
import hashlib
import evaluate
import numpy as np
import torch
from datasets import load_dataset
from transformers import pipeline

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation
from fedd_hf.data import load_ddi
from fedd_hf.data.painted import paint_dataset

names, painted_ddi = json.loads(sys.argv[1]), sys.argv[2]

def digest(values):
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()

def pixels(model):
    size = model.config.image_size
    return torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1

@torch.no_grad()
def logits(kind, name):
    model = kind.from_pretrained(name).eval()
    return digest(model(pixels(model)).logits)

@torch.no_grad()
def features(name):
    model = FEDDForSegmentation.from_backbone(name)
    return [digest(feature_map) for feature_map in model.backbone(pixels(model))]

def masks(rows):
    return [[row["image_id"], digest(row["mask"])] for row in rows]

photo = paint_dataset(1, seed=9, size=64)[0]["image"]
segment = pipeline("image-segmentation", names["segmentation"][0])
classify = pipeline("image-classification", names["classification"][0])
rows = load_dataset(names["ddi-seg"], "segmentation")
streamed = load_dataset(names["ddi-seg"], "segmentation", split="validation", streaming=True)
ddi = load_ddi(painted_ddi, masks=names["ddi-seg"], label_fraction=0.05)
maps = [[[0, 1], [1, 1]], [[0, 0], [1, 1]]]
told = {"predictions": maps, "references": maps[::-1], "groups": ["I-II", "V-VI"], "labels": ["skin", "lesion"]}
scored = {"predictions": [0.1, 0.9, 0.4], "references": [0, 1, 1], "groups": ["I-II", "I-II", "V-VI"]}
said = {
    "segmentation": [logits(FEDDForSegmentation, name) for name in names["segmentation"]],
    "classification": [logits(FEDDForImageClassification, name) for name in names["classification"]],
    "features": features(names["backbone"]),
    "maps": [[found["label"], digest(found["mask"])] for found in segment(photo)],
    "scores": classify(photo),
    "masks": {split: masks(rows[split]) for split in rows},
    "streamed": masks(streamed),
    "diagnoses": load_dataset(names["ddi-seg"], "classification")["test"].to_pandas().to_json(),
    "ddi": {split: masks(ddi[split]) for split in ddi},
    "mean_iou": repr(evaluate.load(names["mean_iou_by_group"]).compute(**told)),
    "auroc": repr(evaluate.load(names["classification_by_group"]).compute(**scored)),
}
print(json.dumps({"said": said, "hosts": sorted(hosts)}))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPTS / "publish.py"))["main"]


def test_a_dry_run_shows_every_file_and_uploads_nothing(main, quickstart, ddi_seg, capsys):
    main(["--quickstart", str(quickstart), "--ddi-seg", str(ddi_seg), "--owner", "jane", "--dry-run"])

    shown = capsys.readouterr().out
    order = [line.split(":")[0] for line in shown.splitlines() if not line.startswith(" ")]
    assert order == [
        "model jane/derm-ddpm-64",
        "dataset jane/ddi-seg",
        "space jane/classification_by_group",
        "space jane/mean_iou_by_group",
        "model jane/fedd-segmentation-painted",
        "model jane/fedd-segmentation-painted-heads",
        "model jane/fedd-malignancy-painted",
        "model jane/fedd-malignancy-painted-heads",
        "space jane/fedd-demo",
    ]
    assert "handler.py" in shown
    assert "examples/V-VI-map.png" in shown
    assert shown.count("README.md") == len(order)


def test_every_card_follows_the_rules_of_the_hub(main, quickstart, ddi_seg, monkeypatch):
    violations = {}

    def note(repository):
        card = (repository.folder / "README.md").read_text()
        files = [path.relative_to(repository.folder).as_posix() for path in repository.folder.rglob("*")]
        violations[repository.repo_id] = check_card(card, repository.repo_type, files)
        return ""

    monkeypatch.setitem(main.__globals__, "describe_repository", note)
    main(["--quickstart", str(quickstart), "--ddi-seg", str(ddi_seg), "--dry-run"])

    assert len(violations) == len(ORDER)
    assert {repo_id: found for repo_id, found in violations.items() if found} == {}


def test_masks_of_the_authors_need_a_confirmation(main, quickstart, released_zip, tmp_path):
    build = runpy.run_path(str(SCRIPTS / "build_ddi_seg.py"))["main"]
    build(["--masks", str(released_zip), "--output-dir", str(tmp_path / "ddi-seg")])
    arguments = ["--quickstart", str(quickstart), "--ddi-seg", str(tmp_path / "ddi-seg"), "--dry-run"]

    with pytest.raises(SystemExit, match="^publish: .* released without a licence. .* add `--confirm-masks`"):
        main(arguments)
    main([*arguments, "--confirm-masks"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--quickstart", "nowhere"], "Type `fedd quickstart --output-dir nowhere` first"),
        (["--gated", "always"], "`gated` must be None, 'auto' or 'manual', got 'always'"),
        (["--ddi-seg", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, quickstart, change, message):
    with pytest.raises(SystemExit, match=f"^publish: .*{message}"):
        main(["--quickstart", str(quickstart), "--dry-run", *change])


def test_a_photo_that_was_put_beside_a_model_is_not_published(main, quickstart, tmp_path, capsys):
    folder = Path(shutil.copytree(quickstart, tmp_path / "quickstart"))
    (folder / "segmentation" / "patient.png").write_bytes(b"a photo")

    main(["--quickstart", str(folder), "--dry-run"])

    assert "patient" not in capsys.readouterr().out


def test_a_damaged_dataset_is_not_published(main, quickstart, ddi_seg, tmp_path):
    folder = tmp_path / "ddi-seg"
    shutil.copytree(ddi_seg, folder)
    (folder / "patient.jpg").write_bytes(b"a photo")

    with pytest.raises(SystemExit, match="^publish: patient.jpg may not be published"):
        main(["--quickstart", str(quickstart), "--ddi-seg", str(folder), "--dry-run"])


# Over HTTP, to the double of the Hub


@pytest.fixture(scope="module")
def publish(quickstart, ddi_seg, run_python, tmp_path_factory):
    """Type the command in a fresh process, and return the line with which it ends if it fails."""

    def run(double, *options):
        arguments = ["--quickstart", quickstart, "--ddi-seg", ddi_seg, *options]
        environment = double.environment(tmp_path_factory.mktemp("publisher"))
        ended = run_python(LISTEN + PUBLISH, SCRIPTS / "publish.py", *arguments, **environment)
        assert set(ended["hosts"]) <= {"127.0.0.1"}
        return ended["said"]

    return run


@pytest.fixture(scope="module")
def published(publish):
    """The Hub after everything was published once."""
    with HubDouble() as double:
        assert publish(double) is None
        yield double
    assert double.unknown == []


def heads(double):
    """The newest commit of each repository, in the order in which they were made."""
    return {key: repository.head.sha for key, repository in double.repositories.items()}


def as_owned_by(owner):
    return [(kind, f"{owner}/{name}") for kind, name in ORDER]


def config_of(double, repo_id):
    return json.loads(double.repository(repo_id).files["config.json"])


def test_everything_is_published_in_one_commit_each_what_others_stand_on_first(published):
    assert list(heads(published)) == as_owned_by("fedd")
    assert {len(list(repository.head.history())) for repository in published.repositories.values()} == {2}
    names = {name for repository in published.repositories.values() for name in repository.files}
    assert not any(re.search(r"\.(bin|pkl|pt|pth|ckpt|jpe?g)$", name) for name in names)
    for name in MODELS.values():
        heads_alone = config_of(published, f"{name}-heads")
        assert not heads_alone["save_backbone"]
        assert heads_alone["backbone"] == "fedd/derm-ddpm-64"
        assert heads_alone["backbone_revision"] == published.repository("fedd/derm-ddpm-64").head.sha


def test_what_users_type_gives_what_the_publisher_has(
    published, quickstart, ddi_seg, painted_ddi, run_python, tmp_path
):
    metrics = ("mean_iou_by_group", "classification_by_group")
    on_the_hub = {task: [name, f"{name}-heads"] for task, name in MODELS.items()}
    on_the_hub |= {"backbone": "fedd/derm-ddpm-64", "ddi-seg": "fedd/ddi-seg"}
    on_the_hub |= {name: f"fedd/{name}" for name in metrics}
    on_the_disk = {task: [str(quickstart / task)] * 2 for task in MODELS}
    on_the_disk |= {"backbone": "embedded", "ddi-seg": str(ddi_seg)}
    on_the_disk |= {name: str(ROOT / "hub_cards" / "metrics" / name) for name in metrics}
    before = len(published.requests)

    def use(names, home, **switches):
        environment = published.environment(tmp_path / home) | switches
        return run_python(LISTEN + USE, json.dumps(names), painted_ddi, **environment)

    users = use(on_the_hub, "user")
    asked = {path for method, path in published.requests[before:] if method == "GET"}
    publishers = use(on_the_disk, "publisher", HF_HUB_OFFLINE=1)

    for part in users["said"]:
        assert users["said"][part] == publishers["said"][part], part
    for task in MODELS:
        assert len(set(users["said"][task])) == 1  # whole and as heads
    assert set(users["hosts"]) <= {"127.0.0.1", "datasets-server.127.0.0.1"}  # of the Hub, by datasets' rule
    assert publishers["hosts"] == []
    backbone = published.repository("fedd/derm-ddpm-64").head.sha
    assert f"/fedd/derm-ddpm-64/resolve/{backbone}/unet/diffusion_pytorch_model.safetensors" in asked
    for name in MODELS.values():
        head = published.repository(f"{name}-heads").head.sha
        assert {f"/{name}-heads/resolve/{at}/model.safetensors" for at in ("main", head)} & asked
    assert any(path.startswith("/datasets/fedd/ddi-seg/resolve/") and path.endswith(".parquet") for path in asked)
    assert any(path.endswith("/mean_iou_by_group.py") for path in asked)


def test_the_demo_opens_the_models_at_the_commits_whose_results_it_shows(published, run_python, tmp_path):
    ended = run_python(LISTEN + DEMO, **published.environment(tmp_path))

    assert ended["opened"] == ["Blocks"]
    for task, told in json.loads(published.repository("fedd/fedd-demo", "spaces").files["models.json"]).items():
        assert told["name_or_path"] == MODELS[task]
        assert told["revision"] == published.repository(told["name_or_path"]).head.sha


def test_published_a_second_time_nothing_changes(published, publish):
    before = heads(published)

    assert publish(published) is None

    assert heads(published) == before


def test_what_fails_in_the_middle_leaves_whole_repositories_and_is_completed_by_the_same_command(publish):
    owned = as_owned_by("jane")
    options = ["--owner", "jane", "--private", "--gated", "manual", "--tag", "v1.0"]
    with HubDouble() as double:
        double.fail_commit(repo_id="jane/ddi-seg")
        failed = publish(double, *options)
        left = {key: repository.files for key, repository in double.repositories.items()}
        completed = publish(double, *options)

    assert re.fullmatch(r"publish: jane/ddi-seg was not published: .*500.* Typed again, the command goes on\.", failed)
    assert list(left) == owned[:2]
    assert "unet/diffusion_pytorch_model.safetensors" in left[owned[0]]
    assert left[owned[1]] == {}
    assert completed is None
    assert list(double.repositories) == owned
    assert double.repositories[owned[0]].files == left[owned[0]]
    assert config_of(double, "jane/fedd-malignancy-painted-heads")["backbone"] == "jane/derm-ddpm-64"
    for (kind, repo_id), repository in double.repositories.items():
        assert repository.private
        assert repository.gated == (False if kind == "spaces" else "manual")
        assert repository.tags == {"v1.0": repository.head}
        assert not re.search(r"[\"(/ ]fedd/", repository.files["README.md"].decode()), repo_id
    assert double.unknown == []


def unplug(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens


def cut(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.cut_upload("unet/diffusion_pytorch_model.safetensors", after_bytes=1000, times=math.inf)


@pytest.mark.parametrize(
    ("break_off", "reason"), [(unplug, "refused"), (cut, "Error while uploading 'unet/.*safetensors'")]
)
def test_a_network_that_fails_ends_the_command_in_one_line(main, hub, quickstart, monkeypatch, break_off, reason):
    break_off(hub, monkeypatch)

    with pytest.raises(SystemExit) as told:
        main(["--quickstart", str(quickstart)])

    assert re.fullmatch(f"publish: fedd/derm-ddpm-64 was not published: .*{reason}.*", told.value.code)
    assert all(repository.files == {} for repository in hub.repositories.values())
