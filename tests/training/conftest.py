"""What the training tests share: a handful of painted photos and models small enough to train in a second."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.synthetic import paint_dataset


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

    def make(mixed_precision="no"):
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=True, mixed_precision=mixed_precision)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def accelerator(make_accelerator):
    return make_accelerator()


@pytest.fixture
def make_segmenter(tiny_backbone):
    """Make a segmentation model with new heads on the tiny random UNet, seen at 32 pixels."""

    def make(**fields):
        reading = {"blocks": [4, 7], "timesteps": [50], "image_size": 32, "ensemble_size": 2, "hidden_sizes": [32, 16]}
        return FEDDForSegmentation.from_backbone(tiny_backbone, **(reading | fields))

    return make


@pytest.fixture
def make_classifier(tiny_backbone):
    """Make a malignancy classifier with a new head on the tiny random UNet, seen at 32 pixels."""

    def make():
        return FEDDForImageClassification.from_backbone(
            tiny_backbone, blocks=[5], timesteps=[50], image_size=32, pooled_size=64
        )

    return make
