"""The rules of model cards accept what is right and find each kind of mistake."""

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from model_card_rules import check_model_card

CARD = """\
---
language: en
license: other
license_name: research-only-1.0
license_link: LICENSE
library_name: transformers
pipeline_tag: image-classification
tags:
- dermatology
- custom_code
datasets:
- fedd/ddi-seg
metrics:
- roc_auc
- fedd/mean_iou_by_group
base_model: fedd/derm-ddpm-64
base_model_relation: adapter
new_version: fedd/other
thumbnail: https://example.org/a.png
inference: false
co2_eq_emissions: 1.5
model-index:
- name: lesions
  results:
  - task:
      type: image-classification
      name: Malignancy
    dataset:
      type: painted
      name: Painted photos, skin tone I-II
      config: I-II
      split: test
      args:
        photos: 20
    metrics:
    - type: roc_auc
      value: 0.75
      name: Area under the ROC curve
      args:
        low: 0.5
        high: 0.9
    - type: accuracy
      value: 0.7 ± 0.1
    source:
      name: The report
      url: https://example.org/report
  - task:
      type: image-classification
    dataset:
      type: painted
      name: Painted photos, skin tone V-VI
      config: V-VI
      split: test
    metrics:
    - type: roc_auc
      value: 1
widget:
- src: examples/I-II.png
  example_title: Skin tone I-II
  output:
  - label: benign
    score: 0.8
  - label: malignant
    score: 0.2
- src: https://example.org/V-VI.png
  output:
    url: examples/V-VI-map.png
extra_gated_fields:
  Country: country
---

# Lesions
"""


def check_with(old: str, new: str) -> list[str]:
    """Check the correct card after one replacement."""
    assert CARD.count(old) == 1, f"{old!r} must occur once in the card"
    return check_model_card(CARD.replace(old, new))


def test_a_correct_card_is_accepted():
    assert check_model_card(CARD) == []


def test_the_card_that_is_accepted_is_read_by_huggingface_hub():
    data = ModelCard(CARD).data

    told = [(result.dataset_config, result.metric_type, result.metric_value) for result in data.eval_results]
    assert told == [("I-II", "roc_auc", 0.75), ("I-II", "accuracy", "0.7 ± 0.1"), ("V-VI", "roc_auc", 1)]
    assert data.eval_results[0].source_url == "https://example.org/report"


def test_a_card_that_huggingface_hub_wrote_is_accepted():
    kinds = {"task_type": "image-segmentation", "dataset_type": "fedd/ddi-seg", "dataset_name": "ddi-seg"}
    results = [
        EvalResult(**kinds, metric_type=name, metric_value=0.5, dataset_args={"photos": 3}, metric_args={"low": 0.4})
        for name in ("mean_iou", "dice")
    ]
    metadata = ModelCardData(license="mit", library_name="diffusers", model_name="m", eval_results=results)

    assert check_model_card(f"---\n{metadata}\n---\n") == []


@pytest.mark.parametrize("results", [None, []])
def test_a_model_without_results_is_accepted(results):
    metadata = ModelCardData(license="mit", model_name="lesions", eval_results=results)

    assert check_model_card(f"---\n{metadata}\n---\n") == []


