"""Repositories that mean harm are refused by one error that names the file or the field, before their code runs.

Tested elsewhere: in test_modeling_fedd.py a path in `backbone`, a wrong hash and pickles in a folder; in
test_configuration_fedd.py a `backbone_revision` that is no commit; in test_loading_from_hub.py a backbone that was
changed under its commit, or corrupted on the way.
"""

import json
import pickle
import re
import struct
import sys
from pathlib import Path

import pytest
import torch
from hub_double import HubDouble
from look_away import LOOK_AWAY
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from fedd_hf import FEDDConfig, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.prediction import open_model
from fedd_hf.unet_files_fedd import hash_backbone

UNET = "unet/diffusion_pytorch_model.safetensors"
INDEX = {"model": "model.safetensors.index.json", "backbone": f"{UNET}.index.json"}
LOADERS = {
    "FEDDForSegmentation": FEDDForSegmentation.from_pretrained,
    "AutoModelForSemanticSegmentation": AutoModelForSemanticSegmentation.from_pretrained,
    "open_model": open_model,
    "pipeline": lambda folder: pipeline("image-segmentation", model=str(folder), device="cpu"),
}


@pytest.fixture
def whole(segmenter, tmp_path):
    """A folder with a self-contained model and its processor."""
    segmenter.save_pretrained(tmp_path / "whole")
    FEDDImageProcessor(size=16).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def heads(segmenter, backbone_copy, tmp_path):
    """A folder with heads alone, on `backbone_copy`."""
    segmenter.config.save_backbone, segmenter.config.backbone = False, str(backbone_copy)
    segmenter.save_pretrained(tmp_path / "heads")
    return tmp_path / "heads"


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_header(path, edit):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


def announce_header(path, length):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


# Fields of JSON files


CONFIG_LOADERS = [*LOADERS.values(), FEDDConfig.from_pretrained, AutoConfig.from_pretrained]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_attn_implementation_internal", "stranger/kernel"),  # CVE-2026-4372
        ("attn_implementation", "stranger/kernel"),
        ("quantization_config", {"quant_method": "torchao"}),
        ("transformers_weights", "other.safetensors"),
        ("auto_map", {"AutoModel": "stranger/code--stranger.Stranger"}),
        ("user_attributes", {"fusion_config": {"patch_embeddings": True}}),
    ],
)
def test_a_field_that_transformers_acts_on_is_refused_by_name(whole, name, value):
    edit_json(whole / "config.json", **{name: value})

    named = next(iter(value)) if name == "user_attributes" else name
    with pytest.raises(ValueError, match=rf"config.json of FEDD may not hold .*'{named}'|trust_remote_code"):
        FEDDForSegmentation.from_pretrained(whole)


@pytest.mark.parametrize("loader", CONFIG_LOADERS)
def test_every_loader_refuses_such_a_field(whole, loader):
    edit_json(whole / "config.json", attn_implementation="stranger/kernel")

    with pytest.raises(ValueError, match="config.json of FEDD may not hold .*'attn_implementation'"):
        loader(whole)


@pytest.mark.parametrize("loader", CONFIG_LOADERS)
def test_fields_that_no_configuration_of_fedd_has_are_named_and_dropped(whole, loader, messages):
    edit_json(whole / "config.json", trust_remote_code=True, text_config={"_name_or_path": "stranger/model"})

    loaded = loader(whole)

    config = getattr(loaded[0] if isinstance(loaded, tuple) else loaded, "config", loaded)
    assert not {"trust_remote_code", "text_config"} & vars(config).keys()
    assert any("ignored: ['text_config', 'trust_remote_code']" in message for message in messages())


def test_a_field_that_no_unet_has_is_refused(whole):
    unet = json.loads((whole / "config.json").read_text())["backbone_config"]
    edit_json(whole / "config.json", backbone_config=unet | {"trust_remote_code": True})

    with pytest.raises(ValueError, match=r"must hold the arguments of a diffusers UNet.*'trust_remote_code'"):
        FEDDForSegmentation.from_pretrained(whole)


