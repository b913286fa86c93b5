"""The card of a trained model says what its report says, to people and to the Hub."""

import re
from dataclasses import replace

import pytest
from card_rules import check_card
from huggingface_hub import ModelCard

from fedd_hf.hub.model_card import Example, ModelFacts, render_model_card


def make_row(metric, tone, n, value):
    return {"metric": metric, "skin_tone": tone, "n": n, "value": value, "low": 0.5, "high": 0.75, "flag": ""}


@pytest.fixture
def facts():
    return ModelFacts(
        repo_id="fedd/fedd-segmentation-painted",
        task="segmentation",
        config={
            "backbone_sha256": "c0ffee",
            "save_backbone": True,
            "blocks": [6, 8],
            "timesteps": [50],
            "image_size": 128,
            "ensemble_size": 5,
        },
        backbone_repo_id="fedd/derm-ddpm-64",
        license="cc-by-4.0",
        data={
            "name": "Painted photos",
            "dataset": "painted",
            "train": "30 of them",
            "validation": "",
            "test": "60 others.",
        },
        training={"num_steps": 900, "class_weights": None},
        by_tone=[
            make_row("mean_iou", "all", 60, 0.71),
            make_row("mean_iou", "V-VI", 20, 0.62),
            make_row("auroc", "all", 60, 0.58),
            make_row("auroc", "V-VI", 20, None),
        ],
        seconds=84.2,
        machine={"cores": 2, "torch": "2.14.1", "transformers": "5.23.0", "diffusers": "0.42.1"},
        examples=[Example(title="Skin tone V-VI", photo="examples/V-VI.png", overlay="examples/V-VI_overlay.png")],
    )


def test_results_reach_the_hub_by_skin_tone_with_photos_and_intervals(facts):
    results = ModelCard(render_model_card(facts)).data.eval_results

    told = [(result.dataset_args["skin_tone"], result.metric_type, result.metric_value) for result in results]
    assert told == [("all", "mean_iou", 0.71), ("all", "roc_auc", 0.58), ("V-VI", "mean_iou", 0.62)]
    assert results[-1].dataset_args["photos"] == 20
    assert results[-1].metric_args == {"low": 0.5, "high": 0.75, "confidence": 0.95}


def test_metadata_names_task_backbone_licence_and_examples(facts):
    data = ModelCard(render_model_card(facts)).data.to_dict()

    assert data["pipeline_tag"] == "image-segmentation"
    assert (data["base_model"], data["base_model_relation"]) == ("fedd/derm-ddpm-64", "adapter")
    assert data["library_name"] == "transformers"
    assert data["license"] == "cc-by-4.0"
    (widget,) = data["widget"]
    assert widget["src"] == "examples/V-VI.png"
    assert widget["output"] == {"url": "examples/V-VI_overlay.png"}


def test_a_classifier_shows_its_scores_beside_the_example(facts):
    example = Example(title="A mole", photo="examples/a.png", scores={"benign": 0.8, "malignant": 0.2})
    card = ModelCard(render_model_card(replace(facts, task="classification", examples=[example])))

    (widget,) = card.data.to_dict()["widget"]
    assert widget["output"] == [{"label": "benign", "score": 0.8}, {"label": "malignant", "score": 0.2}]
    assert card.data.pipeline_tag == "image-classification"


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_card_follows_the_rules_of_the_hub_whatever_its_example_shows(facts, task):
    for shown in ({"overlay": "examples/V-VI_overlay.png"}, {"scores": {"benign": 0.8, "malignant": 0.2}}, {}):
        example = Example(title="Skin tone V-VI", photo="examples/V-VI.png", **shown)
        card = render_model_card(replace(facts, task=task, examples=[example]))

        assert check_card(card, "model", ["examples/V-VI.png", "examples/V-VI_overlay.png"]) == []


def test_a_card_without_examples_or_results_follows_the_rules_of_the_hub(facts):
    card = render_model_card(replace(facts, examples=[], by_tone=[]))

    assert check_card(card, "model") == []


def test_a_card_has_the_headings_of_the_hub_and_what_the_run_says(facts):
    card = render_model_card(facts)

    headings = re.findall(r"^#+ (.+)$", card, flags=re.MULTILINE)
    for heading in ("Direct Use", "Out-of-Scope Use", "Bias, Risks, and Limitations", "Training Data", "Results"):
        assert heading in headings
    assert "| V-VI | 20 | 0.620 [0.500, 0.750] |" in card
    assert "| num_steps | 900 |" in card
    assert "class_weights" not in card
    assert "84 seconds on 2 CPU cores" in card


def test_a_card_says_whether_the_backbone_is_in_the_repository(facts):
    assert "which is in this repository too" in render_model_card(facts)
    heads = replace(facts, config=facts.config | {"save_backbone": False})
    assert "fetched from there at the commit that `config.json` names" in render_model_card(heads)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_card_of_a_model_that_was_not_evaluated_claims_no_result_licence_or_cost(facts, task):
    known = {name: getattr(facts, name) for name in ("repo_id", "data", "training", "machine")}
    config = facts.config | {"backbone": "embedded"}
    card = ModelCard(render_model_card(ModelFacts(task=task, config=config, **known)))

    assert check_card(card.content, "model") == []
    assert "It has not been evaluated" in card.text
    assert "### Results" not in card.text
    assert "seconds" not in card.text
    assert not {"license", "model-index", "base_model", "base_model_relation"} & card.data.to_dict().keys()


@pytest.mark.parametrize(
    ("backbone", "told"), [("embedded", "travels in `fedd_hf`"), (None, "published nowhere else, ")]
)
def test_a_card_says_where_a_backbone_is_that_is_no_repository(facts, backbone, told):
    card = render_model_card(replace(facts, backbone_repo_id=None, config=facts.config | {"backbone": backbone}))

    assert told in card
    assert "huggingface.co/None" not in card


def test_another_task_is_refused(facts):
    with pytest.raises(ValueError, match="`task` must be one of"):
        render_model_card(replace(facts, task="diagnosis"))
