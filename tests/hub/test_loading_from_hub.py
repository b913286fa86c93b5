"""Models loaded over HTTP from the double of the Hub: whole and heads-only, afterwards offline, and as remote code.

Four fresh processes do it all, one after the other, since each takes seconds to import transformers; each test reads
what one of them reported. How the cache alone is read is in test_modeling_fedd.py.
"""

import copy
import hashlib
import json

import pytest
import torch
from hub_double import STRANGERS_TOKEN, HubDouble
from hub_storage import File
from look_away import LOOK_AWAY
from safetensors.torch import load, save

from fedd_hf import FEDDImageProcessor

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"
START = """
import hashlib, json, os, sys, time
from pathlib import Path

reports = {}
time.sleep = lambda seconds: None  # between attempts to download

def report(name, load, *arguments, **options):
    try:
        model = load(*arguments, **options).eval()
    except Exception as error:
        reports[name] = f"{type(error).__name__}: {error}"
    else:
        logits = model(torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16), output_member_logits=True).member_logits
        is_frozen = not any(parameter.requires_grad for parameter in model.backbone.parameters())
        reports[name] = [hashlib.sha256(logits.detach().contiguous().numpy().tobytes()).hexdigest(), is_frozen]

def weights_in_the_cache():
    return sorted(path.name for path in Path(os.environ["HF_HUB_CACHE"]).rglob("*.safetensors"))

def half_files_in_the_cache():
    return sorted(path.name for path in Path(os.environ["HF_HUB_CACHE"]).rglob("*.incomplete"))
"""
WITH_THE_PACKAGE = """
import torch
from fedd_hf import FEDDForSegmentation
from fedd_hf.prediction import open_model
load = FEDDForSegmentation.from_pretrained
commit = json.loads(sys.argv[1])
"""
ON_A_BAD_LINE = """
report("cut", load, "fedd/whole")
reports["weights after the cut"] = weights_in_the_cache() + half_files_in_the_cache()
report("after the cut", load, "fedd/whole")
report("corrupted", load, "fedd/heads")
print(json.dumps(reports))
"""
ON_A_GOOD_LINE = """
report("still corrupted", load, "fedd/heads")
report("fetched again", load, "fedd/heads", force_download=True)
report("heads", load, "fedd/heads")
for name in ("main", "v1.0", "commit"):
    report(f"whole at {name}", load, "fedd/whole", revision=commit["whole"] if name == "commit" else name)
report("opened", lambda name: open_model(name)[0], "fedd/whole")
report("private, wrong token", load, "fedd/private", token="hf_wrong")
report("private, token of a stranger", load, "fedd/private", token=sys.argv[2])
report("private", load, "fedd/private")
report("no repository", load, "fedd/none")
report("no revision", load, "fedd/whole", revision="none")
report("heads on no repository", load, "fedd/heads-on-nothing")
report("heads on no revision", load, "fedd/heads-on-no-revision")
report("heads on a changed backbone", load, "fedd/heads-on-changed")
report("heads on a private backbone", load, "fedd/heads-on-private")
print(json.dumps(reports))
"""
WITHOUT_SOCKETS = """
import socket
tried = []

def refuse(*arguments, **options):
    tried.append(str(arguments))
    raise OSError("There is no network.")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""
OFFLINE = """
for name in ("heads", "whole", "private"):
    report(name, load, f"fedd/{name}")
