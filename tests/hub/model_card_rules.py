"""Say without network what the Hub, or the libraries that read it, would not accept in a model card's front matter."""

import math
from collections.abc import Iterator
from typing import Any

from card_rules import (
    GATE_FIELDS,
    LICENSES,
    PIPELINE_TYPES,
    SUBTASK_TYPES,
    check_address,
    check_card,
    check_gated_fields,
    check_languages,
    check_license,
    check_repo_ids,
    check_unique,
    is_number,
    is_repo_id,
    is_string,
    is_url,
    is_whole,
    mappings,
    strings,
    words,
)

# Source: huggingface/hub-docs, modelcard.md (names and types), docs/hub/model-cards.md (`base_model_relation`,
# `new_version`, `pipeline_tag`, `thumbnail`), docs/hub/models-widgets.md (`widget`), docs/hub/model-cards-co2.md;
# huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `ModelCardData` (which fields may be one string,
# `model_name`); huggingface/huggingface.js, packages/tasks/src/model-data.ts (`inference`, `instance_prompt`). The Hub
# lets unknown keys pass; here they are taken for misspellings.
FIELDS = {
    "language": "a string or a list of strings",
    "license": "a string",
    "license_name": "a string",
    "license_link": "a string",
    "library_name": "a string",
    "tags": "a list of strings",
    "datasets": "a string or a list of strings",
    "buckets": "a list of strings",
    "metrics": "a list of strings",
    "base_model": "a string or a list of strings",
    "base_model_relation": "a string",
    "new_version": "a string",
    "pipeline_tag": "a string",
    "thumbnail": "a string",
    "model_name": "a string",
    "model-index": "a list",
    "widget": "a list",
    "inference": "a boolean or a mapping",
    "instance_prompt": "a string",
    "co2_eq_emissions": "a number or a mapping",
} | GATE_FIELDS

# Source: huggingface/huggingface.js, packages/tasks/src/model-libraries.ts, the 240 keys of
# `MODEL_LIBRARIES_UI_ELEMENTS`. Other names are taken for misspellings.
LIBRARIES = words(
    """
    acestep adapter-transformers allennlp anemoi araclip aviation-ner asteroid audiocraft audioseal bagel-mot
    bboxmaskpose ben2 bertopic big_vision bionemo birder birefnet bm25s boltzgen cancertathomev2 cartesia_pytorch
    cartesia_mlx ccpfn champ chatterbox chaossim chat_tts chexmix chronos-forecasting clara clipscope cloud-agents
    collectorvision colipri cosyvoice cotracker colpali comet cosmos cxr-foundation deepforest depth-anything-v2
    depth-pro derm-foundation describe-anything dia-tts dia2 diff-interpretation-tuning diffree diffusers
    diffusionkit docking-at-home doctr edsnlp elm encoderfile espnet eupe fairseq fastai fastprint fasttext fixer
    flair flextab fme gemma.cpp geometry-crafter gliner gliner2 glm-tts glyph-byt5 granite-library grok habibi-tts
    hallo minimax-h3 hermes holomotion hezar htrflow hunyuan-dit hunyuan3d-2 hunyuanworld-voyager hy-worldplay
    hy-world-2 image-matching-models imstoucan index-tts infinitetalk infinite-you intellifold ising-decoding keras
    tf-keras keras-hub kerasformers kernels kimi-audio kittentts kronos k2 lyra-2.0 lagernvs ltx lightning-ir
    litert litert-lm lerobot lightglue liveportrait longcat-video-avatar-1.5 llama-cpp-python mini-omni2 mindspore
    magi-1 magenta-realtime magenta-realtime-2 mamba-ssm manas-1 mars5-tts matanyone mesh-anything merlin medvae
    mflux mitie ml-agents ml-sharp mlx mlx-image mlc-llm model2vec mobilint moshi mtvcraft multimolecule nemo
    ninfer nobg nv-medtech open-oasis open_clip openasr openpeerllm open-sora outetts paddlenlp PaddleOCR peft
    perception-encoder phantom-wan pocket-tts pruna-ai pxia pyannote-audio py-feat pythae quantumpeer qwen3_tts
    recurrentgemma relik refiners renderformer reverb rkllm robo-orchard-lab rwkv saelens scail-2 sam2 sam-3d-body
    sam-3d-objects same sample-factory sap-rpt-1-oss sapiens sapiens2 seedvr self-forcing sentence-transformers
    setfit sklearn spacy span-marker speechbrain ssr-speech stable-audio-3 stable-audio-tools monkeyocr
    diffusion-single-file seed-story skala soloaudio songbloom stable-baselines3 stanza supertonic swarmformer
    synthefy-migas f5-tts genmo tencent-song-generation tensorflowtts tensorrt tabpfn terratorch tic-clip timesfm
    timee-ts timm tirex tirex-2 torchgeo transformers transformers.js trellis trellis2 tunejury ultralytics univa
    uni-3dar unity-sentis sana videoprism vfi-mamba vismatch lvface voicecraft voxcpm vui vibevoice videox_fun
    wan2.2 wham whisperkit yolov10 yolov26 zonos 3dtopia-xl
    """
)

