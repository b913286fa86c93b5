"""What the tests share: tiny real backbones, models on them, a painted double of DDI, a fresh process. No network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import json
import logging as python_logging
import runpy
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import datasets
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from filelock import FileLock
from hub_double import TOKEN, HubDouble
from huggingface_hub import close_session, constants
from playwright.sync_api import sync_playwright
from transformers.utils import logging
from typer.testing import CliRunner

from fedd_hf import FEDDConfig, FEDDForImageClassification, FEDDForSegmentation, cli
from fedd_hf.cli import quickstart_run
from fedd_hf.data.ddi.local_copy import METADATA_FILE
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from painted_double import MASKS_FILE, paint_ddi

COMMIT = "0123456789" * 4
VERBOSITY = logging.get_verbosity()
DATA = Path(os.environ.get("FEDD_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))

# Three levels, nine blocks, 16 pixels: the smallest network with every kind of up block of the paper's.
TINY_UNET = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 2,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "attn_norm_num_groups": 4,
    "resnet_time_scale_shift": "scale_shift",
}


def shake(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give a module weights and statistics that differ everywhere, so that nothing is equal by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (1.0 if name.endswith("var") else 0.6))
                tensor.sub_(0.0 if name.endswith("var") else 0.3)
    return module


@pytest.fixture
def tiny_unet_config():
    """Arguments of the tiny UNet2DModel."""
    return copy.deepcopy(TINY_UNET)


@pytest.fixture
def make_config():
    """Make a FEDDConfig on the tiny UNet, with other fields where they are given; `unet` changes the UNet."""

    def make(unet=None, **fields):
        unet_config = copy.deepcopy(TINY_UNET) | (unet or {})
        return FEDDConfig(**({"backbone_config": unet_config, "blocks": [2, 4], "image_size": 16} | fields))

    return make


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """A diffusers folder with the tiny UNet and its scheduler. Tests that change it take `backbone_copy`."""
    folder = tmp_path_factory.mktemp("backbones") / "tiny-ddpm"
    torch.manual_seed(0)
    UNet2DModel(**copy.deepcopy(TINY_UNET)).save_pretrained(folder / "unet")
    DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture
def backbone_copy(tiny_backbone, tmp_path):
    """A copy of the tiny backbone that a test may damage."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "backbone"))


@pytest.fixture(scope="session")
def _tiny_models(tiny_backbone):
    fields = {"image_size": 16, "ensemble_size": 3, "hidden_sizes": [8, 6], "pooled_size": 64}
    segmenter = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[2, 4], timesteps=[50, 100], **fields)
    classifier = FEDDForImageClassification.from_backbone(tiny_backbone, blocks=[4], timesteps=[50], **fields)
    shake(segmenter.decode_head)
    shake(classifier.classifier)
    return {"segmentation": segmenter.eval(), "classification": classifier.eval()}


@pytest.fixture
def segmenter(_tiny_models):
    """A segmentation model on the tiny backbone, blocks 2 and 4 at timesteps 50 and 100, in evaluation mode."""
    return copy.deepcopy(_tiny_models["segmentation"])


@pytest.fixture
def classifier(_tiny_models):
    """A malignancy classifier on the tiny backbone, in evaluation mode."""
    return copy.deepcopy(_tiny_models["classification"])


@pytest.fixture
def pixel_values():
    """Two images as the processor would return them."""
    return torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="session")
def real_data():
    """Return the path of a real collection, or skip the test where it is absent."""

    def find(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"The real photos are not at {path}; set FEDD_DATA to the folder that holds {name}.")
        return path

    return find


@pytest.fixture(scope="session")
def released_zip():
    """The masks that the authors of FEDD released."""
    path = DATA / "sddi_ddi_labels.zip"
    if not path.is_file():
        pytest.skip(f"The released masks are not at {path}; set FEDD_DATA to the folder that holds them.")
    return path


