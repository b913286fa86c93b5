import importlib.metadata

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


def test_front_door_shows_the_names_that_users_type_each_documented():
    assert fedd_hf.__all__ == NAMES
    assert all(getattr(fedd_hf, name).__doc__ for name in NAMES)
    assert fedd_hf.__version__ == importlib.metadata.version("fedd-hf")


def test_auto_classes_build_what_is_ours(make_config, segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path)
    fedd_hf.FEDDImageProcessor().save_pretrained(tmp_path)
    config = make_config(blocks=[4], pooled_size=64)

    assert type(AutoConfig.for_model("fedd")) is fedd_hf.FEDDConfig
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is fedd_hf.FEDDImageProcessor
    assert type(AutoModelForSemanticSegmentation.from_config(config)) is fedd_hf.FEDDForSegmentation
    config.num_labels = 2
    assert type(AutoModelForImageClassification.from_config(config)) is fedd_hf.FEDDForImageClassification


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


def test_saved_model_names_its_own_class_only(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)

    assert AutoConfig.from_pretrained(tmp_path).auto_map == {
        "AutoConfig": "configuration_fedd.FEDDConfig",
        "AutoModel": "backbone_fedd.FEDDBackbone",
        "AutoModelForImageClassification": "modeling_fedd.FEDDForImageClassification",
    }
