"""The original way of the benchmark: the same numbers as ours, at its own price."""

import pytest
import torch

from benchmark_size import QUICK, BenchmarkSize
from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.modeling_fedd import count_votes, jensen_shannon
from fedd_hf.training.pixels import sample_maps
from networks import make_heads, make_original_network, paper_config
from original_recipe import make_classifier
from original_way import PixelDataset, build_matrix, extract_features, predict_labels, train_for

SIZE = (16, 16)


@pytest.fixture
def maps():
    """The feature maps of two photos, of two sizes, channels last as they are stored."""
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(side, side, side, generator=generator) for side in (4, 8)] for _ in range(2)]


@pytest.fixture
def labels():
    return torch.randint(0, 5, (2, *SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def channels_first(maps):
    return [[feature_map.movedim(-1, 0) for feature_map in of_photo] for of_photo in maps]


def test_rows_of_the_matrix_are_the_features_that_we_sample(maps, labels):
    matrix, classes = build_matrix(channels_first(maps), labels)

    pixels = torch.arange(2 * 16 * 16)
    both = [torch.stack(of_block) for of_block in zip(*maps, strict=True)]
    torch.testing.assert_close(matrix, sample_maps(both, pixels, SIZE), rtol=1e-5, atol=1e-6)
    assert torch.equal(classes, labels.flatten().long())


def test_pixels_that_do_not_count_are_not_in_the_matrix(maps, labels):
    labels[1, :, 3] = 255

    matrix, classes = build_matrix(channels_first(maps), labels)

    assert len(matrix) == len(classes) == 2 * 16 * 16 - 16
    assert classes.max() < 5


@pytest.fixture
def model():
    """Heads of the paper's classifiers, with weights and statistics that differ everywhere."""
    generator = torch.Generator().manual_seed(2)
    model = make_heads(paper_config(QUICK))
    with torch.no_grad():
        for name, tensor in model.decode_head.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if name.endswith("var") else -0.5))
    return model


def as_original(head, member, config):
    """One member of the ensemble as a classifier of the original."""
    classifier = make_classifier(sum(config.feature_channels), config.num_labels).eval()
    ours = head.members[member]
    first, *others = [layer for layer in classifier if list(layer.parameters())]
    first.weight.data = torch.cat([projection.weight for projection in ours.projections], dim=1)
    first.bias.data = ours.projections[0].bias
    for layer, wanted in zip(others, [layer for layer in ours.layers if list(layer.parameters())], strict=True):
        layer.load_state_dict(wanted.state_dict())
    return classifier


@torch.no_grad()
def test_with_the_same_weights_the_original_predicts_what_we_do(model):
    config, size = model.config, (64, 64)
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(1, 64, side, side, generator=generator) for side in (8, 16)]
    classifiers = [as_original(model.decode_head, member, config) for member in range(config.ensemble_size)]

    classes, divergence = predict_labels(classifiers, [feature_map[0] for feature_map in maps], size)

    member_logits = model.decode_head(tuple(maps), size)
    assert (classes == count_votes(member_logits).argmax(dim=1)[0]).float().mean() > 0.999
    torch.testing.assert_close(divergence, jensen_shannon(member_logits)[0], rtol=1e-3, atol=1e-4)


def test_original_network_is_ours_and_puts_out_the_same_shapes():
    config, network = paper_config(QUICK), make_original_network(QUICK)

    features = extract_features(network, torch.randn(1, 3, 64, 64), 100, config.blocks)

    assert [tuple(feature_map.shape) for feature_map in features] == [(1, 64, 8, 8), (1, 64, 16, 16)]
    assert features[0].shape[1] == config.block_channels(6)
    assert not any(block._forward_hooks for block in network.output_blocks)


def test_published_size_is_the_papers_network():
    config = paper_config(BenchmarkSize())

    assert {"blocks": config.blocks, "timesteps": config.timesteps} == {"blocks": [6, 8], "timesteps": [100]}
    assert config.backbone_config == FEDDConfig().backbone_config
    assert config.image_size == 256


def test_training_sees_whole_batches_for_as_long_as_it_should(maps, labels):
    matrix, classes = build_matrix(channels_first(maps), labels)

    pixels, seconds = train_for(0.2, make_classifier(12, 5), PixelDataset(matrix, classes))

    assert seconds >= 0.2
    assert pixels > 0
    assert pixels % 64 == 0