# Source: huggingface/hub-docs, docs/hub/model-cards.md, "Specifying a base model".
BASE_MODEL_RELATIONS = frozenset({"adapter", "merge", "quantized", "finetune"})

VOCABULARIES = {
    "license": LICENSES,
    "library_name": LIBRARIES,
    "pipeline_tag": PIPELINE_TYPES,
    "base_model_relation": BASE_MODEL_RELATIONS,
}

# Source: huggingface/hub-docs, modelcard.md, "Required" and "Optional", in this order. Not `verified`, which the Hub
# computes: huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `EvalResult`.
MODEL_KEYS = (("name", "results"), ())
RESULT_KEYS = (("task", "dataset", "metrics"), ("source",))
TASK_KEYS = (("type",), ("name",))
DATASET_KEYS = (("type", "name"), ("config", "split", "revision", "args"))
METRIC_KEYS = (("type", "value"), ("name", "config", "args", "verifyToken"))
SOURCE_KEYS = (("url",), ("name",))
KEYS_WITHOUT_STRINGS = ("results", "task", "dataset", "metrics", "source", "value", "args")

# Source: huggingface/huggingface.js, packages/tasks/src/widget-example.ts.
WIDGET_INPUTS = ("text", "src", "messages", "table", "structured_data", "source_sentence")
WIDGET_KEYS = (
    (),
    (
        *WIDGET_INPUTS,
        *("example_title", "group", "parameters", "output"),
        *("context", "prompt", "candidate_labels", "multi_class", "sentences"),
    ),
)
WIDGET_KEYS_WITHOUT_STRINGS = (
    "messages",
    "table",
    "structured_data",
    "parameters",
    "output",
    "multi_class",
    "sentences",
)

# Source: huggingface/huggingface.js, packages/tasks/src/widget-example.ts, `WidgetExampleOutput`, but for lists.
WIDGET_OUTPUTS = (frozenset({"url"}), frozenset({"text"}), frozenset({"answer", "score"}))

# Source: huggingface/hub-docs, docs/hub/models-widgets-examples.md, where the examples of these tasks have `src`.
TASKS_OF_FILES = words(
    """
    automatic-speech-recognition audio-to-audio audio-classification voice-activity-detection image-classification
    object-detection image-segmentation image-to-image image-to-video zero-shot-image-classification
    """
)


def check_model_card(text: str) -> list[str]:
    """Return what is wrong with the front matter of a model card, each as "place: what was expected, got what".

    An empty list means that the card is accepted. A front matter that cannot be read has one violation, the first.
    """
    checks = (
        check_license,
        check_languages,
        check_gated_fields,
        _check_ids,
        _check_base_model,
        _check_thumbnail,
        _check_model_index,
        _check_widget,
    )
    return check_card(text, "model", fields=FIELDS, vocabularies=VOCABULARIES, checks=checks)


# --- Ids, tags, base model. Source: huggingface/hub-docs, modelcard.md ("Use dataset id from …", "Use metric id from
# …") and docs/hub/model-cards.md; huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py, `_to_unique_list`
# (tags). That a relation needs a base model, and a merge two, is said of the Hub's interface, not of its refusals.


