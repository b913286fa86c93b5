"""What the paper claims, and what our numbers say of it: reproduced, not reproduced, or undecidable here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, wilcoxon

from fedd_hf.compare.methods import PAPER_BASELINES
from published import dermatologists

REPRODUCED, NOT_REPRODUCED, UNDECIDABLE = "reproduced", "not reproduced", "undecidable"
SIMILAR = 0.05  # differences that lie wholly within it are small
PUBLISHED_ACCURACY = 0.81
PAPER_BLOCKS = (6, 8)  # that the paper reads for segmentation, chosen by clustering

Verdict = tuple[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        text (`str`):
            What it says.
        source (`str`):
            Where.
        judge (`Callable`):
            Function of the reproduction report that returns a verdict and its evidence.
    """

    text: str
    source: str
    judge: Callable[[dict[str, Any]], Verdict]


def judge_claims(report: dict[str, Any]) -> list[dict[str, str]]:
    """Say of each claim whether the numbers of a reproduction bear it out.

    A claim about a difference is reproduced if its 95 % interval lies wholly on the claimed side, not reproduced if
    wholly on the other, and undecidable at this sample size otherwise. Claims of several label fractions need all of
    them to be reproduced, and one to be refuted.

    Args:
        report (`dict`):
            Report of [`~reproduction.run_reproduction`]; parts that are missing leave their claims
            undecidable.

    Returns:
        `list[dict]`: `claim`, `source`, `verdict` and `evidence` of each.
    """
    rows = []
    for claim in CLAIMS:
        verdict, evidence = claim.judge(report)
        rows.append({"claim": claim.text, "source": claim.source, "verdict": verdict, "evidence": evidence})
    return rows


def join_verdicts(verdicts: Iterable[str]) -> str:
    """Return the verdict on a claim of several parts."""
    verdicts = list(verdicts)
    if NOT_REPRODUCED in verdicts:
        return NOT_REPRODUCED
    return REPRODUCED if verdicts and set(verdicts) == {REPRODUCED} else UNDECIDABLE


def judge_above(low: float | None, high: float | None, bound: float = 0.0) -> str:
    """Say whether an interval lies above a bound."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDECIDABLE
    return REPRODUCED if low > bound else NOT_REPRODUCED if high < bound else UNDECIDABLE


def judge_similar(low: float | None, high: float | None) -> str:
    """Say whether an interval of a gap lies within 0.05 on both sides of 0, or wholly beyond it."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDECIDABLE
    if max(abs(low), abs(high)) < SIMILAR:
        return REPRODUCED
    return NOT_REPRODUCED if low > SIMILAR or high < -SIMILAR else UNDECIDABLE


