"""Results that are computed once."""

import pytest
from accelerate import Accelerator

from fedd_hf.compare.results_cache import cache_folder, cache_json, read_seconds


@pytest.fixture
def compute():
    """A computation that counts how often it ran."""

    def run():
        run.times += 1
        return {"value": run.times}

    run.times = 0
    return run


def test_a_finished_result_is_read_again_and_another_description_is_computed_beside_it(tmp_path, compute):
    results = [cache_json(tmp_path, "a", {"seed": seed}, compute, Accelerator()) for seed in (0, 0, 1, 0)]

    assert [result["value"] for result in results] == [1, 1, 2, 1]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_result_that_was_interrupted_is_not_there_and_is_computed_from_the_start(tmp_path):
    seen = []

    def fill(folder):
        seen.append(list(folder.iterdir()))
        (folder / "half").write_text("half")
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_folder(tmp_path, "a", {}, fill, Accelerator())
    assert not list(tmp_path.glob("a-*"))

    folder = cache_folder(tmp_path, "a", {}, fill, Accelerator())

    assert seen == [[], []]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert read_seconds(folder) >= 0


def test_a_name_of_any_characters_stays_inside_the_folder(tmp_path, compute):
    cache_json(tmp_path / "root", "../../FEDD on /x: 5 %", {}, compute, Accelerator())

    (folder,) = (tmp_path / "root").iterdir()
    assert folder.name.startswith("fedd-on-x-5-")
