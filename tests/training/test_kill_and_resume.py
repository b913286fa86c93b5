"""Runs that are killed at random moments leave the bytes of an unbroken run. All that forks is in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_and_resume.py")

CONTROL = """
import json, pathlib, sys

import kill_and_resume
from kill_and_resume import Harness, Kill, RunState

harness = Harness(pathlib.Path(sys.argv[1]))
kill = Kill(rank=0, gap=0.0, phase="checkpoint write", occurrence=3, change=0)
jobs = ["segmentation", "classification"]
whole = [harness.kill_and_resume(job, 1, [kill], "whole-" + job) for job in jobs]
resume = RunState.resume
RunState.resume = lambda state: resume(state) and {}
broken = [harness.kill_and_resume(job, 1, [kill], "broken-" + job) for job in jobs]
print(json.dumps([whole, broken]))
"""


def run(*command, cwd=None):
    process = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return process.returncode, process.stdout, process.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all tests here: unbroken runs are made once."""
    return tmp_path_factory.mktemp("kill-and-resume")


@pytest.mark.slow
def test_runs_that_were_killed_leave_the_bytes_of_unbroken_ones(folder, record_property):
    code, output, errors = run(HARNESS, "--cycles", 12, "--output-dir", folder)

    assert code == 0, output + errors
    records = [json.loads(line) for line in (folder / "cycles.jsonl").read_text().splitlines()]
    assert [record["cycle"] for record in records] == list(range(12))
    assert {record["processes"] for record in records} == {1, 2}
    places = {place for record in records for kill in record["kills"] for place in kill["killed"].values()}
    assert any(place.startswith("checkpoint write") for place in places)
    record_property("kill and resume", " ".join(output.split()))


@pytest.mark.slow
def test_cycles_that_are_done_are_not_done_again(folder):
    assert run(HARNESS, "--cycles", 2, "--output-dir", folder)[0] == 0
    records = folder / "cycles.jsonl"
    before = records.read_text()
    records.write_text(before + '{"cycle": 99, "jo')  # the harness itself was killed

    code, output, _ = run(HARNESS, "--cycles", 2, "--output-dir", folder)

    assert code == 0
    assert output.startswith("2 cycles")
    assert records.read_text() == before


@pytest.mark.slow
def test_two_processes_extract_the_bytes_of_one(folder):
    assert run(HARNESS, "--cycles", 6, "--output-dir", folder)[0] == 0

    one, two = (
        {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and path.name != ".lock"
        }
        for root in (folder / "references" / "extraction-1", folder / "references" / "extraction-2")
    )
    assert len(one) > 10
    assert one == two


@pytest.mark.slow
def test_a_resume_that_ignores_its_counters_is_noticed(folder):
    code, output, errors = run("-c", CONTROL, folder, cwd=HARNESS.parent)

    assert code == 0, errors
    whole, broken = json.loads(output.splitlines()[-1])
    assert [record["problems"] for record in whole] == [[], []]
    assert all(any("model.safetensors differs" in problem for problem in record["problems"]) for record in broken)
    assert all(len(record["kills"]) == 1 for record in whole + broken)
