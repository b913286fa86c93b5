import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from draw_scheme import BOTTOM, COMPUTED, LEVEL, READ, TOP, draw_scheme
from fedd_hf import FEDDConfig
from scheme import describe_scheme

EMBEDDED = {
    "block_out_channels": [16, 32, 64, 96, 128],
    "down_block_types": ["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 2,
    "up_block_types": ["AttnUpBlock2D"] * 2 + ["ResnetUpsampleBlock2D"] * 3,
}


@pytest.fixture
def make_scheme(make_config):
    """Describe the paper's network (18 blocks), one as deep as the embedded (15) and the tiny one (9)."""

    def make(name, **fields):
        if name == "paper":
            return describe_scheme(FEDDConfig(**fields))
        if name == "embedded":
            fields = {"unet": EMBEDDED, "blocks": [5, 7, 9, 11, 13], "timesteps": [0], "image_size": 128} | fields
        return describe_scheme(make_config(**fields))

    return make


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def bars(figure, colour):
    """Widths of the bars of a colour within the UNet, from the bottom to the top."""
    shapes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    found = [bar for bar in shapes if bar.get_facecolor()[3] and to_hex(bar.get_facecolor()).upper() == colour]
    return [bar.get_width() for bar in sorted(found, key=Rectangle.get_y) if BOTTOM <= bar.get_y() <= TOP]


def cut_away(figure):
    shapes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [bar for bar in shapes if bar.get_linestyle() != "solid" and BOTTOM <= bar.get_y() <= TOP]


@pytest.mark.parametrize(
    ("name", "read", "computed", "cut"), [("paper", 2, 7, 9), ("embedded", 5, 9, 1), ("tiny", 2, 3, 4)]
)
def test_blocks_are_drawn_as_read_computed_or_cut_away_behind_the_last_one_that_is_read(
    make_scheme, name, read, computed, cut
):
    figure = draw_scheme(make_scheme(name))

    assert (len(bars(figure, READ)), len(bars(figure, COMPUTED)), len(cut_away(figure))) == (read, computed, cut)


@pytest.mark.parametrize("name", ["paper", "embedded", "tiny"])
def test_every_block_is_written_with_its_number_channels_and_size(make_scheme, name):
    scheme = make_scheme(name)

    written = words(draw_scheme(scheme))

    shapes = [f"{part['channels']}×{part['size']}×{part['size']}" for part in scheme["blocks"] + scheme["encoder"]]
    assert [text for text in written if text.isdigit()] == [str(block["block"]) for block in scheme["blocks"]]
    assert sorted(text for text in written if re.fullmatch(r"\d+×\d+×\d+", text) and text[:2] != "3×") == sorted(
        shapes
    )


def test_the_numbers_of_the_paper_are_written(make_scheme):
    written = words(draw_scheme(make_scheme("paper")))

    assert {
        "t = 100",
        "3×256×256",
        "upsample to 256×256\n& concatenate: 1024 channels",
        "ensemble of 5 MLPs per pixel\n1024–128–32–5",
        "map of 5 classes",
        "max-pool one block to 512",
        "MLP 512–64–32–1",
        "malignancy score",
    } <= set(written)


def test_bars_are_to_the_scale_of_the_resolution(make_scheme):
    figure = draw_scheme(make_scheme("paper"))

    levels, read = bars(figure, LEVEL), bars(figure, READ)
    assert np.array(levels) / levels[-1] == pytest.approx(np.array([8, 16, 32, 64, 128, 256]) / 256)
    assert np.array(read) / levels[-1] == pytest.approx(np.array([32, 64]) / 256)
    assert cut_away(figure)[-1].get_width() == pytest.approx(levels[-1])


@pytest.mark.parametrize("name", ["paper", "embedded", "tiny"])
def test_texts_are_legible_inside_the_figure_and_do_not_overlap(make_scheme, name):
    figure = draw_scheme(make_scheme(name))

    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    frame = figure.bbox
    assert min(text.get_fontsize() for text in texts) >= 7
    assert all(
        frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes
    )
    for index, box in enumerate(boxes):
        assert [texts[index].get_text() for other in boxes[index + 1 :] if box.overlaps(other)] == []


def test_the_photo_is_shown_without_and_with_the_noise_of_the_timestep(make_scheme):
    photo = Image.new("RGB", (40, 30), (200, 100, 50))

    clean, noisy = draw_scheme(make_scheme("paper"), photo).axes[0].images

    assert np.unique(clean.get_array().reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]
    centred = np.asarray(noisy.get_array())[..., 1] / 127.5 - 1  # alpha-bar of t = 100 is 0.946 ** 2
    assert centred.mean() == pytest.approx(0.946 * (100 / 127.5 - 1), abs=0.01)
    assert centred.std() == pytest.approx(0.324, abs=0.01)
