"""scripts/extract_features.py, on a folder of painted photos."""

import runpy
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fedd_hf import features as feature_store
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def extract_features():
    return runpy.run_path(str(SCRIPTS / "extract_features.py"))["main"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine painted photos as a user keeps them, three of each split."""
    root = tmp_path_factory.mktemp("photos") / "clinic"
    lines = ["file_name,skin_tone,malignant,patient_id,split"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index, row in enumerate(paint_dataset(num_per_tone=3, seed=0, size=32)):
        name = f"{row['image_id']}.png"
        row["image"].save(root / "images" / name)
        row["mask"].save(root / "masks" / name)
        tone = FEATURES["skin_tone"].int2str(row["skin_tone"])
        lines.append(f"{name},{tone},{int(row['malignant'])},P{index},{('train', 'validation', 'test')[index // 3]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    """Features lie in the folder where the command is typed."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def arguments(photos, tiny_backbone):
    data = ["--dataset", "folder", "--root", str(photos), "--backbone", str(tiny_backbone)]
    return [*data, "--blocks", "2", "4", "--timesteps", "50", "--image-size", "16", "--batch-size", "4"]


def stored(folder):
    return sorted(Path(folder).glob("*/*/*.safetensors"))


def test_the_photos_of_all_splits_are_stored_and_a_training_uses_them(
    extract_features, arguments, tmp_path, monkeypatch, capsys
):
    extract_features(arguments)

    printed, files = capsys.readouterr().out, stored("features")
    (folder,) = Path("features").iterdir()
    assert len(files) == 9
    assert f"{sum(tensor.nbytes for tensor in load_file(files[0]).values()):,}" in printed
    assert f"9 files for 9 photos: {folder}" in printed
    assert printed.splitlines()[0].split()[:3] == ["split", "skin_tone", "photos"]

    def compute(*_):
        raise AssertionError("The backbone ran.")

    monkeypatch.setattr(feature_store, "compute_features", compute)
    train = runpy.run_path(str(SCRIPTS / "train_segmentation.py"))["main"]
    train([*arguments, "--num-steps", "2", "--images-per-step", "2", "--output-dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_pooled_features_of_a_classification_dataset_need_no_masks(extract_features, arguments, photos, tmp_path):
    root = tmp_path / "unsegmented"
    root.mkdir()
    (root / "images").symlink_to(photos / "images")
    (root / "metadata.csv").write_text((photos / "metadata.csv").read_text())
    options = [str(root) if argument == str(photos) else argument for argument in arguments]
    options += ["--task", "classification", "--features", "elsewhere", "--dtype", "float32"]

    extract_features([*options, "--pooled", "--image-size", "64", "--timesteps", "0", "50"])

    files = stored("elsewhere")
    assert len(files) == 9
    tensors = load_file(files[0])
    names = ["t0000.block02", "t0000.block04", "t0050.block02", "t0050.block04"]
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dict.fromkeys(names, (512,))
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert not Path("features").exists()


def test_what_cannot_be_extracted_is_refused_in_one_line(extract_features, arguments, monkeypatch):
    with pytest.raises(SystemExit, match=r"^extract_features: There is no folder nowhere\.$"):
        extract_features([*arguments, "--root", "nowhere"])
    full = type("Usage", (), {"free": feature_store.KEPT_FREE})
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: full)

    with pytest.raises(SystemExit, match="^extract_features: 9 photos need .*$"):
        extract_features(arguments)

    assert stored("features") == []
