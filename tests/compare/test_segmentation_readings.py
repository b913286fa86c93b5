"""Sets of blocks for pixel classifiers, compared on painted photos and the tiny backbone."""

from accelerate import Accelerator

from fedd_hf.compare.segmentation_readings import compare_segmentation_readings
from fedd_hf.data.painted import paint_dataset
from fedd_hf.training.arguments import SegmentationArguments


def test_segmentation_readings_are_compared_on_the_features_of_their_own_blocks(tiny_backbone, tmp_path):
    train, validation = paint_dataset(2, seed=0, size=32), paint_dataset(1, seed=1, size=32)
    arguments = SegmentationArguments(num_steps=3, images_per_step=3, pixels_per_image=50)

    rows = list(
        compare_segmentation_readings(
            str(tiny_backbone), [[4], [4, 6]], [50], 32, train, validation, arguments, tmp_path, Accelerator()
        )
    )

    assert [(row["blocks"], row["timestep"]) for row in rows] == [([4], 50), ([4, 6], 50)]
    assert all(0 <= row["mean_iou"] <= 1 for row in rows)
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 9  # one file for each photo, whatever is read of it
