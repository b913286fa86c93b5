"""Everything that is said of one model on one set of photos: predictions table in, rows of a report out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .by_tone import (
    classification_by_tone,
    classification_gaps,
    segmentation_by_tone,
    segmentation_gaps,
    worst_by_tone,
)
from .uncertainty import calibration_by_tone, contrast_strata, coverage_risk_by_tone


def evaluate_segmentation(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> dict[str, Any]:
    """Evaluate segmentation by skin tone.

    Args:
        predictions (`pd.DataFrame`):
            What [`~fedd_hf.prediction.predict_segmentation`] returns.
        validation (`pd.DataFrame`, *optional*):
            The same of validation photos, on which the temperature is fitted.

    Returns:
        `dict`: rows `by_tone`, `gaps` and `worst` of [`~fedd_hf.evaluation.by_tone`]; `calibration`, `coverage_risk`
        and `contrast` of [`~fedd_hf.evaluation.uncertainty`].
    """
    by_tone = segmentation_by_tone(predictions)
    return _summarise(by_tone, segmentation_gaps(predictions), predictions, validation)


def evaluate_classification(predictions: pd.DataFrame, validation: pd.DataFrame | None = None) -> dict[str, Any]:
    """Evaluate malignancy scores by skin tone.

    Args:
        predictions (`pd.DataFrame`):
            What [`~fedd_hf.prediction.predict_classification`] returns.
        validation (`pd.DataFrame`, *optional*):
            The same of validation photos, which choose a threshold and on which the temperature is fitted.

    Returns:
        `dict`: as [`evaluate_segmentation`] returns it.
    """
    by_tone = classification_by_tone(predictions, validation)
    return _summarise(by_tone, classification_gaps(predictions, validation), predictions, validation)


def _summarise(
    by_tone: pd.DataFrame, gaps: pd.DataFrame, predictions: pd.DataFrame, validation: pd.DataFrame | None
) -> dict[str, Any]:
    return {
        "by_tone": by_tone.to_dict("records"),
        "gaps": gaps.to_dict("records"),
        "worst": worst_by_tone(by_tone).to_dict("records"),
        "calibration": calibration_by_tone(predictions, validation),
        "coverage_risk": coverage_risk_by_tone(predictions),
        "contrast": contrast_strata(predictions),
    }
