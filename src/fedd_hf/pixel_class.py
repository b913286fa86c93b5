"""The five classes of a pixel, their ids and the colours in which they are shown."""

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
        return _COLOURS[self]


_COLOURS = {
    PixelClass.BACKGROUND: (255, 255, 255),
    PixelClass.LESION: (255, 74, 70),
    PixelClass.MARKER: (238, 130, 238),
    PixelClass.RULER: (0, 111, 166),
    PixelClass.SKIN: (60, 179, 113),
}
