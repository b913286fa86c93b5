"""Build the ddi-seg dataset repository from the masks that the authors of FEDD released.

Usage:
    python scripts/build_ddi_seg.py --masks ddi_labels.zip --metadata ddi_metadata.csv --output-dir ddi-seg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import disable_progress_bars

from fedd_hf.data.ddi.ddi_seg import build_classification, build_segmentation
from fedd_hf.data.ddi.draw import CLASSIFICATION_SEED, draw_classification, hash_draw
from fedd_hf.data.ddi.facts import describe_ddi_seg
from fedd_hf.data.ddi.metadata import read_ddi_metadata
from fedd_hf.data.ddi.photos import describe_photo, find_photos, read_photos
from fedd_hf.data.ddi.release import check_released, read_released_masks
from fedd_hf.data.masks import hash_mask
from fedd_hf.data.repository import write_repository
from fedd_hf.hub.cards import render_card

SKIPPED = ("000025", "000055", "000161")


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, required=True, help="ddi_labels of the FEDD repository, folder or zip")
    parser.add_argument("--metadata", type=Path, help="ddi_metadata.csv of DDI: tones, diagnoses, classification")
    parser.add_argument("--photos", type=Path, help="licensed copy of DDI: record size and pixel hash of each photo")
    parser.add_argument("--output-dir", type=Path, required=True, help="new folder for the dataset repository")
    args = parser.parse_args(arguments)
    if args.photos and not args.metadata:
        parser.error("--photos needs --metadata, which says which photos are of DDI")
    return args


def describe_photos(root: Path, metadata: pd.DataFrame) -> dict[str, Any]:
    return read_photos(find_photos(root), metadata["file"], metadata["file"], {}, describe_photo)


def build(args: argparse.Namespace) -> None:
    masks = read_released_masks(args.masks)
    metadata = read_ddi_metadata(args.metadata) if args.metadata else None
    configurations = {"segmentation": build_segmentation(masks, metadata)}
    facts: dict[str, Any] = {"masks": {name: hash_mask(mask) for name, mask in sorted(masks.items())}}
    if metadata is not None:
        drawn = draw_classification(metadata)
        configurations["classification"] = build_classification(drawn)
        facts["classification"] = {"seed": CLASSIFICATION_SEED, "sha256": hash_draw(drawn)}
        print(f"Classification splits, seed {CLASSIFICATION_SEED}: SHA-256 {hash_draw(drawn)}")
    if args.photos:
        facts["photos"] = describe_photos(args.photos, metadata)
    fields = describe_ddi_seg(configurations) | {
        "is_released": check_released(masks),
        "has_photo_facts": "photos" in facts,
        "classification_seed": CLASSIFICATION_SEED,
        "classification_sha256": facts.get("classification", {}).get("sha256"),
        "num_skipped_masks": len(masks.keys() & set(SKIPPED)),
    }
    write_repository(
        args.output_dir,
        configurations,
        lambda yaml: render_card("ddi_seg.md.j2", configurations_yaml=yaml, **fields),
        facts,
    )
    print(f"Wrote {len(masks)} masks, {', '.join(configurations)}: {args.output_dir}")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    disable_progress_bars()  # of each table; the whole has its own
    try:
        build(args)
    except (OSError, ValueError) as error:
        sys.exit(f"build_ddi_seg: {error}")


if __name__ == "__main__":
    main()
