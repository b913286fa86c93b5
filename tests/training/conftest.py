"""What the training tests share: a handful of painted photos, models small enough to train in a second, a store."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset
from fedd_hf.features import FeatureStore
from fedd_hf.training.pixels import StoredFeatures

BATCH_SIZE = 4  # photos per pass of the backbone; six photos are a whole batch and a partial one


@pytest.fixture(scope="session")
def painted():
    """Six painted photos, two of each tone, 64 pixels wide."""
    return paint_dataset(num_per_tone=2, seed=3, size=64)


@pytest.fixture
def processor():
    return FEDDImageProcessor(size=32)


@pytest.fixture
def make_accelerator():
    """Make an accelerator of any precision, which accelerate allows only once in a process."""

    def make(mixed_precision="no", cpu=True, **options):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return Accelerator(cpu=cpu, mixed_precision=mixed_precision, **options)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def accelerator(make_accelerator):
    return make_accelerator()


@pytest.fixture(scope="session")
def _segmenters():
    """Models that were made, by their fields: reading a backbone takes longer than most tests."""
    return {}


@pytest.fixture
def make_segmenter(tiny_backbone, _segmenters):
    """Make a segmentation model with new heads on the tiny random UNet, seen at 32 pixels."""

    def make(**fields):
        reading = {"blocks": [4, 7], "timesteps": [50], "image_size": 32, "ensemble_size": 2, "hidden_sizes": [32, 16]}
        key = str(sorted((reading | fields).items()))
        if key not in _segmenters:
            _segmenters[key] = FEDDForSegmentation.from_backbone(tiny_backbone, **(reading | fields))
        return copy.deepcopy(_segmenters[key])

    return make


@pytest.fixture
def make_classifier(tiny_backbone):
    """Make a malignancy classifier with a new head on the tiny random UNet, seen at 32 pixels."""

    def make():
        return FEDDForImageClassification.from_backbone(
            tiny_backbone, blocks=[5], timesteps=[50], image_size=32, pooled_size=64
        )

    return make


@pytest.fixture
def make_store(make_segmenter, processor, tmp_path):
    """Make a store of the tiny model, in the folder `features` of the test if no other is given."""

    def make(model=None, root="features", processor=processor, **options):
        return FeatureStore(
            tmp_path / root, model or make_segmenter(), processor, **({"batch_size": BATCH_SIZE} | options)
        )

    return make


@pytest.fixture
def features(make_store, painted, processor, accelerator):
    """The painted photos with their stored features."""
    return StoredFeatures(make_store().extract(painted, accelerator), painted, processor)


@pytest.fixture
def count_passes():
    """Count how often the backbone of a model runs from now on."""

    def count(model):
        passes = Counter()
        model.backbone.register_forward_hook(lambda *_: passes.update(["backbone"]))
        return passes

    return count


class HandmadeFeatures:
    """Photos whose maps, `(height, width, channels)`, and labels are given."""

    def __init__(self, maps, labels):
        self.maps, self.labels_of = maps, labels.to(torch.uint8)

    def __len__(self):
        return len(self.labels_of)

    def labels(self, photo):
        return self.labels_of[photo]

    def read(self, photo):
        return self.maps[photo]


@pytest.fixture
def handmade():
    """Make photos of given maps and labels."""
    return HandmadeFeatures


@pytest.fixture
def relabel(handmade):
    """Give photos other labels."""

    def make(features, labels):
        return handmade([features.read(photo) for photo in range(len(features))], labels)

    return make


@pytest.fixture
def run_processes(tmp_path):
    """Run a script in some processes on the CPU, as torchrun does; each writes JSON to the file that it is given."""

    def run(script, *arguments, processes=2, tag=""):
        (tmp_path / "script.py").write_text(script)
        results = tmp_path / f"results-{processes}{tag}"
        results.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, str(tmp_path / "script.py"), *map(str, arguments)]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "RESULTS": str(results), "OMP_NUM_THREADS": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr
        return [json.loads(file.read_text()) for file in sorted(results.iterdir())]

    return run


def _weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def weights_of():
    """Copy the weights of a module."""
    return _weights_of


@pytest.fixture
def assert_same_bits():
    """Compare weights bit for bit and name those that differ."""

    def compare(actual, wanted):
        assert actual.keys() == wanted.keys()
        assert [name for name in actual if not torch.equal(actual[name], wanted[name])] == []

    return compare
