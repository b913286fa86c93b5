"""Paint a stand-in for DDI: the same layout, names, splits and balance, and no patient.

Usage:
    python scripts/paper/paint_ddi.py --output-dir painted-ddi
    python scripts/build_ddi_seg.py --masks painted-ddi/ddi_labels.zip --metadata painted-ddi/ddi_metadata.csv \
        --output-dir painted-ddi-seg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from painted_double import paint_ddi


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True, help="new folder, or an earlier one to go on with")
    parser.add_argument("--masks", type=Path, help="released masks, folder or zip, over which to paint")
    parser.add_argument("--size", type=int, default=256, help="shorter side of the photos, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    try:
        paint_ddi(args.output_dir, args.masks, args.size, args.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"paint_ddi: {error}")
    print(f"Painted, no patient: {args.output_dir}")


if __name__ == "__main__":
    main()
