import importlib.metadata

import pytest
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    pipeline,
)

import fedd_hf

NAMES = [
    "FEDDBackbone",
    "FEDDConfig",
    "FEDDForImageClassification",
    "FEDDForSegmentation",
    "FEDDImageProcessor",
    "SkinTone",
]


def test_front_door_shows_the_names_that_users_type():
    assert fedd_hf.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_public_name_exists_and_is_documented(name):
    assert getattr(fedd_hf, name).__doc__


def test_version_is_that_of_the_package():
    assert fedd_hf.__version__ == importlib.metadata.version("fedd-hf")


def test_auto_config_knows_the_model_type():
    assert type(AutoConfig.for_model("fedd")) is fedd_hf.FEDDConfig


@pytest.mark.parametrize(
    ("auto_class", "model_class", "num_labels"),
    [
        (AutoModelForSemanticSegmentation, fedd_hf.FEDDForSegmentation, 5),
        (AutoModelForImageClassification, fedd_hf.FEDDForImageClassification, 2),
    ],
)
def test_auto_classes_build_the_models(make_config, auto_class, model_class, num_labels):
    config = make_config(blocks=[4], pooled_size=64, num_labels=num_labels)

    assert type(auto_class.from_config(config)) is model_class


def test_auto_image_processor_finds_the_processor_of_a_model(segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path)
    fedd_hf.FEDDImageProcessor().save_pretrained(tmp_path)

    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is fedd_hf.FEDDImageProcessor


def test_a_pipeline_asks_nobody_whether_to_trust_code(segmenter, tmp_path, monkeypatch):
    segmenter.save_pretrained(tmp_path)
    fedd_hf.FEDDImageProcessor().save_pretrained(tmp_path)
    questions = []
    monkeypatch.setattr("builtins.input", questions.append)

    pipeline("image-segmentation", model=str(tmp_path), device="cpu")

    assert questions == []


def test_saved_model_carries_the_code_that_opens_it(segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path)
    fedd_hf.FEDDImageProcessor().save_pretrained(tmp_path)

    assert sorted(path.name for path in tmp_path.glob("*.py")) == [
        "backbone_fedd.py",
        "configuration_fedd.py",
        "image_processing_fedd.py",
        "modeling_fedd.py",
        "pretrained_fedd.py",
        "unet_files_fedd.py",
    ]


def test_saved_model_names_its_own_class_only(segmenter, classifier, tmp_path):
    for name, model in (("segmenter", segmenter), ("classifier", classifier)):
        model.save_pretrained(tmp_path / name)

    assert AutoConfig.from_pretrained(tmp_path / "classifier").auto_map == {
        "AutoConfig": "configuration_fedd.FEDDConfig",
        "AutoModel": "backbone_fedd.FEDDBackbone",
        "AutoModelForImageClassification": "modeling_fedd.FEDDForImageClassification",
    }