def test_a_dtype_that_is_none_is_refused(whole):
    edit_json(whole / "config.json", dtype="load")

    with pytest.raises(ValueError, match=r"`dtype` must be one of \['float16', .*\], got 'load'"):
        FEDDForSegmentation.from_pretrained(whole)


def test_a_field_that_no_processor_of_fedd_has_is_named_and_dropped(whole, caplog):
    edit_json(whole / "preprocessor_config.json", trust_remote_code=True, preprocess="stranger")

    processor = AutoImageProcessor.from_pretrained(whole)

    assert not {"trust_remote_code", "preprocess"} & vars(processor).keys()
    assert "has no fields ['preprocess', 'trust_remote_code']" in caplog.text


@pytest.mark.parametrize(
    "loader", [FEDDImageProcessor.from_pretrained, AutoImageProcessor.from_pretrained, open_model]
)
def test_a_processor_with_code_of_another_repository_is_refused(whole, loader):
    edit_json(whole / "preprocessor_config.json", auto_map={"AutoImageProcessor": "stranger/code--stranger.Stranger"})

    with pytest.raises(ValueError, match=r"`auto_map` may only name a 'module\.Class' of its own repository, got "):
        loader(whole)


def test_a_quantised_backbone_is_refused(backbone_copy):
    edit_json(backbone_copy / "unet" / "config.json", quantization_config={"quant_method": "torchao"})

    with pytest.raises(ValueError, match=r"unet/config.json has a `quantization_config`; FEDD reads UNets of F16"):
        FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2], image_size=16)


# Safetensors


def overlap(header):
    """Let the second of two tensors of one size lie where the first does."""
    by_size = {}
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            first = by_size.setdefault((*entry["shape"], entry["dtype"]), name)
            entry["data_offsets"] = header[first]["data_offsets"]


def lie(dtype):
    def claim(header):
        next(entry for name, entry in header.items() if name.endswith("weight"))["dtype"] = dtype

    return claim


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (lambda path: announce_header(path, 2**64 - 1), "header too large"),
        (lambda path: edit_header(path, overlap), "invalid offset for tensor"),
        (lambda path: edit_header(path, lie("F64")), "invalid shape, data type, or offset"),
    ],
    ids=["header of 16 EB", "overlapping offsets", "dtype of another size"],
)
@pytest.mark.parametrize("place", ["whole", "backbone"])
def test_a_malformed_file_is_refused(request, backbone_copy, attack, told, place):
    folder = request.getfixturevalue("whole" if place == "whole" else "heads")
    attack(backbone_copy / UNET if place == "backbone" else folder / "model.safetensors")

    named = f"{UNET} is damaged" if place == "backbone" else "weights of .*/whole are damaged"
    with pytest.raises(ValueError, match=rf"{named}: .*{told}"):
        FEDDForSegmentation.from_pretrained(folder)


def test_weights_of_another_kind_of_number_are_refused(whole, backbone_copy):
    weights, counter = whole / "model.safetensors", "decode_head.members.0.layers.1.num_batches_tracked"
    edit_header(backbone_copy / UNET, lie("I32"))
    with pytest.raises(ValueError, match=rf"weight' of .*/{UNET} must be .*, got I32"):
        FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2], image_size=16)

    edit_header(weights, lambda header: header[counter].update(dtype="F64"))
    with pytest.raises(ValueError, match=rf"'{counter}' of .* must be of one of the dtypes \['I64'\], got F64"):
        FEDDForSegmentation.from_pretrained(whole)

    edit_header(weights, lambda header: header[counter].update(dtype="I64"))
    edit_header(weights, lie("U32"))
    with pytest.raises(ValueError, match=r"weight' of .*/model.safetensors must be .*'F32'.*, got U32"):
        FEDDForSegmentation.from_pretrained(whole)


def write_index(path, names, file):
    path.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, file)}))


