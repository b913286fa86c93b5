"""scripts/run_ablation.py, on the tiny backbone."""

import json
import runpy
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from fedd_hf.data.loading import DataArguments
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES, tone_labels

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_ablation.py"
GRID = ["--image-size", "64", "--blocks", "4", "--timesteps", "0", "1000", "--max-epochs", "3"]
GRID += ["--num-seeds", "1", "--label-fractions", "0.05"]


@pytest.fixture
def run_ablation(tiny_backbone, tmp_path):
    """Run the script on the tiny backbone and return the folder of its results."""
    AcceleratorState._reset_state(reset_partial_state=True)
    main = runpy.run_path(str(SCRIPT))["main"]

    def run(*arguments):
        main(["--backbone", str(tiny_backbone), "--output-dir", str(tmp_path / "results"), *map(str, arguments)])
        return tmp_path / "results"

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A user's folder of 60 painted photos: 10 of each tone and kind to train, and a few of each to hold out."""
    root = tmp_path_factory.mktemp("photos") / "clinic"
    (root / "images").mkdir(parents=True)
    lines = ["file_name,skin_tone,malignant,patient_id,split"]
    for index, row in enumerate(paint_dataset(num_per_tone=20, seed=0, size=32)):
        name = f"{row['image_id']}.png"
        row["image"].save(root / "images" / name)
        split = "train" if index < 36 else ("validation", "test")[index % 12 // 6]
        tone = FEATURES["skin_tone"].int2str(row["skin_tone"])
        lines.append(f"{name},{tone},{int(row['malignant'])},P{index},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_grid_runs_on_any_dataset_and_writes_report_tables_and_defaults(run_ablation, photos, capsys):
    arguments = ["--dataset", "folder", "--root", photos, *GRID]

    folder = run_ablation(*arguments)

    report = json.loads((folder / "report.json").read_text())
    assert report["experiment"] == "block_timestep"
    assert len(report["points"]) == 2
    assert (folder / "features").is_dir()
    assert "| 1000 |" in (folder / "grid.md").read_text()
    (best,) = report["best"]
    defaults = json.loads((folder / "fedd_defaults.json").read_text())
    timestep = min(best["timestep"], 999)
    assert defaults == {"classification": {"blocks": [best["block"]], "timesteps": [timestep], "image_size": 64}}
    printed = capsys.readouterr().out
    assert "| 5% | 30 | validation |" in printed
    assert "| 5% | 30 | the paper | 4 | 0 |" in printed
    results = {path: path.read_bytes() for path in folder.glob("results/*/*.json")}
    run_ablation(*arguments)
    assert {path: path.read_bytes() for path in folder.glob("results/*/*.json")} == results  # not trained again
    assert len(results) == 2


def test_a_dataset_with_few_dark_photos_has_as_many_labelled_as_the_paper(real_data):
    load_malignancy_photos = runpy.run_path(str(SCRIPT))["load_malignancy_photos"]
    data = DataArguments(dataset="pad-ufes-20", root=str(real_data("pad_ufes_20")))

    photos = load_malignancy_photos(data, [0.10, 0.05])

    assert {fraction: len(labelled) for fraction, labelled in photos.train.items()} == {0.05: 30, 0.10: 60}
    assert None not in tone_labels(photos.validation)  # every photo without a tone is benign


def test_features_lie_beside_the_results_unless_they_are_shared():
    arguments = runpy.run_path(str(SCRIPT))["AblationArguments"]

    assert arguments(output_dir="results").store == Path("results/features")
    assert arguments(output_dir="results", features="shared").store == Path("shared")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "both"], r"`task` must be one of \['segmentation', 'classification'\], got 'both'"),
        (["--label-fractions", "0.3"], "`label_fractions` must be of"),
        (["--task", "segmentation", "--blocks", "4"], "fixed sets of blocks"),
        (["--dataset", "nobody"], "`dataset` must be one of"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(run_ablation, arguments, message):
    with pytest.raises(SystemExit, match=f"^run_ablation: .*{message}"):
        run_ablation(*arguments)


@pytest.mark.slow
def test_the_segmentation_task_writes_the_best_reading_beside_that_of_the_other_task(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    (tmp_path / "fedd_defaults.json").write_text('{"classification": {"blocks": [4]}}')
    arguments = ["--task", "segmentation", "--image-size", "64", "--num-steps", "2", "--timesteps", "50"]

    runpy.run_path(str(SCRIPT))["main"]([*arguments, "--output-dir", str(tmp_path)])

    rows = json.loads((tmp_path / "segmentation.json").read_text())["segmentation"]
    best = max(rows, key=lambda row: row["mean_iou"])
    assert json.loads((tmp_path / "fedd_defaults.json").read_text()) == {
        "classification": {"blocks": [4]},
        "segmentation": {"blocks": best["blocks"], "timesteps": [50], "image_size": 64},
    }


@pytest.mark.slow
def test_readings_are_compared_on_the_photos_of_a_dataset(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    splits = {"train": 2, "validation": 1, "test": 1}
    for seed, (split, per_tone) in enumerate(splits.items()):
        rows = paint_dataset(num_per_tone=per_tone, seed=seed, size=32)
        (tmp_path / "rows").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "rows" / f"{split}.parquet")
    arguments = ["--task", "segmentation", "--dataset", "rows", "--root", tmp_path / "rows", "--labelled", "3"]
    arguments += ["--image-size", "32", "--num-steps", "2", "--timesteps", "50", "--output-dir", tmp_path]

    runpy.run_path(str(SCRIPT))["main"]([str(argument) for argument in arguments])

    features = list((tmp_path / "features").rglob("*.safetensors"))
    assert len(features) == 3 + 3
    assert len(json.loads((tmp_path / "segmentation.json").read_text())["segmentation"]) == 7
