"""Say without network what the Hub, or the libraries that read it, would not accept in a dataset card's front matter.

The Hub checks cards on its server, whose code is not public. Each group of rules below names the public document or
reader that it was taken from, and what is stricter here than there.
"""

import re
from collections.abc import Iterator
from typing import Any

from card_rules import (
    GATE_FIELDS,
    LICENSES,
    PIPELINE_TYPES,
    SUBTASK_TYPES,
    check_card,
    check_gated_fields,
    check_languages,
    check_license,
    check_path,
    check_unique,
    is_list_of_strings,
    is_string,
    is_whole,
    mappings,
    strings,
    words,
)

# Source: huggingface/hub-docs, datasetcard.md (names and types), docs/hub/datasets-viewer-configure.md (`viewer`);
# huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `DatasetCardData` (which fields may be one string,
# `multilinguality`, `config_names`, `train-eval-index`). The Hub lets unknown keys pass; here they are taken for
# misspellings.
FIELDS = {
    "language": "a string or a list of strings",
    "language_details": "a string or a list of strings",
    "license": "a string or a list of strings",
    "license_name": "a string",
    "license_link": "a string",
    "license_details": "a string",
    "tags": "a list of strings",
    "annotations_creators": "a string or a list of strings",
    "language_creators": "a string or a list of strings",
    "multilinguality": "a string or a list of strings",
    "pretty_name": "a string",
    "size_categories": "a string or a list of strings",
    "source_datasets": "a string or a list of strings",
    "task_categories": "a string or a list of strings",
    "task_ids": "a string or a list of strings",
    "paperswithcode_id": "a string",
    "config_names": "a string or a list of strings",
    "train-eval-index": "a list or a mapping",
    "configs": "a list",
    "dataset_info": "a list or a mapping",
    "viewer": "a boolean",
} | GATE_FIELDS

# Source: huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `DatasetCardData`; huggingface/datasets,
# src/datasets/utils/resources/{creators,multilingualities,size_categories}.json (only there: the size `unknown`).
CREATORS = frozenset({"found", "crowdsourced", "expert-generated", "machine-generated", "other"})
VOCABULARIES = {
    "annotations_creators": CREATORS | {"no-annotation"},
    "language_creators": CREATORS,
    "license": LICENSES,
    "multilinguality": frozenset({"monolingual", "multilingual", "translation", "other"}),
    "size_categories": words(
        """
        n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T n>1T unknown
        other
        """
    ),
    "task_categories": PIPELINE_TYPES,
    "task_ids": SUBTASK_TYPES,
}

# Source: huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py (`original`, `extended`);
# huggingface/hub-docs, datasetcard.md (a dataset of the Hub, as `laion/laion-2b`); huggingface/datasets before
# its pull request 5004, src/datasets/utils/metadata.py, `known_source_datasets` (`extended|…`).
SOURCE_DATASET = re.compile(r"(extended\|)?\w[\w.-]*(/\w[\w.-]*)?")

# Source: huggingface/hub-docs, datasetcard.md, `language_details`, which are BCP 47 tags.
LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")

# Source: huggingface/datasets, src/datasets/naming.py, `_split_re` and `INVALID_WINDOWS_CHARACTERS_IN_PATH`.
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
CHARACTERS_NOT_IN_A_CONFIG_NAME = r"<>:/\|?*"

# Source: huggingface/datasets, src/datasets/features/features.py, docstring of `Value` and `string_to_arrow`.
VALUE_DTYPE = re.compile(
    r"""
    null | bool | u?int(8|16|32|64) | float(16|32|64)? | double | date(32|64)
    | (large_)?(binary|string) | (binary|string)_view | fixed_size_binary\[\d+\]
    | time32\[(s|ms)\] | time64\[(us|ns)\] | duration\[(s|ms|us|ns)\]
    | timestamp\[(s|ms|us|ns)(,\s*tz=[a-zA-Z0-9/_+:-]*)?\] | decimal(128|256)\(\d+,\s*-?\d+\)
    """,
    re.VERBOSE,
)

# Source: huggingface/datasets, src/datasets/features/features.py, `_FEATURE_TYPES` and `Features._from_yaml_list`.
DTYPES_WITHOUT_ARGUMENTS = ("audio", "image", "video", "pdf", "nifti", "mesh", "bio_sequence", "bio_structure", "json")
NESTINGS = ("list", "large_list", "sequence")
DIMENSIONS = {"array2_d": 2, "array3_d": 3, "array4_d": 4, "array5_d": 5}
TRANSLATIONS = ("translation", "translation_variable_languages")


def check_dataset_card(text: str) -> list[str]:
    """Return what is wrong with the front matter of a dataset card, each as "place: what was expected, got what".

    An empty list means that the card is accepted. A front matter that cannot be read has one violation, the first.
    """
    checks = (
        check_license,
        check_languages,
        _check_language_details,
        _check_source_datasets,
        _check_configs,
        _check_dataset_info,
        check_gated_fields,
    )
    return check_card(text, "dataset", fields=FIELDS, vocabularies=VOCABULARIES, checks=checks)


