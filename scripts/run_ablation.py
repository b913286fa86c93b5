"""Compare blocks and timesteps of a backbone on validation photos, and write what to read by default.

Usage:
    python scripts/run_ablation.py --backbone embedded --image-size 128 --output-dir runs/ablation
"""

import argparse
import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from fedd_hf.experiments.block_timestep import (
    compare_classification_readings,
    compare_segmentation_readings,
    paint_selection_photos,
)
from fedd_hf.training.arguments import SegmentationArguments

READINGS = [[6, 8], [5, 8], [6, 8, 10], [6, 8, 10, 12], [5, 8, 11], [8, 10, 12], [5, 7, 9, 11, 13]]
BLOCKS = [2, 4, 6, 8, 10, 12, 14]
TIMESTEPS = [0, 50, 100, 200]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded", help="'embedded', a folder or a repository id")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--num-steps", type=int, default=200, help="training steps of each pixel head")
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS)
    parser.add_argument("--output-dir", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.set_verbosity_error()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    train, validation = paint_selection_photos(args.image_size)
    common = (args.timesteps, args.image_size, train, validation)
    arguments = SegmentationArguments(num_steps=args.num_steps, learning_rate=5e-3, pixels_per_image=200)
    comparisons = {
        "segmentation": ("mean_iou", compare_segmentation_readings(args.backbone, READINGS, *common, arguments)),
        "classification": ("auroc", compare_classification_readings(args.backbone, BLOCKS, *common)),
    }
    report: dict[str, list[dict[str, Any]]] = {}
    defaults: dict[str, dict[str, Any]] = {}
    for task, (metric, rows) in comparisons.items():
        report[task] = []
        for row in rows:
            report[task].append(row)
            print(task, json.dumps(row), flush=True)
            (args.output_dir / "ablation.json").write_text(json.dumps(report, indent=2) + "\n")
        best = max(report[task], key=lambda row: row[metric])
        defaults[task] = {"blocks": best["blocks"], "timesteps": [best["timestep"]], "image_size": args.image_size}
    (args.output_dir / "fedd_defaults.json").write_text(json.dumps(defaults, indent=2) + "\n")
    print(f"Best on validation, to be put beside the backbone: {args.output_dir / 'fedd_defaults.json'}")


if __name__ == "__main__":
    main()