@pytest.mark.parametrize("place", ["model", "backbone"])
@pytest.mark.parametrize("file", ["../other.safetensors", "/other.safetensors", "other.bin", 1])
def test_an_index_that_leads_out_of_its_folder_or_to_a_pickle_is_refused(whole, heads, backbone_copy, place, file):
    folder, loaded = (whole, whole) if place == "model" else (backbone_copy, heads)
    weights = folder / ("model.safetensors" if place == "model" else UNET)
    tensors = load_file(weights)
    weights.rename(folder.parent / "other.safetensors")
    write_index(folder / INDEX[place], tensors, file)

    with pytest.raises(
        ValueError, match=rf"{INDEX[place]} (must name safetensors files that lie beside it|is damaged)"
    ):
        FEDDForSegmentation.from_pretrained(loaded)


def test_an_index_cannot_put_other_tensors_in_the_place_of_those_that_are_hashed(heads, backbone_copy):
    tensors = load_file(backbone_copy / UNET)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, backbone_copy / "unet" / "other.safetensors")
    before = hash_backbone(backbone_copy)
    write_index(backbone_copy / INDEX["backbone"], tensors, "other.safetensors")

    with pytest.raises(ValueError, match=f"`backbone_sha256` is {before}"):
        FEDDForSegmentation.from_pretrained(heads)


def test_a_model_in_several_files_is_loaded(segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path, max_shard_size="100KB")

    loaded = FEDDForSegmentation.from_pretrained(tmp_path)

    assert (tmp_path / INDEX["model"]).is_file()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in segmenter.state_dict().items())


# Code


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def plant_code(folder, marker):
    """Put code into a folder that makes a file when it is imported, under every name that somebody might import."""
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n\nclass Stranger:\n    pass\n"
    for path in [*folder.glob("*.py"), folder / "handler.py", folder / "stranger.py"]:
        path.write_text(code)
    names = ("AutoConfig", "AutoModelForSemanticSegmentation", "AutoModel")
    edit_json(folder / "config.json", auto_map=dict.fromkeys(names, "stranger.Stranger"))
    edit_json(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "stranger.Stranger"})


@pytest.mark.parametrize(
    "loader",
    [
        *LOADERS.values(),
        AutoImageProcessor.from_pretrained,
        lambda folder: AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True),
        lambda folder: AutoImageProcessor.from_pretrained(folder, trust_remote_code=True),
    ],
)
def test_where_the_package_is_the_code_of_a_repository_is_not_imported(whole, tmp_path, loader):
    plant_code(whole, tmp_path / "marker")

    loader(whole)

    assert not (tmp_path / "marker").exists()
    assert {"handler", "stranger"}.isdisjoint(sys.modules)


# By id, from the double of the Hub, each in a fresh process


START = """
import json, sys
reports = {}

def report(name, load, *arguments, **options):
    try:
        reports[name] = type(load(*arguments, **options)).__name__
    except Exception as error:
        reports[name] = f"{type(error).__name__}: {error}"
"""
WITH_THE_PACKAGE = """
from transformers import AutoModelForSemanticSegmentation
from fedd_hf import FEDDForSegmentation
from fedd_hf.prediction import open_model

for name in ("pickle", "heads-on-pickle", "heads-on-dots", "heads-on-branch", "code", "adapter"):
    report(name, FEDDForSegmentation.from_pretrained, f"stranger/{name}")
report("pickle, Auto", AutoModelForSemanticSegmentation.from_pretrained, "stranger/pickle")
report("code, trusted", AutoModelForSemanticSegmentation.from_pretrained, "stranger/code", trust_remote_code=True)
report("code, opened", lambda name: open_model(name)[0], "stranger/code")
report("pickled backbone", FEDDForSegmentation.from_backbone, "stranger/pickled-ddpm")
print(json.dumps(reports))
"""
WITHOUT_THE_PACKAGE = """
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

def open_pipeline(name, **options):
    return pipeline("image-segmentation", model=name, device="cpu", **options)

for name in ("code", "code-that-trusts-itself"):
    for options in ({}, {"trust_remote_code": False}):
        for door in (AutoConfig, AutoModelForSemanticSegmentation, AutoImageProcessor):
            report(f"{name} {door.__name__} {options}", door.from_pretrained, f"stranger/{name}", **options)
        report(f"{name} pipeline {options}", open_pipeline, f"stranger/{name}", **options)
assert "fedd_hf" not in sys.modules
print()  # behind the question whether to run the code, which nobody answers
print(json.dumps(reports))
"""
BRANCH = "ab" * 20


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without(files, ending):
    return {name: content for name, content in files.items() if not name.endswith(ending)}


