"""What the measurements say: ours beside the original, with the ratio that was promised."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

Parts = dict[str, Any]  # what was measured of one section, by name
COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
LARGEST_LOSS = -0.005  # of mean IoU against the original loop


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the comparison.

    Args:
        section (`str`): Section of the benchmark.
        quantity (`str`): What is compared, with its unit.
        ours (`float`, *optional*): Value of this package.
        original (`float`, *optional*): Value of the original way.
        outcome (`float`, *optional*): Ratio or difference, as `rule` says.
        rule (`str`, *optional*): What the outcome is and, where something was promised, how it must be.
        met (`bool`, *optional*): Whether it is so; None where nothing was promised.
    """

    section: str
    quantity: str
    ours: float | None = None
    original: float | None = None
    outcome: float | None = None
    rule: str = ""
    met: bool | None = None


def compare(sections: dict[str, Parts]) -> list[dict[str, Any]]:
    """Compare all that has been measured so far; what was skipped gives no line."""
    results: list[Result] = []
    for section, draw in RESULTS.items():
        parts = {name: part for name, part in sections.get(section, {}).items() if "skipped" not in part}
        results += draw(parts)
    return [asdict(result) for result in results]


def _promise(name: str, sign: str, bound: float, outcome: float) -> dict[str, Any]:
    return {"outcome": outcome, "rule": f"{name} {sign} {bound:.4g}", "met": COMPARE[sign](outcome, bound)}


def _extraction(parts: Parts) -> Iterator[Result]:
    ours = [part for name, part in parts.items() if name.startswith("ours")]
    original = parts.get("original")
    if ours:
        best = max(ours, key=lambda part: part["share_of_matrix_rate"])
        share = best["share_of_matrix_rate"]
        promise = _promise("share", ">=", 0.7, share)
        yield Result(section="extraction", quantity="share of the machine's matrix rate", ours=share, **promise)
    if ours and original:
        seconds = min(part["seconds_per_image"] for part in ours)
        yield _times("extraction", "seconds an image", seconds, original["seconds_per_image"])
        memory = min(part["activation_bytes"] for part in ours)  # of the smallest batch
        title = "activation memory in bytes, one image"
        yield _ratio("extraction", title, memory, original["activation_bytes"], 0.6)
    if "bytes_per_image" in parts:
        stored = parts["bytes_per_image"]
        for dtype in ("float16", "float32"):
            yield _times("extraction", f"bytes of features an image, {dtype}", stored[dtype], stored["original"])


def _training(parts: Parts) -> Iterator[Result]:
    """Time and memory are promised for the most photos; ours hardly depend on how many there are."""
    trainings = parts.get("original", {}).get("trainings", [])
    most = max((training["photos"] for training in trainings), default=0)
    for training in trainings:
        ours = parts.get(f"ours_{training['photos']}")
        if ours is not None:
            title, is_promised = f"five classifiers on {training['photos']} photos", training["photos"] == most
            seconds, memory = (1 / 40, 1 / 20) if is_promised else (None, None)
            yield _ratio("training", f"{title}, seconds", ours["seconds"], training["seconds"], seconds)
            yield _ratio("training", f"{title}, bytes", ours["peak_bytes"], training["matrix_bytes"], memory)


def _quality(parts: Parts) -> Iterator[Result]:
    for name, part in parts.items():
        ours, original = mean(part["ours"]), mean(part["original"])
        promise = _promise("difference", ">=", LARGEST_LOSS, ours - original)
        yield Result(section="quality", quantity=f"mean IoU, {name}", ours=ours, original=original, **promise)


def _prediction(parts: Parts) -> Iterator[Result]:
    if {"ours", "original"} <= set(parts):
        ours, original = parts["ours"], parts["original"]
        seconds = (ours["seconds_per_image"], original["seconds_per_image"])
        yield _ratio("prediction", "seconds an image, heads only", *seconds, 1 / 5)
        peaks = (ours["peak_bytes"], original["peak_bytes"])
        yield _ratio("prediction", "peak memory in bytes, heads only", *peaks, 1 / 4)


def _growth(parts: Parts) -> Iterator[Result]:
    for part in parts.values():
        for stage, measured in part["stages"].items():
            title = f"{stage} of {part['photos']} photos, seconds"
            yield Result(section="growth", quantity=title, ours=measured["seconds"])
        title = f"peak memory of {part['photos']} photos in bytes"
        yield Result(section="growth", quantity=title, ours=part["peak_bytes_above_imports"])
    if len(parts) > 1:
        fewest, *_, most = sorted(parts.values(), key=lambda part: part["photos"])
        growth = most["peak_bytes_above_imports"] - fewest["peak_bytes_above_imports"]
        title = f"growth of peak memory from {fewest['photos']} to {most['photos']} photos in bytes"
        yield Result(section="growth", quantity=title, outcome=growth, rule="most - fewest")


def _processes(parts: Parts) -> Iterator[Result]:
    for part in parts.values():
        for run in part["runs"]:
            title = f"photos per second, processes: {run['processes']}"
            yield Result(section="processes", quantity=title, ours=run["photos_per_second"])
        one, two = (run["photos_per_second"] for run in part["runs"])
        speed = "speed of two processes and one"
        yield Result(section="processes", quantity=speed, outcome=two / one, rule="two : one")
        same = part["same_bytes"]
        yield Result(section="processes", quantity="files of two processes", rule="the same bytes", met=same)


def _ratio(section: str, quantity: str, ours: float, original: float, bound: float | None) -> Result:
    name, ratio = "ours : original", ours / original
    promise = {"outcome": ratio, "rule": name} if bound is None else _promise(name, "<=", bound, ratio)
    return Result(section=section, quantity=quantity, ours=ours, original=original, **promise)


def _times(section: str, quantity: str, ours: float, original: float) -> Result:
    outcome, rule = original / ours, "original : ours"
    return Result(section=section, quantity=quantity, ours=ours, original=original, outcome=outcome, rule=rule)


RESULTS: dict[str, Callable[[Parts], Iterator[Result]]] = {
    "extraction": _extraction,
    "training": _training,
    "quality": _quality,
    "prediction": _prediction,
    "growth": _growth,
    "processes": _processes,
}
