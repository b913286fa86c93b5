"""Cards of backbones and of the demo are complete, or not made at all."""

import jinja2
import pytest
from card_rules import check_card
from huggingface_hub import ModelCard

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
FROM_NOTHING = PRETRAINED | {"sources": {"license": "mit", "backbone": None, "probe": None}}


def test_templates_are_found_in_the_package_first_then_in_the_checkout(tmp_path, monkeypatch):
    assert (templates_dir() / "backbone_adm.md.j2").is_file()

    monkeypatch.setattr(cards, "__file__", str(tmp_path / "src" / "fedd_hf" / "hub" / "cards.py"))
    with pytest.raises(FileNotFoundError, match=r"fedd_hf/hub/templates nor .*hub_cards"):
        templates_dir()

    installed = tmp_path / "src" / "fedd_hf" / "hub" / "templates"
    installed.mkdir(parents=True)
    (tmp_path / "hub_cards").mkdir()
    assert templates_dir() == installed


def test_a_card_without_one_of_its_fields_is_not_rendered():
    for field in BACKBONE:
        with pytest.raises(jinja2.UndefinedError, match=field):
            render_card("backbone_adm.md.j2", **{name: value for name, value in BACKBONE.items() if name != field})


def test_the_card_of_a_converted_backbone_states_terms_risks_and_facts():
    card = ModelCard(render_card("backbone_adm.md.j2", **BACKBONE))

    assert (card.data.library_name, card.data.license_name) == ("diffusers", "guided-diffusion-research-only")
    text = " ".join(card.text.split())
    for statement in (
        "intended to be used for research purposes only",
        "not intended to be commercially deployed",
        "may have memorized",
        "existing biases",
        "ab" * 32,
        "552,814,086",
        "all 630 tensors were equal bit by bit",
    ):
        assert statement in text


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("backbone_adm.md.j2", BACKBONE),
        ("backbone_pretrained.md.j2", PRETRAINED),
        ("backbone_pretrained.md.j2", FROM_NOTHING),
    ],
    ids=["converted", "pretrained", "pretrained from nothing"],
)
def test_the_card_of_a_backbone_follows_the_rules_of_the_hub(template, fields):
    assert check_card(render_card(template, **fields), "model") == []


def test_the_card_of_the_embedded_backbone_follows_the_rules_of_the_hub():
    folder = locate_backbone("embedded")
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]

    assert check_card((folder / "README.md").read_text(), "model", files) == []


def test_the_card_of_the_demo_follows_the_rules_of_the_hub():
    card = render_space_card(["fedd/fedd-segmentation-painted", "fedd/fedd-malignancy-painted"], "6.31.0", "3.11")

    assert check_card(card, "space", ["README.md", "app.py", "models.json"]) == []
    assert "fedd/fedd-segmentation-painted and fedd/fedd-malignancy-painted" in card
