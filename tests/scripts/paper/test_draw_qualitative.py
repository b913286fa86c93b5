import numpy as np
import pytest
from PIL import Image

from draw_qualitative import draw_qualitative


@pytest.fixture
def make_example(tmp_path):
    """Write a photo, its truth (class 4) and maps, each of one class, and return their row."""

    def make(tone, maps):
        name = f"{tone}"
        Image.new("RGB", (8, 8), "black").save(tmp_path / f"{name}.png")
        rows = []
        for (method, fraction), label in ({("truth", 0): 4} | maps).items():
            path = f"{name}_{method}_{fraction}.png"
            Image.fromarray(np.full((8, 8), label, np.uint8)).save(tmp_path / path)
            rows.append({"method": method, "label_fraction": fraction, "map_path": path})
        truth, *predictions = rows
        paths = {"photo_path": f"{name}.png", "truth_path": truth["map_path"]}
        return {"image_id": name, "skin_tone": tone, "maps": predictions} | paths

    return make


@pytest.fixture
def examples(make_example):
    maps = {("FEDD", 0.2): 1, ("FEDD", 0.05): 3, ("VGG16", 0.05): 2, ("VGG16", 0.2): 4}
    return [make_example(tone, maps) for tone in ("I-II", "V-VI")]


def grid(figure, columns):
    return [figure.axes[start : start + columns] for start in range(0, len(figure.axes), columns)]


def shown_colour(axis):
    """Colour of the one class that is shown over a black photo: its own at the opacity of overlays."""
    (image,) = axis.images
    return tuple(np.asarray(image.get_array())[0, 0].tolist())


def test_methods_are_below_one_another_within_each_tone(examples, tmp_path):
    rows = grid(draw_qualitative(examples, tmp_path), 4)

    assert [row[0].get_ylabel() for row in rows] == ["tone\nI-II", "", "tone\nV-VI", ""]
    assert [row[2].get_ylabel() for row in rows] == ["FEDD", "VGG16"] * 2
    assert [len(row[0].images) for row in rows] == [1, 0, 1, 0]


def test_each_map_is_where_its_method_and_fraction_are(examples, tmp_path):
    fedd, vgg16, *_ = grid(draw_qualitative(examples, tmp_path), 4)

    opaque = [(255, 74, 70), (238, 130, 238), (0, 111, 166), (60, 179, 113)]
    lesion, marker, ruler, skin = (pytest.approx([0.45 * part for part in colour], abs=1.5) for colour in opaque)
    assert shown_colour(fedd[0]) == (0, 0, 0)
    assert [list(shown_colour(axis)) for axis in fedd[1:]] == [skin, ruler, lesion]
    assert [list(shown_colour(axis)) for axis in vgg16[2:]] == [marker, skin]


def test_a_map_that_is_missing_leaves_its_place_empty(make_example, tmp_path):
    example = make_example("I-II", {("FEDD", 0.05): 1, ("FEDD", 0.2): 1, ("VGG16", 0.2): 1})

    figure = draw_qualitative([example], tmp_path)

    figure.savefig(tmp_path / "figure.png")
    _, vgg16 = grid(figure, 4)
    assert [len(axis.images) for axis in vgg16] == [0, 0, 0, 1]
    assert vgg16[2].get_ylabel() == "VGG16"


def test_without_a_map_of_the_methods_the_error_names_them(examples, tmp_path):
    with pytest.raises(ValueError, match=r"No example has a map of any of \['ResNet50'\]"):
        draw_qualitative(examples, tmp_path, ["ResNet50"])
