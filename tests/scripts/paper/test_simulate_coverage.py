import json
import re
import runpy
from pathlib import Path

import pytest

import coverage_simulation

SCRIPT = Path(__file__).parents[3] / "scripts" / "paper" / "simulate_coverage.py"


@pytest.fixture
def main(monkeypatch):
    """The script, with few photos and truths from few."""
    monkeypatch.setattr(coverage_simulation, "NUM_PHOTOS", (6,))
    monkeypatch.setattr(coverage_simulation, "POPULATION", 2000)
    coverage_simulation._find_truths.cache_clear()
    yield runpy.run_path(str(SCRIPT))["main"]
    coverage_simulation._find_truths.cache_clear()


def test_the_script_simulates_every_scenario_and_prints_their_coverage(main, tmp_path, capsys):
    path = tmp_path / "coverage.json"

    main(["--output", str(path), "--num-sets", "4", "--seed", "3"])

    report = json.loads(path.read_text())
    printed = capsys.readouterr().out
    names = {scenario.name for scenario in coverage_simulation.SCENARIOS}
    assert {row["scenario"] for row in report["rows"]} == names
    assert (report["settings"]["num_sets"], report["settings"]["seed"]) == (4, 3)
    assert all(name in printed for name in names)
    assert "balanced_accuracy" in printed


def test_the_report_of_another_run_is_refused_in_a_sentence(main, tmp_path):
    path = tmp_path / "coverage.json"
    path.write_text('{"settings": {"num_sets": 1}, "rows": []}')

    with pytest.raises(SystemExit, match=re.escape(f"simulate_coverage: {path} was simulated with other settings.")):
        main(["--output", str(path)])
