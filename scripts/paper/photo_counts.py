"""How many photos there are of each skin tone and diagnosis: what Figure 1 and the supplement's Table 1 show."""

from __future__ import annotations

from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict

from fedd_hf.data.schema import count_photos, tone_labels

KEYS = ["skin_tone", "malignant"]


def describe_counts(segmentation: DatasetDict, classification: DatasetDict) -> dict[str, list[dict[str, Any]]]:
    """Count the photos of a reproduction.

    Args:
        segmentation (`datasets.DatasetDict`):
            Splits with masks.
        classification (`datasets.DatasetDict`):
            Splits of known malignancy, in which each photo is once.

    Returns:
        `dict`: rows `by_split` (as [`~fedd_hf.data.schema.count_photos`], with `task`), `by_malignancy` (`skin_tone`,
        `malignant`, `photos`) and `malignant_diseases` (`disease`, `skin_tone`, `photos`).
    """
    tasks = {"segmentation": segmentation, "classification": classification}
    by_split = pd.concat([count_photos(splits).assign(task=task) for task, splits in tasks.items()])
    photos = pd.concat([_table(rows) for rows in classification.values()], ignore_index=True)
    malignant = photos[photos["malignant"]]
    return {
        "by_split": list(by_split.to_dict("records")),
        "by_malignancy": _count(photos, KEYS),
        "malignant_diseases": _count(malignant, ["disease", "skin_tone"]),
    }


def _table(rows: Dataset) -> pd.DataFrame:
    columns = {"malignant": list(rows["malignant"]), "disease": list(rows["disease"])}
    return pd.DataFrame({"skin_tone": tone_labels(rows)} | columns)


def _count(photos: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    counts = photos.groupby(keys, sort=True).size().reset_index(name="photos")
    return list(counts.to_dict("records"))
