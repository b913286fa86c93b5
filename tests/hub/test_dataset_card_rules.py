"""The rules of dataset cards accept what is right and find each kind of mistake."""

import pytest
from dataset_card_rules import check_dataset_card
from datasets import (
    Array2D,
    ClassLabel,
    DatasetInfo,
    Features,
    Image,
    LargeList,
    List,
    Sequence,
    SplitDict,
    SplitInfo,
    Translation,
    Value,
)
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

CARD = """\
---
language:
- en
language_details: en-US
license: other
license_name: research-only-1.0
license_link: LICENSE
tags:
- image
- dermatology
annotations_creators:
- expert-generated
language_creators: found
multilinguality: monolingual
pretty_name: Lesions
size_categories:
- n<1K
source_datasets:
- original
- laion/laion-2b
task_categories:
- image-segmentation
task_ids:
- semantic-segmentation
configs:
- config_name: images
  default: true
  data_files:
  - split: train
    path: data/train/*.parquet
  - split: test
    path:
    - data/test-0.parquet
    - data/test-1.parquet
- config_name: predictions
  data_files: predictions/*.parquet
dataset_info:
- config_name: images
  features:
  - name: image
    dtype: image
  - name: skin_tone
    dtype:
      class_label:
        names:
          '0': light
          '1': dark
  - name: boxes
    list:
    - name: left
      dtype: float32
  - name: sizes
    sequence: int64
  splits:
  - name: train
    num_bytes: 1024
    num_examples: 8
  - name: test
    num_bytes: 512
    num_examples: 4
  download_size: 1500
  dataset_size: 1536
- config_name: predictions
  splits:
  - name: train
    num_bytes: 10
    num_examples: 2
viewer: true
extra_gated_prompt: You agree not to identify anybody.
extra_gated_fields:
  Company: text
  Country: country
  I want to use this dataset for:
    type: select
    options:
    - Research
    - label: Other
      value: other
---

# Lesions
"""


def check_with(old: str, new: str) -> list[str]:
    """Check the correct card after one replacement."""
    assert CARD.count(old) == 1, f"{old!r} must occur once in the card"
    return check_dataset_card(CARD.replace(old, new))


def test_a_correct_card_is_accepted():
    assert check_dataset_card(CARD) == []


def test_a_correct_card_with_windows_line_ends_is_accepted():
    assert check_dataset_card(CARD.replace("\n", "\r\n")) == []


def test_the_card_that_is_accepted_is_read_by_the_libraries_of_the_hub():
    metadata = DatasetCard(CARD).data

    configs = MetadataConfigs.from_dataset_card_data(metadata)
    infos = DatasetInfosDict.from_dataset_card_data(metadata)

    assert configs.get_default_config_name() == "images"
    assert infos["images"].features["skin_tone"] == ClassLabel(names=["light", "dark"])
    assert infos["images"].splits["test"].num_examples == 4


