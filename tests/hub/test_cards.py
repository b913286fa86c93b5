"""Cards are complete, or not made at all."""

import jinja2
import pytest
from card_rules import check_body, check_named_files
from huggingface_hub import ModelCard
from model_card_rules import check_model_card
from space_card_rules import check_space_card

from fedd_hf.hub import cards
from fedd_hf.hub.cards import render_card, render_space_card, templates_dir
from fedd_hf.unet_files_fedd import locate_backbone

BACKBONE = {
    "file_name": "256x256_diffusion_uncond.pt",
    "sha256": "ab" * 32,
    "training_data": "ImageNet (ILSVRC 2012)",
    "num_source_tensors": 566,
    "num_tensors": 630,
    "num_parameters": 552_814_086,
    "dtype": "float32",
    "image_size": 256,
    "num_blocks": 18,
}

PRETRAINED = {
    "num_parameters": 6_050_000,
    "sources": {
        "license": "cc-by-4.0",
        "backbone": "fedd/derm-ddpm-64",
        "probe": "pad-ufes-20=photos",
        "probe_blocks": [6, 8],
        "probe_timestep": 50,
    },
    "training": {
        "image_sizes": [32, 64],
        "exposures": [60_000, 42_000],
        "batch_sizes": [24, 12],
        "ema_decay": 0.999,
        "least_crop": 0.4,
        "learning_rate": 4e-4,
    },
    "photos": [{"dataset": "painted", "photos": 120, "times": 2}],
    "losses": [0.5, 0.25],
    "looks": [{"exposures": 60_000, "lesion_iou": 0.438, "low": 0.37, "high": 0.517}],
}


def test_templates_of_a_source_checkout_are_found():
    assert (templates_dir() / "backbone_adm.md.j2").is_file()


def test_templates_of_an_installed_package_come_first(tmp_path, monkeypatch):
    templates = tmp_path / "lib" / "fedd_hf" / "hub" / "templates"
    templates.mkdir(parents=True)
    (tmp_path / "hub_cards").mkdir()
    monkeypatch.setattr(cards, "__file__", str(templates.parent / "cards.py"))

    assert templates_dir() == templates


def test_both_places_are_named_when_there_are_no_templates(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "src" / "fedd_hf" / "hub" / "cards.py"))

    with pytest.raises(FileNotFoundError, match=r"fedd_hf/hub/templates nor .*hub_cards"):
        templates_dir()


@pytest.mark.parametrize("field", BACKBONE)
def test_a_card_without_one_of_its_fields_is_not_rendered(field):
    fields = {name: value for name, value in BACKBONE.items() if name != field}

    with pytest.raises(jinja2.UndefinedError, match=field):
        render_card("backbone_adm.md.j2", **fields)


def test_the_backbone_card_has_metadata_that_the_hub_reads():
    data = ModelCard(render_card("backbone_adm.md.j2", **BACKBONE)).data

    assert data.library_name == "diffusers"
    assert (data.license, data.license_name) == ("other", "guided-diffusion-research-only")
    assert data.license_link.endswith("guided-diffusion/blob/main/model-card.md")
    assert "fedd" in data.tags


@pytest.mark.parametrize(
    "statement",
    [
        "Research only, not a medical device",
        "MIT licence",
        "intended to be used for research purposes only",
        "not intended to be commercially deployed",
        "ImageNet (ILSVRC 2012)",
        "may have memorized",
        "existing biases",
        "`256x256_diffusion_uncond.pt`",
        "ab" * 32,
        "552,814,086",
        "all 630 tensors were equal bit by bit",
    ],
)
def test_the_backbone_card_states_terms_risks_and_facts(statement):
    text = " ".join(render_card("backbone_adm.md.j2", **BACKBONE).split())

    assert statement in text


def test_the_backbone_card_has_no_placeholder():
    card = render_card("backbone_adm.md.j2", **BACKBONE)

    assert not [mark for mark in ("{{", "{%", "TODO", "More Information Needed", "xxx") if mark in card]


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        pytest.param("backbone_adm.md.j2", BACKBONE, id="converted"),
        pytest.param("backbone_pretrained.md.j2", PRETRAINED, id="pretrained"),
        pytest.param(
            "backbone_pretrained.md.j2",
            PRETRAINED | {"sources": {"license": "mit", "backbone": None, "probe": None}},
            id="pretrained_from_nothing",
        ),
    ],
)
def test_the_card_keeps_the_rules_of_the_hub_of_a_backbone_that_is(template, fields):
    card = render_card(template, **fields)

    assert check_model_card(card) + check_body(card) == []


def test_the_card_of_the_embedded_backbone_keeps_the_rules_of_the_hub():
    folder = locate_backbone("embedded")
    card = (folder / "README.md").read_text()
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]

    assert check_model_card(card) + check_body(card, files) + check_named_files(card, files) == []
    assert ModelCard(card).data.library_name == "diffusers"


def test_the_card_of_the_demo_keeps_the_rules_of_the_hub():
    card = render_space_card(["fedd/fedd-segmentation-painted", "fedd/fedd-malignancy-painted"], "6.31.0", "3.11")
    files = ["README.md", "app.py", "models.json"]

    assert check_space_card(card) + check_body(card, files) + check_named_files(card, files) == []
    assert "fedd/fedd-segmentation-painted and fedd/fedd-malignancy-painted" in card
