"""The three skin-tone groups by which every number is reported."""

from __future__ import annotations

from enum import IntEnum


class SkinTone(IntEnum):
    """Fitzpatrick skin type in the three groups of DDI, whose codes are the values.

    Source: DDI-Dataset/DDI-Code, `ddi_dataset.py` (column `skin_tone`).
    """

    I_II = 12
    III_IV = 34
    V_VI = 56

    @property
    def label(self) -> str:
        """Name of the group as tables and cards print it, such as `"I-II"`."""
        return self.name.replace("_", "-")

    @classmethod
    def from_label(cls, label: str) -> SkinTone:
        """Return the group with this label.

        Raises:
            ValueError: If `label` is not `"I-II"`, `"III-IV"` or `"V-VI"`.
        """
        for tone in cls:
            if tone.label == label:
                return tone
        raise ValueError(f"Skin tone must be one of {[tone.label for tone in cls]}, got {label!r}.")

    @classmethod
    def from_fitzpatrick(cls, skin_type: int) -> SkinTone:
        """Return the group of a Fitzpatrick skin type in `1..6`.

        Raises:
            ValueError: If `skin_type` is outside `1..6`.
        """
        if skin_type not in range(1, 7):
            raise ValueError(f"Fitzpatrick skin type must lie in 1..6, got {skin_type}.")
        return list(cls)[(int(skin_type) - 1) // 2]
