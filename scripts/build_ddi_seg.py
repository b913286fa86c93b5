"""Build the ddi-seg dataset repository from the masks that the authors of FEDD released.

Usage:
    python scripts/build_ddi_seg.py --masks ddi_labels.zip --metadata ddi_metadata.csv --output-dir ddi-seg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import disable_progress_bars

from fedd_hf.data.ddi.build import build_ddi_seg
from fedd_hf.hub.cards import render_card


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, required=True, help="ddi_labels of the FEDD repository, folder or zip")
    parser.add_argument("--metadata", type=Path, help="ddi_metadata.csv of DDI: tones, diagnoses, classification")
    parser.add_argument("--photos", type=Path, help="licensed copy of DDI: record size and pixel hash of each photo")
    parser.add_argument("--output-dir", type=Path, required=True, help="new folder for the dataset repository")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    disable_progress_bars()  # of each table; the whole has its own
    try:
        fields = build_ddi_seg(args.output_dir, args.masks, render_card, args.metadata, args.photos)
    except (OSError, ValueError) as error:
        sys.exit(f"build_ddi_seg: {error}")
    if sha256 := fields["classification_sha256"]:
        print(f"Classification splits, seed {fields['classification_seed']}: SHA-256 {sha256}")
    print(f"Wrote {fields['num_masks']} masks: {args.output_dir}")


if __name__ == "__main__":
    main()