def test_a_front_matter_that_cannot_be_read_is_refused():
    (found,) = check_model_card("# Lesions\n")

    assert found == "front matter: the first line of the card must be '---', got '# Lesions'"


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        pytest.param("pipeline_tag:", "pipeline:", "pipeline: is not a field of model cards", id="misspelt"),
        pytest.param("new_version:", "pretty_name:", "pretty_name: is not a field of model cards", id="of_datasets"),
        pytest.param("license: other", "license: [other]", "license: must be a string, got ['other']", id="a_list"),
        pytest.param("- custom_code", "- 64", "tags: must be a list of strings, got ['dermatology', 64]", id="a_64"),
        pytest.param("language: en", "language: no", "language: must be a string or a list", id="norwegian_unquoted"),
        pytest.param("inference: false", "inference: 'no'", "inference: must be a boolean", id="a_quoted_boolean"),
        pytest.param("emissions: 1.5", "emissions: 1 g", "co2_eq_emissions: must be a number", id="a_unit"),
        pytest.param("emissions: 1.5", "emissions: .nan", "co2_eq_emissions: must be a number", id="not_a_number"),
    ],
)
def test_a_field_is_refused_that_is(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize("field", ["model-index", "widget", "tags", "metrics", "base_model", "pipeline_tag"])
def test_a_field_is_refused_that_is_a_number(field):
    assert any(found.startswith(f"{field}: must be a") for found in check_model_card(f"---\n{field}: 3\n---\n"))


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("license: other", "license: cc-by-5.0", "license: 'cc-by-5.0' is not in the Hub's list"),
        (": transformers", ": fedd-hf", "library_name: 'fedd-hf' is not in the Hub's list"),
        ("n: adapter", "n: heads", "base_model_relation: 'heads' is not in the Hub's list"),
        ("language: en", "language: English", "language: must be lower-case ISO 639 codes, got 'English'"),
        ("license_link: LICENSE\n", "", "license_link: must lead to the licence when `license` is 'other', got none"),
        ("research-only-1.0", "Research only", "license_name: must be lower-case and without spaces"),
        ("thumbnail: https://example.org/", "thumbnail: ", "thumbnail: must be a URL, got 'a.png'"),
        ("Country: country", "Country: land", "extra_gated_fields.Country: must be one of"),
    ],
)
def test_a_value_outside_its_vocabulary_is_refused(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


def test_a_task_that_the_hub_does_not_have_is_refused():
    found = check_model_card("---\npipeline_tag: lesion-segmentation\n---\n")

    assert found == ["pipeline_tag: 'lesion-segmentation' is not in the Hub's list"]


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("- fedd/ddi-seg", "- ../ddi-seg", "datasets: must be ids of the Hub as `owner/name`, got '../ddi-seg'"),
        ("- fedd/ddi-seg", "- https://hf.co/datasets/fedd/ddi-seg", "datasets: must be ids of the Hub"),
        ("- roc_auc", "- ROC AUC", "metrics: must be ids of the Hub as `owner/name`, got 'ROC AUC'"),
        ("- roc_auc", "- fedd/mean_iou_by_group", "metrics: each name must occur once"),
        ("model: fedd/derm-ddpm-64", "model: ./backbone", "base_model: must be ids of the Hub as `owner/name`"),
        ("model: fedd/derm-ddpm-64", "model: /runs/backbone", "base_model: must be ids of the Hub as `owner/name`"),
        ("model: fedd/derm-ddpm-64", "model: [a/b, a/b]", "base_model: each name must occur once, got ['a/b']"),
        ("fedd/other", "fedd/-other", "new_version: must be ids of the Hub as `owner/name`, got 'fedd/-other'"),
        ("- custom_code", "- dermatology", "tags: each name must occur once, got ['dermatology'] more often"),
        ("base_model: fedd/derm-ddpm-64\n", "", "base_model: must be given with `base_model_relation` 'adapter'"),
        ("n: adapter", "n: merge", "base_model: must be at least two models of a merge, got one"),
    ],
)
def test_an_id_is_refused_that_the_hub_could_not_link(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize("new", ["base_model: [a/b, c/d]", "base_model: gpt2"])
def test_other_base_models_are_accepted(new):
    assert check_with("base_model: fedd/derm-ddpm-64", new) == []


@pytest.mark.parametrize(
    ("index", "violation"),
    [
        pytest.param("[]", "model-index: must describe one model, got 0", id="is_empty"),
        pytest.param(
            "[{name: a, results: []}, {name: b, results: []}]",
            "model-index: must describe one model, got 2",
            id="of_two",
        ),
        pytest.param("[a]", "model-index[0]: must be a mapping, got 'a'", id="is_a_list_of_names"),
        pytest.param("[{results: []}]", "model-index[0].name: is required, got none", id="has_no_name"),
        pytest.param("[{name: 64, results: []}]", "model-index[0].name: must be a string, got 64", id="has_a_number"),
        pytest.param("[{name: a}]", "model-index[0].results: is required, got none", id="has_no_results"),
        pytest.param("[{name: a, results: b}]", "model-index[0].results: must be a list, got 'b'", id="has_one_word"),
        pytest.param("[{name: a, results: [b]}]", "model-index[0].results[0]: must be a mapping", id="lists_words"),
        pytest.param("[{name: a, results: [], b: c}]", "model-index[0].b: is not a key of", id="has_another_key"),
    ],
)
def test_results_are_refused_whose_index(index, violation):
    (found,) = check_model_card(f"---\nmodel-index: {index}\n---\n")

    assert found.startswith(violation)


RESULT = {
    "task": "{type: image-classification}",
    "dataset": "{type: painted, name: Painted}",
    "metrics": "[{type: roc_auc, value: 0.5}]",
}


def check_result(**changes: str | None) -> list[str]:
    """Check one correct result after changes, where None leaves a part out."""
    result = ", ".join(f"{key}: {value}" for key, value in (RESULT | changes).items() if value is not None)
    found = check_model_card(f"---\nmodel-index: [{{name: a, results: [{{{result}}}]}}]\n---\n")
    return [violation.removeprefix("model-index[0].results[0].") for violation in found]


def test_a_result_of_what_is_required_is_accepted():
    assert check_result() == []


@pytest.mark.parametrize("part", RESULT)
def test_a_result_is_refused_without_its(part):
    assert check_result(**{part: None}) == [f"{part}: is required, got none"]


@pytest.mark.parametrize(
    ("part", "value", "violation"),
    [
        ("task", "image-classification", "task: must be a mapping, got 'image-classification'"),
        ("task", "{name: a}", "task.type: is required, got none"),
        ("task", "{type: malignancy}", "task.type: 'malignancy' is not in the Hub's list"),
        ("task", "{type: image-classification, name:}", "task.name: must be a string, got None"),
        ("dataset", "{name: a}", "dataset.type: is required, got none"),
        ("dataset", "{type: a}", "dataset.name: is required, got none"),
        ("dataset", "{type: Painted photos, name: a}", "dataset.type: must be an id of the Hub"),
        ("dataset", "{type: a, name: a, config: 56}", "dataset.config: must be a string, got 56"),
        ("dataset", "{type: a, name: a, args: V-VI}", "dataset.args: must be a mapping, got 'V-VI'"),
        ("dataset", "{type: a, name: a, photos: 3}", "dataset.photos: is not a key of the Hub's"),
        ("dataset", "{type: a, name: a, args: {x: [.inf]}}", "dataset.args.x[0]: must be finite, got inf"),
        ("metrics", "[]", "metrics: must list at least one metric, got []"),
        ("metrics", "{type: a, value: 1}", "metrics: must list at least one metric, got {"),
        ("metrics", "[roc_auc]", "metrics[0]: must be a mapping, got 'roc_auc'"),
        ("metrics", "[{value: 1}]", "metrics[0].type: is required, got none"),
        ("metrics", "[{type: a}]", "metrics[0].value: is required, got none"),
        ("metrics", "[{type: a, value:}]", "metrics[0].value: must be a number or a string, got None"),
        ("metrics", "[{type: a, value: true}]", "metrics[0].value: must be a number or a string, got True"),
        ("metrics", "[{type: a, value: [1, 2]}]", "metrics[0].value: must be a number or a string, got [1, 2]"),
        ("metrics", "[{type: a, value: .nan}]", "metrics[0].value: must be finite, got nan"),
        ("metrics", "[{type: a, value: 1, args: {low: .nan}}]", "metrics[0].args.low: must be finite, got nan"),
        ("metrics", "[{type: a, value: 1, verified: true}]", "metrics[0].verified: is not a key of the Hub's"),
        ("metrics", "[{type: a, value: 1}, {type: a, value: 2}]", "metrics: each name must occur once"),
        ("source", "{name: a}", "source.url: is required, got none"),
        ("source", "{url: report.md}", "source.url: must be a URL, got 'report.md'"),
    ],
)
def test_a_part_of_a_result_is_refused_that_is_wrong(part, value, violation):
    (found,) = check_result(**{part: value})

    assert found.startswith(violation)


def test_a_result_is_refused_that_comes_twice():
    (found,) = check_with("config: V-VI", "config: I-II")

    assert found.startswith("model-index[0].results: each name must occur once, got [\"('image-classification', 'pain")


def test_a_metric_may_come_twice_with_other_arguments():
    assert check_result(metrics="[{type: a, value: 1, args: {k: 1}}, {type: a, value: 2, args: {k: 2}}]") == []


@pytest.mark.parametrize(
    ("example", "violation"),
    [
        pytest.param("a.png", "widget[0]: must be a mapping, got 'a.png'", id="is_a_path"),
        pytest.param("{src: a.png, title: A}", "widget[0].title: is not a key of the Hub's", id="is_misspelt"),
        pytest.param(
            "{src: a.png, example_title: 64}", "widget[0].example_title: must be a string", id="is_titled_64"
        ),
        pytest.param("{src: }", "widget[0].src: must be a string, got None", id="has_no_path"),
        pytest.param("{text: a mole}", "widget[0].src: must be the file of an example", id="is_a_text_for_a_picture"),
        pytest.param("{src: /a.png}", "widget[0].src: must be a path inside", id="has_an_absolute_path"),
        pytest.param("{src: ../a.png}", "widget[0].src: must be a path inside", id="leaves_the_repository"),
        pytest.param("{src: 'data:image/png;base64,aa'}", "widget[0].src: must be a path", id="holds_its_data"),
        pytest.param("{src: 'http://a.org/a.png'}", "widget[0].src: must be a URL of HTTPS", id="is_not_encrypted"),
        pytest.param("{src: a.png, output: }", "widget[0].output: must be a list of labels", id="has_no_output"),
        pytest.param("{src: a.png, output: benign}", "widget[0].output: must be a list of labels", id="says_a_word"),
        pytest.param("{src: a.png, output: {mask: b.png}}", "widget[0].output: must be a", id="says_another_key"),
        pytest.param("{src: a.png, output: {url: }}", "widget[0].output.url: must be a path", id="has_no_picture"),
        pytest.param("{src: a.png, output: {url: ../b}}", "widget[0].output.url: must be a path", id="shows_another"),
        pytest.param("{src: a.png, output: []}", "widget[0].output: must have at least one", id="has_no_label"),
        pytest.param("{src: a.png, output: [a]}", "widget[0].output[0]: must have a string", id="has_no_score"),
        pytest.param("{src: a.png, output: [{label: no, score: 1}]}", "widget[0].output[0]: must", id="has_no_string"),
        pytest.param("{src: a.png, output: [{label: a, score: 1.1}]}", "widget[0].output[0].score", id="is_above_1"),
        pytest.param("{src: a.png, output: [{label: a, score: -1}]}", "widget[0].output[0].score", id="is_below_0"),
        pytest.param("{src: a.png, output: [{label: a, score: .nan}]}", "widget[0].output[0].score", id="is_nan"),
        pytest.param("{src: a.png, output: [{label: a, score: 80 %}]}", "widget[0].output[0].score", id="has_a_unit"),
        pytest.param(
            "{src: a.png, output: [{label: a, score: 0}, {label: a, score: 1}]}",
            "widget[0].output: each name must occur once",
            id="repeats_a_label",
        ),
        pytest.param(
            "{src: a.png, output: {answer: a, score: 2}}", "widget[0].output.score: must be", id="answers_too_surely"
        ),
    ],
)
def test_an_example_is_refused_that(example, violation):
    (found,) = check_model_card(f"---\npipeline_tag: image-segmentation\nwidget: [{example}]\n---\n")

    assert found.startswith(violation)


def test_an_example_is_refused_that_has_nothing_to_put_in():
    (found,) = check_model_card("---\nwidget: [{example_title: A}]\n---\n")

    assert found.startswith("widget[0]: must have one of ('text', 'src',")


@pytest.mark.parametrize("output", ["{text: a mole}", "{answer: a mole, score: 0.5}", "{url: 'https://a.org/b.png'}"])
def test_other_outputs_of_an_example_are_accepted(output):
    assert check_model_card(f"---\nwidget: [{{text: a, output: {output}}}]\n---\n") == []