def test_a_card_that_datasets_wrote_is_accepted():
    features = Features(
        {
            "image": Image(),
            "gray": Image(mode="L"),
            "label": ClassLabel(names=["benign", "malignant"]),
            "labels": List(ClassLabel(names=["a", "b"])),
            "when": Value("timestamp[us, tz=UTC]"),
            "price": Value("decimal128(10, 2)"),
            "points": [{"x": Value("float32"), "y": Value("float32")}],
            "old": Sequence({"z": Value("int8")}),
            "nested": {"inner": {"deep": LargeList(Value("string"))}},
            "matrix": Array2D(shape=(None, 3), dtype="float16"),
            "pair": Translation(languages=["en", "fr"]),
        }
    )
    splits = SplitDict({"train": SplitInfo("train", num_bytes=7, num_examples=1)})
    metadata = DatasetCardData(license="mit")
    DatasetInfosDict({"default": DatasetInfo(features=features, splits=splits)}).to_dataset_card_data(metadata)
    MetadataConfigs({"default": {"data_files": "*.parquet"}}).to_dataset_card_data(metadata)

    assert check_dataset_card(f"---\n{metadata}\n---\n") == []


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        pytest.param("", "the first line of the card must be '---', got ''", id="is_empty"),
        pytest.param("# Lesions\n" + CARD, "got '# Lesions'", id="comes_after_a_title"),
        pytest.param("\n" + CARD, "got ''", id="comes_after_an_empty_line"),
        pytest.param("---\nlicense: mit\n", "a second line '---' must close it", id="is_not_closed"),
        pytest.param("---\nlicense: [mit\n---\n", "expected ',' or ']'", id="is_not_yaml"),
        pytest.param("---\n- mit\n---\n", "must be a mapping, got ['mit']", id="is_a_list"),
        pytest.param("---\n---\n", "must be a mapping, got None", id="has_nothing_in_it"),
        pytest.param("---\nlicense: mit\nlicense: cc\n---\n", "repeated keys [\"'license'\"]", id="repeats_a_key"),
        pytest.param(
            "---\nconfigs:\n- data_dir: a\n  data_dir: b\n---\n",
            "repeated keys [\"'data_dir'\"]",
            id="repeats_one_deep",
        ),
        pytest.param(
            "---\ntags: !!python/tuple [a]\n---\n", "could not determine a constructor", id="has_python_in_it"
        ),
    ],
)
def test_a_front_matter_is_refused_that(text, violation):
    (found,) = check_dataset_card(text)

    assert found.startswith("front matter: ")
    assert violation in found


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        pytest.param("pretty_name:", "prety_name:", "prety_name: is not a field of dataset cards", id="misspelt"),
        pytest.param(
            "name: Lesions", "name: [Lesions]", "pretty_name: must be a string, got ['Lesions']", id="listed"
        ),
        pytest.param("name: Lesions", "name: 2024", "pretty_name: must be a string, got 2024", id="a_number"),
        pytest.param("name: Lesions", "name:", "pretty_name: must be a string, got None", id="without_a_value"),
        pytest.param(
            "- dermatology", "- 2024", "tags: must be a list of strings, got ['image', 2024]", id="a_tag_2024"
        ),
        pytest.param(
            "language:\n- en", "language: no", "language: must be a string or a list", id="norwegian_unquoted"
        ),
        pytest.param("viewer: true", "viewer: 'true'", "viewer: must be a boolean, got 'true'", id="a_quoted_boolean"),
        pytest.param("viewer: true", "gated: auto", "gated: must be a boolean, got 'auto'", id="gated_by_a_word"),
        pytest.param(
            "viewer: true",
            "extra_gated_heading: [a]",
            "extra_gated_heading: must be a string, got ['a']",
            id="a_listed_heading",
        ),
        pytest.param(
            "viewer: true",
            "extra_gated_eu_disallowed: 'no'",
            "extra_gated_eu_disallowed: must be a boolean, got 'no'",
            id="a_quoted_no",
        ),
    ],
)
def test_a_field_is_refused_that_is(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize("field", ["configs", "dataset_info", "extra_gated_fields", "tags", "task_categories"])
def test_a_list_is_refused_that_is_a_number(field):
    assert any(found.startswith(f"{field}: must be ") for found in check_dataset_card(f"---\n{field}: 3\n---\n"))


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("license: other", "license: cc-by-5.0", "license: 'cc-by-5.0' is not in the Hub's list"),
        ("license: other", "license: [other, MIT]", "license: 'MIT' is not in the Hub's list"),
        ("- n<1K", "- 100<n<1K", "size_categories: '100<n<1K' is not in the Hub's list"),
        ("- image-segmentation", "- segmentation", "task_categories: 'segmentation' is not in the Hub's list"),
        ("- semantic-segmentation", "- image-segmentation", "task_ids: 'image-segmentation' is not in the Hub's list"),
        ("- expert-generated", "- expert", "annotations_creators: 'expert' is not in the Hub's list"),
        ("creators: found", "creators: no-annotation", "language_creators: 'no-annotation' is not in the Hub's list"),
        (": monolingual", ": bilingual", "multilinguality: 'bilingual' is not in the Hub's list"),
        ("- original", "- my own", "source_datasets: must be 'original', 'extended' or datasets of the Hub"),
        ("- original", "- ../lesions", "source_datasets: must be 'original', 'extended' or datasets of the Hub"),
        ("- laion/laion-2b", "- https://hf.co/datasets/a/b", "source_datasets: must be 'original', 'extended' or"),
        ("- en\n", "- English\n", "language: must be lower-case ISO 639 codes, got 'English'"),
        ("- en\n", "- xx\n", "language: must be lower-case ISO 639 codes, got 'xx'"),
        ("- en\n", "- en-US\n", "language: must be lower-case ISO 639 codes, got 'en-US'"),
        ("details: en-US", "details: American English", "language_details: must be BCP 47 tags"),
    ],
)
def test_a_value_outside_its_vocabulary_is_refused(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- en\n", "- deu\n"),
        ("- en\n", "- code\n"),
        ("- original", "- extended|other-lesions"),
        ("license_link: LICENSE", "license_link: LICENSE.md"),
        ("license_link: LICENSE", "license_link: https://example.org/terms"),
        ("- n<1K", "- n>1T"),
        ("license: other", "license: [mit, other]"),
    ],
)
def test_other_values_of_a_vocabulary_are_accepted(old, new):
    assert check_with(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("license_name: research-only-1.0\n", "", "license_name: must name the licence when `license` is 'other'"),
        ("license_link: LICENSE\n", "", "license_link: must lead to the licence when `license` is 'other'"),
        ("research-only-1.0", "Research-Only", "license_name: must be lower-case and without spaces"),
        ("research-only-1.0", "research only", "license_name: must be lower-case and without spaces"),
        ("link: LICENSE", "link: docs/terms.pdf", "license_link: must be a URL or one of ('LICENSE', 'LICENSE.md')"),
        ("link: LICENSE", "link: ftp://example.org/terms", "license_link: must be a URL or one of"),
    ],
)
def test_another_licence_is_refused_without_a_name_and_a_link(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("config", "violation"),
    [
        pytest.param("images", "configs[0]: must be a mapping", id="is_not_a_mapping"),
        pytest.param("{data_files: a.csv}", "configs[0].config_name: must be a string", id="has_no_name"),
        pytest.param("{config_name: 3}", "configs[0].config_name: must be a string", id="has_a_number_as_name"),
        pytest.param("{config_name: a/b}", "configs[0].config_name: must be a string", id="has_a_slash_in_its_name"),
        pytest.param("{config_name: a, default: 1}", "configs[0].default: must be a boolean", id="is_default_1"),
        pytest.param(
            "{config_name: a, data_dir: ../b}", "configs[0].data_dir: must be a path", id="leaves_by_its_dir"
        ),
        pytest.param("{config_name: a, data_files: 3}", "configs[0].data_files: must be a path", id="has_a_3_as_file"),
        pytest.param("{config_name: a, data_files: []}", "configs[0].data_files: must name", id="has_no_file"),
        pytest.param("{config_name: a, features: []}", "configs[0].features: must be a list", id="has_no_feature"),
    ],
)
def test_a_configuration_is_refused_that(config, violation):
    (found,) = check_dataset_card(f"---\nconfigs:\n- {config}\n---\n")

    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("entry", "violation"),
    [
        pytest.param("a.csv", "must have `split` and `path`", id="is_a_path_among_splits"),
        pytest.param("{split: train}", "must have `split` and `path`", id="has_no_path"),
        pytest.param("{path: a.csv}", "must have `split` and `path`", id="has_no_split"),
        pytest.param("{split: train, path: a.csv, sep: x}", "must have `split` and `path`", id="has_more_than_both"),
        pytest.param("{split: train-1, path: a.csv}", r".split: must match '\w+(\.\w+)*'", id="has_a_dash"),
        pytest.param("{split: train., path: a.csv}", r".split: must match '\w+(\.\w+)*'", id="ends_with_a_dot"),
        pytest.param("{split: 1, path: a.csv}", r".split: must match '\w+(\.\w+)*'", id="has_a_number_as_split"),
        pytest.param("{split: train, path: []}", ".path: must name at least one file", id="lists_no_path"),
        pytest.param("{split: train, path: [a.csv, 3]}", ".path: must be a path inside", id="lists_a_number"),
        pytest.param("{split: train, path: /a.csv}", ".path: must be a path inside", id="has_an_absolute_path"),
        pytest.param("{split: train, path: 'C:/a.csv'}", ".path: must be a path inside", id="has_a_drive"),
        pytest.param("{split: train, path: 'a\\b.csv'}", ".path: must be a path inside", id="has_a_backslash"),
        pytest.param("{split: train, path: a/../b.csv}", ".path: must be a path inside", id="goes_up"),
        pytest.param("{split: train, path: 'hf://a/b.csv'}", ".path: must be a path inside", id="has_a_url"),
    ],
)
def test_an_entry_of_data_files_is_refused_that(entry, violation):
    card = f"---\nconfigs:\n- config_name: a\n  data_files:\n  - split: test\n    path: b.csv\n  - {entry}\n---\n"

    (found,) = check_dataset_card(card)

    assert found.startswith("configs[0].data_files[1]")
    assert violation in found


