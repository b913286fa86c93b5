"""From the report of a comparison to what is published of it, its tables and its page."""

import pytest

from comparison_page import Comparison, render_comparisons
from fedd_hf.compare.method_table import choose_shown, describe_methods
from fedd_hf.evaluation.report import NOT_A_COMPARISON, write_report

RECIPE = {"learning_rate": 1e-3, "batch_size": 8}


def make_row(method, photos, tone, value, **more):
    row = {"method": method, "label_fraction": photos / 100, "photos": photos, "test": "test", "metric": "lesion_iou"}
    return (
        row | {"skin_tone": tone, "n": 40, "value": value, "low": value - 0.1, "high": value + 0.1, "flag": ""} | more
    )


@pytest.fixture
def report():
    curves = [
        make_row(method, photos, tone, value)
        for method, value in (("FEDD", 0.6), ("U-Net", 0.45))
        for photos in (30, 60)
        for tone in ("all", "I-II", "III-IV", "V-VI")
    ]
    gap = {"reference": "I-II", "n_reference": 20, "difference": 0.02, "ratio": 1.1, "p_value": 0.4, "p_holm": 0.8}
    gap |= {"minimum_detectable_gap": 0.09, "low": -0.03, "high": 0.07}
    return {
        "task": "segmentation",
        "methods": ["FEDD", "U-Net"],
        "seeds": 5,
        "settings": {
            "label_fractions": {"0.3": 30, "0.6": 60},
            "photos": {"validation": 10, "test": 40},
            "methods": {
                "FEDD": {"0.3": {"reading": {"blocks": [6], "backbone_sha256": "c0ffee"}, "training": {}}},
                "U-Net": {"0.3": {"training": RECIPE, "authors": {"batch_size": 64}}},
            },
        },
        "curves": [
            *curves,
            make_row("FEDD", 30, "all", 0.9, test="validation"),
            make_row("FEDD", 30, "all", 0.8, metric="dice"),
        ],
        "differences": [make_row("U-Net", photos, "all", 0.15, difference=0.15) for photos in (30, 60)],
        "gaps": [make_row("FEDD", 30, tone, 0.02, **gap) for tone in ("III-IV", "V-VI")],
        "seconds": {"FEDD, 30%": 1800.0, "statistics": 1800.0},
        "machine": {"cores": 2},
    }


@pytest.fixture
def shown(report):
    return choose_shown(report, "test", ["lesion_iou"], ["all", "I-II", "III-IV"])


def test_what_is_published_has_only_rows_that_are_shown(shown):
    assert {row["test"] for row in shown["curves"]} == {"test"}
    assert {row["metric"] for row in shown["curves"]} == {"lesion_iou"}
    assert [row["skin_tone"] for row in shown["gaps"]] == ["III-IV"]
    assert len(shown["curves"]) == 2 * 2 * 3


def test_tables_have_methods_downwards_and_numbers_of_labelled_photos_to_the_right(shown):
    text = describe_methods(shown)

    assert "**lesion IoU, 40 test photos, mean over seeds**" in text
    assert "| method | 30 labelled | 60 labelled |" in text
    assert "| U-Net | 0.450 [0.350, 0.550] | 0.450 [0.350, 0.550] |" in text
    assert "FEDD minus the method" in text
    assert "| FEDD | 30 | III-IV minus I-II |" in text


def test_random_weights_are_compared_with_nothing(report):
    random = f"U-Net ({NOT_A_COMPARISON})"
    for row in [row for name in ("curves", "differences", "gaps") for row in report[name]]:
        row["method"] = random
    report["methods"], report["settings"]["methods"] = [random], {random: {"0.3": {"training": RECIPE}}}

    shown = choose_shown(report, "test", ["lesion_iou"], ["all", "I-II", "III-IV"])

    assert {(row["method"], row["skin_tone"]) for row in shown["curves"]} == {(random, "all")}
    assert (shown["differences"], shown["gaps"]) == ([], [])


def test_the_page_tells_photos_trainings_and_deviations_from_the_authors_recipe(shown, tmp_path):
    write_report(shown, tmp_path / "skin.json")

    page = render_comparisons(tmp_path, (Comparison("skin", "Lesions", "Of nobody."),))

    assert "## Lesions\n\nOf nobody." in page
    assert "30, 60 labelled photos, spread over skin tones" in page
    assert "10 for validation; 40 held out. Trainings of each method at each number: 5. 1.0 hours on 2 cores." in page
    assert "| U-Net | – | learning_rate 0.001, batch_size 8 | batch_size 64 |" in page
    assert "| FEDD | blocks [6] | – | – |" in page
    assert "![Lesions](skin.png)" in page
