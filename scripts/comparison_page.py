"""The page that puts FEDD beside its floors and rivals: what `scripts/compare_methods.py` showed, as one report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedd_hf.compare.method_table import tabulate_methods
from fedd_hf.evaluation.report import read_report
from fedd_hf.hub.cards import render_card


@dataclass(frozen=True)
class Comparison:
    """A comparison that the page shows.

    Args:
        name (`str`):
            Stem of its report and of its figure.
        title (`str`):
            Heading.
        note (`str`):
            What has to be known of the photos to read the numbers.
    """

    name: str
    title: str
    note: str


PAD_SEGMENTATION = Comparison(
    "pad_segmentation",
    "Lesions in clinical photos",
    "PAD-UFES-20 (CC BY 4.0), smartphone photos with lesion masks by students; no patient is in two splits. The "
    "backbone has seen the photos of the training split without labels, and no other one. Two people's masks of a "
    "photo agree at a Dice of about 0.85 to 0.95, above which nothing can be told. Skin tone was written down for "
    "about 3 of 5 test photos, and two of those are of V-VI, which is too few to say anything. Blocks and "
    "timestep of FEDD were chosen on the validation photos, and so was the learning rate of the U-Net, 0.001 rather "
    "than 0.0003. `EfficientNetLite0` is the U-Net, fine-tuned from ImageNet; `FEDD on derm_ddpm_64` reads the same "
    "blocks of the backbone that the embedded one was to beat, and from which it was trained on.",
)
PAD_MALIGNANCY = Comparison(
    "pad_malignancy",
    "Malignancy in clinical photos",
    "PAD-UFES-20, only photos of which the skin tone was written down: every other one is benign, so that a "
    "classifier could learn who was asked. FEDD's block and timestep were chosen among 63 on the 52 "
    "validation photos, for each number of labelled photos; the random UNet reads the same. `EfficientNetLite0` is a "
    "head on the frozen network.",
)
COMPOSITE_SEGMENTATION = Comparison(
    "composite_segmentation",
    "Five classes in composite photos",
    "The same photos of PAD-UFES-20 with rulers, pen marks and cloth painted over them by "
    "`scripts/build_composite.py`: skin and lesions are real, the other three classes are not, and may be easier than "
    "real ones. Blocks and timestep of FEDD, and the learning rate of the U-Net (`EfficientNetLite0`), are those of "
    "the clinical photos.",
)
HAM10000_SEGMENTATION = Comparison(
    "ham10000_segmentation",
    "Lesions in dermoscopic photos",
    "HAM10000 (CC BY-NC 4.0), split by lesion; skin tone is not known. The backbone has seen other dermoscopic photos "
    "(ISIC 2017) without labels, none under a name of HAM10000. Blocks and timestep of FEDD, and the learning rate of "
    "the U-Net (`EfficientNetLite0`), are those of the clinical photos.",
)
COMPARISONS = (
    PAD_SEGMENTATION,
    PAD_MALIGNANCY,
    COMPOSITE_SEGMENTATION,
    HAM10000_SEGMENTATION,
)


def render_comparisons(folder: Path, comparisons: tuple[Comparison, ...] = COMPARISONS) -> str:
    """Return the page of the reports in a folder, which has figures beside them.

    Args:
        folder (`Path`):
            Holds `NAME.json`, which [`~fedd_hf.compare.method_table.choose_shown`] kept, and `NAME.png`.
        comparisons (`tuple[Comparison]`, *optional*):
            What the page shows, in this order.

    Raises:
        FileNotFoundError: If a report is missing.
        ValueError: If one is damaged.
    """
    sections = [_describe(comparison, read_report(folder / f"{comparison.name}.json")) for comparison in comparisons]
    return render_card("comparison.md.j2", folder=Path(__file__).parent, sections=sections)


def _describe(comparison: Comparison, shown: dict[str, Any]) -> dict[str, Any]:
    numbers, photos = shown["settings"]["label_fractions"].values(), shown["settings"]["photos"]
    hours = sum(shown["seconds"].values()) / 3600
    return {
        "name": comparison.name,
        "title": comparison.title,
        "note": comparison.note,
        "summary": (
            f"{', '.join(map(str, numbers))} labelled photos, spread over skin tones and the same for every method; "
            f"{photos['validation']} for validation; {photos[shown['shown']['test']]} held out. Trainings of each "
            f"method at each number: {shown['seeds']}. {hours:.1f} hours on {shown['machine']['cores']} cores."
        ),
        "methods": [_describe_method(name, shown["settings"]["methods"][name]) for name in shown["methods"]],
        "tables": tabulate_methods(shown),
    }


def _describe_method(name: str, settings: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Say what a method reads, how it was trained, and what the authors of the paper do otherwise."""
    told = next(iter(settings.values()))
    read = {key: value for key, value in told.get("reading", {}).items() if key != "backbone_sha256"}
    parts = (read, told.get("training", {}), told.get("authors", {}))
    return {"name": name} | {
        key: ", ".join(f"{field} {value}" for field, value in part.items())
        for key, part in zip(("reading", "training", "authors"), parts, strict=True)
    }
