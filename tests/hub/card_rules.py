"""What the Hub, or the libraries that read it, would not accept in our cards, found without network.

huggingface_hub parses every card, `datasets` the configurations and features of dataset cards. The Hub's server checks
more, and its code is not public: those of its rules that our cards could break are here, with their source.
"""

import math
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import unquote

import yaml
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs, _NoDuplicateSafeLoader
from huggingface_hub import DatasetCard, ModelCard, RepoCard, SpaceCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

CARDS = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}

# Those of our cards. Source: huggingface/hub-docs, docs/hub/repositories-licenses.md; huggingface/huggingface.js,
# packages/tasks/src/pipelines.ts; huggingface/hub-docs, docs/hub/spaces-config-reference.md.
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "other", "unknown"}
TASKS = {"image-segmentation", "image-classification", "unconditional-image-generation", "image-feature-extraction"}
SDKS = {"gradio", "static"}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}

# Source: the server's message, quoted in qdonnars/ohmywind#160.
MAX_SHORT_DESCRIPTION = 60

# Our own rules of the text: everything is filled in, research is the only use, links lead somewhere.
PLACEHOLDERS = (
    r"more information needed|\[optional\]|\b(?-i:TODO|FIXME|XXX)\b|\{\{-?\s|\{%|\|\s*(?:none|nan|undefined)\s*(?=\|)"
)
RESEARCH_ONLY = "research only[.,] not a medical device"
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|\b(?:src|href)\s*=\s*["']([^"']+)""")


def check_card(text: str, repo_type: str, files: Collection[str] = ()) -> list[str]:
    """Return what is wrong with a card; `files` are those of its repository, which it may name and link to."""
    try:
        front_matter = yaml.load(text.split("---\n")[1], Loader=_NoDuplicateSafeLoader)
        card = CARDS[repo_type](text, ignore_metadata_errors=False)
        MetadataConfigs.from_dataset_card_data(card.data)
        DatasetInfosDict.from_dataset_card_data(card.data)
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        return [f"front matter: {error}"]
    rules = {"model": _check_model, "dataset": _check_dataset, "space": _check_space}
    found = [*_check_licence(front_matter), *_check_ids(front_matter), *rules[repo_type](card, front_matter)]
    return [*found, *_check_named_files(front_matter, files), *_check_text(card.text, files)]


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _check_licence(front_matter: dict) -> Iterator[str]:
    for licence in _as_list(front_matter.get("license")):
        if licence not in LICENSES:
            yield f"license: {licence!r} is not in the Hub's list"
        if licence == "other" and not {"license_name", "license_link"} <= set(front_matter):
            yield "license: `other` needs `license_name` and `license_link`"


# Source: huggingface/autotrain-advanced#651: the server refuses a local path in the place of an id.
def _check_ids(front_matter: dict) -> Iterator[str]:
    for field in ("base_model", "datasets", "models"):
        for repo_id in _as_list(front_matter.get(field)):
            try:
                validate_repo_id(repo_id)
            except HFValidationError as error:
                yield f"{field}: {error}"


def _check_model(card: RepoCard, front_matter: dict) -> Iterator[str]:
    if front_matter.get("pipeline_tag", "image-segmentation") not in TASKS:
        yield f"pipeline_tag: {front_matter['pipeline_tag']!r} is not in the Hub's list"
    for result in card.data.eval_results or []:
        if not math.isfinite(result.metric_value):
            yield f"model-index: {result.metric_type} must be finite, got {result.metric_value}"
    for example in front_matter.get("widget", []):
        if not {"src", "output"} & set(example):
            yield f"widget: must have `src` and `output`, got {example}"


def _check_dataset(_: RepoCard, front_matter: dict) -> Iterator[str]:
    for task in _as_list(front_matter.get("task_categories")):
        if task not in TASKS:
            yield f"task_categories: {task!r} is not in the Hub's list"
    splits = {config["config_name"]: _splits(config["data_files"], "split") for config in front_matter["configs"]}
    infos = {info["config_name"]: _splits(info["splits"], "name") for info in _as_list(front_matter["dataset_info"])}
    if splits != infos:
        yield f"dataset_info: must have the splits of `configs`, {splits}, got {infos}"


def _splits(entries: Iterable[dict], name: str) -> set[str]:
    return {entry[name] for entry in entries}


# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md.
def _check_space(_: RepoCard, front_matter: dict) -> Iterator[str]:
    if front_matter.get("sdk") not in SDKS:
        yield f"sdk: must be one of {sorted(SDKS)}, got {front_matter.get('sdk')!r}"
    if not {front_matter.get("colorFrom", "red"), front_matter.get("colorTo", "red")} <= COLOURS:
        yield f"colorFrom, colorTo: must be of {sorted(COLOURS)}"
    if len(front_matter.get("short_description", "")) > MAX_SHORT_DESCRIPTION:
        yield f"short_description: must have at most {MAX_SHORT_DESCRIPTION} characters"
    if front_matter.get("sdk") == "gradio" and not isinstance(front_matter.get("sdk_version"), str):
        yield "sdk_version: must be the version of gradio as a string"


def _check_named_files(front_matter: dict, files: Collection[str]) -> Iterator[str]:
    named = [front_matter.get("license_link"), front_matter.get("app_file")]
    for example in front_matter.get("widget", []):
        output = example.get("output")
        named += [example.get("src"), output.get("url") if isinstance(output, dict) else None]
    for name in filter(None, named):
        if not name.startswith("https://") and posixpath.normpath(name) not in files:
            yield f"front matter: {name!r} must be a file of the repository"


def _check_text(text: str, files: Collection[str]) -> Iterator[str]:
    for found in re.finditer(PLACEHOLDERS, text, flags=re.IGNORECASE):
        yield f"text: {found[0]!r} must be filled in"
    if not re.search(RESEARCH_ONLY, " ".join(text.replace("*", "").split()), flags=re.IGNORECASE):
        yield "text: must say 'Research only, not a medical device'"
    for found in LINK.finditer(CODE.sub("", text)):
        target = found[1] or found[2]
        path = posixpath.normpath(unquote(re.split("[?#]", target)[0]))
        if not re.match(r"#|//|[A-Za-z][A-Za-z0-9+.-]*:", target) and path not in files:
            yield f"text: a link must lead to a URL or a file of the repository, got {target!r}"
