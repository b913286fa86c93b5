"""The rules of Space cards accept what is right and find each kind of mistake."""

import pytest
from huggingface_hub import SpaceCard, SpaceCardData
from space_card_rules import check_space_card

CARD = """\
---
title: Lesion maps
emoji: 🔬
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: 6.31.0
python_version: "3.11"
app_file: app.py
short_description: Where a small model sees a lesion
models:
- fedd/fedd-segmentation-painted
datasets:
- fedd/ddi-seg
tags:
- dermatology
- fedd
thumbnail: https://example.org/a.png
pinned: false
license: apache-2.0
duplicated_from: fedd/maps
suggested_hardware: cpu-basic
startup_duration_timeout: 1h
hf_oauth_expiration_minutes: 480
custom_headers:
  cross-origin-opener-policy: same-origin
preload_from_hub:
- fedd/derm-ddpm-64 unet/config.json 11c5a3d
---

# Lesion maps
"""


def check_with(old: str, new: str) -> list[str]:
    """Check the correct card after one replacement."""
    assert CARD.count(old) == 1, f"{old!r} must occur once in the card"
    return check_space_card(CARD.replace(old, new))


def test_a_correct_card_is_accepted():
    assert check_space_card(CARD) == []


def test_the_card_that_is_accepted_is_read_by_huggingface_hub():
    data = SpaceCard(CARD).data

    assert (data.sdk, data.sdk_version, data.python_version) == ("gradio", "6.31.0", "3.11")


@pytest.mark.parametrize(
    "fields",
    [
        {"sdk": "static"},
        {"sdk": "static", "app_file": "dist/index.html", "app_build_command": "npm run build"},
        {"sdk": "docker", "app_port": 7860, "base_path": "/maps"},
        {"sdk": "gradio", "sdk_version": "6.31.0", "app_file": "app.py", "header": "mini", "fullWidth": True},
    ],
)
def test_a_card_that_huggingface_hub_wrote_is_accepted(fields):
    metadata = SpaceCardData(title="Maps", license="mit", tags=["fedd"], **fields)

    assert check_space_card(f"---\n{metadata}\n---\n") == []


