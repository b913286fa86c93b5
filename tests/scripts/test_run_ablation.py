"""The comparison of blocks and timesteps, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_ablation.py"


@pytest.mark.slow
def test_run_ablation_writes_the_best_reading_of_each_task(tmp_path):
    arguments = ["--image-size", "64", "--num-steps", "2", "--timesteps", "50", "--output-dir", str(tmp_path)]

    subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True, timeout=600)

    report = json.loads((tmp_path / "ablation.json").read_text())
    defaults = json.loads((tmp_path / "fedd_defaults.json").read_text())
    for task, metric in (("segmentation", "mean_iou"), ("classification", "auroc")):
        best = max(report[task], key=lambda row: row[metric])
        assert defaults[task] == {"blocks": best["blocks"], "timesteps": [50], "image_size": 64}
