"""Colours of classes and skin tones."""

from __future__ import annotations

from fedd_hf.pixel_class import PixelClass
from fedd_hf.skin_tone import SkinTone

CLASS_COLOURS: dict[str, tuple[int, int, int]] = {kind.label: kind.colour for kind in PixelClass}
TONE_COLOURS = {
    "all": "#5B6770",
    SkinTone.I_II.label: "#EBC8A4",
    SkinTone.III_IV.label: "#B4794C",
    SkinTone.V_VI.label: "#5C3A26",
}