@pytest.mark.parametrize(
    ("configs", "violation"),
    [
        (["{config_name: a}", "{config_name: a}"], "configs: each name must occur once, got ['a'] more often"),
        (
            ["{config_name: a, default: true}", "{config_name: b, default: true}"],
            "configs: only one can be the default, got ['a', 'b']",
        ),
        (
            ["{config_name: default}", "{config_name: b, default: true}"],
            "configs: only one can be the default, got ['default', 'b']",
        ),
        (
            ["{config_name: a, data_files: [{split: x, path: b}, {split: x, path: c}]}"],
            "configs[0].data_files: each name must occur once, got ['x'] more often",
        ),
    ],
)
def test_configurations_are_refused_that_contradict_each_other(configs, violation):
    lines = "\n".join(f"- {config}" for config in configs)

    assert check_dataset_card(f"---\nconfigs:\n{lines}\n---\n") == [violation]


@pytest.mark.parametrize("info", ["{config_name: a}", "[{config_name: a}]"])
def test_dataset_info_is_a_mapping_or_a_list_of_them(info):
    assert check_dataset_card(f"---\nconfigs: [{{config_name: a}}]\ndataset_info: {info}\n---\n") == []


@pytest.mark.parametrize(
    ("info", "violation"),
    [
        pytest.param("{config_name: b}", "dataset_info.config_name: must be one of `configs`, ['a'], got 'b'", id="b"),
        pytest.param("{}", "dataset_info.config_name: must be one of `configs`, ['a'], got 'default'", id="default"),
        pytest.param("[{config_name: [a]}]", "dataset_info[0].config_name: must be one of", id="a_list"),
        pytest.param("[{}]", "dataset_info[0].config_name: must be one of `configs`, ['a'], got None", id="none"),
    ],
)
def test_dataset_info_is_refused_whose_configuration_is(info, violation):
    (found,) = check_dataset_card(f"---\nconfigs: [{{config_name: a}}]\ndataset_info: {info}\n---\n")

    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("info", "violation"),
    [
        pytest.param("[a]", "dataset_info[0]: must be a mapping", id="is_a_list_of_strings"),
        pytest.param("[{config_name: a}, {config_name: a}]", "dataset_info: each name must", id="describes_one_twice"),
        pytest.param(
            "{config_name: a, dataset_size: 1 MB}", "dataset_info.dataset_size: must be a number", id="has_a_unit"
        ),
        pytest.param("{config_name: a, splits: train}", "dataset_info.splits: must be a list", id="has_a_split_name"),
        pytest.param("{config_name: a, splits: [train]}", "dataset_info.splits[0]: must be", id="lists_split_names"),
        pytest.param("{config_name: a, features: {x: int8}}", "dataset_info.features: must be", id="maps_features"),
    ],
)
def test_dataset_info_is_refused_that(info, violation):
    found = check_dataset_card(f"---\nconfigs: [{{config_name: a}}]\ndataset_info: {info}\n---\n")

    assert found[0].startswith(violation)


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        pytest.param(
            "num_examples: 8", "num_examples: '8'", ".splits[0].num_examples: must be", id="quotes_its_number"
        ),
        pytest.param("num_examples: 8", "num_examples: 8.5", ".splits[0].num_examples: must be", id="has_half_a_row"),
        pytest.param("num_examples: 8", "num_examples: true", ".splits[0].num_examples: must be", id="has_true_rows"),
        pytest.param(
            "num_examples: 8", "num_examples: -1", ".splits[0].num_examples: must be", id="has_less_than_none"
        ),
        pytest.param("    num_bytes: 1024\n", "", ".splits[0].num_bytes: must be", id="has_no_size"),
        pytest.param(
            "  - name: test\n    num_bytes: 512\n    num_examples: 4\n",
            "",
            ".splits: must be those of the configuration, ['test', 'train'], got ['train']",
            id="lacks_one",
        ),
        pytest.param(
            "  - name: test\n",
            "  - name: validation\n",
            ".splits: must be those of the configuration, ['test', 'train'], got ['train', 'validation']",
            id="has_another",
        ),
    ],
)
def test_the_splits_are_refused_of_a_configuration_that(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(f"dataset_info[0]{violation}")


def test_a_split_is_refused_that_files_without_splits_do_not_have():
    (found,) = check_with("- name: train\n    num_bytes: 10\n", "- name: test\n    num_bytes: 10\n")

    assert found == "dataset_info[1].splits: must be those of the configuration, ['train'], got ['test']"


@pytest.mark.parametrize(
    ("feature", "violation"),
    [
        pytest.param("image", "features[0]: must be a mapping with a `name`", id="is_a_string"),
        pytest.param("{dtype: int8}", "features[0]: must be a mapping with a `name`", id="has_no_name"),
        pytest.param("{name: x}", "features.x: None is not a kind of feature", id="has_no_type"),
        pytest.param("{name: x, dtype: int}", "features.x.dtype: 'int' is not a dtype", id="is_an_int"),
        pytest.param("{name: x, dtype: str}", "features.x.dtype: 'str' is not a dtype", id="is_a_str"),
        pytest.param("{name: x, dtype: Image}", "features.x.dtype: 'Image' is not a dtype", id="is_a_class"),
        pytest.param("{name: x, dtype: 'timestamp[h]'}", "'timestamp[h]' is not a dtype", id="counts_hours"),
        pytest.param("{name: x, dtype: class_label}", "'class_label' is not a dtype", id="has_classes_without_names"),
        pytest.param("{name: x, about: y, dtype: int8}", "'about' is not a kind", id="has_its_type_second"),
        pytest.param("{name: x, dtype: {label: {}}}", "'label' is not a kind", id="is_of_an_unknown_kind"),
        pytest.param("{name: x, list: text}", "features.x.list: 'text' is not a dtype", id="lists_an_unknown_dtype"),
        pytest.param("{name: x, sequence: [{dtype: int8}]}", "features.x.sequence[0]: must be", id="nests_no_name"),
        pytest.param("{name: x, struct: int8}", "features.x.struct: must be a list of features", id="has_no_fields"),
        pytest.param(
            "{name: x, dtype: {image: L}}", "features.x.dtype.image: must be a mapping", id="has_a_bare_mode"
        ),
        pytest.param(
            "{name: x, dtype: {array2_d: {shape: [3], dtype: int8}}}", "array2_d.shape: must list 2", id="is_too_flat"
        ),
        pytest.param(
            "{name: x, dtype: {translation: {languages: en}}}", "languages: must be a list", id="translates_to_one"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: [a, b]}}}", "names: must have the strings", id="lists_its_classes"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {}}}}", "names: must have the strings", id="has_no_class"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {0: a}}}}", "names: must have the strings", id="has_integer_keys"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {'0': a, '2': b}}}}",
            "names: must have the strings",
            id="has_a_gap",
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {'1': a}}}}", "names: must have the strings", id="starts_at_1"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {'0': no}}}}", "names: must be strings", id="has_a_class_unquoted"
        ),
        pytest.param(
            "{name: x, dtype: {class_label: {names: {'0': a, '1': a}}}}", "names: each name must", id="repeats_a_class"
        ),
    ],
)
def test_a_feature_is_refused_that(feature, violation):
    card = f"---\nconfigs: [{{config_name: default}}]\ndataset_info:\n  features:\n  - {feature}\n---\n"

    (found,) = check_dataset_card(card)

    assert found.startswith("dataset_info.features")
    assert violation in found


