"""Say without network what the Hub, or the libraries that read it, would not accept in a Space card's front matter."""

import re
from collections.abc import Iterator
from typing import Any

from card_rules import (
    LICENSES,
    check_card,
    check_license,
    check_path,
    check_repo_ids,
    check_unique,
    is_repo_id,
    is_string,
    is_url,
    is_whole,
    strings,
    words,
)

# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md; huggingface/huggingface_hub,
# src/huggingface_hub/repocard_data.py, `SpaceCardData` (`license`, `duplicated_from`). The Hub lets unknown keys pass;
# here they are taken for misspellings.
FIELDS = {
    "title": "a string",
    "emoji": "a string",
    "colorFrom": "a string",
    "colorTo": "a string",
    "sdk": "a string",
    "sdk_version": "a string",
    "python_version": "a string",
    "suggested_hardware": "a string",
    "suggested_storage": "a string",
    "app_file": "a string",
    "app_build_command": "a string",
    "app_port": "a whole number",
    "base_path": "a string",
    "fullWidth": "a boolean",
    "header": "a string",
    "short_description": "a string",
    "models": "a list of strings",
    "datasets": "a list of strings",
    "tags": "a list of strings",
    "thumbnail": "a string",
    "pinned": "a boolean",
    "hf_oauth": "a boolean",
    "hf_oauth_scopes": "a list of strings",
    "hf_oauth_expiration_minutes": "a whole number",
    "hf_oauth_authorized_org": "a string or a list of strings",
    "disable_embedding": "a boolean",
    "startup_duration_timeout": "a string",
    "custom_headers": "a mapping",
    "preload_from_hub": "a list of strings",
    "license": "a string",
    "license_name": "a string",
    "license_link": "a string",
    "duplicated_from": "a string",
}

# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md; of the hardware also huggingface/huggingface_hub,
# src/huggingface_hub/_space_api.py, `SpaceHardware`. Not `streamlit`, which the reference no longer has.
COLORS = words("red yellow green blue indigo purple pink gray")
VOCABULARIES = {
    "license": LICENSES,
    "sdk": words("gradio docker static"),
    "colorFrom": COLORS,
    "colorTo": COLORS,
    "header": words("mini default"),
    "suggested_storage": words("small medium large"),
    "suggested_hardware": words(
        """
        cpu-basic cpu-upgrade zero-a10g t4-small t4-medium l4x1 l4x4 l40sx1 l40sx4 l40sx8 a10g-small a10g-large
        a10g-largex2 a10g-largex4 a100-large a100x4 a100x8 rtx-pro-6000 rtx-pro-6000x2 rtx-pro-6000x4 rtx-pro-6000x8
        """
    ),
}

# Source: the server's message, quoted in qdonnars/ohmywind#160.
MAX_SHORT_DESCRIPTION = 60

# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md, `hf_oauth_expiration_minutes`, 30 days.
MAX_OAUTH_MINUTES = 43_200

# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md, `custom_headers`.
HEADERS = ("cross-origin-embedder-policy", "cross-origin-opener-policy", "cross-origin-resource-policy")

# Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md. Which SDK a field is for.
SDKS_OF_FIELDS = {
    "sdk_version": ("gradio",),
    "app_port": ("docker",),
    "app_build_command": ("static",),
    "base_path": ("gradio", "docker"),
}

# Source: Unicode Technical Standard 51, ED-14 to ED-17: a flag, a keycap, or pictographs that zero-width joiners put
# together, each with its skin tone and style. Pictographs are known by their block.
PICTOGRAPH = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa"
    "\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030"
    "\u303d\u3297\u3299\U0001f004\U0001f0cf\U0001f170-\U0001f251\U0001f300-\U0001faff]"
)
ELEMENT = f"{PICTOGRAPH}(?:[\U0001f3fb-\U0001f3ff]|\ufe0f)?"
EMOJI = re.compile(
    f"[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{ELEMENT}(?:\u200d{ELEMENT})*(?:[\U000e0020-\U000e007e]+\U000e007f)?"
)


def check_space_card(text: str) -> list[str]:
    """Return what is wrong with the front matter of a Space card, each as "place: what was expected, got what".

    An empty list means that the card is accepted. A front matter that cannot be read has one violation, the first.
    """
    checks = (
        check_license,
        _check_required,
        _check_look,
        _check_versions,
        _check_sdk_fields,
        _check_app,
        _check_ids,
        _check_preload,
        _check_limits,
        _check_headers,
    )
    return check_card(text, "Space", fields=FIELDS, vocabularies=VOCABULARIES, checks=checks)


