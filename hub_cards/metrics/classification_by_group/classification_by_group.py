"""Classification by group: a face for `evaluate` of fedd_hf's metrics by skin tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import pandas as pd

from fedd_hf.evaluation.by_tone import classification_by_tone, classification_gaps

DESCRIPTION = """
AUROC, AUPRC, accuracy, balanced accuracy, F1, sensitivity and specificity of a malignancy score, over all photos and
over those of each skin tone, with the number of photos and a 95 % bootstrap interval; and the gaps between skin tones.
"""
INPUTS = """
Args:
    predictions (`list[float]`): malignancy score of each photo, in [0, 1]; above 0.5 is malignant.
    references (`list[int]`): 1 malignant, 0 benign.
    groups (`list[str]`): skin tone of each photo, "I-II", "III-IV" or "V-VI"; "" where it is unknown.

Returns:
    `dict`: `by_group` and `gaps`, lists of rows.

Example:
    >>> metric = evaluate.load("hub_cards/metrics/classification_by_group")
    >>> result = metric.compute(predictions=[0.1, 0.9], references=[0, 1], groups=["I-II", "I-II"])
    >>> result["by_group"][0]["metric"], result["by_group"][0]["value"]
    ('auroc', 1.0)
"""
CITATION = """
@inproceedings{carrion2023fedd,
  title = {{FEDD}: Fair, Efficient, and Diverse Diffusion-Based Lesion Segmentation and Malignancy Classification},
  author = {Carri{\\'o}n, H{\\'e}ctor and Norouzi, Narges},
  booktitle = {Medical Image Computing and Computer Assisted Intervention},
  year = {2023}
}
"""


class ClassificationByGroup(evaluate.Metric):
    """Malignancy metrics overall and by skin tone."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("float64"),
            "references": datasets.Value("int64"),
            "groups": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
            license="Apache-2.0",
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[int], groups: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        names = [f"{number:08d}" for number in range(len(predictions))]
        tones = [group or None for group in groups]
        table = pd.DataFrame({"image_id": names, "skin_tone": tones, "y_true": references, "y_score": predictions})
        by_group, gaps = classification_by_tone(table), classification_gaps(table)
        return {"by_group": by_group.to_dict("records"), "gaps": gaps.to_dict("records")}