@pytest.fixture
def stranger(whole, heads, tiny_backbone, tmp_path):
    """The double of the Hub, with what a stranger put there; `marker` is made by any of the stranger's code."""
    marker = tmp_path / "marker"
    model, ddpm = files_of(whole), files_of(tiny_backbone)
    pickled = pickle.dumps(Touch(marker))
    unet_pickle = UNET.replace(".safetensors", ".bin")
    with HubDouble() as double:

        def create_heads(name, backbone, files, revision=None):
            repository = double.create(f"stranger/{backbone}", files)
            fields = {"backbone": repository.id, "backbone_revision": revision or repository.head.sha}
            edit_json(heads / "config.json", **fields)
            double.create(f"stranger/{name}", files_of(heads))
            return repository

        double.create("stranger/pickle", without(model, ".safetensors") | {"pytorch_model.bin": pickled})
        create_heads("heads-on-pickle", "pickled-ddpm", without(ddpm, ".safetensors") | {unet_pickle: pickled})
        create_heads("heads-on-dots", "ddpm-dots", ddpm | {"scheduler/../../../../../../dots.json": b"{}"})
        branched = create_heads("heads-on-branch", "ddpm-branch", ddpm, revision=BRANCH)
        branched.branches[BRANCH] = branched.head
        adapter = json.dumps({"base_model_name_or_path": "stranger/other", "peft_type": "LORA"}).encode()
        double.create("stranger/adapter", model | {"adapter_config.json": adapter})
        plant_code(whole, marker)
        double.create("stranger/code", files_of(whole))
        edit_json(whole / "config.json", trust_remote_code=True)
        double.create("stranger/code-that-trusts-itself", files_of(whole))
        yield double
    assert double.unknown == []
    assert not marker.exists()
    assert not list(tmp_path.rglob("dots.json"))


@pytest.mark.slow
def test_strangers_on_the_hub_are_refused_where_the_package_is(stranger, run_python, tmp_path):
    reports = run_python(START + WITH_THE_PACKAGE, **stranger.environment(tmp_path / "home"))

    no_pickles = "FEDD loads safetensors only, no pickles (.bin, .pt)."
    for name in ("pickle", "pickle, Auto"):
        assert reports[name] == f"OSError: stranger/pickle holds no model.safetensors. {no_pickles}"
    for name in ("heads-on-pickle", "pickled backbone"):
        assert re.fullmatch(
            r"FileNotFoundError: .* holds no diffusion_pytorch_model\.safetensors\. FEDD reads safetensors only, .*",
            reports[name],
        )
    assert re.fullmatch(
        r"OSError: The backbone 'stranger/ddpm-dots' .* could not be loaded: .*", reports["heads-on-dots"]
    )
    assert reports["heads-on-branch"] == (
        f"ValueError: `backbone_revision` {BRANCH} must be a commit of 'stranger/ddpm-branch', but is the name of a "
        "branch or tag there, which may move."
    )
    harmless = ("code", "code, trusted", "code, opened", "adapter")
    assert {name: reports[name] for name in harmless} == dict.fromkeys(harmless, "FEDDForSegmentation")
    asked = {path for _, path in stranger.requests}
    assert not [
        path for path in asked if path.endswith((".bin", ".py", "adapter_model.safetensors")) or "other" in path
    ]


@pytest.mark.slow
def test_code_of_a_stranger_needs_trust_from_the_user_where_the_package_is_not(stranger, run_python, tmp_path):
    reports = run_python(START + LOOK_AWAY + WITHOUT_THE_PACKAGE, **stranger.environment(tmp_path / "home"))

    assert len(reports) == 16
    for name, error in reports.items():
        assert error.startswith(f"ValueError: The repository stranger/{name.split()[0]} contains custom code"), name
        assert "trust_remote_code=True" in error
    assert not [path for _, path in stranger.requests if path.endswith(".py")]
