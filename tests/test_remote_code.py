"""Saved folders opened where fedd_hf is not installed. One fresh process does it all; each test reads one result."""

import copy

import pytest
from look_away import LOOK_AWAY
from PIL import Image
from safetensors.torch import save_file

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor

pytestmark = pytest.mark.slow

OPEN_WITHOUT_THE_PACKAGE = """
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers import AutoModelForSemanticSegmentation, pipeline

wanted = load_file("wanted.safetensors")
pixel_values = wanted["pixel_values"]
photo = Image.open("photo.png")
results = {}

def error_of(action):
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def is_frozen(model):
    return not any(p.requires_grad for p in model.backbone.parameters()) and not model.train().backbone.training

def members(model):
    return model.eval()(pixel_values, output_member_logits=True).member_logits

segmenter = AutoModelForSemanticSegmentation.from_pretrained("segmenter", trust_remote_code=True)
results["segmenter equal"] = torch.equal(members(segmenter), wanted["segmenter"])
results["segmenter frozen"] = is_frozen(segmenter)

classifier = AutoModelForImageClassification.from_pretrained("classifier", trust_remote_code=True)
results["classifier equal"] = torch.equal(classifier.eval()(pixel_values).logits, wanted["classifier"])
results["classifier frozen"] = is_frozen(classifier)

for name in ("segmenter", "heads-local"):
    backbone = AutoModel.from_pretrained(name, trust_remote_code=True)
    is_open = type(backbone).__name__ == "FEDDBackbone" and not any(p.requires_grad for p in backbone.parameters())
    (first, second) = backbone(pixel_values).feature_maps
    are_equal = torch.equal(first, wanted["first map"]) and torch.equal(second, wanted["second map"])
    results[f"backbone of {name} equal"] = is_open and are_equal
backbone.save_pretrained("backbone")
again = AutoModel.from_pretrained("backbone", trust_remote_code=True)
results["backbone saved again equal"] = torch.equal(again(pixel_values).feature_maps[1], wanted["second map"])

local = AutoModelForSemanticSegmentation.from_pretrained("heads-local", trust_remote_code=True)
results["heads-only equal"] = torch.equal(members(local), wanted["segmenter"])

processor = AutoImageProcessor.from_pretrained("segmenter", trust_remote_code=True)
results["processor equal"] = torch.equal(processor(photo, return_tensors="pt")["pixel_values"], wanted["photo"])

segmenter.save_pretrained("again")
processor.save_pretrained("again")
again = AutoModelForSemanticSegmentation.from_pretrained("again", trust_remote_code=True)
results["saved again equal"] = torch.equal(members(again), wanted["segmenter"])

pipe = pipeline("image-segmentation", model="again", trust_remote_code=True, device="cpu")
results["pipeline sizes"] = [segment["mask"].size for segment in pipe(photo)]
pipe = pipeline("image-classification", model="classifier", trust_remote_code=True, device="cpu")
results["pipeline scores"] = {entry["label"]: entry["score"] for entry in pipe(photo)}
results["wanted score"] = wanted["classifier"][0].softmax(dim=0)[1].item()

results["without trust"] = error_of(
    lambda: AutoModelForSemanticSegmentation.from_pretrained("segmenter", trust_remote_code=False)
)
results["embedded"] = error_of(
    lambda: AutoModelForSemanticSegmentation.from_pretrained("heads-embedded", trust_remote_code=True)
)
assert "fedd_hf" not in sys.modules
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(_tiny_models, tiny_backbone, tmp_path_factory, run_python):
    folder = tmp_path_factory.mktemp("remote")
    segmenter, classifier = copy.deepcopy(_tiny_models["segmentation"]), copy.deepcopy(_tiny_models["classification"])
    processor = FEDDImageProcessor(size={"height": 16, "width": 16})
    segmenter.save_pretrained(folder / "segmenter")
    classifier.save_pretrained(folder / "classifier")
    processor.save_pretrained(folder / "segmenter")
    processor.save_pretrained(folder / "classifier")
    segmenter.config.save_backbone = False
    segmenter.save_pretrained(folder / "heads-local")
    embedded = FEDDForSegmentation.from_backbone(blocks=[2], image_size=16, save_backbone=False)
    embedded.save_pretrained(folder / "heads-embedded")

    photo = Image.effect_mandelbrot((30, 20), (-2, -1, 1, 1), 50).convert("RGB")
    photo.save(folder / "photo.png")
    photo_values = processor(photo, return_tensors="pt")["pixel_values"]
    pixel_values = photo_values.repeat(2, 1, 1, 1)
    first_map, second_map = segmenter.backbone(pixel_values).feature_maps
    wanted = {
        "first map": first_map.contiguous(),
        "second map": second_map.contiguous(),
        "pixel_values": pixel_values,
        "photo": photo_values,
        "segmenter": segmenter(pixel_values, output_member_logits=True).member_logits.contiguous(),
        "classifier": classifier(pixel_values).logits,
    }
    save_file(wanted, folder / "wanted.safetensors")
    return run_python(LOOK_AWAY + OPEN_WITHOUT_THE_PACKAGE, cwd=folder, HF_HOME=folder / "home")


BACKBONES = ["backbone of segmenter", "backbone of heads-local", "backbone saved again"]


@pytest.mark.parametrize("what", ["segmenter", "classifier", "heads-only", "processor", "saved again", *BACKBONES])
def test_remote_code_gives_the_same_numbers(results, what):
    assert results[f"{what} equal"]


@pytest.mark.parametrize("what", ["segmenter", "classifier"])
def test_remote_code_keeps_the_backbone_frozen(results, what):
    assert results[f"{what} frozen"]


def test_remote_code_serves_a_pipeline_of_each_task(results):
    assert set(map(tuple, results["pipeline sizes"])) == {(30, 20)}
    assert set(results["pipeline scores"]) == {"benign", "malignant"}
    assert sum(results["pipeline scores"].values()) == pytest.approx(1)
    assert results["pipeline scores"]["malignant"] == pytest.approx(results["wanted score"])


def test_remote_code_needs_trust(results):
    assert results["without trust"].startswith("ValueError: ")
    assert "trust_remote_code=True" in results["without trust"]


def test_embedded_backbone_without_the_package_says_what_to_install(results):
    assert results["embedded"].startswith("ImportError: ")
    assert "pip install fedd-hf" in results["embedded"]
