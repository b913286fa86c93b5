"""Say without network what the Hub, or the libraries that read it, would not accept in a dataset card's front matter.

The Hub checks cards on its server, whose code is not public. Each group of rules below names the public document or
reader that it was taken from, and what is stricter here than there.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Source: huggingface/hub-docs, datasetcard.md (names and types), docs/hub/datasets-gated.md (`gated`,
# `extra_gated_*`), docs/hub/datasets-viewer-configure.md (`viewer`); huggingface/huggingface_hub,
# src/huggingface_hub/repocard_data.py, `DatasetCardData` (which fields may be one string, `multilinguality`,
# `config_names`, `train-eval-index`). The Hub lets unknown keys pass; here they are taken for misspellings.
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
    "gated": "a boolean",
    "extra_gated_fields": "a list or a mapping",
    "extra_gated_prompt": "a string",
    "extra_gated_heading": "a string",
    "extra_gated_description": "a string",
    "extra_gated_button_content": "a string",
    "extra_gated_eu_disallowed": "a boolean",
}

# Source: huggingface/hub-docs, docs/hub/repositories-licenses.md, the whole table. The server's own message, quoted in
# huggingface/huggingface_hub#4218, lists the same identifiers but for `openmdw-1.1`, which came later.
LICENSES = _words(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
    """
)

# Source: huggingface/hub-docs, datasetcard.md, comments of `license_name` and `license_link`.
LICENSE_FILES = ("LICENSE", "LICENSE.md")