def test_a_front_matter_that_cannot_be_read_is_refused():
    (found,) = check_space_card("# Maps\n")

    assert found == "front matter: the first line of the card must be '---', got '# Maps'"


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        pytest.param("colorFrom:", "color_from:", "color_from: is not a field of Space cards", id="misspelt"),
        pytest.param("pinned: false", "pinned: 'no'", "pinned: must be a boolean, got 'no'", id="a_quoted_boolean"),
        pytest.param("n: 6.31.0", "n: 6.30", "sdk_version: must be a string, got 6.3", id="a_number_of_gradio"),
        pytest.param('"3.11"', "3.10", "python_version: must be a string, got 3.1", id="a_number_of_python"),
        pytest.param("title: Lesion maps", "title: 64", "title: must be a string, got 64", id="a_title_64"),
        pytest.param("- dermatology", "- 64", "tags: must be a list of strings, got [64", id="a_tag_64"),
        pytest.param("minutes: 480", "minutes: 8h", "hf_oauth_expiration_minutes: must be a whole", id="a_unit"),
        pytest.param("app_file: app.py", "app_port: '7860'", "app_port: must be a whole number", id="a_quoted_port"),
    ],
)
def test_a_field_is_refused_that_is(old, new, violation):
    found = check_with(old, new)

    assert found[0].startswith(violation)


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("title: Lesion maps\n", "", "title: is required, got none"),
        ("sdk: gradio\n", "", "sdk: is required, got none"),
        ("sdk_version: 6.31.0\n", "", "sdk_version: is required of gradio, got none"),
    ],
)
def test_a_card_is_refused_without(old, new, violation):
    assert check_with(old, new) == [violation]


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("sdk: gradio", "sdk: streamlit", "sdk: 'streamlit' is not in the Hub's list"),
        ("From: blue", "From: teal", "colorFrom: 'teal' is not in the Hub's list"),
        ("To: gray", "To: grey", "colorTo: 'grey' is not in the Hub's list"),
        ("cpu-basic", "cpu", "suggested_hardware: 'cpu' is not in the Hub's list"),
        ("pinned: false", "header: tiny", "header: 'tiny' is not in the Hub's list"),
        ("pinned: false", "suggested_storage: tiny", "suggested_storage: 'tiny' is not in the Hub's list"),
        ("apache-2.0", "Apache 2.0", "license: 'Apache 2.0' is not in the Hub's list"),
        ("n: 6.31.0", "n: latest", "sdk_version: must be a version as '6.31.0', got 'latest'"),
        ('"3.11"', '"2.7"', "python_version: must be a version as '3.11' or '3.11.4', got '2.7'"),
        ('"3.11"', '">=3.11"', "python_version: must be a version as '3.11' or '3.11.4', got '>=3.11'"),
        ("app.py", "../app.py", "app_file: must be a path inside the repository"),
        ("app.py", "index.html", "app_file: must end with '.py' when `sdk` is 'gradio', got 'index.html'"),
        ("Where a small model sees", "W" * 60, "short_description: must have at most 60 characters, got 69"),
        ("https://example.org/a.png", "a.png", "thumbnail: must be a URL, got 'a.png'"),
        ("- fedd/fedd-segmentation-painted", "- ./model", "models: must be ids of the Hub as `owner/name`"),
        ("- fedd/ddi-seg", "- fedd/ddi seg", "datasets: must be ids of the Hub as `owner/name`, got 'fedd/ddi seg'"),
        ("- fedd/ddi-seg", "- a/b\n- a/b", "datasets: each name must occur once, got ['a/b'] more often"),
        ("fedd/maps", "a/b/c", "duplicated_from: must be ids of the Hub as `owner/name`, got 'a/b/c'"),
        ("- dermatology", "- fedd", "tags: each name must occur once, got ['fedd'] more often"),
        ("timeout: 1h", "timeout: soon", "startup_duration_timeout: must be a duration as '1h' or '30m', got 'soon'"),
        ("minutes: 480", "minutes: 50000", "hf_oauth_expiration_minutes: must be at most 43200, got 50000"),
        ("opener-policy", "Opener-Policy", "custom_headers.cross-origin-Opener-Policy: must be one of"),
        (": same-origin", ": Same-Origin", "custom_headers.cross-origin-opener-policy: must be a string in lower"),
        ("- fedd/derm-ddpm-64 unet", "- ./a unet", "preload_from_hub: must be 'owner/name file1,file2 commit'"),
        ("pinned: false", "app_port: 80", "app_port: must be left out unless `sdk` is one of ('docker',)"),
        ("pinned: false", "app_build_command: make", "app_build_command: must be left out unless `sdk` is one of"),
        ("pinned: false", "base_path: maps", "base_path: must start with '/', got 'maps'"),
    ],
)
def test_a_value_is_refused_that_the_hub_does_not_know(old, new, violation):
    (found,) = check_with(old, new)

    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        (
            "sdk_version: 6.31.0",
            "sdk_version: must be left out unless `sdk` is one of ('gradio',), got `sdk` 'static'",
        ),
        ("base_path: /maps", "base_path: must be left out unless `sdk` is one of ('gradio', 'docker')"),
        ("app_file: app.py", "app_file: must end with '.html' when `sdk` is 'static', got 'app.py'"),
    ],
)
def test_a_static_space_is_refused_that_runs_as_another(fields, violation):
    (found,) = check_space_card(f"---\ntitle: Maps\nsdk: static\n{fields}\n---\n")

    assert found.startswith(violation)


@pytest.mark.parametrize("emoji", ["🤗", "❤️", "✋🏿", "🧑🏾‍⚕️", "🇧🇷", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "⚕"])
def test_one_emoji_is_accepted(emoji):
    assert check_with("🔬", emoji) == []


@pytest.mark.parametrize("emoji", ["🤗🤗", "🤗 ", "a", ":hugs:", "🤗a", "1", "🧑🏾‍"])
def test_what_is_not_one_emoji_is_refused(emoji):
    (found,) = check_with("🔬", f'"{emoji}"')

    assert found == f"emoji: must be one emoji, got {emoji!r}"
