"""All figures as one small picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 3
WIDTHS = (640, 560, 480, 400, 320, 240, 160)  # pixels of a column, tried from the largest
GAP = 16
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def write_contact_sheet(pictures: Sequence[tuple[str, Path]], path: Path, max_bytes: int = 500 * 1024) -> None:
    """Write all figures as one picture, each below its title, as large as `max_bytes` allows.

    Args:
        pictures (`Sequence[tuple[str, Path]]`):
            Title and file of each figure; each goes below those of the column that is the shortest so far.
        path (`Path`):
            What to write, a `.png` or `.jpg`. It holds no EXIF data.
        max_bytes (`int`, *optional*, defaults to 512,000):
            What it may weigh.

    Raises:
        ValueError: If there is no picture, the file is neither a PNG nor a JPEG, or even the smallest sheet weighs
            more than `max_bytes`.
    """
    if not pictures:
        raise ValueError("There is no picture for the contact sheet: give titles and files.")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"A contact sheet is one of {sorted(FORMATS)}, got {path.name!r}.")
    for content in _encodings(pictures, FORMATS[path.suffix.lower()]):
        if len(content) <= max_bytes:
            path.write_bytes(content)
            return
    raise ValueError(
        f"A sheet of {len(pictures)} pictures weighs {len(content):,} bytes at the least, more than `max_bytes` "
        f"{max_bytes:,}. Give fewer pictures, or a path that ends in .jpg."
    )


def _encodings(pictures: Sequence[tuple[str, Path]], kind: str) -> Iterator[bytes]:
    for width in WIDTHS:
        sheet = _lay_out(pictures, width)
        buffer = io.BytesIO()
        if kind == "PNG":
            small = sheet.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)  # keeps rare colours
            small.save(buffer, kind, optimize=True)
        else:
            sheet.save(buffer, kind, quality=85, optimize=True)
        yield buffer.getvalue()


def _lay_out(pictures: Sequence[tuple[str, Path]], width: int) -> Image.Image:
    """Put each picture into the shortest column: figures are of very different heights."""
    columns = min(COLUMNS, len(pictures))
    font = ImageFont.load_default(max(10, width // 32))
    heights = [GAP] * columns
    placed = []
    for title, path in pictures:
        panel = _panel(title, path, width, font)
        column = heights.index(min(heights))
        placed.append((panel, (GAP + column * (width + GAP), heights[column])))
        heights[column] += panel.height + GAP
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), max(heights)), "white")
    for panel, corner in placed:
        sheet.paste(panel, corner)
    return sheet


def _panel(title: str, path: Path, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    with Image.open(path) as file:
        picture = Image.new("RGB", file.size, "white")
        shown = file.convert("RGBA")
    picture.paste(shown, mask=shown)
    scale = min(width / picture.width, 1.2 * width / picture.height)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    lines = _wrap(title, width, font)
    line_height = math.ceil(1.3 * font.getbbox("Ag")[3])
    panel = Image.new("RGB", (width, line_height * len(lines) + 4 + picture.height), "white")
    ImageDraw.Draw(panel).multiline_text((0, 0), "\n".join(lines), "black", font, spacing=line_height // 4)
    panel.paste(picture, ((width - picture.width) // 2, panel.height - picture.height))
    return panel


def _wrap(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
