"""The model of a training run is published with its image processor and its card, and nothing else of the folder."""

import json

import pytest
from huggingface_hub import HfApi, ModelCard

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.hub.trained_model import push_trained_model

RUN = {
    "data": {
        "dataset": "folder",
        "root": "/home/jane/clinic",
        "masks": "fedd/ddi-seg",
        "label_fraction": 0.5,
        "label_seed": None,
        "skin_tone": None,
        "malignancy_policy": None,
        "allow_leakage": False,
    },
    "reading": {"backbone": "/home/jane/backbone", "blocks": [2, 4]},
    "training": {"num_steps": 2, "class_weights": None},
    "features": {"dtype": "float16"},
    "photos": 3,
    "final_loss": 1.23456,
    "machine": {"torch": "2.14.1", "transformers": "5.23.0", "diffusers": "0.42.1", "cores": 2},
}


@pytest.fixture
def save(segmenter, tmp_path):
    """Leave what a training run leaves, and more, on a backbone that is named."""

    def leave(backbone, revision=None, save_backbone=True):
        folder = tmp_path / "run"
        segmenter.config.backbone, segmenter.config.backbone_revision = backbone, revision
        segmenter.config.save_backbone = save_backbone
        segmenter.save_pretrained(folder)
        FEDDImageProcessor(size=16).save_pretrained(folder)
        (folder / "run.json").write_text(json.dumps(RUN))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "optimizer.bin").write_bytes(b"\x80\x02.")
        (folder / "patient.jpg").write_bytes(b"a photo")
        return folder

    return leave


def test_model_processor_code_and_card_are_one_commit_that_names_no_folder(hub, save, tiny_backbone, tmp_path):
    folder = save(str(tiny_backbone))

    commit = push_trained_model(folder, "me/lesions", HfApi())

    repository = hub.repository("me/lesions")
    assert [past.sha for past in repository.head.history()][:-1] == [commit]
    own = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {name for name in repository.files if not name.endswith(".py")} == own
    assert json.loads(repository.files["config.json"])["backbone"] is None
    assert not any(b"jane" in content for content in repository.files.values())
    assert repository.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    for name, content in repository.files.items():
        (tmp_path / "elsewhere" / name).write_bytes(content)
    assert FEDDForSegmentation.from_pretrained(tmp_path / "elsewhere").config.backbone is None


def test_the_card_is_ours_and_says_what_is_known(hub, save, tiny_backbone):
    push_trained_model(save(str(tiny_backbone)), "me/lesions", HfApi())

    card = ModelCard(hub.repository("me/lesions").files["README.md"].decode())
    assert card.data.pipeline_tag == "image-segmentation"
    assert 'FEDDForSegmentation.from_pretrained("me/lesions")' in card.text
    for words in (
        "folder: 3 labelled photos.",
        "| label_fraction | 0.5 |",
        "| num_steps | 2 |",
        "| final_loss | 1.2346 |",
    ):
        assert words in card.text
    assert "class_weights" not in card.text


def test_heads_of_a_local_backbone_are_not_pushed(hub, save, tiny_backbone):
    with pytest.raises(ValueError, match="is a local folder that nobody else can load"):
        push_trained_model(save(str(tiny_backbone), save_backbone=False), "me/lesions", HfApi())

    assert hub.requests == []


def test_heads_of_a_published_backbone_name_its_commit(hub, save):
    push_trained_model(save("fedd/tiny-ddpm", "a" * 40, save_backbone=False), "me/lesions", HfApi())

    files = hub.repository("me/lesions").files
    assert json.loads(files["config.json"])["backbone_revision"] == "a" * 40
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ("fedd/tiny-ddpm", "adapter")
    assert "fetched from there at the commit" in card.text


def test_what_else_is_in_the_repository_stays(hub, save):
    hub.create("me/lesions", {"handler.py": b"code", "README.md": b"---\nlicense: mit\n---\n"})

    push_trained_model(save("embedded"), "me/lesions", HfApi())

    files = hub.repository("me/lesions").files
    assert files["handler.py"] == b"code"
    assert b"travels in `fedd_hf`" in files["README.md"]


def test_a_folder_without_a_model_is_refused(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        push_trained_model(tmp_path, "me/lesions", HfApi())

    assert hub.requests == []
