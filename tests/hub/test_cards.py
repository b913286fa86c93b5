"""Cards are complete, or not made at all."""

import jinja2
import pytest
from huggingface_hub import ModelCard

from fedd_hf.hub import cards
from fedd_hf.hub.cards import render_card, templates_dir

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
