"""Style that all figures share: colours, markers, and how a figure becomes files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedd_hf.evaluation.by_tone import TONES
from fedd_hf.files import write_whole
from fedd_hf.labels import PixelClass, SkinTone

FONT = 8.0  # points, of ticks and notes; figures are printed at their size, two columns being 7 inches
WIDTH = 7.0  # inches
DPI = 200
LIGHTEST = 0.62  # luminance that is still seen as a thin line on white
CHARACTERS_PER_INCH = 17  # of notes, which are as wide as the figure

CLASS_COLOURS: dict[str, tuple[int, int, int]] = {kind.label: kind.colour for kind in PixelClass}
TONE_COLOURS = {
    "all": "#5B6770",
    **{tone.label: tone.colour for tone in SkinTone},
    "mean of tones": "#9AA7B0",
}
TONE_MARKERS = {"all": "D", TONES[0]: "o", TONES[1]: "s", TONES[2]: "^", "mean of tones": "X"}
TONE_LINES = {"all": "--", TONES[0]: "-", TONES[1]: "-.", TONES[2]: "-", "mean of tones": ":"}

# The paper's methods: Okabe and Ito, Color Universal Design (2008).
METHOD_COLOURS = {
    "FEDD": "#D55E00",
    "EfficientNetB0": "#0072B2",
    "VGG16": "#009E73",
    "DenseNet121": "#56B4E9",
    "ResNet50": "#E69F00",
    "MobileNetV2": "#CC79A7",
    "DeepDerm": "#000000",
    "random UNet": "#767676",
    "EfficientNetLite0": "#8A7A00",
    "frozen EfficientNetLite0": "#1B6B6B",
    "colour and position": "#7B2D26",
    "raw colour": "#A6761D",
}
METHOD_MARKERS = dict(zip(METHOD_COLOURS, "osD^vP*X<phd", strict=True))
MORE_COLOURS = ("#5E3C99", "#3B4CC0", "#B2186B", "#4D6B1E")
MORE_MARKERS = ">8H"


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn.

    Args:
        colour (`str`):
            Of line and marker.
        marker (`str`):
            Tells methods apart without colours.
        linewidth (`float`):
            FEDD has the strongest line.
        zorder (`float`):
            FEDD lies on top.
    """

    colour: str
    marker: str
    linewidth: float = 1.0
    zorder: float = 2.0


