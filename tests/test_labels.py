import pytest

from fedd_hf import configuration_fedd, labels
from fedd_hf.image_processing_fedd import IGNORE_INDEX as PROCESSOR_IGNORE_INDEX
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.labels import IGNORE_INDEX, PixelClass


def test_the_ids_are_those_of_the_released_masks():
    assert {kind.label: int(kind) for kind in PixelClass} == {
        "background": 0,
        "lesion": 1,
        "marker": 2,
        "ruler": 3,
        "skin": 4,
    }


@pytest.mark.parametrize(
    ("kind", "hexadecimal"),
    [
        (PixelClass.BACKGROUND, "ffffff"),
        (PixelClass.LESION, "ff4a46"),
        (PixelClass.MARKER, "ee82ee"),
        (PixelClass.RULER, "006fa6"),
        (PixelClass.SKIN, "3cb371"),
    ],
)
def test_the_colours_are_those_of_the_released_notebooks(kind, hexadecimal):
    assert bytes(kind.colour).hex() == hexadecimal


def test_a_class_compares_with_the_pixels_of_a_mask():
    assert PixelClass(1) is PixelClass.LESION
    assert PixelClass.LESION == 1


def test_the_id_of_a_pixel_that_does_not_count_is_no_class_and_the_same_everywhere():
    assert IGNORE_INDEX == PROCESSOR_IGNORE_INDEX == 255
    assert IGNORE_INDEX not in list(PixelClass)


def test_the_image_processor_allows_as_many_classes_by_default():
    assert FEDDImageProcessor().num_labels == len(PixelClass)


@pytest.mark.parametrize("name", ["SEGMENTATION_LABELS", "MALIGNANCY_LABELS"])
def test_the_names_are_those_of_the_configuration(name):
    assert getattr(labels, name) == getattr(configuration_fedd, name)