report("opened", lambda name: open_model(name)[0], "fedd/whole")
report("whole at commit", load, "fedd/whole", revision=commit["whole"])
report("never fetched", load, "fedd/never")
print(json.dumps(reports | {"tried": tried}))
"""
WITHOUT_THE_PACKAGE = """
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
for name in ("whole", "heads"):
    report(name, AutoModelForSemanticSegmentation.from_pretrained, f"fedd/{name}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("fedd/whole", trust_remote_code=True)
reports["processor"] = [type(processor).__name__, dict(processor.size)]
assert "fedd_hf" not in sys.modules
print(json.dumps(reports))
"""


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other_weights(content):
    return save({name: tensor * 2 for name, tensor in load(content).items()}, metadata={"format": "pt"})


def fill(double, model, backbone, folder):
    """Put backbones and models into the double, move their main branches on, and return the commits before."""
    processor = FEDDImageProcessor(size=model.config.image_size)
    backbone_files = files_of(backbone)

    def publish(name, private=False, **fields):
        published = copy.deepcopy(model)
        published.config.backbone = published.config.backbone_revision = None
        for field, value in fields.items():
            setattr(published.config, field, value)
        published.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        return double.create(f"fedd/{name}", files_of(folder / name), private=private)

    def publish_heads(name, backbone, revision):
        return publish(name, save_backbone=False, backbone=backbone, backbone_revision=revision)

    backbones = {name: double.create(f"fedd/{name}", backbone_files) for name in ("ddpm", "changed", "private-ddpm")}
    backbones["private-ddpm"].private = True
    commit = {name: repository.head.sha for name, repository in backbones.items()}
    double.add(backbones["ddpm"], {UNET: other_weights(backbone_files[UNET])})
    backbones["changed"].head.tree[UNET] = File(other_weights(backbone_files[UNET]), is_lfs=True)

    whole = publish("whole")
    commit["whole"] = whole.head.sha
    whole.tags["v1.0"] = whole.head
    double.add(whole, {"model.safetensors": other_weights(whole.files["model.safetensors"])})
    publish("private", private=True)
    publish_heads("heads", "fedd/ddpm", commit["ddpm"])
    publish_heads("heads-on-nothing", "fedd/gone", commit["ddpm"])
    publish_heads("heads-on-no-revision", "fedd/ddpm", "0" * 40)
    publish_heads("heads-on-changed", "fedd/changed", commit["changed"])
    publish_heads("heads-on-private", "fedd/private-ddpm", commit["private-ddpm"])
    return commit


@pytest.fixture(scope="module")
def reports(_tiny_models, tiny_backbone, tmp_path_factory, run_python):
    """What the processes reported, and what the model gave before it was published."""
    folder, home = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("home")
    model, said = copy.deepcopy(_tiny_models["segmentation"]), {}
    with HubDouble() as double:
        commit = fill(double, model, tiny_backbone, folder)

        def ask(script, home=home, **environment):
            return run_python(
                START + script, json.dumps(commit), STRANGERS_TOKEN, **double.environment(home) | environment
            )

        double.cut_download("model.safetensors", after_bytes=1000, times=6)  # as often as huggingface_hub tries
        double.corrupt(UNET)
        said["bad line"] = ask(WITH_THE_PACKAGE + ON_A_BAD_LINE)
        double._corrupt.clear()
        said["good line"] = ask(WITH_THE_PACKAGE + ON_A_GOOD_LINE)
        asked = list(double.requests)
        said["offline"] = ask(WITHOUT_SOCKETS + WITH_THE_PACKAGE + OFFLINE, HF_HUB_OFFLINE="1")
        said["asked offline"] = double.requests[len(asked) :]
        said["remote code"] = ask(LOOK_AWAY + WITHOUT_THE_PACKAGE, tmp_path_factory.mktemp("elsewhere"))
        said["requests"], said["unknown"] = double.requests, double.unknown
    pixel_values = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    logits = model(pixel_values, output_member_logits=True).member_logits.detach().contiguous()
    said["same"] = [hashlib.sha256(logits.numpy().tobytes()).hexdigest(), True]
    return said


def test_a_model_from_the_hub_is_the_one_that_was_published(reports):
    for name in ("whole at v1.0", "whole at commit", "heads", "private", "heads on a private backbone"):
        assert reports["good line"][name] == reports["same"], name


def test_main_gives_what_it_was_moved_to_but_heads_keep_the_commit_of_their_backbone(reports):
    digest, is_frozen = reports["good line"]["whole at main"]

    assert digest != reports["same"][0]
    assert is_frozen
    assert not any(path.startswith("/fedd/ddpm/resolve/main/") for _, path in reports["requests"])


def test_what_cannot_be_had_is_an_error_that_names_it(reports):
    for name, words in {
        "private, wrong token": ["OSError", "fedd/private", "401"],
        "private, token of a stranger": ["OSError", "fedd/private is not a local folder", "token"],
        "no repository": ["OSError", "fedd/none is not a local folder"],
        "no revision": ["OSError", "none is not a valid git identifier", "fedd/whole"],
        "heads on no repository": ["OSError", "backbone 'fedd/gone' (revision ", "could not be loaded", "404"],
        "heads on no revision": ["OSError", f"backbone 'fedd/ddpm' (revision {'0' * 40}) could not be loaded", "404"],
        "heads on a changed backbone": [
            "ValueError: These heads were trained on another backbone: ",
            "'fedd/changed'",
        ],
    }.items():
        assert all(word in reports["good line"][name] for word in words), reports["good line"][name]


def test_a_download_that_is_cut_is_an_error_leaves_nothing_and_works_the_next_time(reports):
    said = reports["bad line"]

    assert said["cut"].startswith("OSError: model.safetensors of fedd/whole could not be loaded: ")
    assert said["cut"].endswith("Try again.")
    assert said["weights after the cut"] == []
    assert isinstance(said["after the cut"], list)


def test_heads_refuse_a_backbone_that_was_corrupted_on_the_way_until_it_is_fetched_again(reports):
    # huggingface_hub takes other bytes of the right length for the file: test_hub_double.py.
    for error in (reports["bad line"]["corrupted"], reports["good line"]["still corrupted"]):
        assert error.startswith("ValueError: These heads were trained on another backbone: `backbone_sha256` is ")
        assert error.endswith("if it was damaged on the way, fetch it again with `force_download=True`.")
    assert reports["good line"]["fetched again"] == reports["same"]


def test_offline_what_is_cached_loads_and_nobody_is_asked(reports):
    offline = reports["offline"]

    assert offline["heads"] == offline["private"] == offline["whole at commit"] == reports["same"]
    assert offline["whole"] == offline["opened"] == reports["good line"]["whole at main"]
    assert offline["never fetched"].startswith("OSError: ")
    assert (offline["tried"], reports["asked offline"], reports["unknown"]) == ([], [], [])


def test_remote_code_by_id_gives_the_same_without_the_package(reports):
    said = reports["remote code"]

    assert (said["whole"], said["heads"]) == (reports["good line"]["whole at main"], reports["same"])
    assert said["processor"] == ["FEDDImageProcessor", {"height": 16, "width": 16}]