def test_a_feature_is_refused_that_comes_twice():
    (found,) = check_with("- name: sizes", "- name: image")

    assert found == "dataset_info[0].features: each name must occur once, got ['image'] more often"


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        pytest.param("{Name: string}", "extra_gated_fields.Name: must be one of", id="unknown"),
        pytest.param("[{Name: string}]", "extra_gated_fields.Name: must be one of", id="unknown_in_a_list"),
        pytest.param("[Name]", "extra_gated_fields: must hold pairs", id="missing"),
        pytest.param("{Name: {kind: text}}", "extra_gated_fields.Name: must be one of", id="under_another_key"),
        pytest.param("{Use: select}", "extra_gated_fields.Use.options: must list", id="a_choice_of_nothing"),
        pytest.param(
            "{Use: {type: select, options: []}}", "extra_gated_fields.Use.options: must", id="an_empty_choice"
        ),
        pytest.param(
            "{Use: {type: select, options: [{label: a}]}}", "extra_gated_fields.Use.options: must", id="half_a_choice"
        ),
    ],
)
def test_a_gated_field_is_refused_whose_type_is(fields, violation):
    (found,) = check_dataset_card(f"---\nextra_gated_fields: {fields}\n---\n")

    assert found.startswith(violation)


def test_gated_fields_may_be_a_list():
    assert check_dataset_card("---\nextra_gated_fields:\n- Name: text\n- I agree: checkbox\n---\n") == []
