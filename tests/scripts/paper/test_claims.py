"""Claims of the paper are judged by intervals: on one side of a bound, on the other, or neither."""

import math

import pytest

from claims import (
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDABLE,
    join_verdicts,
    judge_above,
    judge_claims,
    judge_reached,
    judge_similar,
)

FRACTIONS = [0.05, 0.10, 0.15, 0.20]
COUNTS = {"by_split": [{"task": "classification", "split": "large_test", "photos": 476, "benign": 395}]}


def verdict_of(text, report):
    (row,) = [row for row in judge_claims({"counts": COUNTS} | report) if text in row["claim"]]
    return row["verdict"], row["evidence"]


def lead(low, high, method="VGG16"):
    found = {"metric": "mean_iou", "skin_tone": "mean of tones", "test": "large_test", "method": method}
    middle = (low + high) / 2
    return [found | {"label_fraction": f, "difference": middle, "low": low, "high": high} for f in FRACTIONS]


def curve(low, high, metric="auroc", test="test"):
    found = {"metric": metric, "skin_tone": "all", "test": test, "method": "FEDD", "n": 476}
    return [found | {"label_fraction": f, "value": (low + high) / 2, "low": low, "high": high} for f in FRACTIONS]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, REPRODUCED),
        (-0.2, -0.01, NOT_REPRODUCED),
        (-0.1, 0.1, UNDECIDABLE),
        (None, 0.2, UNDECIDABLE),
        (math.nan, 0.2, UNDECIDABLE),
    ],
)
def test_a_difference_is_judged_by_the_side_of_its_interval(low, high, verdict):
    assert judge_above(low, high) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.04, 0.04, REPRODUCED),
        (-0.06, 0.04, UNDECIDABLE),
        (0.06, 0.2, NOT_REPRODUCED),
        (-0.2, -0.06, NOT_REPRODUCED),
        (0.01, 0.2, UNDECIDABLE),
        (None, None, UNDECIDABLE),
    ],
)
def test_a_gap_is_small_only_if_all_of_its_interval_is(low, high, verdict):
    assert judge_similar(low, high) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.78, 0.86, REPRODUCED), (0.7, 0.8, NOT_REPRODUCED), (0.7, 0.9, UNDECIDABLE), (0.9, 0.95, REPRODUCED)],
)
def test_a_claimed_value_is_reached_by_an_interval_that_does_not_fall_far_below(low, high, verdict):
    assert judge_reached(low, high, 0.81) == verdict


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ([REPRODUCED, REPRODUCED], REPRODUCED),
        ([REPRODUCED, UNDECIDABLE], UNDECIDABLE),
        ([REPRODUCED, UNDECIDABLE, NOT_REPRODUCED], NOT_REPRODUCED),
        ([], UNDECIDABLE),
    ],
)
def test_a_claim_of_several_parts_needs_all_of_them_and_falls_with_one(verdicts, verdict):
    assert join_verdicts(verdicts) == verdict


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (lead(0.01, 0.1), REPRODUCED),
        (lead(0.01, 0.1) + lead(-0.05, 0.1, "ResNet50"), UNDECIDABLE),
        (lead(0.01, 0.1) + lead(-0.05, -0.01, "ResNet50"), NOT_REPRODUCED),
        (lead(0.01, 0.1, "random UNet"), UNDECIDABLE),
    ],
    ids=["ahead", "one is level", "one is ahead", "only a floor was run"],
)
def test_a_lead_is_judged_against_the_papers_own_rivals(rows, verdict):
    found, evidence = verdict_of("segments better than every", {"segmentation": {"differences": rows}})

    assert found == verdict
    assert "5%: against" in evidence


def test_accuracy_is_told_with_that_of_calling_everything_benign():
    report = {"classification": {"curves": curve(0.78, 0.85, "accuracy", "large_test")}}

    verdict, evidence = verdict_of("81 %", report)

    assert verdict == REPRODUCED
    assert "calling all of them benign gives 0.830" in evidence


def test_a_gap_comes_with_the_smallest_that_could_have_been_shown():
    gap = {"metric": "mean_iou", "test": "large_test", "method": "FEDD", "reference": "I-II", "skin_tone": "V-VI"}
    gap |= {"label_fraction": 0.05, "difference": -0.3, "low": -0.4, "high": -0.2, "minimum_detectable_gap": 0.123}

    verdict, evidence = verdict_of("All classes are segmented alike", {"segmentation": {"gaps": [gap]}})

    assert verdict == NOT_REPRODUCED
    assert "-0.300 [-0.400, -0.200]" in evidence
    assert "5%: 0.123" in evidence


def grid(accuracies):
    """Two blocks and four label fractions with the same curve of accuracy against timestep."""
    return [
        {"label_fraction": fraction, "block": block, "timestep": 100 * index, "accuracy": accuracy}
        for fraction in FRACTIONS
        for block in (2, 4)
        for index, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [([0.9, 0.8, 0.7, 0.6], REPRODUCED), ([0.6, 0.7, 0.8, 0.9], NOT_REPRODUCED), ([0.7, 0.8, 0.8, 0.7], UNDECIDABLE)],
    ids=["falling", "rising", "neither"],
)
def test_timesteps_are_judged_by_how_accuracy_falls(accuracies, verdict):
    assert verdict_of("Earlier timesteps", {"grid": {"points": grid(accuracies)}})[0] == verdict


def regret(fraction, best_block, low=0.01):
    found = {"label_fraction": fraction, "metric": "accuracy", "block": 6, "best_block": best_block}
    return found | {"low": low, "high": 0.2}


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([regret(0.05, 4), regret(0.2, 14)], REPRODUCED),
        ([regret(0.05, 4), regret(0.2, 14, low=-0.1)], UNDECIDABLE),
        ([regret(0.05, 14), regret(0.2, 4)], NOT_REPRODUCED),
        ([regret(0.05, 4), regret(0.2, 4)], NOT_REPRODUCED),
        ([regret(0.05, 4)], UNDECIDABLE),
    ],
)
def test_later_blocks_are_best_only_if_the_order_is_so_and_clear(rows, verdict):
    assert verdict_of("later (shallower) blocks", {"grid": {"regret": rows}})[0] == verdict


def clustered(block, value):
    return {
        "block": block,
        "adjusted_rand": value,
        "adjusted_rand_low": value - 0.05,
        "adjusted_rand_high": value + 0.05,
    }


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ([clustered(6, 0.5), clustered(10, 0.3)], REPRODUCED),
        ([clustered(6, 0.3), clustered(8, 0.2), clustered(10, 0.5)], NOT_REPRODUCED),
        ([clustered(6, 0.45), clustered(8, 0.2), clustered(10, 0.5)], UNDECIDABLE),
    ],
)
def test_blocks_are_judged_by_how_their_clusters_agree_with_the_masks(points, verdict):
    assert verdict_of("blocks that cluster", {"clustering": {"points": points}})[0] == verdict
