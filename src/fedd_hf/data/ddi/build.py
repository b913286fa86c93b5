"""Released masks and, where they are at hand, metadata and photos -> the folder of the dataset repository ddi-seg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedd_hf.data.masks import hash_mask
from fedd_hf.data.repository import write_repository

from .ddi_seg import build_classification, build_segmentation
from .draw import CLASSIFICATION_SEED, draw_classification, hash_draw
from .facts import describe_ddi_seg
from .local_copy import describe_photo, find_photos, read_photos
from .metadata import read_ddi_metadata
from .release import check_released, read_released_masks

SKIPPED = ("000025", "000055", "000161")  # that the authors give as examples of photos they did not annotate


def build_ddi_seg(
    output_dir: str | Path,
    masks: str | Path,
    render_card: Callable[..., str],
    metadata: str | Path | None = None,
    photos: str | Path | None = None,
) -> dict[str, Any]:
    """Write ddi-seg: masks, ids, skin tones, splits, and no photo.

    Args:
        output_dir (`str` or `Path`):
            New or empty folder.
        masks (`str` or `Path`):
            `ddi_labels` of the FEDD repository, folder or zip.
        render_card (`Callable[..., str]`):
            Takes the name of the card's template and its fields, and returns the README.
        metadata (`str` or `Path`, *optional*):
            `ddi_metadata.csv` of DDI: skin tones, diagnoses, and with them the configuration `classification`.
        photos (`str` or `Path`, *optional*):
            Licensed copy of DDI; size and pixel hash of each photo are recorded. Needs `metadata`.

    Returns:
        `dict`: the fields of the card.

    Raises:
        FileExistsError: If `output_dir` is not empty.
        FileNotFoundError: If masks, metadata or photos are not there.
        ValueError: If masks or metadata are not those of the release, or photos are missing, damaged or come without
            metadata.
    """
    if photos and not metadata:
        raise ValueError("`photos` needs `metadata`, which says which photos are of DDI.")
    released = read_released_masks(masks)
    table = read_ddi_metadata(metadata) if metadata else None
    configurations = {"segmentation": build_segmentation(released, table)}
    facts: dict[str, Any] = {"masks": {name: hash_mask(mask) for name, mask in sorted(released.items())}}
    if table is not None:
        drawn = draw_classification(table)
        configurations["classification"] = build_classification(drawn)
        facts["classification"] = {"seed": CLASSIFICATION_SEED, "sha256": hash_draw(drawn)}
    if table is not None and photos:
        facts["photos"] = read_photos(find_photos(photos), table["file"], table["file"], {}, describe_photo)
    fields = describe_ddi_seg(configurations) | {
        "is_released": check_released(released),
        "has_photo_facts": "photos" in facts,
        "classification_seed": CLASSIFICATION_SEED,
        "classification_sha256": facts.get("classification", {}).get("sha256"),
        "num_skipped_masks": len(released.keys() & set(SKIPPED)),
    }

    def render(configurations_yaml: str) -> str:
        return render_card("ddi_seg.md.j2", configurations_yaml=configurations_yaml, **fields)

    write_repository(output_dir, configurations, render, facts)
    return fields