def style_methods(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Return the style of each method, FEDD first.

    Args:
        methods (`Iterable[str]`):
            Names. Those in `METHOD_COLOURS` always look the same; others share colours and markers that are left, in
            the order of their names.

    Example:
        >>> style_methods(["VGG16", "FEDD"])["FEDD"].colour
        '#D55E00'
    """
    names = dict.fromkeys(methods)
    known = {name: _style_known(name) for name in METHOD_COLOURS if name in names}
    unknown = sorted(name for name in names if name not in METHOD_COLOURS)
    return known | {name: _style_unknown(rank) for rank, name in enumerate(unknown)}


def _style_known(name: str) -> MethodStyle:
    emphasis = {"linewidth": 2.2, "zorder": 4.0} if name == "FEDD" else {}
    return MethodStyle(METHOD_COLOURS[name], METHOD_MARKERS[name], **emphasis)


def _style_unknown(rank: int) -> MethodStyle:
    return MethodStyle(MORE_COLOURS[rank % len(MORE_COLOURS)], MORE_MARKERS[rank % len(MORE_MARKERS)])


def plain_axis(axis: Axes, grid: str = "y") -> None:
    """Give an axis small ticks, a light grid behind the data, and no frame at the top and at the right."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=FONT)
    axis.grid(axis=grid, color="0.88", linewidth=0.6)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def number(value: Any) -> float:
    """Return a number of a report, in which nothing is None, as a float, in which nothing is NaN."""
    return math.nan if value is None else float(value)


def is_flagged(row: dict[str, Any]) -> bool:
    """Return whether the interval of a row is not to be trusted."""
    return bool(row.get("flag"))


def draw_point(
    axis: Axes,
    place: float,
    row: dict[str, Any],
    colour: str,
    marker: str,
    names: tuple[str, str, str] = ("value", "low", "high"),
    is_horizontal: bool = False,
    size: float = 5.0,
    zorder: float = 3.0,
) -> None:
    """Draw a value and its interval: hollow if the row is flagged, nothing where there is no value.

    Args:
        axis (`Axes`):
            Where to draw.
        place (`float`):
            Where on the other axis.
        row (`dict`):
            Row of a report.
        colour (`str`):
            Of marker and whisker.
        marker (`str`):
            Shape.
        names (`tuple[str, str, str]`, *optional*, defaults to `("value", "low", "high")`):
            Names of value and ends of the interval. A value without an interval has no whisker, which would otherwise
            say that it is certain.
        is_horizontal (`bool`, *optional*, defaults to `False`):
            Whether values run to the right.
        size (`float`, *optional*, defaults to 5.0):
            Of the marker, in points.
        zorder (`float`, *optional*, defaults to 3.0):
            The higher, the further in front.
    """
    value, low, high = (number(row.get(name)) for name in names)
    if not math.isfinite(value):
        return
    if math.isfinite(low) and math.isfinite(high):
        ends = ([low, high], [place, place]) if is_horizontal else ([place, place], [low, high])
        axis.plot(*ends, color=darker(colour), linewidth=1, solid_capstyle="butt", zorder=zorder)
    at = ([value], [place]) if is_horizontal else ([place], [value])
    axis.plot(
        *at,
        linestyle="none",
        marker=marker,
        markersize=size,
        markerfacecolor="white" if is_flagged(row) else colour,
        markeredgecolor=darker(colour),
        zorder=zorder + 0.1,
    )


def darker(colour: str) -> str:
    """Return a colour that is seen on white: light ones darkened, others as they are."""
    red, green, blue = to_rgb(colour)
    factor = LIGHTEST / max(LIGHTEST, 0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return to_hex((factor * red, factor * green, factor * blue))


def signed(value: float) -> str:
    """Return `+0.040` or `−0.040`."""
    return f"{value:+.3f}".replace("-", "−")


def say_p(p_value: Any) -> str:
    """Return `p = 0.040`, or `p < 0.001`; nothing where there is none."""
    if not math.isfinite(number(p_value)):
        return ""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def per_cent(share: float) -> str:
    """Return `5 %` of 0.05."""
    return f"{100 * share:.3g} %"


def flag_notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Say what hollow markers mean, if any of the rows is flagged."""
    flags = sorted({row["flag"] for row in rows if is_flagged(row)})
    return [f"Hollow: {'; '.join(flags)} by simulation, too few photos to trust the interval."] if flags else []


def has_intervals(rows: Iterable[dict[str, Any]]) -> bool:
    """Return whether any of the rows has both ends of its interval."""
    return any(math.isfinite(number(row["low"])) and math.isfinite(number(row["high"])) for row in rows)


def say_photos(numbers: Iterable[int | None]) -> str:
    """Return `n = 198`, or `n = 15-16` if rows are of different numbers of photos; nothing if none is known."""
    known = sorted({int(n) for n in numbers if n is not None and n == n})
    if not known:
        return ""
    return f"n = {known[0]}" if len(known) == 1 else f"n = {known[0]}-{known[-1]}"


def add_caption(figure: Figure, notes: Sequence[str]) -> None:
    """Write notes below everything else, wrapped to the width of the figure."""
    width = round(CHARACTERS_PER_INCH * figure.get_figwidth())
    lines = [line for note in notes if note for line in textwrap.wrap(note, width, break_on_hyphens=False)]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=FONT - 0.5, color="0.25")


def add_legend(figure: Figure, handles: Sequence[Artist], ncols: int | None = None) -> None:
    """Put a legend above the panels, outside of them."""
    figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=ncols or min(len(handles), 5),
        frameon=False,
        fontsize=FONT,
        handlelength=2.2,
        columnspacing=1.4,
    )


def method_handles(styles: dict[str, MethodStyle]) -> list[Line2D]:
    """Return a line with its marker for each method."""
    return [
        Line2D([], [], color=style.colour, marker=style.marker, linewidth=style.linewidth, markersize=5, label=name)
        for name, style in styles.items()
    ]


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Save a figure as `stem.pdf`, with its fonts, and as `stem.png`.

    The same figure gives the same bytes: no date, no path and no name of a program is stored. An older file stays as
    it is until the new one is whole.

    Args:
        figure (`Figure`):
            What to save.
        stem (`Path`):
            Files to write, without a suffix, in an existing folder.

    Returns:
        `tuple[Path, Path]`: the PDF and the PNG.
    """
    metadata: dict[str, dict[str, Any]] = {
        "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate")),
        "png": {"Software": None},
    }
    _settle(figure)
    paths = []
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        for kind, facts in metadata.items():
            path = stem.parent / f"{stem.name}.{kind}"
            with write_whole(path) as partial:
                figure.savefig(partial, format=kind, dpi=DPI, metadata=facts)
            paths.append(path)
    return paths[0], paths[1]


def _settle(figure: Figure) -> None:
    """Lay the figure out once and for all: each further layout would move its parts by a fraction of a pixel."""
    if figure.get_layout_engine() is not None:
        figure.set_dpi(DPI)  # letters are not as wide at another resolution
        for _ in range(2):  # the second time, ticks are those of the final size
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
