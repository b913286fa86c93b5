"""Every figure of the paper and of its supplement, and those that the paper lacks, from one reproduction report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from draw_clustering import draw_clustering
from draw_counts import draw_counts
from draw_grid import draw_grid
from draw_malignancy import draw_malignancy
from draw_marker_probe import draw_marker_probe
from draw_qualitative import draw_qualitative
from draw_roc import draw_roc
from draw_samples import draw_samples
from draw_scheme import draw_scheme
from fedd_hf.figures.contrast_strata import draw_contrast
from fedd_hf.figures.coverage_risk import draw_coverage_risk
from fedd_hf.figures.gaps import draw_gaps
from fedd_hf.figures.label_curves import draw_label_efficiency
from fedd_hf.figures.reliability import draw_reliability
from fedd_hf.figures.tone_bars import draw_by_tone
from paper_tables import TASK_NAMES

HEADLINES = {"segmentation": ("mean_iou", "lesion_iou"), "classification": ("auroc", "balanced_accuracy")}


def draw_paper(report: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, Figure]]:
    """Draw the figures of a reproduction one after the other.

    Args:
        report (`dict`):
            Report of [`~reproduction.run_reproduction`].
        folder (`Path`):
            Folder to which the paths in the report are relative.

    Yields:
        `tuple[str, str, Figure]`: stem of the file, title, figure.
    """
    yield "figure-1-counts", "Figure 1. Photos by diagnosis and skin tone", draw_counts(report["counts"])
    yield "figure-2-samples", "Figure 2. True maps over their photos", draw_samples(report["samples"], folder)
    yield "figure-3-scheme", "Figure 3. From photo to map and score", draw_scheme(report["scheme"])
    yield from _draw_segmentation(report["segmentation"], folder)
    grid = draw_grid(report["grid"])
    yield "figure-6-blocks-timesteps", "Figure 6. Test accuracy of each block against the timestep", grid
    yield from _draw_malignancy(report["classification"], _share_of_benign(report["counts"]["by_split"]))
    clusters = draw_clustering(report["clustering"], folder)
    yield "supplement-1-clustering", "Supplement, Figure 1. Activations and their clusters by block", clusters
    for task, name in TASK_NAMES.items():
        yield from _draw_evaluation(report["evaluation"][task], name, HEADLINES[task])
    probe = draw_marker_probe(report["marker_probe"]["rows"])
    yield "marker-probe", "Shift of the malignancy score when pen marks and rulers are painted over", probe


def _draw_segmentation(report: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, Figure]]:
    curves = draw_label_efficiency(report["curves"], "large_test")
    yield "figure-4-label-efficiency", "Figure 4. IoU with few labels and with more", curves
    examples, methods = report["examples"], report["methods"]
    two = draw_qualitative(_first_of_each_tone(examples), folder, methods[:2])
    yield "figure-5-qualitative", "Figure 5. Maps with few labels and with more", two
    all_maps = draw_qualitative(examples, folder, methods)
    yield "supplement-3-qualitative", "Supplement, Figure 3. More maps", all_maps


def _draw_malignancy(report: dict[str, Any], always_benign: float) -> Iterator[tuple[str, str, Figure]]:
    bars = draw_malignancy(report["curves"], "test", always_benign=always_benign)
    yield "figure-7-malignancy", "Figure 7. ROC-AUC and accuracy of malignancy", bars
    roc = draw_roc([row for row in report["roc"] if row["test"] == "test"])
    yield "supplement-2-roc", "Supplement, Figure 2. ROC curves", roc


def _share_of_benign(counts: list[dict[str, Any]]) -> float:
    """Return the accuracy of calling every photo of the small test benign."""
    rows = [row for row in counts if (row["task"], row["split"]) == ("classification", "test")]
    return sum(row["benign"] for row in rows) / sum(row["benign"] + row["malignant"] for row in rows)


def _draw_evaluation(
    evaluation: dict[str, Any], name: str, headlines: tuple[str, ...]
) -> Iterator[tuple[str, str, Figure]]:
    bars = draw_by_tone(evaluation["by_tone"], f"FEDD, {name}")
    yield f"{name}-by-tone", f"By skin tone: {name}", bars
    gaps = draw_gaps(evaluation["gaps"], headlines)
    yield f"{name}-gaps", f"Gaps between skin tones: {name}", gaps
    reliability = draw_reliability(evaluation["calibration"])
    yield f"{name}-reliability", f"Reliability of confidences: {name}", reliability
    risk = draw_coverage_risk(evaluation["coverage_risk"])
    yield f"{name}-coverage-risk", f"Risk if uncertain photos are left to a physician: {name}", risk
    contrast = draw_contrast(evaluation["contrast"])
    yield f"{name}-contrast", f"By contrast of lesion and skin: {name}", contrast


def _first_of_each_tone(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    firsts: dict[str, dict[str, Any]] = {}
    for example in examples:
        firsts.setdefault(example["skin_tone"], example)
    return list(firsts.values())
