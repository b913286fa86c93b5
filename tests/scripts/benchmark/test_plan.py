"""The estimate: its arithmetic, its label, what it takes from a report."""

import json
import runpy
from pathlib import Path

import pytest

from fedd_hf.configuration_fedd import FEDDConfig
from plan import (
    Assumptions,
    Device,
    Workload,
    count_head_operations,
    count_work,
    estimate,
    plan,
)

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark" / "against_original.py"


@pytest.fixture(scope="module")
def workload():
    return count_work(FEDDConfig())


def test_counts_are_those_of_the_paper_network(workload):
    assert workload.weight_bytes == 505_442_816 * 4
    assert workload.bytes_per_photo == 5 * 2**20
    assert workload.labels_bytes == 256**2
    assert workload.activation_bytes > 3 * 256**3 * 4  # three maps of the first level


def test_operations_of_a_pixel_are_those_of_five_classifiers():
    assert count_head_operations(FEDDConfig()) == 5 * 2 * (1024 * 128 + 128 * 32 + 32 * 5)


def test_estimate_adds_reading_computing_and_writing():
    counted = Workload(
        operations_per_photo=100,
        head_operations_per_photo=20,
        training_operations=6000,
        training_visits=30,
        bytes_per_photo=10,
        weight_bytes=0,
        activation_bytes=0,
        labels_bytes=1,
    )
    assumptions = Assumptions(share_of_peak=0.5, photos_read_per_second=5.0, disk_bytes_per_second=1000.0)
    device = Device(device="slow", operations_per_second=200.0, source="nobody")

    row = estimate(counted, assumptions, 600, device, gpus=2)

    assert row["extraction_minutes"] * 60 == pytest.approx(600 / (2 * 5) + 600 * 100 / (2 * 100) + 600 * 10 / 1000)
    assert row["prediction_minutes"] * 60 == pytest.approx(600 / (2 * 5) + 600 * 120 / (2 * 100))
    assert row["training_minutes"] * 60 == pytest.approx(6000 / (2 * 100) + 30 * 10 / 1000)
    without = 6000 / (2 * 100) + 30 * 100 / (2 * 100) + 30 / (2 * 5)
    assert row["training_minutes_without_store"] * 60 == pytest.approx(without)
    assert row["store_gb"] == pytest.approx(6000 / 1e9)


def test_plan_has_three_sizes_on_one_and_eight_gpus():
    rows = plan()["estimates"]

    assert {row["photos"] for row in rows} == {"DDI", "17,000 photos", "a million photos"}
    assert {row["gpus"] for row in rows} == {1, 8}
    stores = {row["photos"]: row["store_gb"] for row in rows}
    assert stores["DDI"] == pytest.approx(3.44, abs=0.01)
    assert stores["a million photos"] == pytest.approx(5243, abs=1)


def test_plan_takes_memory_and_seconds_from_a_report():
    ours = {"seconds_per_image": 9.0, "activation_bytes": 10**9}
    report = {"quick": False, "sections": {"extraction": {"ours_batch_1": ours}}}

    rows = plan(report)["estimates"]

    here = [row for row in rows if row["device"] == "the benchmark's own machine"]
    assert here[0]["extraction_minutes"] == pytest.approx(656 * 9 / 60)
    assert rows[0]["gpu_memory_gb"] == pytest.approx(2.02 + 2 * 1.0, abs=0.01)


def test_numbers_of_a_quick_run_are_not_planned_with():
    ours = {"seconds_per_image": 9.0, "activation_bytes": 10**12}
    report = {"quick": True, "sections": {"extraction": {"ours_batch_1": ours}}}

    rows = plan(report)["estimates"]

    assert all(row["device"].startswith("A100") and row["gpu_memory_gb"] < 10 for row in rows)


def test_plan_is_written_and_labelled_as_an_estimate(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]

    main(["--plan", "--output", str(tmp_path / "benchmark.json")])

    assert "ESTIMATE, NOT A MEASUREMENT" in capsys.readouterr().out
    assert json.loads((tmp_path / "benchmark_plan.json").read_text())["label"] == "ESTIMATE, NOT A MEASUREMENT"
    assert "share_of_peak: 0.4" in (tmp_path / "benchmark_plan.md").read_text()
    assert not (tmp_path / "benchmark.json").exists()
