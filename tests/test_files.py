import hashlib

import pytest

from fedd_hf.files import hash_file, write_whole


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes" * 100_000)

    assert hash_file(tmp_path / "file") == hashlib.sha256(b"bytes" * 100_000).hexdigest()


def test_a_file_and_a_folder_appear_whole(tmp_path):
    with write_whole(tmp_path / "new.txt") as partial:
        partial.write_text("all of it")
        assert not (tmp_path / "new.txt").exists()
    with write_whole(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("all of it")
        assert not (tmp_path / "folder").exists()

    assert (tmp_path / "new.txt").read_text() == (tmp_path / "folder" / "file").read_text() == "all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_or_is_interrupted_leaves_the_old_file_and_no_litter(tmp_path, error):
    (tmp_path / "file").write_text("old")

    def write_half():
        with write_whole(tmp_path / "file") as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_what_a_killed_process_left_is_no_part_of_the_new_folder(tmp_path):
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "half").write_text("ha")

    with write_whole(tmp_path / "folder") as partial:
        partial.mkdir()

    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]
