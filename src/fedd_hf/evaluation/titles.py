"""Metrics as figures, tables and cards call them."""

from __future__ import annotations

from fedd_hf.labels import PixelClass

_DECISIONS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
RULES = {"": "", "_test_youden": ", Youden point of test", "_validation_youden": ", Youden point of validation"}
TITLES: dict[str, str] = {
    "mean_iou": "mean IoU over classes",
    "lesion_iou": "lesion IoU",
    "lesion_dice": "lesion Dice",
    "mean_dice": "mean Dice over classes",
    "mean_iou_per_image": "mean IoU over classes, mean over photos",
    "lesion_iou_per_image": "lesion IoU, mean over photos",
    "lesion_dice_per_image": "lesion Dice, mean over photos",
    "mean_dice_per_image": "mean Dice over classes, mean over photos",
    **{f"iou_{kind.label}": f"IoU of {kind.label}" for kind in PixelClass},
    **{f"dice_{kind.label}": f"Dice of {kind.label}" for kind in PixelClass},
    "auroc": "malignancy AUROC",
    "auprc": "malignancy AUPRC",
    **{f"{name}{rule}": f"{title}{text}" for rule, text in RULES.items() for name, title in _DECISIONS.items()},
}