def _check_ids(metadata: dict) -> Iterator[str]:
    for key in ("base_model", "new_version", "datasets", "buckets", "metrics"):
        yield from check_repo_ids(metadata, key)
    yield from check_unique(strings(metadata, "tags"), "tags")


def _check_base_model(metadata: dict) -> Iterator[str]:
    relation, num_models = metadata.get("base_model_relation"), len(strings(metadata, "base_model"))
    if relation is not None and num_models == 0:
        yield f"base_model: must be given with `base_model_relation` {relation!r}, got none"
    if relation == "merge" and num_models == 1:
        yield "base_model: must be at least two models of a merge, got one"


def _check_thumbnail(metadata: dict) -> Iterator[str]:
    if "thumbnail" in metadata and not is_url(metadata["thumbnail"]):
        yield f"thumbnail: must be a URL, got {metadata['thumbnail']!r}"


# --- Results. Source: as the keys; huggingface/huggingface_hub, src/huggingface_hub/repocard_data.py:
# `model_index_to_eval_results` (what is read, one name for all), `EvalResult.unique_identifier` and
# `is_equal_except_value` (which results are one and the same), `EvalResult.__post_init__` (`source.url`);
# huggingface/transformers, src/transformers/modelcard.py, `create_model_index` (no results is an empty list);
# RFC 8259, section 6 (JSON has no NaN). Stricter here: tasks are of the Hub's list, and no two results share an
# identifier, because `eval_results_to_model_index` would give both the name, arguments and source of the first.


def _check_model_index(metadata: dict) -> Iterator[str]:
    index = metadata.get("model-index")
    if not isinstance(index, list):
        return
    if len(index) != 1:
        yield f"model-index: must describe one model, got {len(index)}"
    for position, model in enumerate(index):
        place = f"model-index[{position}]"
        yield from _check_keys(model, MODEL_KEYS, place)
        yield from _check_not_finite(model, place)
        if isinstance(model, dict) and "results" in model:
            yield from _check_results(model["results"], f"{place}.results")


def _check_results(results: Any, place: str) -> Iterator[str]:
    if not isinstance(results, list):
        yield f"{place}: must be a list, got {results!r}"
        return
    for position, result in enumerate(results):
        yield from _check_result(result, f"{place}[{position}]")
    yield from check_unique(map(_identify_result, mappings(results)), place)


def _check_result(result: Any, place: str) -> Iterator[str]:
    yield from _check_keys(result, RESULT_KEYS, place)
    if not isinstance(result, dict):
        return
    for key, keys in (("task", TASK_KEYS), ("dataset", DATASET_KEYS), ("source", SOURCE_KEYS)):
        if key in result:
            yield from _check_keys(result[key], keys, f"{place}.{key}")
    yield from _check_names(result, place)
    if "metrics" in result:
        yield from _check_metrics(result["metrics"], f"{place}.metrics")


def _check_names(result: dict, place: str) -> Iterator[str]:
    """Check the task, the data set and the address of the source, each where it is a string."""
    task, dataset, url = _get(result, "task", "type"), _get(result, "dataset", "type"), _get(result, "source", "url")
    if is_string(task) and task not in PIPELINE_TYPES | SUBTASK_TYPES:
        yield f"{place}.task.type: {task!r} is not in the Hub's list"
    if is_string(dataset) and not is_repo_id(dataset):
        yield f"{place}.dataset.type: must be an id of the Hub as `owner/name`, got {dataset!r}"
    if is_string(url) and not is_url(url):
        yield f"{place}.source.url: must be a URL, got {url!r}"


def _check_metrics(metrics: Any, place: str) -> Iterator[str]:
    if not isinstance(metrics, list) or not metrics:
        yield f"{place}: must list at least one metric, got {metrics!r}"
        return
    for position, metric in enumerate(metrics):
        yield from _check_keys(metric, METRIC_KEYS, f"{place}[{position}]")
        value = metric.get("value", 0) if isinstance(metric, dict) else 0
        if not (is_string(value) or is_whole(value) or isinstance(value, float)):
            yield f"{place}[{position}].value: must be a number or a string, got {value!r}"
    yield from check_unique(map(_identify_metric, mappings(metrics)), place)


