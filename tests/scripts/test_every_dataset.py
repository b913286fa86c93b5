"""Every source, laid out as its publisher does, trains and evaluates with the same commands."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image

from fedd_hf.data import loading
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.repository import write_repository
from fedd_hf.data.splits import split_photos

SCRIPTS = Path(__file__).parents[2] / "scripts"
FITZPATRICK = (2, 4, 6)  # a type of each group, in the order of the painted rows


@pytest.fixture(scope="module")
def rows():
    """Thirty painted photos, ten of each tone."""
    return paint_dataset(num_per_tone=10, seed=0, size=32)


def save(row, photo, mask):
    """Save a photo and its lesion as white on black."""
    for path in (photo, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    row["image"].save(photo)
    Image.fromarray(np.asarray(row["mask"]) == 1).save(mask)


def write_pad_ufes_20(rows, root):
    lines = ["patient_id,lesion_id,fitspatrick,diagnostic,img_id"]
    for index, row in enumerate(rows):
        name = f"PAT_{index}_1_1.png"
        save(row, root / f"imgs_part_{index % 3 + 1}" / name, root / "masks" / name)
        lines.append(f"PAT_{index},1,{FITZPATRICK[row['skin_tone']]},{'BCC' if row['malignant'] else 'NEV'},{name}")
    (root / "metadata.csv").write_text("\n".join(lines))


def write_ham10000(rows, root):
    lines = ["lesion_id,image_id,dx"]
    for index, row in enumerate(rows):
        name = f"ISIC_{index:07d}"
        mask = root / "HAM10000_segmentations_lesion_tschandl" / f"{name}_segmentation.png"
        save(row, root / f"HAM10000_images_part_{index % 2 + 1}" / f"{name}.jpg", mask)
        lines.append(f"HAM_{index:07d},{name},{'akiec' if row['malignant'] else 'nv'}")
    (root / "HAM10000_metadata.csv").write_text("\n".join(lines))


def write_isic(rows, root):
    for index, row in enumerate(rows):
        part, name = ("Training", "Validation", "Test")[index // 3 % 3], f"ISIC_{index:07d}"
        mask = root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png"
        save(row, root / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", mask)
    diagnoses = [f"ISIC_{index:07d},{('Benign', 'Malignant')[row['malignant']]}" for index, row in enumerate(rows)]
    (root / "metadata.csv").write_text("\n".join(["isic_id,diagnosis_1", *diagnoses]))


def write_folder(rows, root):
    lines = ["image_id,fitzpatrick,malignant"]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for row in rows:
        row["image"].save(root / "images" / f"{row['image_id']}.png")
        row["mask"].save(root / "masks" / f"{row['image_id']}.png")
        lines.append(f"{row['image_id']},{FITZPATRICK[row['skin_tone']]},{row['malignant']}")
    (root / "metadata.csv").write_text("\n".join(lines))


def write_rows(rows, root):
    write_repository(root, {"rows": DatasetDict(split_photos(rows))}, lambda yaml: f"---\n{yaml}\n---\n", {})


LAYOUTS = {
    "pad-ufes-20": write_pad_ufes_20,
    "ham10000": write_ham10000,
    "isic": write_isic,
    "folder": write_folder,
    "rows": write_rows,
}


def test_every_dataset_that_commands_name_is_tried_here():
    assert set(loading.DATASETS) == {"painted", "ddi", *LAYOUTS}


@pytest.fixture(params=[*LAYOUTS, "ddi", "painted"])
def source(request, rows, tmp_path, monkeypatch):
    """Options that name a dataset."""
    if request.param == "ddi":
        ddi, masks = request.getfixturevalue("painted_ddi"), request.getfixturevalue("ddi_seg")
        return ["--dataset", "ddi", "--root", str(ddi), "--masks", str(masks), "--label-fraction", "0.05"]
    if request.param == "painted":
        monkeypatch.setattr(loading, "PAINTED_PER_TONE", {"train": 2, "validation": 2, "test": 2})
        return ["--dataset", "painted"]
    LAYOUTS[request.param](rows, tmp_path / "data")
    return ["--dataset", request.param, "--root", str(tmp_path / "data"), "--label-fraction", "0.5"]


TASKS = {
    "segmentation": ["--blocks", "2", "4", "--image-size", "16", "--num-steps", "2", "--pixels-per-image", "20"],
    "classification": ["--blocks", "4", "--image-size", "64", "--max-epochs", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_it_trains_and_evaluates_with_the_same_commands(source, task, tiny_backbone, tmp_path, capsys):
    train, evaluate = (
        runpy.run_path(str(SCRIPTS / name))["main"] for name in (f"train_{task}.py", "evaluate_model.py")
    )
    model = str(tmp_path / "model")

    train([*source, "--backbone", str(tiny_backbone), "--timesteps", "50", *TASKS[task], "--output-dir", model])
    evaluate([*source, "--model", model, "--split", "validation", "--output-dir", str(tmp_path / "evaluated")])

    printed = capsys.readouterr().out
    assert "Trained on" in printed
    assert {"segmentation": "lesion IoU", "classification": "malignancy AUROC"}[task] in printed
    assert "no recorded skin tone" in printed