# --- What a Space is. Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md. It says nowhere which fields
# must be there; that `title`, `sdk` and the version of gradio are is stricter here.


def _check_required(metadata: dict) -> Iterator[str]:
    for key in ("title", "sdk"):
        if key not in metadata:
            yield f"{key}: is required, got none"
    if metadata.get("sdk") == "gradio" and "sdk_version" not in metadata:
        yield "sdk_version: is required of gradio, got none"


def _check_look(metadata: dict) -> Iterator[str]:
    emoji, description, thumbnail = (metadata.get(key) for key in ("emoji", "short_description", "thumbnail"))
    if is_string(emoji) and not EMOJI.fullmatch(emoji):
        yield f"emoji: must be one emoji, got {emoji!r}"
    if is_string(description) and len(description) > MAX_SHORT_DESCRIPTION:
        yield f"short_description: must have at most {MAX_SHORT_DESCRIPTION} characters, got {len(description)}"
    if is_string(thumbnail) and not is_url(thumbnail):
        yield f"thumbnail: must be a URL, got {thumbnail!r}"


# --- How it runs. Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md. Unquoted, YAML reads 3.10 as the
# number 3.1, which the types refuse. That `app_file` ends as its language does is stricter here.


def _check_versions(metadata: dict) -> Iterator[str]:
    sdk, python = metadata.get("sdk_version"), metadata.get("python_version")
    if is_string(sdk) and not re.fullmatch(r"\d+\.\d+(\.\d+\w*)?", sdk):
        yield f"sdk_version: must be a version as '6.31.0', got {sdk!r}"
    if is_string(python) and not re.fullmatch(r"3\.\d+(\.\d+)?", python):
        yield f"python_version: must be a version as '3.11' or '3.11.4', got {python!r}"


def _check_sdk_fields(metadata: dict) -> Iterator[str]:
    sdk = metadata.get("sdk")
    for key, sdks in SDKS_OF_FIELDS.items():
        if key in metadata and sdk in VOCABULARIES["sdk"] and sdk not in sdks:
            yield f"{key}: must be left out unless `sdk` is one of {sdks}, got `sdk` {sdk!r}"


def _check_app(metadata: dict) -> Iterator[str]:
    app_file, base_path = metadata.get("app_file"), metadata.get("base_path")
    suffix = {"gradio": ".py", "static": ".html"}.get(str(metadata.get("sdk")), "")
    if is_string(app_file):
        yield from check_path(app_file, "app_file")
        if not app_file.endswith(suffix):
            yield f"app_file: must end with {suffix!r} when `sdk` is {metadata['sdk']!r}, got {app_file!r}"
    if is_string(base_path) and not base_path.startswith("/"):
        yield f"base_path: must start with '/', got {base_path!r}"


# --- What it uses. Source: huggingface/hub-docs, docs/hub/spaces-config-reference.md.


def _check_ids(metadata: dict) -> Iterator[str]:
    for key in ("models", "datasets", "duplicated_from"):
        yield from check_repo_ids(metadata, key)
    yield from check_unique(strings(metadata, "tags"), "tags")


def _check_preload(metadata: dict) -> Iterator[str]:
    for item in strings(metadata, "preload_from_hub"):
        parts = item.split()
        if len(parts) > 3 or not is_repo_id(parts[0]):
            yield f"preload_from_hub: must be 'owner/name file1,file2 commit', got {item!r}"


def _check_limits(metadata: dict) -> Iterator[str]:
    minutes, timeout = metadata.get("hf_oauth_expiration_minutes"), metadata.get("startup_duration_timeout")
    if is_whole(minutes) and not 0 < minutes <= MAX_OAUTH_MINUTES:
        yield f"hf_oauth_expiration_minutes: must be at most {MAX_OAUTH_MINUTES}, got {minutes}"
    if is_string(timeout) and not re.fullmatch(r"\d+ ?[smhd]", timeout):
        yield f"startup_duration_timeout: must be a duration as '1h' or '30m', got {timeout!r}"


def _check_headers(metadata: dict) -> Iterator[str]:
    headers = metadata.get("custom_headers")
    for name, value in (headers if isinstance(headers, dict) else {}).items():
        if name not in HEADERS:
            yield f"custom_headers.{name}: must be one of {HEADERS}"
        elif not _is_lower(value):
            yield f"custom_headers.{name}: must be a string in lower case, got {value!r}"


def _is_lower(value: Any) -> bool:
    return is_string(value) and value == value.lower()