# --- Languages, sources. Source: as the constants.


def _check_language_details(metadata: dict) -> Iterator[str]:
    for tag in strings(metadata, "language_details"):
        if not LANGUAGE_TAG.fullmatch(tag):
            yield f"language_details: must be BCP 47 tags, got {tag!r}"


def _check_source_datasets(metadata: dict) -> Iterator[str]:
    for name in strings(metadata, "source_datasets"):
        if not SOURCE_DATASET.fullmatch(name):
            yield f"source_datasets: must be 'original', 'extended' or datasets of the Hub, got {name!r}"


# --- Configurations. Source: huggingface/hub-docs, docs/hub/datasets-manual-configuration.md; huggingface/datasets:
# src/datasets/utils/metadata.py, `MetadataConfigs` (names, form of `data_files`, one default);
# src/datasets/data_files.py, `sanitize_patterns` (each split once, `train` when none is named);
# src/datasets/builder.py, `BuilderConfig` (characters of names). That paths stay in the repository is a rule of this
# project: `datasets` also takes URLs.


def _check_configs(metadata: dict) -> Iterator[str]:
    configs = metadata.get("configs")
    if not isinstance(configs, list):
        return
    for index, config in enumerate(configs):
        if isinstance(config, dict):
            yield from _check_config(config, f"configs[{index}]")
        else:
            yield f"configs[{index}]: must be a mapping, got {config!r}"

    names = _config_names(configs)
    yield from check_unique(names, "configs")
    defaults = [config.get("config_name") for config in mappings(configs) if _is_default(config)]
    if len(defaults) > 1:
        yield f"configs: only one can be the default, got {defaults}"


def _is_default(config: dict) -> bool:
    return config.get("config_name") == "default" or config.get("default") is True


def _check_config(config: dict, place: str) -> Iterator[str]:
    name = config.get("config_name")
    if not is_string(name) or set(name) & set(CHARACTERS_NOT_IN_A_CONFIG_NAME):
        yield (f"{place}.config_name: must be a string without any of {CHARACTERS_NOT_IN_A_CONFIG_NAME}, got {name!r}")
    if not isinstance(config.get("default", False), bool):
        yield f"{place}.default: must be a boolean, got {config['default']!r}"
    if "data_dir" in config:
        yield from check_path(config["data_dir"], f"{place}.data_dir")
    if "data_files" in config:
        yield from _check_data_files(config["data_files"], f"{place}.data_files")
    if "features" in config:
        yield from _check_features(config["features"], f"{place}.features")


def _check_data_files(data_files: Any, place: str) -> Iterator[str]:
    if not isinstance(data_files, list) or not any(isinstance(entry, dict) for entry in data_files):
        yield from _check_paths(data_files, place)
        return
    for index, entry in enumerate(data_files):
        if not isinstance(entry, dict) or set(entry) != {"split", "path"}:
            yield f"{place}[{index}]: must have `split` and `path` and nothing else, got {entry!r}"
            continue
        yield from _check_split_name(entry["split"], f"{place}[{index}].split")
        yield from _check_paths(entry["path"], f"{place}[{index}].path")
    yield from check_unique([entry.get("split") for entry in mappings(data_files)], place)


def _check_paths(paths: Any, place: str) -> Iterator[str]:
    if paths == []:
        yield f"{place}: must name at least one file, got none"
    for path in paths if isinstance(paths, list) else [paths]:
        yield from check_path(path, place)


def _check_split_name(name: Any, place: str) -> Iterator[str]:
    if not isinstance(name, str) or not SPLIT_NAME.fullmatch(name):
        yield f"{place}: must match '{SPLIT_NAME.pattern}', got {name!r}"


def _splits_of_config(config: dict) -> set | None:
    """Say which splits a configuration has, None when only its files tell."""
    data_files = config.get("data_files")
    if data_files is None:
        return None
    return {str(entry.get("split")) for entry in mappings(data_files)} or {"train"}


# --- Dataset information. Source: huggingface/hub-docs, datasetcard.md; huggingface/datasets: src/datasets/info.py,
# `DatasetInfosDict`; src/datasets/splits.py, `SplitDict._from_yaml_list`; src/datasets/features/features.py,
# `Features._to_yaml_list` ("server-side requirement: keys must be strings") and `_from_yaml_list`. That names and
# splits equal those of `configs` is a rule of this project, which writes both.


def _check_dataset_info(metadata: dict) -> Iterator[str]:
    infos = metadata.get("dataset_info")
    if isinstance(infos, dict):
        yield from _check_info({"config_name": "default", **infos}, metadata, "dataset_info")
    if isinstance(infos, list):
        for index, info in enumerate(infos):
            if isinstance(info, dict):
                yield from _check_info(info, metadata, f"dataset_info[{index}]")
            else:
                yield f"dataset_info[{index}]: must be a mapping, got {info!r}"
        yield from check_unique(_config_names(infos), "dataset_info")