def _get(result: dict, part: str, key: str) -> Any:
    return result[part].get(key) if isinstance(result.get(part), dict) else None


def _identify_result(result: dict) -> tuple:
    parts = (
        ("task", "type"),
        ("dataset", "type"),
        ("dataset", "config"),
        ("dataset", "split"),
        ("dataset", "revision"),
    )
    return tuple(_get(result, part, key) for part, key in parts)


def _identify_metric(metric: dict) -> tuple:
    return tuple(metric.get(key) for key in ("type", "name", "config", "args"))


def _check_not_finite(value: Any, place: str) -> Iterator[str]:
    """Find NaN and infinity, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _check_not_finite(item, f"{place}.{key}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _check_not_finite(item, f"{place}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: must be finite, got {value!r}"


# --- Widget. Source: huggingface/hub-docs, docs/hub/models-widgets.md ("How can I control my model's widget example
# input?", "Example outputs"); huggingface/huggingface.js, packages/tasks/src/widget-example.ts. That scores lie in
# [0, 1], and that unknown keys are misspellings, is stricter here.


def _check_widget(metadata: dict) -> Iterator[str]:
    widget = metadata.get("widget")
    for position, example in enumerate(widget if isinstance(widget, list) else []):
        place = f"widget[{position}]"
        yield from _check_keys(example, WIDGET_KEYS, place, WIDGET_KEYS_WITHOUT_STRINGS)
        if isinstance(example, dict):
            yield from _check_example(example, str(metadata.get("pipeline_tag")), place)


def _check_example(example: dict, task: str, place: str) -> Iterator[str]:
    if task in TASKS_OF_FILES and "src" not in example:
        yield f"{place}.src: must be the file of an example of {task!r}, got none"
    elif not set(example) & set(WIDGET_INPUTS):
        yield f"{place}: must have one of {WIDGET_INPUTS}, got {list(example)}"
    if is_string(example.get("src")):
        yield from check_address(example["src"], f"{place}.src")
    if "output" in example:
        yield from _check_output(example["output"], f"{place}.output")


def _check_output(output: Any, place: str) -> Iterator[str]:
    if isinstance(output, list):
        yield from _check_scores(output, place)
    elif not isinstance(output, dict) or set(output) not in WIDGET_OUTPUTS:
        yield f"{place}: must be a list of labels with scores or have `url`, got {output!r}"
    elif "url" in output:
        yield from check_address(output["url"], f"{place}.url")
    elif "score" in output:
        yield from _check_score(output["score"], f"{place}.score")


def _check_scores(output: list, place: str) -> Iterator[str]:
    if not output:
        yield f"{place}: must have at least one label, got none"
    for position, scored in enumerate(output):
        if not isinstance(scored, dict) or set(scored) != {"label", "score"} or not is_string(scored["label"]):
            yield f"{place}[{position}]: must have a string `label` and `score` and nothing else, got {scored!r}"
        else:
            yield from _check_score(scored["score"], f"{place}[{position}].score")
    yield from check_unique([scored.get("label") for scored in mappings(output)], place)


def _check_score(score: Any, place: str) -> Iterator[str]:
    if not is_number(score) or not 0 <= score <= 1:
        yield f"{place}: must be a number in [0, 1], got {score!r}"


# --- Shared by the groups.


def _check_keys(
    part: Any, keys: tuple[tuple, tuple], place: str, without_strings: tuple = KEYS_WITHOUT_STRINGS
) -> Iterator[str]:
    """Check that a mapping has its required keys and no unknown ones, and that all but some hold strings."""
    if not isinstance(part, dict):
        yield f"{place}: must be a mapping, got {part!r}"
        return
    required, optional = keys
    for key in required:
        if key not in part:
            yield f"{place}.{key}: is required, got none"
    for key, value in part.items():
        if key not in required + optional:
            yield f"{place}.{key}: is not a key of the Hub's, which are {required + optional}"
        elif key not in without_strings and not is_string(value):
            yield f"{place}.{key}: must be a string, got {value!r}"
        elif key == "args" and not isinstance(value, dict):
            yield f"{place}.args: must be a mapping, got {value!r}"
