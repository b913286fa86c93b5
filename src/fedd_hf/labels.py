"""Pixel classes, skin tones and malignancy: their ids, names, colours and order."""

from __future__ import annotations

from enum import IntEnum

IGNORE_INDEX = 255  # a pixel that does not count


class PixelClass(IntEnum):
    """Class of a pixel; the values are the ids of the released masks of FEDD.

    Source: hectorcarrion/FEDD, README (ids) and baseline notebooks (colours).
    """

    BACKGROUND = 0
    LESION = 1
    MARKER = 2
    RULER = 3
    SKIN = 4

    @property
    def label(self) -> str:
        """Name of the class as configurations and tables print it, such as `"lesion"`."""
        return self.name.lower()

    @property
    def colour(self) -> tuple[int, int, int]:
        """Red, green and blue in 0..255."""
        return _CLASS_COLOURS[self]


class SkinTone(IntEnum):
    """Fitzpatrick skin type in the three groups of DDI, by which every number is reported; its codes are the values.

    Source: DDI-Dataset/DDI-Code, `ddi_dataset.py` (column `skin_tone`).
    """

    I_II = 12
    III_IV = 34
    V_VI = 56

    @property
    def label(self) -> str:
        """Name of the group as tables and cards print it, such as `"I-II"`."""
        return self.name.replace("_", "-")

    @property
    def colour(self) -> str:
        """Colour of the group in figures, such as `"#EBC8A4"`."""
        return _TONE_COLOURS[self]

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


_CLASS_COLOURS = {
    PixelClass.BACKGROUND: (255, 255, 255),
    PixelClass.LESION: (255, 74, 70),
    PixelClass.MARKER: (238, 130, 238),
    PixelClass.RULER: (0, 111, 166),
    PixelClass.SKIN: (60, 179, 113),
}
_TONE_COLOURS = {SkinTone.I_II: "#EBC8A4", SkinTone.III_IV: "#B4794C", SkinTone.V_VI: "#5C3A26"}

# The same names stand in configuration_fedd.py, which remote code copies by itself.
SEGMENTATION_LABELS = tuple(kind.label for kind in PixelClass)
MALIGNANCY_LABELS = ("benign", "malignant")
MALIGNANCY_COLOURS = dict(zip(MALIGNANCY_LABELS, ("#56B4E9", "#D55E00"), strict=True))  # Okabe and Ito