def _check_info(info: dict, metadata: dict, place: str) -> Iterator[str]:
    configs = {str(config.get("config_name")): config for config in mappings(metadata.get("configs"))}
    name = info.get("config_name")
    if not is_string(name) or name not in configs:
        yield f"{place}.config_name: must be one of `configs`, {list(configs)}, got {name!r}"
    for key in ("download_size", "dataset_size"):
        if key in info and not _is_count(info[key]):
            yield f"{place}.{key}: must be a number of bytes, got {info[key]!r}"
    if "features" in info:
        yield from _check_features(info["features"], f"{place}.features")
    if "splits" in info:
        expected = _splits_of_config(configs.get(name, {})) if is_string(name) else None
        yield from _check_splits(info["splits"], expected, f"{place}.splits")


def _check_splits(splits: Any, expected: set | None, place: str) -> Iterator[str]:
    if not isinstance(splits, list):
        yield f"{place}: must be a list, got {splits!r}"
        return
    for index, split in enumerate(splits):
        if not isinstance(split, dict):
            yield f"{place}[{index}]: must be a mapping, got {split!r}"
            continue
        yield from _check_split_name(split.get("name"), f"{place}[{index}].name")
        for key in ("num_bytes", "num_examples"):
            if not _is_count(split.get(key)):
                yield f"{place}[{index}].{key}: must be a whole number, got {split.get(key)!r}"
    names = [str(split.get("name")) for split in mappings(splits)]
    yield from check_unique(names, place)
    if expected is not None and set(names) != expected:
        yield f"{place}: must be those of the configuration, {sorted(expected)}, got {sorted(names)}"


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 0


def _check_features(features: Any, place: str) -> Iterator[str]:
    if not isinstance(features, list) or not features:
        yield f"{place}: must be a list of features, got {features!r}"
        return
    for index, feature in enumerate(features):
        if not isinstance(feature, dict) or not is_string(feature.get("name")):
            yield f"{place}[{index}]: must be a mapping with a `name`, got {feature!r}"
            continue
        feature_type = {key: value for key, value in feature.items() if key != "name"}
        yield from _check_feature_type(feature_type, f"{place}.{feature['name']}")
    yield from check_unique([feature.get("name") for feature in mappings(features)], place)


def _check_feature_type(feature_type: Any, place: str) -> Iterator[str]:
    """Check a name of a dtype, a list of features, or a mapping whose first key says what the feature is."""
    if isinstance(feature_type, list):
        yield from _check_features(feature_type, place)
        return
    if not isinstance(feature_type, dict):
        yield from _check_dtype(feature_type, place)
        return
    kind, value = next(iter(feature_type.items()), (None, None))
    if kind == "dtype" or kind in NESTINGS:
        yield from _check_feature_type(value, f"{place}.{kind}")
    elif kind == "struct":
        yield from _check_features(value, f"{place}.struct")
    else:
        yield from _check_parametric_type(kind, value, place)


def _check_dtype(dtype: Any, place: str) -> Iterator[str]:
    if dtype not in DTYPES_WITHOUT_ARGUMENTS and not (isinstance(dtype, str) and VALUE_DTYPE.fullmatch(dtype)):
        yield f"{place}: {dtype!r} is not a dtype of `datasets`"


def _check_parametric_type(kind: Any, arguments: Any, place: str) -> Iterator[str]:
    if kind != "class_label" and kind not in (*DIMENSIONS, *TRANSLATIONS, *DTYPES_WITHOUT_ARGUMENTS):
        yield f"{place}: {kind!r} is not a kind of feature of `datasets`"
    elif not isinstance(arguments, dict):
        yield f"{place}.{kind}: must be a mapping, got {arguments!r}"
    elif kind == "class_label":
        yield from _check_class_names(arguments.get("names"), f"{place}.class_label.names")
    elif kind in DIMENSIONS:
        shape = arguments.get("shape")
        if not isinstance(shape, list) or len(shape) != DIMENSIONS[kind]:
            yield f"{place}.{kind}.shape: must list {DIMENSIONS[kind]} sizes, got {shape!r}"
        yield from _check_dtype(arguments.get("dtype"), f"{place}.{kind}.dtype")
    elif kind in TRANSLATIONS and not is_list_of_strings(arguments.get("languages")):
        yield f"{place}.{kind}.languages: must be a list of strings, got {arguments.get('languages')!r}"


def _check_class_names(names: Any, place: str) -> Iterator[str]:
    if not isinstance(names, dict) or not names or set(names) != {str(index) for index in range(len(names))}:
        yield f"{place}: must have the strings '0', '1', … without a gap as keys, got {names!r}"
    elif not all(is_string(name) for name in names.values()):
        yield f"{place}: must be strings, got {list(names.values())}"
    else:
        yield from check_unique(list(names.values()), place)


# --- Shared by the groups.


def _config_names(items: list) -> list:
    return [item.get("config_name") for item in mappings(items)]
