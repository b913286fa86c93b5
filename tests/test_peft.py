"""Adapters of PEFT: they train on the heads, and one that lies in a model's folder is not followed."""

import copy
import json
import shutil
import socket

import pytest
import torch
from huggingface_hub import close_session, constants
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageClassification, AutoModelForSemanticSegmentation

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation

HEAD_LAYERS = r"decode_head\.members\.\d+\.(projections\.\d+|layers\.2)"
BATCH_NORMS = ["layers.1", "layers.4"]


@pytest.fixture
def labels():
    return torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))


def train_one_step(model, pixel_values, labels):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    loss = model.train()(pixel_values=pixel_values, labels=labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def add_lora(model, **options):
    """Add adapters to the layers of the heads, drawn so that each of their matrices has a gradient."""
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=2, target_modules=HEAD_LAYERS, init_lora_weights=False, **options))


def test_lora_on_the_heads_trains_a_step_of_its_own_parameters(segmenter, pixel_values, labels):
    model = add_lora(segmenter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    first = train_one_step(model, pixel_values, labels)
    second = train_one_step(model, pixel_values, labels)

    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if ".lora_" in name}
    assert len(changed) == 3 * 3 * 2  # members, layers of each, matrices of each
    assert second < first


def test_trained_adapter_with_batch_statistics_reloads_to_the_same_logits(segmenter, pixel_values, labels, tmp_path):
    model = add_lora(copy.deepcopy(segmenter), modules_to_save=BATCH_NORMS)
    train_one_step(model, pixel_values, labels)

    model.save_pretrained(tmp_path)

    again = PeftModel.from_pretrained(segmenter, tmp_path)
    assert torch.equal(again.eval()(pixel_values).logits, model.eval()(pixel_values).logits)
    merged = again.merge_and_unload()
    assert type(merged) is FEDDForSegmentation
    torch.testing.assert_close(merged(pixel_values).logits, model(pixel_values).logits)


@pytest.fixture
def folder_with_adapter(segmenter, classifier, backbone_copy, pixel_values, tmp_path):
    """Make a folder of a model in which somebody has laid an adapter that names another repository as its base."""

    def make(task, save_backbone):
        model = {"segmentation": segmenter, "classification": classifier}[task]
        model.config.backbone, model.config.save_backbone = str(backbone_copy), save_backbone
        model.save_pretrained(tmp_path / "model")
        target = HEAD_LAYERS if task == "segmentation" else r"classifier\.0"
        adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=target, init_lora_weights=False))
        assert not torch.equal(adapted.eval()(pixel_values).logits, model(pixel_values).logits)
        adapted.save_pretrained(tmp_path / "adapter")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / "adapter" / name).rename(tmp_path / "model" / name)
        path = tmp_path / "model" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "somebody/else"}))
        return tmp_path / "model", model

    return make


@pytest.fixture
def hosts(monkeypatch):
    """Names of the hosts that are looked for from now on; there is a network, but it finds none."""
    names = []

    def look_for(name, *args, **kwargs):
        names.append(name)
        raise socket.gaierror(f"There is no {name}.")

    monkeypatch.setattr(socket, "getaddrinfo", look_for)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield names
    close_session()


LOADERS = {
    "segmentation": [FEDDForSegmentation, AutoModelForSemanticSegmentation],
    "classification": [FEDDForImageClassification, AutoModelForImageClassification],
}


@pytest.mark.parametrize("save_backbone", [True, False], ids=["self-contained", "heads-only"])
@pytest.mark.parametrize(("task", "loader"), [(task, loader) for task in LOADERS for loader in LOADERS[task]])
def test_adapter_in_the_folder_of_a_model_is_not_followed(
    folder_with_adapter, pixel_values, hosts, task, loader, save_backbone
):
    folder, model = folder_with_adapter(task, save_backbone)

    loaded = loader.from_pretrained(folder)

    assert_same_model(loaded, model, pixel_values)
    assert hosts == []


def assert_same_model(loaded, model, pixel_values):
    assert type(loaded) is type(model)
    assert not any("lora" in name for name in loaded.state_dict())
    assert torch.equal(loaded.eval()(pixel_values).logits, model(pixel_values).logits)


@pytest.fixture
def repository_with_adapter(folder_with_adapter, hub_cache, tmp_path):
    """`fedd/seg`, with an adapter that leads to `somebody/else`, both cached; the model that is in `fedd/seg`."""
    folder, model = folder_with_adapter("segmentation", save_backbone=True)
    hub_cache.add("fedd/seg", folder)
    other = shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("adapter*"))
    hub_cache.add("somebody/else", other, commit="ab" * 20)
    return model


def test_adapter_in_the_repository_of_a_model_is_not_followed(repository_with_adapter, pixel_values, hub_cache):
    loaded = FEDDForSegmentation.from_pretrained("fedd/seg", cache_dir=hub_cache.folder)

    assert_same_model(loaded, repository_with_adapter, pixel_values)
    assert loaded.name_or_path == "fedd/seg"


@pytest.mark.usefixtures("repository_with_adapter")
def test_model_that_an_auto_class_takes_for_another_because_of_an_adapter_is_refused(hub_cache):
    found = {"cache_dir": hub_cache.folder}  # the auto class looks for adapters in the default cache, unless told

    with pytest.raises(ValueError, match=r"adapter_config.json in fedd/seg leads to another model, somebody/else"):
        AutoModelForSemanticSegmentation.from_pretrained("fedd/seg", adapter_kwargs=found, **found)
