"""Mean IoU by group: a face for `evaluate` of fedd_hf's metrics by skin tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd

from fedd_hf.evaluation.by_tone import segmentation_by_tone, segmentation_gaps
from fedd_hf.prediction import count_pixels

DESCRIPTION = """
IoU and Dice of each class, mean over classes and lesion alone, pooled over the pixels of all photos and of each skin
tone, with the number of photos and a 95 % bootstrap interval over photos; and the gaps between skin tones.
"""
INPUTS = """
Args:
    predictions (`list` of maps): class id of each pixel, of shape `(height, width)`.
    references (`list` of maps): the true ids; 255 does not count.
    groups (`list[str]`): skin tone of each photo, "I-II", "III-IV" or "V-VI"; "" where it is unknown.
    labels (`list[str]`): name of each class in the order of ids; "lesion" must be one of them.

Returns:
    `dict`: `by_group` and `gaps`, lists of rows.

Example:
    >>> metric = evaluate.load("hub_cards/metrics/mean_iou_by_group")
    >>> maps = [[[0, 1], [1, 1]], [[0, 0], [1, 1]]]
    >>> result = metric.compute(predictions=maps, references=maps, groups=["I-II", "V-VI"], labels=["skin", "lesion"])
    >>> result["by_group"][0]["metric"], result["by_group"][0]["value"]
    ('mean_iou', 1.0)
"""
CITATION = """
@inproceedings{carrion2023fedd,
  title = {{FEDD}: Fair, Efficient, and Diverse Diffusion-Based Lesion Segmentation and Malignancy Classification},
  author = {Carri{\\'o}n, H{\\'e}ctor and Norouzi, Narges},
  booktitle = {Medical Image Computing and Computer Assisted Intervention},
  year = {2023}
}
"""


class MeanIoUByGroup(evaluate.Metric):
    """Segmentation metrics overall and by skin tone."""

    def _info(self) -> evaluate.MetricInfo:
        pixels = datasets.Sequence(datasets.Sequence(datasets.Value("uint8")))
        features = {"predictions": pixels, "references": pixels, "groups": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
            license="Apache-2.0",
        )

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], groups: Sequence[str], labels: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        rows = []
        for number, (predicted, true, group) in enumerate(zip(predictions, references, groups, strict=True)):
            counts = count_pixels(np.array(true, np.uint8), np.array(predicted, np.uint8), len(labels))
            photo = {"image_id": f"{number:08d}", "skin_tone": group or None}
            rows += [photo | {"label": label} | of_class for label, of_class in zip(labels, counts, strict=True)]
        table = pd.DataFrame(rows)
        by_group, gaps = segmentation_by_tone(table), segmentation_gaps(table)
        return {"by_group": by_group.to_dict("records"), "gaps": gaps.to_dict("records")}
