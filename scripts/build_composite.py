"""Build a composite five-class dataset: rulers, pen marks and cloth painted over the photos of PAD-UFES-20.

Usage:
    python scripts/build_composite.py --root PAD-UFES-20 --output-dir composite-pad-ufes-20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import DatasetDict, disable_progress_bars

from composite_photos import measure_classes, paint_composite
from fedd_hf.data.repository import write_repository
from fedd_hf.data.schema import SPLITS, count_photos
from fedd_hf.data.sources import load_pad_ufes_20
from fedd_hf.hub.cards import render_card


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of PAD-UFES-20 with metadata.csv")
    parser.add_argument("--output-dir", type=Path, required=True, help="new folder of the dataset repository")
    parser.add_argument("--seed", type=int, default=0, help="another seed paints other rulers, marks and cloth")
    parser.add_argument("--size", type=int, default=256, help="side of the square photos in pixels")
    return parser.parse_args(arguments)


def paint_splits(args: argparse.Namespace) -> tuple[DatasetDict, int]:
    """Return the painted photos by the source's own splits, and how many photos are left out for want of a mask."""
    photos = load_pad_ufes_20(args.root)
    splits = np.array(photos["split"])
    painted = DatasetDict()
    for name in (name for name in SPLITS if name in splits):
        painted[name] = paint_composite(photos.select(np.flatnonzero(splits == name)), args.seed, args.size)
        print(f"{name}: {len(painted[name])} composites of {(splits == name).sum()} photos", flush=True)
    return painted, len(photos) - sum(painted.num_rows.values())


def build(args: argparse.Namespace) -> None:
    painted, num_left_out = paint_splits(args)
    facts = {"seed": args.seed, "size": args.size, "num_left_out": num_left_out}
    card = partial(
        render_card,
        "composite.md.j2",
        folder=Path(__file__).parent,
        num_photos=sum(painted.num_rows.values()),
        counts=count_photos(painted).to_dict("records"),
        classes=measure_classes(painted).to_dict("records"),
        **facts,
    )
    write_repository(
        args.output_dir,
        {"composite": painted},
        render_card=lambda configurations: card(configurations=configurations),
        facts=facts | {"source": "pad-ufes-20"},
    )
    print(f"Left out for want of a lesion mask: {num_left_out} photos")
    print(f"Wrote {args.output_dir}")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    disable_progress_bars()  # of each table; the whole has its own
    try:
        build(args)
    except (OSError, ValueError) as error:
        sys.exit(f"build_composite: {error}")


if __name__ == "__main__":
    main()
