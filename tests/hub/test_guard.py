"""Nothing leaves the machine that may not: photos, pickles, tokens, paths."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file

from fedd_hf.files import hash_file
from fedd_hf.hub.guard import check_folder

TOKEN = "hf_" + "a1B2" * 8


@pytest.fixture
def folder(tmp_path):
    """A folder that may be published, and the hash of its picture."""
    (tmp_path / "examples").mkdir()
    Image.new("RGB", (4, 4), "pink").save(tmp_path / "examples" / "painted.png")
    save_file({"head": np.ones(2, np.float32)}, tmp_path / "model.safetensors", {"format": "pt"})
    pd.DataFrame({"image_id": ["000001"], "mask": [b"png"]}).to_parquet(tmp_path / "masks.parquet")
    (tmp_path / "config.json").write_text('{"backbone": "fedd/derm-ddpm-64", "blocks": [6]}')
    (tmp_path / "README.md").write_text("See https://huggingface.co/data/tmp/x and photos/a.png, 3/4 of them.")
    return tmp_path


@pytest.fixture
def known(folder):
    return {hash_file(folder / "examples" / "painted.png")}


def png(**options):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "brown").save(file, "PNG", **options)
    return file.getvalue()


def with_text():
    told = PngInfo()
    told.add_text("Comment", "Jane Doe")
    return png(pnginfo=told)


def test_a_folder_of_weights_tables_text_and_painted_pictures_may_be_published(folder, known):
    check_folder(folder, known)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("photo.png", png(), "no picture that was painted"),
        ("photo.jpg", b"\xff\xd8\xff", "only .safetensors, .parquet"),
        ("painted.png", with_text(), r"carries the metadata \['Comment'\]"),
        ("painted.png", b"no picture", "it is no PNG"),
        ("pytorch_model.bin", pickle.dumps({}), "only .safetensors"),
        ("weights.safetensors", pickle.dumps({}), "no safetensors file"),
        ("masks.parquet", pickle.dumps({}), "no Parquet file"),
        ("notes.txt", pickle.dumps({}, protocol=5) + b"\xff", "it is no text"),
        ("config.json", b'{"blocks": [6', "it is damaged"),
        ("config.json", b'{"backbone": "/home/jane/backbone"}', "a path of this machine, /home/j"),
        ("config.json", b'{"backbone": "C:\\\\Users\\\\jane"}', "a path of this machine"),
        ("README.md", f"login with {TOKEN}".encode(), "a token or key, hf_a1B"),
        (".env", b"SECRET=1", "only .safetensors"),
    ],
)
def test_what_may_not_be_published_is_named(folder, known, name, content, message):
    (folder / name).write_bytes(content)

    with pytest.raises(ValueError, match=message) as told:
        check_folder(folder, known)

    assert str(told.value).startswith(name)
    assert TOKEN not in str(told.value)


def test_a_table_of_photos_is_refused_whatever_they_show(folder, known):
    pd.DataFrame({"image": [png()]}).to_parquet(folder / "test.parquet")

    with pytest.raises(ValueError, match=r"test.parquet .* its columns \['image'\] hold photos"):
        check_folder(folder, known)


def test_paths_are_found_in_tables_and_in_the_metadata_of_weights(folder, known):
    save_file({"head": np.ones(2, np.float32)}, folder / "heads.safetensors", {"made_in": "/tmp/jane"})
    with pytest.raises(ValueError, match="heads.safetensors .* /tmp/j"):
        check_folder(folder, known)

    (folder / "heads.safetensors").unlink()
    pd.DataFrame({"source": ["fedd", "/Users/jane/ddi"]}).to_parquet(folder / "masks.parquet")
    with pytest.raises(ValueError, match="masks.parquet .* /Users/j"):
        check_folder(folder, known)


def test_a_link_is_refused(folder, known):
    (folder / "other.md").symlink_to(folder / "README.md")

    with pytest.raises(ValueError, match="other.md is a link"):
        check_folder(folder, known)