@pytest.fixture(scope="session")
def fill_once(tmp_path_factory, worker_id):
    """Fill a folder once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "shared"

    def fill_folder(name, fill):
        folder, is_full = shared / name, shared / f"{name}.full"
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not is_full.exists():
                fill(folder)
                is_full.touch()
        return folder

    return fill_folder


@pytest.fixture(scope="session")
def painted_ddi(fill_once):
    """The painted double of DDI: photos, metadata, masks. Tests that change it take `ddi_copy`."""
    return fill_once("painted-ddi", lambda folder: paint_ddi(folder, photo_size=48))


@pytest.fixture(scope="session")
def ddi_seg(painted_ddi, fill_once):
    """ddi-seg as the script builds it from the double, with metadata and with facts about the photos."""
    main = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "build_ddi_seg.py"))["main"]
    masks, metadata = painted_ddi / MASKS_FILE, painted_ddi / METADATA_FILE

    def build(folder):
        options = ["--masks", masks, "--metadata", metadata, "--photos", painted_ddi, "--output-dir", folder]
        main([str(option) for option in options])

    return fill_once("ddi-seg", build)


@pytest.fixture(scope="session")
def quickstart(fill_once):
    """What `fedd quickstart` leaves, from six test photos and a few steps; `printed.txt` beside it is what it said."""
    small = {
        "size": quickstart_run.QuickstartSize(train_per_tone=2, validation_per_tone=2, test_per_tone=2, photo_size=64),
        "segmentation_arguments": SegmentationArguments(num_steps=3, images_per_step=2, pixels_per_image=20),
        "classification_arguments": ClassificationArguments(max_epochs=2),
    }

    def run(folder):
        with pytest.MonkeyPatch.context() as patch:
            run_quickstart = quickstart_run.run_quickstart
            patch.setattr(quickstart_run, "run_quickstart", lambda folder: run_quickstart(folder, **small))
            command = ["quickstart", "--output-dir", str(folder / "quickstart")]
            result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
        assert result.exit_code == 0, result.output
        (folder / "printed.txt").write_text(result.output)

    return fill_once("run", run) / "quickstart"


@pytest.fixture
def ddi_copy(painted_ddi, tmp_path):
    """A copy of the double that a test may damage. Its files are links: unlink one before writing it anew."""
    return Path(shutil.copytree(painted_ddi, tmp_path / "ddi", copy_function=os.link))


@pytest.fixture(scope="session")
def release_folder(painted_ddi, tmp_path_factory):
    """The painted masks as a folder in the layout of the release."""
    folder = tmp_path_factory.mktemp("release")
    zipfile.ZipFile(painted_ddi / MASKS_FILE).extractall(folder)
    return folder / "ddi_labels"


@pytest.fixture
def release_copy(release_folder, tmp_path):
    """A copy of it that a test may damage. Its files are links: unlink one before writing it anew."""
    return Path(shutil.copytree(release_folder, tmp_path / "ddi_labels", copy_function=os.link))


@pytest.fixture(autouse=True)
def _talkative_libraries():
    """Commands keep transformers and datasets quiet, also in fixtures; each test starts as a new process would."""
    logging.set_verbosity(VERBOSITY)
    datasets.enable_progress_bars()


@pytest.fixture
def messages(caplog):
    """Call it for what the libraries logged in the test, at a level and above. Python warnings become errors."""
    libraries = [python_logging.getLogger(name) for name in ("transformers", "diffusers", "huggingface_hub")]
    for library in libraries:
        library.propagate = True
    caplog.set_level(python_logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield lambda level=python_logging.WARNING: [
            r.getMessage() for r in caplog.get_records("call") if r.levelno >= level
        ]
    for library in libraries:
        library.propagate = False


@pytest.fixture
def own_environ(monkeypatch):
    """Undo what `Dataset.map(num_proc=...)` of datasets 5.2 does: it puts a copy in the place of `os.environ`."""
    monkeypatch.setattr(os, "environ", os.environ)


@pytest.fixture
def hub(monkeypatch):
    """The double of the Hub, to which clients in this process push; it is offline otherwise."""
    with HubDouble() as double:
        switches = {"ENDPOINT": double.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        for name, value in switches.items():
            monkeypatch.setattr(constants, name, value)
        for name, value in {"HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        close_session()
        yield double
    close_session()
    assert double.unknown == []


class HubCache:
    """The cache of huggingface_hub, filled by hand."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, repo_id, source, commit=COMMIT):
        repository = self.folder / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(source, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        return repo_id


@pytest.fixture
def hub_cache(tmp_path):
    """A cache of huggingface_hub to which a test adds repositories; pass its `folder` as `cache_dir`."""
    return HubCache(tmp_path / "home" / "hub")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one, tests that look at pages are skipped, but fail in continuous integration."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        reason = "There is no Chromium on the PATH: install the package `chromium` to look at pages."
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def run_python():
    """Run a script in a fresh, offline Python process and return what it prints last, read as JSON."""

    def run(script, *arguments, cwd=None, **environment):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"} | {name: str(value) for name, value in environment.items()}
        process = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])

    return run


def pytest_terminal_summary(terminalreporter):
    """Print what tests measured (`record_property`), also from other processes."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"Measured: {name}: {value}")