# Source: huggingface/huggingface.js, packages/languages/src/languages_iso_639_1.ts, all 184 codes.
TWO_LETTER_LANGUAGES = _words(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en
    eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv
    ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne
    ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st
    su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """
)

# Source: huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `DatasetCardData`: two or three letters
# or one of these words. The almost 8,000 codes of three letters are known by their form only.
LANGUAGE_WORDS = ("code", "multilingual")

# Source: huggingface/huggingface.js, packages/tasks/src/pipelines.ts, keys of `PIPELINE_DATA`.
TASK_CATEGORIES = _words(
    """
    text-classification token-classification table-question-answering question-answering zero-shot-classification
    translation summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech
    text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
    voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
    image-to-text image-to-image image-to-video unconditional-image-generation video-classification
    reinforcement-learning robotics tabular-classification tabular-regression tabular-to-text table-to-text
    multiple-choice text-ranking text-retrieval time-series-forecasting text-to-video image-text-to-text
    image-text-to-image image-text-to-video visual-question-answering document-question-answering
    zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection text-to-3d image-to-3d
    image-feature-extraction video-text-to-text keypoint-detection visual-document-retrieval any-to-any video-to-video
    other
    """
)

# Source: huggingface/huggingface.js, packages/tasks/src/pipelines.ts, `SUBTASK_TYPES`.
TASK_IDS = _words(
    """
    acceptability-classification entity-linking-classification fact-checking intent-classification
    language-identification multi-class-classification multi-label-classification multi-input-text-classification
    natural-language-inference semantic-similarity-classification sentiment-classification topic-classification
    semantic-similarity-scoring sentiment-scoring sentiment-analysis hate-speech-detection text-scoring
    named-entity-recognition part-of-speech parsing lemmatization word-sense-disambiguation coreference-resolution
    extractive-qa open-domain-qa closed-domain-qa news-articles-summarization news-articles-headline-generation
    dialogue-modeling dialogue-generation conversational language-modeling text-simplification explanation-generation
    abstractive-qa open-domain-abstractive-qa open-book-qa closed-book-qa text2text-generation slot-filling
    masked-language-modeling keyword-spotting speaker-identification audio-intent-classification
    audio-emotion-recognition audio-language-identification multi-label-image-classification
    multi-class-image-classification face-detection vehicle-detection instance-segmentation semantic-segmentation
    panoptic-segmentation image-captioning image-inpainting image-colorization super-resolution grasping task-planning
    tabular-multi-class-classification tabular-multi-label-classification tabular-single-column-regression rdf-to-text
    multiple-choice-qa multiple-choice-coreference-resolution document-retrieval utterance-retrieval
    entity-linking-retrieval fact-checking-retrieval univariate-time-series-forecasting
    multivariate-time-series-forecasting visual-question-answering document-question-answering pose-estimation
    """
)

# Source: huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `DatasetCardData`; huggingface/datasets,
# src/datasets/utils/resources/{creators,multilingualities,size_categories}.json (only there: the size `unknown`).
CREATORS = frozenset({"found", "crowdsourced", "expert-generated", "machine-generated", "other"})
VOCABULARIES = {
    "annotations_creators": CREATORS | {"no-annotation"},
    "language_creators": CREATORS,
    "license": LICENSES,
    "multilinguality": frozenset({"monolingual", "multilingual", "translation", "other"}),
    "size_categories": _words(
        """
        n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T n>1T unknown
        other
        """
    ),
    "task_categories": TASK_CATEGORIES,
    "task_ids": TASK_IDS,
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

# Source: huggingface/hub-docs, docs/hub/datasets-gated.md, "Customize requested information".
GATED_FIELD_TYPES = ("text", "checkbox", "date_picker", "country", "select")


def check_dataset_card(text: str) -> list[str]:
    """Return what is wrong with the front matter of a dataset card, each as "place: what was expected, got what".

    An empty list means that the card is accepted. A front matter that cannot be read has one violation, the first.
    """
    try:
        metadata = _read_front_matter(text)
    except (yaml.YAMLError, ValueError) as error:
        return [f"front matter: {error}"]
    if not isinstance(metadata, dict):
        return [f"front matter: must be a mapping, got {metadata!r}"]
    checks = (
        _check_types,
        _check_vocabularies,
        _check_license,
        _check_languages,
        _check_source_datasets,
        _check_configs,
        _check_dataset_info,
        _check_gated_fields,
    )
    return [violation for check in checks for violation in check(metadata)]


# --- Front matter. Source: huggingface/datasets, src/datasets/utils/metadata.py, `_split_yaml_from_readme` and
# `_NoDuplicateSafeLoader`. The Hub's `REGEX_YAML_BLOCK` (huggingface/huggingface_hub, src/huggingface_hub/repocard.py)
# also takes blanks before the first line and after the second. It refuses tags that SafeLoader refuses
# (huggingface/huggingface_hub#1950).


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = Counter(repr(self.construct_object(key, deep=True)) for key, _ in node.value if key.value != "<<")
        repeated = [key for key, count in keys.items() if count > 1]
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"repeated keys {repeated}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _read_front_matter(text: str) -> Any:
    lines = re.split(r"\r\n|\r|\n", text)
    if lines[0] != "---":
        raise ValueError(f"the first line of the card must be '---', got {lines[0]!r}")
    if "---" not in lines[1:]:
        raise ValueError("a second line '---' must close it, got none")
    return yaml.load("\n".join(lines[1 : lines.index("---", 1)]), Loader=_UniqueKeyLoader)


# --- Types. Source: as `FIELDS`.


def _is_string(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(_is_string(item) for item in value)


IS_OF_TYPE = {
    "a string": _is_string,
    "a list of strings": _is_list_of_strings,
    "a string or a list of strings": lambda value: _is_string(value) or _is_list_of_strings(value),
    "a boolean": lambda value: isinstance(value, bool),
    "a list": lambda value: isinstance(value, list),
    "a list or a mapping": lambda value: isinstance(value, list | dict),
}


def _check_types(metadata: dict) -> Iterator[str]:
    for key, value in metadata.items():
        if key not in FIELDS:
            yield f"{key}: is not a field of dataset cards"
        elif not IS_OF_TYPE[FIELDS[key]](value):
            yield f"{key}: must be {FIELDS[key]}, got {value!r}"


def _strings(metadata: dict, key: str) -> list[str]:
    """List the strings of a field that may be one string; `_check_types` has seen the others."""
    value = metadata.get(key, [])
    return [item for item in (value if isinstance(value, list) else [value]) if _is_string(item)]


# --- Vocabularies, licence, languages, sources. Source: as the constants.


def _check_vocabularies(metadata: dict) -> Iterator[str]:
    for key, vocabulary in VOCABULARIES.items():
        for value in _strings(metadata, key):
            if value not in vocabulary:
                yield f"{key}: {value!r} is not in the Hub's list"


def _check_license(metadata: dict) -> Iterator[str]:
    name, link = metadata.get("license_name"), metadata.get("license_link")
    if "other" in _strings(metadata, "license"):
        if name is None:
            yield "license_name: must name the licence when `license` is 'other', got none"
        if link is None:
            yield "license_link: must lead to the licence when `license` is 'other', got none"
    if _is_string(name) and (name != name.lower() or re.search(r"\s", name)):
        yield f"license_name: must be lower-case and without spaces, got {name!r}"
    if _is_string(link) and link not in LICENSE_FILES and not re.fullmatch(r"https?://[^\s/]+\S*", link):
        yield f"license_link: must be a URL or one of {LICENSE_FILES}, got {link!r}"


def _check_languages(metadata: dict) -> Iterator[str]:
    for code in _strings(metadata, "language"):
        if code not in TWO_LETTER_LANGUAGES and code not in LANGUAGE_WORDS and not re.fullmatch("[a-z]{3}", code):
            yield f"language: must be lower-case ISO 639 codes, got {code!r}"
    for tag in _strings(metadata, "language_details"):
        if not LANGUAGE_TAG.fullmatch(tag):
            yield f"language_details: must be BCP 47 tags, got {tag!r}"


def _check_source_datasets(metadata: dict) -> Iterator[str]:
    for name in _strings(metadata, "source_datasets"):
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
    yield from _check_unique(names, "configs")
    defaults = [config.get("config_name") for config in _mappings(configs) if _is_default(config)]
    if len(defaults) > 1:
        yield f"configs: only one can be the default, got {defaults}"


def _is_default(config: dict) -> bool:
    return config.get("config_name") == "default" or config.get("default") is True


def _check_config(config: dict, place: str) -> Iterator[str]:
    name = config.get("config_name")
    if not _is_string(name) or set(name) & set(CHARACTERS_NOT_IN_A_CONFIG_NAME):
        yield (f"{place}.config_name: must be a string without any of {CHARACTERS_NOT_IN_A_CONFIG_NAME}, got {name!r}")
    if not isinstance(config.get("default", False), bool):
        yield f"{place}.default: must be a boolean, got {config['default']!r}"
    if "data_dir" in config:
        yield from _check_path(config["data_dir"], f"{place}.data_dir")
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
    yield from _check_unique([entry.get("split") for entry in _mappings(data_files)], place)


def _check_paths(paths: Any, place: str) -> Iterator[str]:
    if paths == []:
        yield f"{place}: must name at least one file, got none"
    for path in paths if isinstance(paths, list) else [paths]:
        yield from _check_path(path, place)


def _check_path(path: Any, place: str) -> Iterator[str]:
    if not _is_string(path) or re.match(r"/|\w+:", path) or "\\" in path or ".." in path.split("/"):
        yield f"{place}: must be a path inside the repository, without '..', got {path!r}"


def _check_split_name(name: Any, place: str) -> Iterator[str]:
    if not isinstance(name, str) or not SPLIT_NAME.fullmatch(name):
        yield f"{place}: must match '{SPLIT_NAME.pattern}', got {name!r}"


def _splits_of_config(config: dict) -> set | None:
    """Say which splits a configuration has, None when only its files tell."""
    data_files = config.get("data_files")
    if data_files is None:
        return None
    return {str(entry.get("split")) for entry in _mappings(data_files)} or {"train"}


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
        yield from _check_unique(_config_names(infos), "dataset_info")


def _check_info(info: dict, metadata: dict, place: str) -> Iterator[str]:
    configs = {str(config.get("config_name")): config for config in _mappings(metadata.get("configs"))}
    name = info.get("config_name")
    if not _is_string(name) or name not in configs:
        yield f"{place}.config_name: must be one of `configs`, {list(configs)}, got {name!r}"
    for key in ("download_size", "dataset_size"):
        if key in info and not _is_count(info[key]):
            yield f"{place}.{key}: must be a number of bytes, got {info[key]!r}"
    if "features" in info:
        yield from _check_features(info["features"], f"{place}.features")
    if "splits" in info:
        expected = _splits_of_config(configs.get(name, {})) if _is_string(name) else None
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
    names = [str(split.get("name")) for split in _mappings(splits)]
    yield from _check_unique(names, place)
    if expected is not None and set(names) != expected:
        yield f"{place}: must be those of the configuration, {sorted(expected)}, got {sorted(names)}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_features(features: Any, place: str) -> Iterator[str]:
    if not isinstance(features, list) or not features:
        yield f"{place}: must be a list of features, got {features!r}"
        return
    for index, feature in enumerate(features):
        if not isinstance(feature, dict) or not _is_string(feature.get("name")):
            yield f"{place}[{index}]: must be a mapping with a `name`, got {feature!r}"
            continue
        feature_type = {key: value for key, value in feature.items() if key != "name"}
        yield from _check_feature_type(feature_type, f"{place}.{feature['name']}")
    yield from _check_unique([feature.get("name") for feature in _mappings(features)], place)


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
    elif kind in TRANSLATIONS and not _is_list_of_strings(arguments.get("languages")):
        yield f"{place}.{kind}.languages: must be a list of strings, got {arguments.get('languages')!r}"


def _check_class_names(names: Any, place: str) -> Iterator[str]:
    if not isinstance(names, dict) or not names or set(names) != {str(index) for index in range(len(names))}:
        yield f"{place}: must have the strings '0', '1', … without a gap as keys, got {names!r}"
    elif not all(_is_string(name) for name in names.values()):
        yield f"{place}: must be strings, got {list(names.values())}"
    else:
        yield from _check_unique(list(names.values()), place)


# --- Gate. Source: huggingface/hub-docs, docs/hub/datasets-gated.md (a mapping) and datasetcard.md (a list).


def _check_gated_fields(metadata: dict) -> Iterator[str]:
    fields = metadata.get("extra_gated_fields")
    for group in [fields] if isinstance(fields, dict) else fields if isinstance(fields, list) else []:
        if not isinstance(group, dict):
            yield f"extra_gated_fields: must hold pairs of a name and a type, got {group!r}"
            continue
        for name, field in group.items():
            yield from _check_gated_field(field, f"extra_gated_fields.{name}")


def _check_gated_field(field: Any, place: str) -> Iterator[str]:
    field_type = field.get("type") if isinstance(field, dict) else field
    if field_type not in GATED_FIELD_TYPES:
        yield f"{place}: must be one of {GATED_FIELD_TYPES} or have it as `type`, got {field!r}"
    elif field_type == "select":
        options = field.get("options") if isinstance(field, dict) else None
        if not isinstance(options, list) or not options or not all(_is_option(option) for option in options):
            yield f"{place}.options: must list strings or pairs of `label` and `value`, got {options!r}"


def _is_option(option: Any) -> bool:
    if isinstance(option, dict):
        return set(option) == {"label", "value"} and all(_is_string(text) for text in option.values())
    return _is_string(option)


# --- Shared by the groups.


def _mappings(items: Any) -> list[dict]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _config_names(items: list) -> list:
    return [item.get("config_name") for item in _mappings(items)]


def _check_unique(names: list, place: str) -> Iterator[str]:
    repeated = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if repeated:
        yield f"{place}: each name must occur once, got {repeated} more often"
