import numpy as np
import pytest
from PIL import Image

from draw_clustering import draw_clustering

SCORES = {"silhouette": 0.3, "adjusted_rand": 0.1, "best_match_iou": 0.4}


def point(block, timestep=100, shift=0.0):
    scores = {name: value + shift for name, value in SCORES.items()}
    ends = {f"{name}_{end}": scores[name] + d for name in scores for end, d in (("low", -0.1), ("high", 0.05))}
    return {"block": block, "timestep": timestep} | scores | ends


@pytest.fixture
def make_report(tmp_path):
    """Write the pictures of examples and return a report of blocks 2 (4 px) and 6 (8 px)."""

    def make(num_examples=1, timesteps=(100,)):
        Image.new("RGB", (8, 8), "pink").save(tmp_path / "photo.png")
        Image.new("L", (8, 8), 4).save(tmp_path / "truth.png")
        blocks = []
        for block, side in ((2, 4), (6, 8)):
            Image.new("L", (side, side), 20 * block).save(tmp_path / f"{block}_activation.png")
            clusters = Image.fromarray(np.full((side, side), 1, np.uint8), mode="P")
            clusters.putpalette([0, 114, 178, 230, 159, 0])
            clusters.save(tmp_path / f"{block}_clusters.png")
            paths = {f"{kind}_path": f"{block}_{kind}.png" for kind in ("activation", "clusters")}
            blocks.append({"block": block} | paths)
        example = {"image_id": "1", "photo_path": "photo.png", "truth_path": "truth.png", "blocks": blocks}
        return {
            "photos": 12,
            "points": [point(block, timestep, block / 100) for block in (2, 6) for timestep in timesteps],
            "chosen": {"by silhouette": 6, "by adjusted rand": 2},
            "examples": [example] * num_examples,
        }

    return make


def colour(axis):
    return np.asarray(axis.images[0].get_array())[0, 0].tolist()


def test_activations_are_above_their_clusters_a_column_per_block(make_report, tmp_path):
    axes = draw_clustering(make_report(), tmp_path).axes

    photo, block_2, block_6, truth, clusters_2, clusters_6 = axes[:6]
    assert [axis.get_title() for axis in (photo, block_2, block_6)] == ["photo", "block 2", "block 6"]
    assert [axis.get_xlabel() for axis in (truth, clusters_2, clusters_6)] == ["truth", "4 px", "8 px"]
    assert [axis.get_ylabel() for axis in (block_2, clusters_2)] == ["activation", "clusters"]
    assert [colour(axis) for axis in (block_2, block_6)] == [[40] * 3, [120] * 3]
    assert [colour(axis) for axis in (clusters_2, clusters_6)] == [[230, 159, 0]] * 2


def test_scores_have_a_panel_each_with_intervals_by_block(make_report, tmp_path):
    panels = draw_clustering(make_report(), tmp_path).axes[6:]

    assert [panel.get_title() for panel in panels] == ["silhouette", "adjusted Rand index", "best-match IoU"]
    for panel, value in zip(panels, SCORES.values(), strict=True):
        curve, whisker, *_ = panel.lines
        assert [label.get_text() for label in panel.get_xticklabels()] == ["2", "6"]
        assert curve.get_ydata().tolist() == pytest.approx([value + 0.02, value + 0.06])
        assert list(whisker.get_ydata()) == pytest.approx([value - 0.08, value + 0.07])


def test_the_caption_says_of_how_many_photos_and_which_blocks_the_scores_choose(make_report, tmp_path):
    figure = draw_clustering(make_report(), tmp_path)

    caption = figure.get_supxlabel()
    assert "n = 12, 95 % intervals; pictures at t = 100." in caption
    assert "Chosen: block 6 by silhouette, block 2 by adjusted Rand." in caption


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=repr)
def test_a_score_that_is_undefined_leaves_a_gap(make_report, tmp_path, nothing):
    report = make_report()
    report["points"][0] |= {"silhouette": nothing, "silhouette_low": nothing, "silhouette_high": nothing}

    figure = draw_clustering(report, tmp_path)

    figure.savefig(tmp_path / "figure.png")
    curve, *rest = figure.axes[6].lines
    assert np.isnan(curve.get_ydata()).tolist() == [True, False]
    assert len(rest) == 2  # whisker and marker of the other block
