"""The rules of the text of a card, and of the files that a card names, find each kind of mistake."""

import pytest
from card_rules import check_body, check_named_files

CARD = """\
---
license: other
license_link: LICENSE
app_file: index.html
widget:
- src: examples/a.png
  output:
    url: ./examples/b.png
- src: https://example.org/c.png
  output:
  - label: benign
    score: 0.5
---

# Lesions

**Research only. Not a
medical device.** See [the report](reports/run%201.json "numbers"), [above](#lesions) and
[the paper](https://example.org/paper), or <img src="examples/a.png">.

![a photo](examples/b.png)

```python
maps = open("maps")[0](processor) or {{}}
```

```bibtex
title = {{FEDD}: Fair, Efficient, and Diverse}
```

Its picture is `![a photo](elsewhere.png)`. None of [them][paper] is real.

[paper]: https://example.org/paper
"""
FILES = ["LICENSE", "index.html", "examples/a.png", "examples/b.png", "reports/run 1.json"]


def test_a_correct_text_is_accepted():
    assert check_body(CARD, FILES) == []
    assert check_body(CARD.partition("---\n\n")[2], FILES) == []


@pytest.mark.parametrize(
    ("added", "place"),
    [
        ("Developed by: [More Information Needed]", "'More Information Needed'"),
        ("Funded by [optional]: us", "'[optional]'"),
        ("Todo lists are no matter. TODO: limits", "'TODO'"),
        ("License: {{ license }}", "a place of a template"),
        ("License: {{- license }}", "a place of a template"),
        ("{% for row in rows %}", "a place of a template"),
        ("| V-VI | nan |", "a cell of a missing value"),
        ("| V-VI | None | 3 |", "a cell of a missing value"),
    ],
)
def test_a_text_is_refused_that_was_not_filled_in(added, place):
    (found,) = check_body(f"{CARD}\n{added}\n", FILES)

    assert found == f"text: must be filled in, got {place} in {added!r}"


def test_a_text_is_refused_that_does_not_say_what_it_is_for():
    (found,) = check_body(CARD.replace("Research only", "Not for sale"), FILES)

    assert found == "text: must say 'Research only, not a medical device', got no such sentence"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        pytest.param("[it](report.md)", "report.md", id="a_link"),
        pytest.param('[it](<report.md> "title")', "report.md", id="a_link_with_a_title"),
        pytest.param("[it](report.md#part)", "report.md#part", id="a_link_to_a_part"),
        pytest.param("[it](../report.json)", "../report.json", id="a_link_out_of_the_repository"),
        pytest.param("[it](/fedd/report)", "/fedd/report", id="an_absolute_link"),
        pytest.param("[it](examples)", "examples", id="a_link_to_a_folder"),
        pytest.param("![it](examples/c.png)", "examples/c.png", id="a_picture"),
        pytest.param("[![it](https://a.b/c.png)](c.md)", "c.md", id="a_link_of_a_picture"),
        pytest.param("[it]\n\n[it]: report.md", "report.md", id="a_reference"),
        pytest.param("<img alt='it' src='c.png'>", "c.png", id="a_picture_in_html"),
        pytest.param('<a href="report.md">it</a>', "report.md", id="a_link_in_html"),
    ],
)
def test_a_text_is_refused_that_leads_nowhere_by(link, target):
    (found,) = check_body(f"{CARD}\n{link}\n", FILES)

    assert found == f"text: a link must lead to a URL or a file of the repository, got {target!r}"


def test_files_of_the_front_matter_are_accepted_that_are_in_the_repository():
    assert check_named_files(CARD, FILES) == []


@pytest.mark.parametrize(
    ("name", "violation"),
    [
        ("LICENSE", "license_link: must be a file of the repository, got 'LICENSE'"),
        ("index.html", "app_file: must be a file of the repository, got 'index.html'"),
        ("examples/a.png", "widget[0].src: must be a file of the repository, got 'examples/a.png'"),
        ("examples/b.png", "widget[0].output.url: must be a file of the repository, got './examples/b.png'"),
    ],
)
def test_a_file_of_the_front_matter_is_refused_that_is_not_in_the_repository(name, violation):
    assert check_named_files(CARD, [file for file in FILES if file != name]) == [violation]
