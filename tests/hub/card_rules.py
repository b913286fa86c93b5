"""What the rules of model, dataset and Space cards have in common, and the rules of the text below a front matter.

The Hub checks cards on its server, whose code is not public. Each group of rules names the public document or reader
that it was taken from, and what is stricter here than there. A violation is "place: what was expected, got what".
"""

import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Source: huggingface/hub-docs, docs/hub/repositories-licenses.md, the whole table. The server's own message, quoted in
# huggingface/huggingface_hub#4218, lists the same identifiers but for `openmdw-1.1`, which came later.
LICENSES = words(
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
TWO_LETTER_LANGUAGES = words(
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
PIPELINE_TYPES = words(
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
SUBTASK_TYPES = words(
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

# Source: huggingface/hub-docs, docs/hub/datasets-gated.md and docs/hub/models-gated.md.
GATE_FIELDS = {
    "gated": "a boolean",
    "extra_gated_fields": "a list or a mapping",
    "extra_gated_prompt": "a string",
    "extra_gated_heading": "a string",
    "extra_gated_description": "a string",
    "extra_gated_button_content": "a string",
    "extra_gated_eu_disallowed": "a boolean",
}

# Source: huggingface/hub-docs, docs/hub/datasets-gated.md, "Customize requested information".
GATED_FIELD_TYPES = ("text", "checkbox", "date_picker", "country", "select")


Check = Callable[[dict], Iterator[str]]


def check_card(
    text: str, kind: str, *, fields: Mapping[str, str], vocabularies: Mapping[str, frozenset], checks: Iterable[Check]
) -> list[str]:
    """Return what is wrong with a front matter; one that cannot be read has one violation, the first.

    Args:
        text: The card.
        kind: What it is a card of, in messages.
        fields: Type of each field, one of `IS_OF_TYPE`.
        vocabularies: What a field may say.
        checks: Further rules, each from a front matter to its violations.
    """
    try:
        metadata = read_front_matter(text)
    except (yaml.YAMLError, ValueError) as error:
        return [f"front matter: {error}"]
    if not isinstance(metadata, dict):
        return [f"front matter: must be a mapping, got {metadata!r}"]
    found = [*check_types(metadata, fields, kind), *check_vocabularies(metadata, vocabularies)]
    return found + [violation for check in checks for violation in check(metadata)]


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


def read_front_matter(text: str) -> Any:
    lines = re.split(r"\r\n|\r|\n", text)
    if lines[0] != "---":
        raise ValueError(f"the first line of the card must be '---', got {lines[0]!r}")
    if "---" not in lines[1:]:
        raise ValueError("a second line '---' must close it, got none")
    return yaml.load("\n".join(lines[1 : lines.index("---", 1)]), Loader=_UniqueKeyLoader)


# --- Types.


def is_string(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(is_string(item) for item in value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_url(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value) is not None


IS_OF_TYPE = {
    "a string": is_string,
    "a list of strings": is_list_of_strings,
    "a string or a list of strings": lambda value: is_string(value) or is_list_of_strings(value),
    "a whole number": is_whole,
    "a number or a mapping": lambda value: is_number(value) or isinstance(value, dict),
    "a boolean": lambda value: isinstance(value, bool),
    "a list": lambda value: isinstance(value, list),
    "a mapping": lambda value: isinstance(value, dict),
    "a list or a mapping": lambda value: isinstance(value, list | dict),
    "a boolean or a mapping": lambda value: isinstance(value, bool | dict),
}


def check_types(metadata: dict, fields: Mapping[str, str], kind: str) -> Iterator[str]:
    for key, value in metadata.items():
        if key not in fields:
            yield f"{key}: is not a field of {kind} cards"
        elif not IS_OF_TYPE[fields[key]](value):
            yield f"{key}: must be {fields[key]}, got {value!r}"


def strings(metadata: dict, key: str) -> list[str]:
    """List the strings of a field that may be one string; `check_types` has seen the others."""
    value = metadata.get(key, [])
    return [item for item in (value if isinstance(value, list) else [value]) if is_string(item)]


def mappings(items: Any) -> list[dict]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def check_unique(names: Iterable, place: str) -> Iterator[str]:
    repeated = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if repeated:
        yield f"{place}: each name must occur once, got {repeated} more often"


# --- Vocabularies, licence, languages, ids, paths. Source: as the constants.


def check_vocabularies(metadata: dict, vocabularies: Mapping[str, frozenset]) -> Iterator[str]:
    for key, vocabulary in vocabularies.items():
        for value in strings(metadata, key):
            if value not in vocabulary:
                yield f"{key}: {value!r} is not in the Hub's list"


def check_license(metadata: dict) -> Iterator[str]:
    name, link = metadata.get("license_name"), metadata.get("license_link")
    if "other" in strings(metadata, "license"):
        if name is None:
            yield "license_name: must name the licence when `license` is 'other', got none"
        if link is None:
            yield "license_link: must lead to the licence when `license` is 'other', got none"
    if is_string(name) and (name != name.lower() or re.search(r"\s", name)):
        yield f"license_name: must be lower-case and without spaces, got {name!r}"
    if is_string(link) and link not in LICENSE_FILES and not is_url(link):
        yield f"license_link: must be a URL or one of {LICENSE_FILES}, got {link!r}"


def check_languages(metadata: dict) -> Iterator[str]:
    for code in strings(metadata, "language"):
        if code not in TWO_LETTER_LANGUAGES and code not in LANGUAGE_WORDS and not re.fullmatch("[a-z]{3}", code):
            yield f"language: must be lower-case ISO 639 codes, got {code!r}"


# Source: huggingface/huggingface_hub, src/huggingface_hub/utils/_validators.py, `validate_repo_id`, which mirrors the
# Hub's own rule. The server refuses what is no id, such as a local path: huggingface/autotrain-advanced#651.
def check_repo_ids(metadata: dict, key: str) -> Iterator[str]:
    for repo_id in strings(metadata, key):
        if not is_repo_id(repo_id):
            yield f"{key}: must be ids of the Hub as `owner/name`, got {repo_id!r}"
    yield from check_unique(strings(metadata, key), key)


def is_repo_id(value: Any) -> bool:
    try:
        validate_repo_id(value)
    except HFValidationError:
        return False
    return True


def check_path(path: Any, place: str) -> Iterator[str]:
    if not is_string(path) or re.match(r"/|\w+:", path) or "\\" in path or ".." in path.split("/"):
        yield f"{place}: must be a path inside the repository, without '..', got {path!r}"


def check_address(address: Any, place: str) -> Iterator[str]:
    """Check what is a URL, or else a path inside the repository; plain HTTP would not be shown on a page of HTTPS."""
    if not is_url(address):
        yield from check_path(address, place)
    elif not address.startswith("https:"):
        yield f"{place}: must be a URL of HTTPS or a path inside the repository, got {address!r}"


# --- Gate. Source: huggingface/hub-docs, docs/hub/datasets-gated.md (a mapping) and datasetcard.md (a list).


def check_gated_fields(metadata: dict) -> Iterator[str]:
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
        return set(option) == {"label", "value"} and all(is_string(text) for text in option.values())
    return is_string(option)


# --- Files that the front matter names. Source: huggingface/hub-docs, docs/hub/models-widgets.md (`src`, `url`),
# modelcard.md (`license_link`), docs/hub/spaces-config-reference.md (`app_file`).


def check_named_files(text: str, files: Collection[str]) -> list[str]:
    """Return which files of a readable front matter are not among those of the repository."""
    return [
        f"{place}: must be a file of the repository, got {name!r}"
        for place, name in _named_files(read_front_matter(text))
        if is_string(name) and not is_url(name) and posixpath.normpath(name) not in files
    ]


def _named_files(metadata: dict) -> Iterator[tuple[str, Any]]:
    for key in ("license_link", "app_file"):
        yield key, metadata.get(key)
    for index, example in enumerate(mappings(metadata.get("widget"))):
        yield f"widget[{index}].src", example.get("src")
        if isinstance(example.get("output"), dict):
            yield f"widget[{index}].output.url", example["output"].get("url")


# --- The text below. Source of the placeholders: huggingface/huggingface_hub, src/huggingface_hub/templates/
# modelcard_template.md and datasetcard_template.md, and the templates of this project, which write `{{ name }}` with
# blanks, unlike BibTeX. That research is named as the only use, and that links lead somewhere, are rules of this
# project.

PLACEHOLDERS = {
    "'More Information Needed'": r"more information needed",
    "'[optional]'": r"\[optional\]",
    "'TODO'": r"\b(?-i:TODO|FIXME|XXX)\b",
    "a place of a template": r"\{\{-?\s|\{%",
    "a cell of a missing value": r"\|\s*(?:none|nan|undefined)\s*(?=\|)",
}
RESEARCH_ONLY = re.compile(r"research only[.,] not a medical device", re.IGNORECASE)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"""
    \]\(\s*<?(?P<inline>[^)\s>]+)                # [text](target "title"), ![picture](target)
    | ^\s*\[[^]]+\]:\s+<?(?P<reference>[^\s>]+)   # [text]: target
    | \b(?:src|href)\s*=\s*["'](?P<html>[^"']+)   # <img src="target">
    """,
    re.VERBOSE | re.MULTILINE,
)


def check_body(text: str, files: Collection[str] = ()) -> list[str]:
    """Return what is wrong with the text of a card below its front matter.

    Args:
        text: The card.
        files: Names of the files of its repository, which links and pictures may lead to.
    """
    body = re.sub(r"\A---\n.*?^---$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*_check_placeholders(body), *_check_statement(body), *_check_links(body, files)]


def _check_placeholders(body: str) -> Iterator[str]:
    for name, pattern in PLACEHOLDERS.items():
        for found in re.finditer(pattern, body, flags=re.IGNORECASE):
            line = body.count("\n", 0, found.start())
            yield f"text: must be filled in, got {name} in {body.splitlines()[line].strip()!r}"


def _check_statement(body: str) -> Iterator[str]:
    if not RESEARCH_ONLY.search(" ".join(body.replace("*", "").split())):
        yield "text: must say 'Research only, not a medical device', got no such sentence"


def _check_links(body: str, files: Collection[str]) -> Iterator[str]:
    for found in LINK.finditer(CODE.sub("", body)):
        target = found[found.lastgroup]
        path = posixpath.normpath(unquote(re.split("[?#]", target)[0]))
        if not re.match(r"#|//|[A-Za-z][A-Za-z0-9+.-]*:", target) and path not in files:
            yield f"text: a link must lead to a URL or a file of the repository, got {target!r}"
