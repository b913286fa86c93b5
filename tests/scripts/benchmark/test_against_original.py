"""The benchmark: what it measures, what it concludes, how it goes on after a kill."""

import json
import os
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import measure_extraction as extraction
import measure_growth as growth
import measure_prediction as prediction
import measure_processes as processes
import measure_quality as quality
import measure_training as training
import sections
from benchmark_results import compare
from benchmark_size import QUICK, BenchmarkArguments
from benchmark_tables import results_as_markdown
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.data.painted import paint_dataset
from gauges import peak_memory
from isolation import run_alone
from measure_extraction import count_operations
from networks import paper_config, write_random_features
from sections import run_benchmark

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark" / "against_original.py"


@pytest.fixture
def arguments(tmp_path):
    return BenchmarkArguments(size=replace(QUICK, original_seconds=0.1), num_threads=1, work_dir=tmp_path)


@pytest.fixture
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def ham_root(tmp_path):
    """Nine painted photos in the layout of HAM10000."""
    root = tmp_path / "ham"
    (root / "images").mkdir(parents=True)
    lines = ["image,mask,label,lesion_id"]
    for index, row in enumerate(paint_dataset(3, seed=0, size=32)):
        row["image"].save(root / "images" / f"{index}.png")
        lesion = row["mask"].point(lambda label: 255 * (label == 1))
        lesion.save(root / "images" / f"{index}_mask.png")
        lines.append(f"images/{index}.png,images/{index}_mask.png,nv,L{index}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_peak_memory_sees_what_was_freed_again():
    with peak_memory() as memory:
        torch.ones(25_000_000)

    assert 95_000_000 < memory.used < 150_000_000


def test_paper_network_costs_797_gigaflop_an_image():
    assert count_operations(FEDDConfig()) / 1e9 == pytest.approx(797, abs=1)


def test_extraction_is_measured_on_both_sides():
    ours, original = extraction.measure_ours(QUICK, batch_size=2), extraction.measure_original(QUICK)

    assert 0 < ours["seconds_per_image"] == min(ours["seconds_of_passes"]) / 2
    rate = ours["operations_per_image"] / ours["seconds_per_image"]
    assert ours["share_of_matrix_rate"] == pytest.approx(rate / ours["matrix_rate"])
    assert len(original["seconds_of_passes"]) == QUICK.passes


def test_original_training_is_its_rate_times_the_pixels_of_the_stop_rule(arguments, tmp_path):
    files = write_random_features(tmp_path, paper_config(arguments.size), 3)
    photos = paint_dataset(1, seed=0, size=64)

    measured = training.measure_original(arguments.size, files, photos)

    first, second = measured["trainings"]
    assert first["pixels"] == 5 * (4 * 3 * 64 * 64 + 52 * 64)
    assert first["seconds"] == pytest.approx(first["pixels"] / measured["pixels_per_second"])
    assert (first["matrix_bytes"], second["matrix_bytes"]) == (3 * 64 * 64 * 128 * 4, 6 * 64 * 64 * 128 * 4)
    assert first["peak_bytes"] == round(measured["copies_at_peak"] * first["matrix_bytes"])


def test_our_training_is_measured_whole(arguments, tmp_path):
    files = write_random_features(tmp_path, paper_config(arguments.size), 3)

    measured = training.measure_ours(arguments.size, files, paint_dataset(1, seed=0, size=64))

    assert measured["steps"] == arguments.size.num_steps
    assert measured["seconds"] > 0


def test_prediction_is_measured_on_both_sides():
    assert prediction.measure_ours(QUICK)["seconds_per_image"] > 0
    assert prediction.measure_original(QUICK)["seconds_per_image"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", [quality.compare_on_painted, quality.compare_at_full_size])
def test_quality_is_scored_for_both_recipes_and_each_seed(part, arguments):
    scores = part(arguments)

    assert len(scores["ours"]) == len(scores["original"]) == len(QUICK.seeds)
    assert all(0 < score < 1 for score in (*scores["ours"], *scores["original"]))
    assert list(arguments.work_dir.iterdir()) == []


@pytest.mark.slow
def test_growth_is_measured_stage_by_stage(arguments, ham_root):
    measured = growth.measure_photos(replace(arguments, ham_root=ham_root), 6)

    assert measured["photos"] == 6
    assert list(measured["stages"]) == ["loading", "extraction", "training", "prediction"]


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(arguments):
    measured = processes.compare_processes(arguments)

    assert [run["processes"] for run in measured["runs"]] == [1, 2]
    assert measured["files"] == QUICK.process_photos
    assert measured["same_bytes"]


def test_sections_without_their_photos_are_skipped_and_say_what_to_type(arguments):
    assert "--pad-root" in quality.compare_on_pad(arguments)["skipped"]
    assert "--ham-root" in growth.measure_photos(arguments, 4)["skipped"]


@pytest.mark.slow
def test_a_measurement_has_its_own_process_and_threads():
    assert run_alone(os.getpid, num_threads=2) != os.getpid()
    assert run_alone(torch.get_num_threads, num_threads=2) == 2


@pytest.mark.slow
def test_a_killed_measurement_is_an_error_that_names_it():
    with pytest.raises(OSError, match="`abort` was killed, most likely for want of memory"):
        run_alone(os.abort, num_threads=1)


@pytest.fixture
def counted(monkeypatch):
    """Two parts of one section instead of real measurements; the list of those that were measured."""
    calls = []

    def measure(name, result):
        calls.append(name)
        if calls == ["ours", "original"]:
            raise KeyboardInterrupt
        return result

    def parts(_arguments):
        return {
            "ours": lambda: measure("ours", {"seconds_per_image": 1.0, "peak_bytes": 1}),
            "original": lambda: measure("original", {"seconds_per_image": 8.0, "peak_bytes": 3}),
            "no_photos": lambda: {"skipped": "give --root"},
        }

    monkeypatch.setitem(sections.SECTIONS, "prediction", parts)
    return calls


def test_benchmark_goes_on_where_it_was_killed(arguments, counted, tmp_path):
    path = tmp_path / "benchmark.json"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(arguments, ["prediction"], path)
    assert list(json.loads(path.read_text())["sections"]["prediction"]) == ["ours"]

    report = run_benchmark(arguments, ["prediction"], path)

    assert counted == ["ours", "original", "original"]
    assert report["results"][0]["outcome"] == 1 / 8
    assert json.loads(path.read_text())["results"] == report["results"]
    assert "| prediction | seconds an image, heads only | 1 | 8 | 0.125 |" in path.with_suffix(".md").read_text()


def test_report_with_other_arguments_is_not_overwritten(arguments, counted, tmp_path):
    path = tmp_path / "benchmark.json"
    counted.append("before")
    run_benchmark(arguments, ["prediction"], path)
    other = replace(arguments, num_threads=7)

    with pytest.raises(ValueError, match="another --output to keep it, or --again"):
        run_benchmark(other, ["prediction"], path)

    run_benchmark(other, ["prediction"], path, again=True)
    assert json.loads(path.read_text())["arguments"]["num_threads"] == 7


def test_quick_report_says_that_its_numbers_say_nothing(arguments, counted):
    counted.append("before")
    table = results_as_markdown(run_benchmark(arguments, ["prediction"]))

    assert "QUICK RUN" in table
    assert "prediction, no_photos: give --root" in table
    assert "The original's training time is computed" in table


def result_of(section, parts, quantity):
    (result,) = [result for result in compare({section: parts}) if quantity in result["quantity"]]
    return result


def test_training_is_held_against_a_fortieth_and_a_twentieth():
    law = {"photos": 60, "pixels": 1, "seconds": 4000.0, "matrix_bytes": 2000, "peak_bytes": 4000}
    parts = {"original": {"trainings": [law]}, "ours_60": {"seconds": 100.0, "peak_bytes": 101}}

    assert result_of("training", parts, "seconds")["met"]
    assert result_of("training", parts, "bytes")["outcome"] == 101 / 2000  # of one copy, not of the peak
    assert not result_of("training", parts, "bytes")["met"]


def test_extraction_is_held_against_share_and_memory():
    ours = {"batch_size": 1, "seconds_per_image": 8.0, "activation_bytes": 60, "share_of_matrix_rate": 0.69}
    batch = {"batch_size": 2, "seconds_per_image": 7.9, "activation_bytes": 90, "share_of_matrix_rate": 0.7}
    original = {"batch_size": 1, "seconds_per_image": 24.0, "activation_bytes": 100}
    parts = {"ours_batch_1": ours, "ours_batch_2": batch, "original": original}

    assert result_of("extraction", parts, "share")["met"]
    assert result_of("extraction", parts, "memory")["outcome"] == 0.6
    assert result_of("extraction", parts, "memory")["met"]
    assert result_of("extraction", parts, "seconds")["outcome"] == pytest.approx(24 / 7.9)


def test_unknown_section_is_refused_with_the_known_ones(main, capsys):
    with pytest.raises(SystemExit):
        main(["--sections", "speed"])

    assert "extraction" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run_from_the_command_line_prints_a_table_and_writes_where_told(main, capsys, tmp_path):
    main(["--quick", "--sections", "prediction", "--output", str(tmp_path / "quick.json")])

    report = json.loads((tmp_path / "quick.json").read_text())
    assert report["quick"]
    assert set(report["sections"]["prediction"]) == {"ours", "original"}
    assert "seconds an image, heads only" in capsys.readouterr().out