def judge_reached(low: float | None, high: float | None, claimed: float) -> str:
    """Say whether an interval reaches a claimed value, and lies no more than 0.05 below it."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDECIDABLE
    return NOT_REPRODUCED if high < claimed else REPRODUCED if low > claimed - SIMILAR else UNDECIDABLE


def _leads(task: str, metric: str, skin_tone: str, test: str) -> Callable[[dict[str, Any]], Verdict]:
    """Judge whether FEDD is above every rival of the paper at every label fraction."""

    def judge(report: dict[str, Any]) -> Verdict:
        rows = _rows(report, task, "differences", metric=metric, skin_tone=skin_tone, test=test)
        rivals = [row for row in rows if row["method"] in PAPER_BASELINES]
        evidence = "; ".join(f"{_at(row)} against {row['method']} {_interval(row, 'difference')}" for row in rows)
        if not rivals:
            return UNDECIDABLE, f"None of the paper's other methods was run. {evidence}".strip()
        return join_verdicts(judge_above(row["low"], row["high"]) for row in rivals), evidence

    return judge


def _beats_dermatologists(report: dict[str, Any]) -> Verdict:
    bound = dermatologists("auroc")
    rows = _rows(report, "classification", "curves", metric="auroc", skin_tone="all", test="test", method="FEDD")
    verdict = join_verdicts(judge_above(row["low"], row["high"], bound) for row in rows)
    return verdict, f"AUROC {_list(rows)}; the dermatologists' {bound} is of all 656 photos, not of these"


def _similar_on_light_and_dark(metric: str) -> Callable[[dict[str, Any]], Verdict]:
    """Judge whether segmentation on skin tone V-VI is within 0.05 of that on I-II at every label fraction."""

    def judge(report: dict[str, Any]) -> Verdict:
        found = {"metric": metric, "test": "large_test", "method": "FEDD", "reference": "I-II", "skin_tone": "V-VI"}
        rows = _rows(report, "segmentation", "gaps", **found)
        smallest = "; ".join(f"{_at(row)} {row['minimum_detectable_gap']:.3f}" for row in rows)
        evidence = f"V-VI minus I-II {_list(rows, 'difference')}. Smallest gap that could have been shown: {smallest}"
        return join_verdicts(judge_similar(row["low"], row["high"]) for row in rows), evidence

    return judge


def _accuracy_at_ten_percent(report: dict[str, Any]) -> Verdict:
    found = {"test": "large_test", "method": "FEDD", "skin_tone": "all", "label_fraction": 0.10}
    rows = _rows(report, "classification", "curves", metric="accuracy", **found)
    if not rows:
        return UNDECIDABLE, "Not measured."
    (row,) = rows
    balanced = _rows(report, "classification", "curves", metric="balanced_accuracy", **found)
    counts = pd.DataFrame(report["counts"]["by_split"]).query("task == 'classification' and split == 'large_test'")
    evidence = (
        f"accuracy {_interval(row)} on {row['n']} photos, where calling all of them benign gives "
        f"{counts['benign'].sum() / counts['photos'].sum():.3f}; balanced accuracy {_list(balanced)}"
    )
    return judge_reached(row["low"], row["high"], PUBLISHED_ACCURACY), evidence


def _early_timesteps_are_better(report: dict[str, Any]) -> Verdict:
    """Judge by rank correlations of accuracy and timestep, one for each block and label fraction."""
    points = report.get("grid", {}).get("points", [])
    curves: dict[tuple[float, int], list[tuple[int, float]]] = {}
    for point in points:
        key = (point["label_fraction"], point["block"])
        curves.setdefault(key, []).append((point["timestep"], point["accuracy"]))
    taus = [kendalltau(*zip(*curve, strict=True)).statistic for curve in curves.values() if len(curve) > 2]
    taus = [tau for tau in taus if not math.isnan(tau)]
    if len(taus) < 6:
        return UNDECIDABLE, "Too few curves of accuracy against timestep were measured."
    p_value = float(wilcoxon(taus).pvalue)
    evidence = f"mean Kendall tau {np.mean(taus):+.2f} over {len(taus)} curves, p = {p_value:.3f} (signed ranks; the "
    evidence += "curves share their test photos, so that p is too small)"
    if not p_value < 0.05:
        return UNDECIDABLE, evidence
    return (REPRODUCED if np.mean(taus) < 0 else NOT_REPRODUCED), evidence


def _later_blocks_with_more_labels(report: dict[str, Any]) -> Verdict:
    rows = [row for row in report.get("grid", {}).get("regret", []) if row["metric"] == "accuracy"]
    rows = sorted(rows, key=lambda row: row["label_fraction"])
    if len(rows) < 2:
        return UNDECIDABLE, "Not measured."
    best = [row["best_block"] for row in rows]
    evidence = f"best block on test {best}, chosen on validation {[row['block'] for row in rows]}, at " + ", ".join(
        f"{row['label_fraction']:.0%}" for row in rows
    )
    if any(later < earlier for earlier, later in zip(best, best[1:], strict=False)) or best[0] == best[-1]:
        return NOT_REPRODUCED, evidence
    clear = all(judge_above(row["low"], row["high"]) == REPRODUCED for row in rows)
    return (
        REPRODUCED if clear else UNDECIDABLE
    ), f"{evidence}; the order is so, but the best block leads clearly: {clear}"


def _blocks_six_and_eight(report: dict[str, Any]) -> Verdict:
    points = report.get("clustering", {}).get("points", [])
    if not points:
        return UNDECIDABLE, "Not measured."
    ranked = sorted(points, key=lambda point: point["adjusted_rand"], reverse=True)
    best = ranked[0]
    evidence = "adjusted Rand index by block: " + ", ".join(
        f"{point['block']}: {point['adjusted_rand']:.2f}" for point in sorted(points, key=lambda point: point["block"])
    )
    if best["block"] in PAPER_BLOCKS:
        return REPRODUCED, evidence
    of_paper = [point for point in points if point["block"] in PAPER_BLOCKS]
    clearly = all(point["adjusted_rand_high"] < best["adjusted_rand_low"] for point in of_paper)
    return (NOT_REPRODUCED if of_paper and clearly else UNDECIDABLE), evidence


def _rows(report: dict[str, Any], task: str, table: str, **found: Any) -> list[Row]:
    rows = report.get(task, {}).get(table, [])
    chosen = [row for row in rows if all(row[name] == value for name, value in found.items())]
    return sorted(chosen, key=lambda row: row["label_fraction"])


def _at(row: Row) -> str:
    return f"{row['label_fraction']:.0%}:"


def _interval(row: Row, name: str = "value") -> str:
    value, low, high = (math.nan if row[key] is None else row[key] for key in (name, "low", "high"))
    form = "+.3f" if name == "difference" else ".3f"
    if math.isnan(value):
        return "undefined"
    return f"{value:{form}} " + ("(no interval)" if math.isnan(low) else f"[{low:{form}}, {high:{form}}]")


def _list(rows: list[Row], name: str = "value") -> str:
    return "; ".join(f"{_at(row)} {_interval(row, name)}" for row in rows)


CLAIMS = (
    Claim(
        "FEDD segments better than every other network at every label fraction",
        "section 4.1, Figure 4",
        _leads("segmentation", "mean_iou", "mean of tones", "large_test"),
    ),
    Claim(
        "FEDD segments the lesion better than every other network at every label fraction",
        "section 4.1, Figure 4",
        _leads("segmentation", "lesion_iou", "mean of tones", "large_test"),
    ),
    Claim(
        "All classes are segmented alike on light and dark skin",
        "section 4.1, Figure 4",
        _similar_on_light_and_dark("mean_iou"),
    ),
    Claim(
        "The lesion is segmented alike on light and dark skin (the paper says so of all classes; its own Figure 4 has "
        "lesions 0.18 to 0.25 lower on dark skin)",
        "section 4.1, Figure 4",
        _similar_on_light_and_dark("lesion_iou"),
    ),
    Claim(
        "The blocks that cluster most meaningfully are 6 and 8",
        "section 3.1, supplement Figure 1",
        _blocks_six_and_eight,
    ),
    Claim(
        "FEDD has a higher ROC-AUC than every other method at every label fraction",
        "section 4.2, Figure 7",
        _leads("classification", "auroc", "all", "test"),
    ),
    Claim(
        "FEDD meets or exceeds the ensemble of dermatologists at every label fraction",
        "section 4.2, Figure 7, supplement Figure 2",
        _beats_dermatologists,
    ),
    Claim("Trained on 10 % of DDI, FEDD is right about 81 % of the photos", "abstract", _accuracy_at_ten_percent),
    Claim(
        "FEDD is more accurate than every other method on the large test",
        "abstract, supplement Table 3",
        _leads("classification", "accuracy", "all", "large_test"),
    ),
    Claim("Earlier timesteps classify better", "section 4.2, Figure 6", _early_timesteps_are_better),
    Claim(
        "With more labels, later (shallower) blocks classify best",
        "section 4.2, Figure 6",
        _later_blocks_with_more_labels,
    ),
)
