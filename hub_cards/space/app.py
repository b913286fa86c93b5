"""The Space: the demo on the published models, at the commits whose report it shows."""

import json
from pathlib import Path

from fedd_hf.demo import Examiner, build_demo, launch
from fedd_hf.evaluation.report import read_report
from fedd_hf.prediction import open_model

FOLDER = Path(__file__).parent


def main() -> None:
    """Open the models and serve the page."""
    models = json.loads((FOLDER / "models.json").read_text())
    segmenter, classifier = (open_model(**models[task]) for task in ("segmentation", "classification"))
    examiner = Examiner(segmenter, classifier, read_report(FOLDER / "report.json"))
    launch(build_demo(examiner, sorted((FOLDER / "examples").glob("*.png"))))


if __name__ == "__main__":
    main()
