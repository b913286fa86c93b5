"""The wheel as a stranger installs it: away from the checkout, with the oldest versions that it says it works with."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MAX_MEMORY_GIB = 4
MEASURE = """
import resource, subprocess, sys
process = subprocess.run(sys.argv[1:])
print("peak memory", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, "KiB")
sys.exit(process.returncode)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the checkout without the network."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A bare virtual environment with the wheel and the oldest versions of what it needs; its folder of commands."""
    folder = tmp_path_factory.mktemp("installed")
    constraints = folder / "oldest.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in lower_bounds(wheel).items()))
    run([sys.executable, "-m", "venv", folder / "venv"], cwd=folder)
    commands = folder / "venv" / "bin"
    run([commands / "python", "-m", "pip", "install", "--quiet", "-c", constraints, wheel], cwd=folder)
    return commands


def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(archive.read(name).decode())


def lower_bounds(wheel):
    """Oldest version of each requirement that is not of an extra."""
    requirements = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist")]
    required = [requirement for requirement in requirements if "extra" not in str(requirement.marker or "")]
    return {
        requirement.name: specifier.version
        for requirement in required
        for specifier in requirement.specifier
        if specifier.operator in (">=", "==", "~=")
    }


def run(command, cwd):
    """Run a command away from this process' Python path and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "300"}
    process = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def test_the_wheel_carries_the_embedded_backbone_and_its_defaults(names):
    embedded = [name.removeprefix("fedd_hf/embedded/") for name in names if name.startswith("fedd_hf/embedded/")]

    assert {
        "fedd_defaults.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    } <= set(embedded)


def test_the_wheel_carries_every_card_template(names):
    templates = {path.name for path in (ROOT / "hub_cards").glob("*.j2")}

    assert templates
    assert templates <= {name.removeprefix("fedd_hf/hub/templates/") for name in names}


def test_the_wheel_carries_the_list_of_released_splits(names):
    assert "fedd_hf/data/ddi/released_splits.csv" in names


def test_the_wheel_carries_every_module(names):
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}

    assert modules <= set(names)


def test_the_wheel_carries_nothing_else(names):
    folders = {name.split("/")[0] for name in names}

    assert folders == {"fedd_hf", next(name for name in folders if name.endswith(".dist-info"))}
    assert [name for name in names if re.search(r"(^|/)(tests?|scripts|reports|__pycache__)/", name)] == []
    assert [name for name in names if name.endswith((".pt", ".bin", ".pyc", ".ipynb", ".parquet"))] == []


def test_every_requirement_states_its_oldest_version(wheel):
    requirements = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist")]

    required = {requirement.name for requirement in requirements if "extra" not in str(requirement.marker or "")}
    assert set(lower_bounds(wheel)) == required


def test_quickstart_runs_from_the_wheel_with_the_oldest_versions(installed, tmp_path, record_property):
    """Install, run, read what it prints and type that: all as a newcomer would, offline and in another folder."""
    start = time.perf_counter()
    printed = run([sys.executable, "-c", MEASURE, installed / "fedd", "quickstart", "--output-dir", "first"], tmp_path)
    seconds = time.perf_counter() - start
    memory = int(re.search(r"peak memory (\d+) KiB", printed)[1]) / 2**20
    record_property("quickstart from the wheel", f"{seconds:.0f} s, at most {memory:.2f} GiB")

    assert memory <= MAX_MEMORY_GIB
    assert json.loads((tmp_path / "first" / "report.json").read_text())["experiment"] == "quickstart"
    location = run([installed / "python", "-c", "import fedd_hf; print(fedd_hf.__file__)"], cwd=tmp_path)
    assert str(ROOT) not in location

    snippet = "\n".join(
        line.strip() for line in printed.splitlines() if line.strip().startswith(("import ", "pipeline("))
    )
    assert len(snippet.splitlines()) == 3
    shown = re.sub(r"^(pipeline\(.*)$", r"print(\1)", snippet, flags=re.MULTILINE)
    answer = run([installed / "python", "-c", shown], cwd=tmp_path)
    for word in ("lesion", "skin", "malignant", "benign"):
        assert word in answer

    models = ["--model", "first/segmentation", "--model", "first/classification"]
    said = run([installed / "fedd", "predict", "first/photos", *models, "--output-dir", "out"], cwd=tmp_path)
    assert "60 of 60 photos predicted" in said
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 60
