"""Ten thousand real photos, streamed through processor and batcher."""

import resource
import zipfile

import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from fedd_hf.data.sources import load_ham10000
from fedd_hf.image_processing_fedd import FEDDImageProcessor

BATCH_SIZE = 32
MAX_GROWTH_MIB = 32


@pytest.fixture(scope="module")
def photos(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ham10000")
    zipfile.ZipFile(real_data("ham10000_200px.zip")).extractall(folder)
    return load_ham10000(folder / "ham10000_200px")


def resident_mib():
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.slow
def test_ten_thousand_photos_stream_through_processor_and_batcher_without_growing_memory(photos, record_property):
    processor = FEDDImageProcessor(size=64)

    def collate(rows):
        images, masks = [row["image"] for row in rows], [row["mask"] for row in rows]
        return processor(images, segmentation_maps=masks, return_tensors="pt")

    loader = DataLoader(photos.to_iterable_dataset(num_shards=8), batch_size=BATCH_SIZE, collate_fn=collate)
    memory, num_photos, lesion = [], 0, 0
    for batch in loader:
        num_photos += len(batch["pixel_values"])
        lesion += (batch["labels"] == 1).sum().item()
        assert batch["pixel_values"].dtype == torch.float32
        memory.append(resident_mib())

    growth = max(memory[len(memory) // 2 :]) - max(memory[: len(memory) // 4])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    record_property(
        "streaming 10,015 photos",
        f"{growth:+.1f} MiB from the first quarter to the second half; {memory[-1]:.0f} MiB at the end, "
        f"{peak:.0f} MiB at most",
    )
    assert num_photos == 10015
    assert 0.1 < lesion / (num_photos * 64**2) < 0.5
    assert growth < MAX_GROWTH_MIB
