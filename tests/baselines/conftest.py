"""What the baselines' tests share: a handful of painted photos, and what brings them to 32 pixels."""

import pytest

from fedd_hf import FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset


@pytest.fixture(scope="session")
def photos():
    """Six painted photos, two of each tone."""
    return paint_dataset(num_per_tone=2, seed=3, size=64)


@pytest.fixture
def processor():
    return FEDDImageProcessor(size=32)
