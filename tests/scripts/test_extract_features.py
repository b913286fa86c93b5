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


def test_the_photos_of_all_splits_are_stored_below_the_folder_features(extract_features, arguments, tmp_path):
    extract_features(arguments)

    files = stored(tmp_path / "features")
    assert len(files) == 9
    assert list(load_file(files[0])) == ["t0050.block02", "t0050.block04"]


def test_size_number_and_place_of_the_features_are_printed(extract_features, arguments, capsys):
    extract_features(arguments)

    printed = capsys.readouterr().out
    (folder,) = Path("features").iterdir()
    of_photo = sum(tensor.nbytes for tensor in load_file(stored("features")[0]).values())
    assert f"{of_photo:,}" in printed
    assert f"9 files for 9 photos: {folder}" in printed
    assert printed.splitlines()[0].split()[:3] == ["split", "skin_tone", "photos"]


def test_a_second_run_computes_nothing(extract_features, arguments, monkeypatch):
    extract_features(arguments)
    before = {file: file.read_bytes() for file in stored("features")}

    def compute(*_):
        raise AssertionError("The backbone ran.")

    monkeypatch.setattr(feature_store, "compute_features", compute)
    extract_features(arguments)

    assert {file: file.read_bytes() for file in stored("features")} == before


def test_a_training_uses_what_was_extracted(extract_features, arguments, tmp_path, monkeypatch):
    extract_features(arguments)

    def compute(*_):
        raise AssertionError("The backbone ran.")

    monkeypatch.setattr(feature_store, "compute_features", compute)
    train = runpy.run_path(str(SCRIPTS / "train_segmentation.py"))["main"]
    train([*arguments, "--num-steps", "2", "--images-per-step", "2", "--output-dir", str(tmp_path / "run")])

    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_pooled_features_are_vectors_of_each_block_and_timestep(extract_features, arguments, tmp_path):
    extract_features([*arguments, "--pooled", "--image-size", "64", "--timesteps", "0", "50"])

    tensors = load_file(stored(tmp_path / "features")[0])
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "t0000.block02": (512,),
        "t0000.block04": (512,),
        "t0050.block02": (512,),
        "t0050.block04": (512,),
    }


def test_pooled_features_of_a_classification_dataset_need_no_masks(extract_features, arguments, photos, tmp_path):
    root = tmp_path / "unsegmented"
    root.mkdir()
    (root / "images").symlink_to(photos / "images")
    (root / "metadata.csv").write_text((photos / "metadata.csv").read_text())
    options = [str(root) if argument == str(photos) else argument for argument in arguments]

    extract_features([*options, "--pooled", "--image-size", "64", "--task", "classification"])

    assert len(stored("features")) == 9


def test_features_lie_where_the_user_wants_them(extract_features, arguments, tmp_path):
    extract_features([*arguments, "--features", str(tmp_path / "elsewhere"), "--dtype", "float32"])

    files = stored(tmp_path / "elsewhere")
    assert {str(tensor.dtype) for tensor in load_file(files[0]).values()} == {"torch.float32"}
    assert not Path("features").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "`dtype` must be one of ['float16', 'float32'], got 'int8'."),
        (["--root", "nowhere"], "There is no folder nowhere."),
        (["--task", "detection"], "'detection'"),
        (["--batch-size", "0"], "`batch_size` must be at least 1, got 0."),
        (["--num-threads", "0"], "`num_threads` must be at least 1, got 0."),
    ],
    ids=str,
)
def test_what_cannot_be_extracted_is_refused_in_one_line(options, message, extract_features, arguments):
    with pytest.raises(SystemExit) as error:
        extract_features([*arguments, *options])

    assert str(error.value.code).startswith("extract_features: ")
    assert message in str(error.value.code)
    assert "\n" not in str(error.value.code)
    assert not Path("features").exists()


def test_a_disk_without_room_is_refused_in_one_line(extract_features, arguments, monkeypatch):
    full = type("Usage", (), {"free": feature_store.KEPT_FREE})
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: full)

    with pytest.raises(SystemExit) as error:
        extract_features(arguments)

    assert "extract_features: 9 photos need" in str(error.value.code)
    assert stored("features") == []
