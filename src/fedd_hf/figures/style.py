"""Colours of classes and skin tones."""

from __future__ import annotations

from fedd_hf.skin_tone import SkinTone

# Source: hectorcarrion/FEDD, baseline notebooks.
CLASS_COLOURS: dict[str, tuple[int, int, int]] = {
    "background": (255, 255, 255),
    "lesion": (255, 74, 70),
    "marker": (238, 130, 238),
    "ruler": (0, 111, 166),
    "skin": (60, 179, 113),
}
TONE_COLOURS = {
    "all": "#5B6770",
    SkinTone.I_II.label: "#EBC8A4",
    SkinTone.III_IV.label: "#B4794C",
    SkinTone.V_VI.label: "#5C3A26",
}
