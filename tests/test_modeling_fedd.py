import copy
import json
import logging
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import entropy
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    Trainer,
    TrainingArguments,
    pipeline,
)

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor, modeling_fedd
from fedd_hf.modeling_fedd import (
    FEDDDecodeHead,
    FEDDSegmenterOutput,
    count_votes,
    default_batch_size,
    jensen_shannon,
    mean_log_softmax,
    pool_features,
)

COMMIT = "0123456789" * 4


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# The pixel head


def separate_members(head, config):
    """The ensemble the slow way: one network per member, over rows of pixel features, with copied weights."""
    members = []
    for member in head.members:
        sizes = [sum(config.feature_channels), *config.hidden_sizes]
        layers = []
        for size, next_size in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(size, next_size), nn.ReLU(), nn.BatchNorm1d(next_size)]
        separate = nn.Sequential(*layers, nn.Linear(sizes[-1], config.num_labels)).to(member.layers[2].weight.dtype)
        weight = torch.cat([projection.weight for projection in member.projections], dim=1).clone()
        state = {"0.weight": weight, "0.bias": member.projections[0].bias.clone()}
        for name, tensor in member.layers.state_dict().items():
            number, _, rest = name.partition(".")
            state[f"{int(number) + 1}.{rest}"] = tensor.clone()
        separate.load_state_dict(state)
        members.append(separate)
    return members


def pixel_features(feature_maps, size):
    """Upsample and concatenate, one row per pixel. Source: ddpm-segmentation, `collect_features`."""
    upsampled = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in feature_maps]
    return torch.cat(upsampled, dim=1).permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("is_training", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize("hidden_sizes", [[8, 6], [7], [5, 4, 3]])
def test_ensemble_is_separate_classifiers_over_pixels(make_config, is_training, hidden_sizes):
    config = make_config(hidden_sizes=hidden_sizes, timesteps=[50, 100], ensemble_size=5)
    torch.manual_seed(0)
    head = FEDDDecodeHead(config).double()
    for tensor in head.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    members = separate_members(head, config)
    feature_maps = tuple(
        random(2, channels, 4, 4, dtype=torch.float64, seed=i) for i, channels in enumerate(config.feature_channels)
    )

    member_logits = head.train(is_training)(feature_maps, (8, 8))

    rows = pixel_features(feature_maps, (8, 8))
    for member, separate in enumerate(members):
        expected = separate.train(is_training)(rows).view(2, 8, 8, 5).permute(0, 3, 1, 2)
        torch.testing.assert_close(member_logits[:, member], expected, rtol=1e-9, atol=1e-9)  # float64


def test_running_statistics_are_those_of_separate_classifiers(make_config):
    config = make_config(hidden_sizes=[8, 6], ensemble_size=2)
    head = FEDDDecodeHead(config).double().train()
    members = separate_members(head, config)
    feature_maps = tuple(random(2, channels, 4, 4, dtype=torch.float64) for channels in config.feature_channels)

    head(feature_maps, (4, 4))

    for member, separate in enumerate(members):
        separate.train()(pixel_features(feature_maps, (4, 4)))
        torch.testing.assert_close(head.members[member].layers[1].running_var, separate[2].running_var)


def test_head_of_the_paper_has_five_times_its_parameters():
    config = FEDDForSegmentation.config_class()

    num_parameters = sum(parameter.numel() for parameter in FEDDDecodeHead(config).parameters())

    assert num_parameters == 5 * 135_813  # method.md 3.5


def test_new_pixel_classifiers_are_drawn_from_a_narrow_normal(make_config):
    torch.manual_seed(0)
    model = FEDDForSegmentation(make_config(blocks=[0, 1, 2, 3, 4]))

    members = model.decode_head.members
    weights = torch.cat([projection.weight for member in members for projection in member.projections], dim=1)
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)  # 51,200 draws
    assert weights.mean().item() == pytest.approx(0, abs=5e-4)
    assert all(linear.bias.abs().max() == 0 for member in members for linear in member.layers[2::3])


def test_members_of_a_new_ensemble_differ(make_config):
    first, second = FEDDForSegmentation(make_config(ensemble_size=2)).decode_head.members

    assert not torch.equal(first.projections[0].weight, second.projections[0].weight)


# The pixel head in evaluation


@pytest.fixture
def make_head(make_config):
    """Make a head in evaluation whose weights and statistics differ everywhere."""

    def make(**fields):
        head = FEDDDecodeHead(make_config(**({"hidden_sizes": [8, 6]} | fields)))
        for seed, (name, tensor) in enumerate(head.state_dict().items()):
            if tensor.is_floating_point():
                values = random(*tensor.shape, seed=seed)
                tensor.copy_(values.abs() + 0.1 if name.endswith("var") else values)
        return head.eval()

    return make


def make_maps(head, *sizes, batch_size=2):
    channels = [projection.in_features for projection in head.members[0].projections]
    return tuple(
        random(batch_size, number, *size, seed=seed)
        for seed, (number, size) in enumerate(zip(channels, sizes, strict=True))
    )


def by_the_formula(head, feature_maps, size):
    """The slow way: upsample and concatenate all maps, then classify every pixel by each member."""
    rows, batch_size = pixel_features(feature_maps, size), len(feature_maps[0])
    logits = []
    for member in head.members:
        weight = torch.cat([projection.weight for projection in member.projections], dim=1)
        hidden = rows @ weight.T + member.projections[0].bias
        logits.append(member.layers(hidden).view(batch_size, *size, -1).permute(0, 3, 1, 2))
    return torch.stack(logits, dim=1)


def assert_close_to_largest(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


SHAPES = {
    "powers of two": ([(4, 4), (8, 8)], (16, 16)),
    "odd": ([(3, 5), (7, 2)], (17, 11)),
    "full size": ([(13, 9), (13, 9)], (13, 9)),
    "one of full size": ([(4, 4), (16, 16)], (16, 16)),
    "full width only": ([(4, 16), (8, 8)], (16, 16)),
    "smaller than the maps": ([(32, 32), (4, 4)], (10, 6)),
    "single pixels": ([(1, 1), (2, 1)], (5, 3)),
    "one row": ([(1, 40), (1, 40)], (1, 40)),
}


@pytest.mark.parametrize("pixels_per_band", [1, 50, 2048])
@pytest.mark.parametrize(("map_sizes", "size"), SHAPES.values(), ids=SHAPES)
def test_evaluation_gives_what_the_formula_of_training_does(make_head, map_sizes, size, pixels_per_band, monkeypatch):
    monkeypatch.setattr(modeling_fedd, "_PIXELS_PER_BAND", pixels_per_band)
    head = make_head(ensemble_size=3)
    feature_maps = make_maps(head, *map_sizes)

    member_logits = head(feature_maps, size)

    assert member_logits.shape == (2, 3, 5, *size)
    assert_close_to_largest(member_logits, by_the_formula(head, feature_maps, size))


@pytest.mark.parametrize(
    "fields",
    [
        {"ensemble_size": 1},
        {"num_labels": 2},
        {"num_labels": 34},
        {"hidden_sizes": [7]},
        {"hidden_sizes": [5, 4, 3, 2]},
        {"blocks": [2, 3, 4, 5], "timesteps": [50, 100, 150]},
    ],
    ids=str,
)
def test_evaluation_of_other_heads_gives_what_the_formula_of_training_does(make_head, fields):
    head = make_head(**fields)
    sizes = [(3 + i % 3, 4 + i % 2) for i in range(len(head.members[0].projections))]
    feature_maps = make_maps(head, *sizes)

    assert_close_to_largest(head(feature_maps, (12, 9)), by_the_formula(head, feature_maps, (12, 9)))


def test_evaluation_is_exact_where_means_are_far_from_zero(make_head):
    head = make_head().double()
    for member in head.members:
        member.layers[1].running_mean.fill_(1000.0)
    feature_maps = tuple(feature_map.double() for feature_map in make_maps(head, (4, 4), (8, 8)))

    torch.testing.assert_close(
        head(feature_maps, (8, 8)), by_the_formula(head, feature_maps, (8, 8)), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_read_as_they_are(make_head, dtype):
    head = make_head()
    feature_maps = tuple(feature_map.to(dtype) for feature_map in make_maps(head, (4, 4), (8, 8)))

    member_logits = head(feature_maps, (16, 16))

    assert torch.equal(member_logits, head(tuple(feature_map.float() for feature_map in feature_maps), (16, 16)))


def test_evaluation_runs_under_autocast(make_head):
    head = make_head()
    feature_maps = make_maps(head, (4, 4), (8, 8))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        member_logits = head(feature_maps, (16, 16))

    assert_close_to_largest(member_logits.float(), head(feature_maps, (16, 16)), tolerance=0.03)


def test_maps_may_lie_channels_last_in_memory(make_head):
    head = make_head()
    feature_maps = make_maps(head, (4, 4), (8, 8))
    channels_last = tuple(feature_map.contiguous(memory_format=torch.channels_last) for feature_map in feature_maps)

    assert_close_to_largest(head(channels_last, (16, 16)), head(feature_maps, (16, 16)), tolerance=1e-6)


def test_what_is_said_of_a_photo_does_not_depend_on_its_batch(make_head):
    head = make_head()
    feature_maps = make_maps(head, (4, 4), (8, 8), batch_size=3)

    together = head(feature_maps, (16, 16))

    for photo in range(3):
        alone = head(tuple(feature_map[photo : photo + 1] for feature_map in feature_maps), (16, 16))
        assert_close_to_largest(alone[0], together[photo], tolerance=1e-6)  # sums in another order


def test_evaluation_has_the_gradients_of_the_formula_of_training(make_head):
    head, same = make_head().double(), make_head().double()
    feature_maps = tuple(feature_map.double() for feature_map in make_maps(head, (4, 4), (8, 8)))

    head(feature_maps, (16, 16)).sin().sum().backward()
    by_the_formula(same, feature_maps, (16, 16)).sin().sum().backward()

    for parameter, expected in zip(head.parameters(), same.parameters(), strict=True):
        assert_close_to_largest(parameter.grad, expected.grad, tolerance=1e-9)


class LargestTensor(TorchDispatchMode):
    """Remember the size in bytes of the largest tensor that is made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.nbytes = max([self.nbytes, *(tensor.untyped_storage().nbytes() for tensor in tensors)])
        return result


@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluation_never_makes_a_tensor_of_all_members_or_channels_at_full_size(batch_size):
    head = FEDDDecodeHead(FEDDForSegmentation.config_class()).eval()  # 1024 channels, 5 x 128 hidden values
    feature_maps = make_maps(head, (16, 16), (32, 32), batch_size=batch_size)

    with torch.no_grad(), LargestTensor() as largest:
        member_logits = head(feature_maps, (128, 128))
        count_votes(member_logits)
        jensen_shannon(member_logits)

    assert largest.nbytes <= batch_size * 128 * 128 * 128 * 4


def test_evaluation_of_maps_of_full_size_makes_one_member_at_a_time(make_head):
    head = make_head(hidden_sizes=[32, 4], ensemble_size=4)

    with torch.no_grad(), LargestTensor() as largest:
        head(make_maps(head, (64, 64), (64, 64), batch_size=1), (64, 64))

    assert largest.nbytes <= 32 * 64 * 64 * 4


@pytest.mark.parametrize(("image_size", "batch_size"), [(64, 32), (128, 8), (256, 2), (512, 1)])
def test_a_batch_has_as_many_photos_as_make_131072_pixels(image_size, batch_size):
    assert default_batch_size(image_size) == batch_size


# Voting


@pytest.mark.parametrize("ensemble_size", [1, 2, 5])
def test_majority_is_the_mode_of_the_members_with_ties_to_the_smallest_id(ensemble_size):
    member_logits = random(2, ensemble_size, 5, 16, 16)

    winners = count_votes(member_logits).argmax(dim=1)

    expected = torch.mode(member_logits.argmax(dim=2), dim=1).values
    assert torch.equal(winners, expected)


def test_votes_are_counts():
    member_logits = torch.tensor([[[5.0, 0, 0], [0, 0, 1], [0, 0, 9]]])[..., None, None]

    assert count_votes(member_logits).flatten().tolist() == [1, 0, 2]


def test_logits_are_the_log_of_the_mean_softmax():
    member_logits = 4 * random(2, 3, 5, 4, 4)

    logits = mean_log_softmax(member_logits)

    exponentials = member_logits.exp()
    expected = (exponentials / exponentials.sum(dim=2, keepdim=True)).mean(dim=1).log()
    torch.testing.assert_close(logits, expected)


def test_logits_of_extreme_members_are_finite():
    member_logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]])[..., None, None]

    assert mean_log_softmax(member_logits).flatten().tolist() == pytest.approx([np.log(0.5)] * 2)


def test_uncertainty_is_the_jensen_shannon_divergence_of_scipy():
    member_logits = 3 * random(2, 5, 4, 3, 3)

    divergence = jensen_shannon(member_logits)

    probabilities = member_logits.softmax(dim=2).double().numpy()
    expected = entropy(probabilities.mean(axis=1), axis=1) - entropy(probabilities, axis=2).mean(axis=1)
    np.testing.assert_allclose(divergence, expected, atol=1e-6)  # float32 sums of numbers below log(4)


def test_uncertainty_runs_from_agreement_to_the_log_of_the_number_of_labels():
    agreement = torch.full((1, 3, 3, 1, 1), 0.0)
    disagreement = (100 * torch.eye(3))[None, :, :, None, None]

    assert jensen_shannon(agreement).item() == 0
    assert jensen_shannon(disagreement).item() == pytest.approx(np.log(3))


# Segmentation


def test_segmenter_returns_logits_of_the_size_of_the_image(segmenter, pixel_values):
    output = segmenter(pixel_values)

    assert isinstance(output, FEDDSegmenterOutput)
    assert output.logits.shape == (2, 5, 16, 16)
    assert output.loss is None
    assert output.member_logits is None
    assert output.uncertainty is None


def test_segmenter_returns_members_and_uncertainty_when_asked(segmenter, pixel_values):
    output = segmenter(pixel_values, output_member_logits=True, output_uncertainty=True)

    assert output.member_logits.shape == (2, 3, 5, 16, 16)
    assert torch.equal(output.uncertainty, jensen_shannon(output.member_logits))
    assert torch.equal(output.logits, mean_log_softmax(output.member_logits))


def test_segmenter_counts_votes_where_the_config_says_so(segmenter, pixel_values):
    output = segmenter(pixel_values, output_member_logits=True)
    segmenter.config.voting = "mean"
    mean = segmenter(pixel_values)

    assert torch.equal(output.votes, count_votes(output.member_logits))
    assert mean.votes is None
    assert torch.equal(output.logits, mean.logits)


@pytest.mark.parametrize("is_training", [True, False])
def test_logits_have_a_gradient(segmenter, pixel_values, is_training):
    segmenter.train(is_training)(pixel_values).logits[:, 1].sum().backward()

    projections = segmenter.decode_head.members[0].projections
    assert all(parameter.grad.abs().sum() > 0 for parameter in projections.parameters())


def test_segmenter_returns_its_feature_maps_when_asked(segmenter, pixel_values):
    feature_maps = segmenter.backbone(pixel_values).feature_maps

    output = segmenter(pixel_values, output_hidden_states=True)

    assert all(torch.equal(*pair) for pair in zip(output.hidden_states, feature_maps, strict=True))
    assert segmenter(pixel_values).hidden_states is None


def test_segmenter_returns_a_tuple_without_return_dict(segmenter, pixel_values):
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    expected = segmenter(pixel_values, labels=labels)

    loss, logits, _ = segmenter(pixel_values, labels=labels, return_dict=False)

    assert torch.equal(loss, expected.loss)
    assert torch.equal(logits, expected.logits)


def test_segmenter_follows_return_dict_of_the_config(segmenter, pixel_values):
    segmenter.config.return_dict = False

    logits, votes = segmenter(pixel_values)

    assert logits.shape == votes.shape == (2, 5, 16, 16)


def test_loss_is_the_mean_of_the_cross_entropies_of_the_members_where_pixels_count(segmenter, pixel_values):
    labels = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    labels[0, :5] = 255

    output = segmenter(pixel_values, labels=labels, output_member_logits=True)

    losses = []
    for member in range(3):
        rows = output.member_logits[:, member].permute(0, 2, 3, 1)[labels != 255]
        right = rows.softmax(dim=-1)[torch.arange(len(rows)), labels[labels != 255]]
        losses.append(-right.log().mean())
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())


def test_classes_can_weigh_differently_in_the_loss(segmenter):
    member_logits = random(2, 3, 5, 4, 4)
    labels = torch.randint(0, 5, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    labels[0, 0] = 255
    weights = torch.tensor([1.0, 5.0, 0.0, 2.0, 0.5])

    loss = segmenter.loss(member_logits, labels, weights)

    rows = member_logits.permute(0, 3, 4, 1, 2)[labels != 255].log_softmax(dim=-1)  # (pixels, members, classes)
    counted = labels[labels != 255]
    said = rows[torch.arange(len(rows)), :, counted]
    expected = -(said * weights[counted][:, None]).sum() / (3 * weights[counted].sum())
    torch.testing.assert_close(loss, expected)


def test_pixels_to_ignore_can_have_another_label(segmenter, pixel_values):
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[:, :8] = 4
    all_count = segmenter(pixel_values, labels=labels).loss
    segmenter.config.semantic_loss_ignore_index = 4

    loss = segmenter(pixel_values, labels=labels).loss

    labels[:, :8] = 255
    segmenter.config.semantic_loss_ignore_index = 255
    assert torch.equal(loss, segmenter(pixel_values, labels=labels).loss)
    assert not torch.equal(loss, all_count)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_any_integers(segmenter, pixel_values, dtype):
    labels = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    labels[0, 0] = 255

    loss = segmenter(pixel_values, labels=labels.to(dtype)).loss

    assert torch.equal(loss, segmenter(pixel_values, labels=labels).loss)


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(2, 8, 8, dtype=torch.long),
        torch.zeros(1, 16, 16, dtype=torch.long),
        torch.zeros(2, 1, 16, 16, dtype=torch.long),
        torch.zeros(2, 16, 16),
        torch.zeros(2, 16, 16, dtype=torch.bool),
    ],
    ids=["size", "batch", "channel", "float", "bool"],
)
def test_labels_of_another_shape_or_kind_are_refused(segmenter, pixel_values, labels):
    with pytest.raises(ValueError, match=r"`labels` must be integers of shape \(2, 16, 16\), got .*segmentation_maps"):
        segmenter(pixel_values, labels=labels)


def test_only_the_head_has_gradients(segmenter, pixel_values):
    segmenter.train()(pixel_values, labels=torch.ones(2, 16, 16, dtype=torch.long)).loss.backward()

    assert all(parameter.grad is None for parameter in segmenter.backbone.parameters())
    assert all(parameter.grad is not None for parameter in segmenter.decode_head.parameters())


def test_segmenter_overfits_two_images(make_config, pixel_values):
    torch.manual_seed(0)
    model = FEDDForSegmentation(make_config(blocks=[4, 8], ensemble_size=2, hidden_sizes=[32, 16])).train()
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[0, 4:12, 4:12], labels[1, :, 8:], labels[1, :4, :4] = 1, 4, 2
    optimizer = torch.optim.Adam(model.decode_head.parameters(), lr=0.02)

    for _ in range(80):
        optimizer.zero_grad()
        model(pixel_values, labels=labels).loss.backward()
        optimizer.step()

    right = model(pixel_values).logits.argmax(dim=1) == labels
    assert right.float().mean() > 0.98


# Classification


def pool_step_by_step(feature_map):
    """2-D and then 1-D max pooling by two, as often as the author's `get_poolings` says (method.md 4.3)."""
    channels, width = feature_map.shape[1], feature_map.shape[-1]
    rows = 512 // channels if channels < 512 else 1
    num_2d, num_1d = int(np.log2(width // rows)), int(np.log2(channels * rows * rows // 512))
    for _ in range(num_2d):
        feature_map = F.max_pool2d(feature_map, kernel_size=2, stride=2)
    flat = feature_map.flatten(1)[:, None]
    for _ in range(num_1d):
        flat = F.max_pool1d(flat, kernel_size=2, stride=2)
    return flat[:, 0]


@pytest.mark.parametrize("block", range(18))
def test_pooling_is_that_of_the_author_for_each_block_of_the_paper(block):
    config = FEDDForSegmentation.config_class()
    channels, size = config.block_channels(block), config.block_size(block)
    feature_map = random(1, channels, size, size, seed=block)

    pooled = pool_features(feature_map)

    assert pooled.shape == (1, 512)
    assert torch.equal(pooled, pool_step_by_step(feature_map))


@pytest.mark.parametrize("channels", [32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("size", [16, 32])
def test_pooling_is_that_of_the_author_for_other_widths(channels, size):
    feature_map = random(2, channels, size, size)

    assert torch.equal(pool_features(feature_map), pool_step_by_step(feature_map))


@pytest.mark.parametrize("channels", [96, 640, 8])
def test_pooling_of_any_width_has_the_asked_length(channels):
    assert pool_features(random(2, channels, 64, 64), pooled_size=512).shape == (2, 512)


def test_pooling_of_half_precision_is_exact():
    feature_map = random(1, 64, 16, 16).half()

    assert torch.equal(pool_features(feature_map), pool_features(feature_map.float()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": [2, 4]}, r"reads one block at one timestep, got `blocks`=\[2, 4\], `timesteps`=\[100\]"),
        ({"timesteps": [50, 100]}, r"reads one block at one timestep, got `blocks`=\[4\], `timesteps`=\[50, 100\]"),
        ({"num_labels": 5}, r"has the labels \['benign', 'malignant'\].* Type FEDDConfig\(..., num_labels=2\)"),
        ({"pooled_size": 512}, r"Block 4 is too small to pool to 512: its 16 channels need 32 rows, and it has 8"),
    ],
)
def test_classifier_refuses_a_config_that_it_cannot_use(make_config, fields, message):
    config = make_config(**({"blocks": [4], "num_labels": 2, "pooled_size": 64} | fields))

    with pytest.raises(ValueError, match=message):
        FEDDForImageClassification(config)


def test_classifier_has_the_layers_of_the_author(make_config):
    model = FEDDForImageClassification(make_config({"block_out_channels": [8, 16, 512]}, blocks=[2], num_labels=2))

    kinds = [type(layer).__name__ for layer in model.classifier]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.5, 0.25]
    assert sum(p.numel() for p in model.classifier.parameters()) == 35_137  # method.md 4.1


def test_malignancy_is_the_sigmoid_of_one_number(classifier, pixel_values):
    logits = classifier(pixel_values).logits

    (feature_map,) = classifier.backbone(pixel_values).feature_maps
    z = classifier.classifier(pool_features(feature_map, 64))[:, 0]
    assert torch.equal(logits, torch.stack([torch.zeros(2), z], dim=1))
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], torch.sigmoid(z))


def test_classification_loss_is_binary_cross_entropy(classifier, pixel_values):
    output = classifier(pixel_values, labels=torch.tensor([1, 0]))

    expected = F.binary_cross_entropy_with_logits(output.logits[:, 1], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(3, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long), torch.zeros(2)],
    ids=["batch", "column", "float"],
)
def test_classification_labels_of_another_shape_or_kind_are_refused(classifier, pixel_values, labels):
    with pytest.raises(ValueError, match=r"`labels` must be integers of shape \(2,\), got .* 0 \(benign\) and 1"):
        classifier(pixel_values, labels=labels)


@pytest.mark.parametrize("labels", [torch.tensor([0, 2]), torch.tensor([-1, 0])])
def test_classification_labels_that_are_no_class_are_refused(classifier, pixel_values, labels):
    with pytest.raises(ValueError, match="`labels` must lie in 0..1"):
        classifier(pixel_values, labels=labels)


@pytest.mark.parametrize("model", [FEDDForSegmentation, FEDDForImageClassification])
def test_problem_type_that_no_model_has_is_refused(make_config, model):
    config = make_config(blocks=[4], num_labels=2, pooled_size=64, problem_type="multi_label_classification")

    with pytest.raises(ValueError, match="`problem_type` must be None or 'single_label_classification'"):
        model(config)


def test_classifier_returns_a_tuple_without_return_dict(classifier, pixel_values):
    loss, logits = classifier(pixel_values, labels=torch.tensor([1, 0]), return_dict=False)

    assert loss.shape == ()
    assert logits.shape == (2, 2)


def test_classifier_overfits_two_images(classifier, pixel_values):
    labels = torch.tensor([1, 0])
    optimizer = torch.optim.Adam(classifier.classifier.parameters(), lr=0.02)

    for _ in range(60):
        optimizer.zero_grad()
        classifier(pixel_values, labels=labels).loss.backward()
        optimizer.step()

    assert torch.equal(classifier(pixel_values).logits.argmax(dim=1), labels)


# New heads


def is_frozen(model):
    return not any(p.requires_grad for p in model.backbone.parameters()) and not model.train().backbone.training


def is_trainable(model):
    heads = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    return len(heads) > 0 and all(parameter.requires_grad for parameter in heads)


def test_new_heads_stand_on_a_frozen_backbone(tiny_backbone):
    model = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[2], image_size=16)

    assert is_frozen(model)
    assert is_trainable(model)
    assert model.config.backbone == str(tiny_backbone)


def test_new_heads_are_no_news(tiny_backbone, messages):
    FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[2], timesteps=[50], image_size=16)

    assert messages() == []


def test_new_classifier_is_binary(tiny_backbone):
    model = FEDDForImageClassification.from_backbone(tiny_backbone, blocks=[4], image_size=16, pooled_size=64)

    assert model.config.id2label == {0: "benign", 1: "malignant"}


def test_new_heads_on_the_embedded_backbone():
    model = FEDDForSegmentation.from_backbone(blocks=[2], image_size=16)

    assert model.config.backbone == "embedded"
    assert model.config.backbone_revision is None
    assert is_frozen(model)


def test_new_heads_in_half_precision_keep_the_noise(tiny_backbone):
    model = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[2], image_size=16, dtype=torch.bfloat16)

    assert model.dtype == torch.bfloat16
    assert model.backbone.noise.dtype == torch.float32


def test_block_that_the_backbone_lacks_is_refused(tiny_backbone):
    with pytest.raises(ValueError, match=r"`blocks` must rise within \[0, 8\] .* got \[6, 9\]"):
        FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[6, 9], image_size=16)


# Saving and loading


@pytest.fixture(scope="session")
def _embedded_segmenter():
    model = FEDDForSegmentation.from_backbone("embedded", blocks=[2, 4], image_size=16, hidden_sizes=[8, 6])
    torch.manual_seed(0)
    for parameter in model.decode_head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


FORMS = ["self-contained", "heads-only, embedded", "heads-only, local"]


@pytest.fixture
def save_as(segmenter, classifier, _embedded_segmenter, backbone_copy, tmp_path):
    """Save a model in one of the forms; return the folder and the model."""

    def save(form, task="segmentation"):
        model = {"segmentation": segmenter, "classification": classifier}[task]
        if form == "heads-only, embedded":
            model = copy.deepcopy(_embedded_segmenter)
        if form == "heads-only, local":
            model.config.backbone = str(backbone_copy)
        model.config.save_backbone = form == "self-contained"
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model

    return save


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loader", [FEDDForSegmentation, AutoModelForSemanticSegmentation])
def test_loaded_segmenter_gives_the_same_logits(save_as, pixel_values, form, loader, messages):
    folder, model = save_as(form)

    loaded = loader.from_pretrained(folder)

    assert type(loaded) is FEDDForSegmentation
    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))
    assert is_frozen(loaded)
    assert is_trainable(loaded)
    assert messages() == []


@pytest.mark.parametrize("form", ["self-contained", "heads-only, local"])
@pytest.mark.parametrize("loader", [FEDDForImageClassification, AutoModelForImageClassification])
def test_loaded_classifier_gives_the_same_logits(save_as, pixel_values, form, loader, messages):
    folder, model = save_as(form, "classification")

    loaded = loader.from_pretrained(folder)

    assert type(loaded) is FEDDForImageClassification
    assert torch.equal(loaded.eval()(pixel_values).logits, model(pixel_values).logits)
    assert is_frozen(loaded)
    assert is_trainable(loaded)
    assert messages() == []


def member_logits(model, pixel_values):
    """Real numbers rather than votes."""
    return model.eval()(pixel_values, output_member_logits=True).member_logits


def test_heads_only_checkpoint_holds_no_backbone(save_as):
    folder, _ = save_as("heads-only, embedded")

    tensors = load_file(folder / "model.safetensors")
    assert [name for name in tensors if name.startswith("backbone.")] == ["backbone.noise"]
    assert json.loads((folder / "config.json").read_text())["backbone"] == "embedded"


@pytest.mark.parametrize("form", ["self-contained", "heads-only, local"])
def test_checkpoint_names_no_folder_of_this_machine(save_as, tmp_path, form):
    folder, _ = save_as(form)

    for path in folder.glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text()


def test_heads_only_checkpoint_names_its_backbone_relatively(save_as):
    folder, _ = save_as("heads-only, local")

    assert json.loads((folder / "config.json").read_text())["backbone"] == "../backbone"


def test_heads_and_backbone_can_be_moved_together(save_as, tmp_path, pixel_values):
    _, model = save_as("heads-only, local")
    (tmp_path / "elsewhere").mkdir()
    for name in ("backbone", "model"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)

    loaded = FEDDForSegmentation.from_pretrained(tmp_path / "elsewhere" / "model")

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))


def test_heads_may_lie_in_the_folder_of_their_backbone(segmenter, backbone_copy, pixel_values):
    segmenter.config.backbone, segmenter.config.save_backbone = str(backbone_copy), False

    segmenter.save_pretrained(backbone_copy)

    loaded = FEDDForSegmentation.from_pretrained(backbone_copy)
    assert torch.equal(member_logits(loaded, pixel_values), member_logits(segmenter, pixel_values))


def test_heads_load_from_a_relative_path(save_as, tmp_path, pixel_values, monkeypatch):
    _, model = save_as("heads-only, local")
    monkeypatch.chdir(tmp_path / "model")

    loaded = FEDDForSegmentation.from_pretrained(".")

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))


@pytest.mark.parametrize("form", FORMS)
def test_loaded_model_can_be_saved_elsewhere_in_the_other_form(save_as, tmp_path, pixel_values, form):
    folder, model = save_as(form)
    loaded = FEDDForSegmentation.from_pretrained(folder)
    loaded.config.save_backbone = not loaded.config.save_backbone

    loaded.save_pretrained(tmp_path / "deep" / "inside" / "other")

    again = FEDDForSegmentation.from_pretrained(tmp_path / "deep" / "inside" / "other")
    assert torch.equal(member_logits(again, pixel_values), member_logits(model, pixel_values))


def test_config_read_beforehand_serves_twice(save_as, pixel_values):
    folder, model = save_as("heads-only, local")
    config = AutoConfig.from_pretrained(folder)

    FEDDForSegmentation.from_pretrained(folder, config=config)
    loaded = FEDDForSegmentation.from_pretrained(folder, config=config)

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))


def test_two_models_of_one_config_do_not_share_it(make_config):
    config = make_config()
    first, second = FEDDForSegmentation(config), FEDDForSegmentation(config)

    first.config.voting = "mean"

    assert second.config.voting == config.voting == "majority"


def test_each_model_of_one_config_saves_an_auto_map_of_its_own(make_config, tmp_path):
    config = make_config(blocks=[4], num_labels=2, pooled_size=64)
    models = {
        "AutoModelForSemanticSegmentation": FEDDForSegmentation(config),
        "AutoModelForImageClassification": FEDDForImageClassification(config),
    }

    for turn in range(2):  # what one has saved must not show in what the other saves
        for auto_class, model in models.items():
            folder = tmp_path / f"{auto_class}-{turn}"
            model.save_pretrained(folder)

            assert json.loads((folder / "config.json").read_text())["auto_map"] == {
                "AutoConfig": "configuration_fedd.FEDDConfig",
                "AutoModel": "backbone_fedd.FEDDBackbone",
                auto_class: f"modeling_fedd.{type(model).__name__}",
            }
            assert (folder / "backbone_fedd.py").is_file()
    assert not hasattr(config, "auto_map")


def test_attribute_that_a_user_adds_is_saved_with_the_model(segmenter, tmp_path):
    segmenter.config.lab_notes = "x"

    segmenter.save_pretrained(tmp_path)

    assert AutoModelForSemanticSegmentation.from_pretrained(tmp_path).config.lab_notes == "x"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", torch.float64])
def test_loading_in_a_dtype_is_casting(save_as, pixel_values, form, dtype):
    folder, model = save_as(form)

    loaded = AutoModelForSemanticSegmentation.from_pretrained(folder, dtype=dtype)

    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert loaded.dtype == dtype
    assert loaded.backbone.noise.dtype == torch.float32
    assert torch.equal(loaded.backbone.noise, model.backbone.noise)
    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model.to(dtype), pixel_values))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{"dtype": "auto"}, {"device_map": "cpu"}, {"device_map": "auto"}])
def test_loading_options_do_not_change_logits(save_as, pixel_values, form, options):
    folder, model = save_as(form)

    loaded = FEDDForSegmentation.from_pretrained(folder, **options)

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))
    assert is_frozen(loaded)


@pytest.mark.parametrize("form", ["self-contained", "heads-only, local"])
@pytest.mark.parametrize("part", ["backbone", "decode_head"])
def test_part_of_the_model_may_lie_on_disk(save_as, pixel_values, tmp_path, form, part):
    folder, model = save_as(form)
    device_map = {"backbone": "cpu", "decode_head": "cpu"} | {part: "disk"}

    loaded = FEDDForSegmentation.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path / "offload")

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(model, pixel_values))


@pytest.mark.parametrize("padding", [0, 8, 24, 40])
def test_logits_do_not_depend_on_where_weights_lie_in_their_file(save_as, pixel_values, padding):
    folder, model = save_as("self-contained")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "padding": " " * padding})

    loaded = FEDDForSegmentation.from_pretrained(folder)

    image = pixel_values[:1]  # a batch of one takes the paths of matrix products that depend on alignment
    assert torch.equal(member_logits(loaded, image), member_logits(model, image))


def test_loading_info_tells_that_nothing_is_missing(save_as):
    folder, _ = save_as("heads-only, local")

    model, info = FEDDForSegmentation.from_pretrained(folder, output_loading_info=True)

    assert isinstance(model, FEDDForSegmentation)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_loaded_model_knows_where_it_came_from(save_as):
    folder, _ = save_as("heads-only, local")

    assert FEDDForSegmentation.from_pretrained(folder).name_or_path == str(folder)


def test_noise_of_the_checkpoint_wins_over_a_new_draw(save_as, pixel_values):
    folder, _ = save_as("self-contained")
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.noise"] = torch.zeros_like(tensors["backbone.noise"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    assert FEDDForSegmentation.from_pretrained(folder).backbone.noise.abs().max() == 0


# Refusals at loading and saving


def drop_tensor(folder, name):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("self-contained", "decode_head.members.1.layers.2.weight"),
        ("self-contained", "decode_head.members.0.layers.1.running_mean"),
        ("self-contained", "backbone.unet.conv_in.bias"),
        ("self-contained", "backbone.noise"),
        ("heads-only, local", "decode_head.members.1.layers.2.weight"),
        ("heads-only, local", "backbone.noise"),
    ],
)
def test_checkpoint_with_a_hole_is_refused_by_name(save_as, form, name):
    folder, _ = save_as(form)
    drop_tensor(folder, name)

    with pytest.raises(ValueError, match=rf"checkpoint .*model lacks 1 tensors: \['{name}'\]"):
        FEDDForSegmentation.from_pretrained(folder)


@pytest.mark.parametrize("form", ["self-contained", "heads-only, local"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 64, None], ids=["empty", "garbage", "truncated"])
def test_damaged_checkpoint_is_refused_by_name(save_as, form, content):
    folder, _ = save_as(form)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)

    with pytest.raises(ValueError, match=r"weights of .*model are damaged"):
        FEDDForSegmentation.from_pretrained(folder)


@pytest.mark.parametrize("loader", [FEDDForSegmentation, AutoModelForSemanticSegmentation])
def test_pickled_checkpoint_is_refused(save_as, loader):
    folder, model = save_as("self-contained")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(OSError, match=r"only pickled weights, \['pytorch_model.bin'\]. FEDD loads safetensors only"):
        loader.from_pretrained(folder)


def test_request_for_pickles_is_refused(save_as):
    folder, _ = save_as("self-contained")

    with pytest.raises(ValueError, match="safetensors only, no pickles"):
        FEDDForSegmentation.from_pretrained(folder, use_safetensors=False)


def test_checkpoint_without_weights_is_refused(save_as):
    folder, _ = save_as("self-contained")
    (folder / "model.safetensors").unlink()

    with pytest.raises(OSError, match="model.safetensors"):
        FEDDForSegmentation.from_pretrained(folder)


@pytest.mark.parametrize("place", [".", "unet"])
def test_bare_backbone_is_refused_with_the_way_out(tiny_backbone, place):
    with pytest.raises(ValueError, match="from_backbone"):
        FEDDForSegmentation.from_pretrained(tiny_backbone / place)


def test_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer"}))

    with pytest.raises(ValueError, match="'segformer'"):
        FEDDForSegmentation.from_pretrained(tmp_path)


def test_a_state_dict_beside_a_folder_is_refused(save_as):
    folder, model = save_as("self-contained")

    with pytest.raises(ValueError, match="`state_dict` takes the place of a checkpoint"):
        FEDDForSegmentation.from_pretrained(folder, state_dict=model.state_dict())


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        FEDDForSegmentation.from_pretrained(tmp_path / "nowhere")


def test_segmentation_checkpoint_opened_as_a_classifier_gets_new_heads_and_a_report(save_as, messages):
    folder, model = save_as("self-contained")

    fields = {"blocks": [4], "timesteps": [50], "id2label": {0: "benign", 1: "malignant"}}
    loaded = FEDDForImageClassification.from_pretrained(folder, **fields)

    (report,) = messages()
    assert "LOAD REPORT" in report
    assert "classifier" in report
    assert torch.equal(loaded.backbone.unet.conv_in.weight, model.backbone.unet.conv_in.weight)
    assert is_frozen(loaded)


def test_heads_on_another_backbone_are_refused(save_as, backbone_copy):
    folder, _ = save_as("heads-only, local")
    weights = backbone_copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ValueError, match="heads were trained on another backbone: `backbone_sha256` is"):
        FEDDForSegmentation.from_pretrained(folder)


def test_heads_whose_backbone_is_gone_are_refused(save_as, backbone_copy):
    folder, _ = save_as("heads-only, local")
    shutil.rmtree(backbone_copy)

    with pytest.raises(FileNotFoundError, match="backbone folder '.*backbone' does not exist"):
        FEDDForSegmentation.from_pretrained(folder)


def test_self_contained_model_does_not_need_its_backbone_any_more(save_as, tmp_path, pixel_values):
    folder, model = save_as("self-contained")
    moved = folder.rename(tmp_path / "moved")
    edit_config(moved, backbone="../gone")

    assert torch.equal(
        member_logits(FEDDForSegmentation.from_pretrained(moved), pixel_values), member_logits(model, pixel_values)
    )


@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("kind", ["absolute", "home", "parts"])
def test_backbone_by_a_path_that_is_not_relative_is_refused(save_as, backbone_copy, hub_cache, is_local, kind):
    folder, _ = save_as("heads-only, local")
    edit_config(folder, backbone={"absolute": str(backbone_copy), "home": "~/backbone", "parts": "a/b/c"}[kind])
    source = folder if is_local else hub_cache.add("fedd/seg", folder)

    with pytest.raises(ValueError, match="must be a repository id, 'embedded', or, in a local folder only, a path"):
        FEDDForSegmentation.from_pretrained(source, cache_dir=hub_cache.folder)


def test_backbone_by_a_relative_path_is_refused_from_the_hub(save_as, hub_cache):
    folder, _ = save_as("heads-only, local")

    with pytest.raises(
        ValueError, match="'../backbone' must be a repository id, 'embedded', or, in a local folder only"
    ):
        FEDDForSegmentation.from_pretrained(hub_cache.add("fedd/seg", folder), cache_dir=hub_cache.folder)


def test_repository_id_is_never_taken_for_a_folder_of_the_same_name(save_as, backbone_copy, tmp_path, monkeypatch):
    folder, _ = save_as("heads-only, local")
    edit_config(folder, backbone="fedd/ddpm", backbone_revision=COMMIT)
    shutil.copytree(backbone_copy, tmp_path / "fedd" / "ddpm")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OSError, match="backbone 'fedd/ddpm' .* could not be loaded"):
        FEDDForSegmentation.from_pretrained(folder, cache_dir=tmp_path / "empty")


def test_heads_without_a_backbone_to_name_cannot_be_saved(make_config, tmp_path):
    model = FEDDForSegmentation(make_config())
    model.config.save_backbone = False

    with pytest.raises(ValueError, match="`save_backbone=False` needs a `backbone`"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("how", ["push_to_hub", "save_pretrained"])
def test_heads_on_a_local_backbone_cannot_be_pushed(segmenter, tmp_path, how):
    segmenter.config.save_backbone = False
    push = {
        "push_to_hub": lambda: segmenter.push_to_hub("fedd/seg"),
        "save_pretrained": lambda: segmenter.save_pretrained(tmp_path / "seg", push_to_hub=True),
    }

    with pytest.raises(ValueError, match="local folder that nobody else can load. Push it first"):
        push[how]()

    assert not (tmp_path / "seg").exists()


# The Hub, from a cache


@pytest.fixture
def heads_on_the_hub(hub_cache, tiny_backbone, tmp_path):
    """`fedd/seg`, heads-only on `fedd/ddpm`, both cached; the model itself."""
    hub_cache.add("fedd/ddpm", tiny_backbone, commit=COMMIT[::-1])
    fields = {"blocks": [2, 4], "image_size": 16, "save_backbone": False}
    model = FEDDForSegmentation.from_backbone("fedd/ddpm", cache_dir=hub_cache.folder, **fields)
    model.save_pretrained(tmp_path / "seg")
    hub_cache.add("fedd/seg", tmp_path / "seg")
    return model


def test_backbone_of_a_repository_is_pinned_to_its_commit(heads_on_the_hub):
    assert heads_on_the_hub.config.backbone == "fedd/ddpm"
    assert heads_on_the_hub.config.backbone_revision == COMMIT[::-1]


@pytest.mark.parametrize("loader", [FEDDForSegmentation, AutoModelForSemanticSegmentation])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_heads_of_a_repository_find_their_backbone_in_another(
    heads_on_the_hub, hub_cache, pixel_values, loader, revision
):
    loaded = loader.from_pretrained("fedd/seg", revision=revision, cache_dir=hub_cache.folder)

    assert torch.equal(member_logits(loaded, pixel_values), member_logits(heads_on_the_hub, pixel_values))
    assert is_frozen(loaded)


def test_missing_backbone_repository_is_an_error_that_names_it(heads_on_the_hub, hub_cache):
    shutil.rmtree(hub_cache.folder / "models--fedd--ddpm")

    with pytest.raises(OSError, match=f"backbone 'fedd/ddpm' .revision {COMMIT[::-1]}. could not be loaded"):
        FEDDForSegmentation.from_pretrained("fedd/seg", cache_dir=hub_cache.folder)


def test_heads_of_a_repository_can_be_saved_and_loaded_again(heads_on_the_hub, hub_cache, tmp_path, pixel_values):
    loaded = FEDDForSegmentation.from_pretrained("fedd/seg", cache_dir=hub_cache.folder)

    loaded.save_pretrained(tmp_path / "again")

    again = FEDDForSegmentation.from_pretrained(tmp_path / "again", cache_dir=hub_cache.folder)
    assert torch.equal(member_logits(again, pixel_values), member_logits(heads_on_the_hub, pixel_values))


def test_path_in_a_self_contained_model_of_a_repository_is_forgotten(save_as, hub_cache):
    folder, _ = save_as("self-contained")

    loaded = FEDDForSegmentation.from_pretrained(hub_cache.add("fedd/whole", folder), cache_dir=hub_cache.folder)

    assert loaded.config.backbone is None
    assert loaded.config.backbone_sha256 is not None


LOAD_AND_RUN = """
import json, sys
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation
import fedd_hf

wanted = load_file(sys.argv[1])
results = {}
for source in sys.argv[2:]:
    model = AutoModelForSemanticSegmentation.from_pretrained(source).eval()
    logits = model(wanted["pixel_values"], output_member_logits=True).member_logits
    is_frozen = not any(parameter.requires_grad for parameter in model.backbone.parameters())
    results[source] = [torch.equal(logits, wanted[source]), is_frozen]
print(json.dumps(results))
"""


@pytest.mark.slow
def test_fresh_process_gives_the_same_logits_in_each_form(
    save_as, heads_on_the_hub, hub_cache, tmp_path, pixel_values, run_python
):
    models = {"fedd/seg": heads_on_the_hub}
    for form in FORMS:
        folder, model = save_as(form)
        path = folder.rename(tmp_path / form.replace(", ", "-"))
        models[str(path)] = copy.deepcopy(model)
    wanted = {name: member_logits(model, pixel_values).contiguous() for name, model in models.items()}
    save_file(wanted | {"pixel_values": pixel_values}, tmp_path / "wanted.safetensors")

    results = run_python(LOAD_AND_RUN, tmp_path / "wanted.safetensors", *models, HF_HOME=hub_cache.folder.parent)

    assert results == {name: [True, True] for name in models}


# Pipelines


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def processor():
    return FEDDImageProcessor(size={"height": 16, "width": 16})


@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "objects"])
def test_segmentation_pipeline_gives_a_mask_per_label_at_the_size_of_the_photo(
    save_as, processor, photo, is_folder, messages
):
    folder, model = save_as("heads-only, local")
    processor.save_pretrained(folder)
    source = {"model": str(folder)} if is_folder else {"model": model, "image_processor": processor}

    segments = pipeline("image-segmentation", device="cpu", **source)(photo)

    logits = model(**processor(photo, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(logits, target_sizes=[(30, 40)])
    assert {segment["label"] for segment in segments} == {model.config.id2label[i] for i in expected.unique().tolist()}
    for segment in segments:
        mask = np.asarray(segment["mask"]) > 0
        np.testing.assert_array_equal(mask, expected.numpy() == model.config.label2id[segment["label"]])
    assert messages(logging.ERROR) == []


@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "objects"])
def test_classification_pipeline_gives_both_probabilities(save_as, processor, photo, is_folder, messages):
    folder, model = save_as("self-contained", "classification")
    processor.save_pretrained(folder)
    source = {"model": str(folder)} if is_folder else {"model": model, "image_processor": processor}

    classes = pipeline("image-classification", device="cpu", **source)(photo)

    (z,) = model(**processor(photo, return_tensors="pt")).logits[:, 1].tolist()
    scores = {entry["label"]: entry["score"] for entry in classes}
    assert scores == pytest.approx({"malignant": 1 / (1 + np.exp(-z)), "benign": 1 / (1 + np.exp(z))})
    assert messages(logging.ERROR) == []


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_pipeline_does_not_ask_whether_to_run_code_where_the_package_is(save_as, processor, task, monkeypatch):
    folder, _ = save_as("self-contained", task)
    processor.save_pretrained(folder)
    questions = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "n")

    pipeline(f"image-{task}", model=str(folder), device="cpu")

    assert questions == []


def test_model_of_a_pipeline_is_frozen(save_as, processor):
    folder, _ = save_as("self-contained")
    processor.save_pretrained(folder)

    assert is_frozen(pipeline("image-segmentation", model=str(folder), device="cpu").model)


# The Trainer of transformers


def train(model, folder, max_steps, **options):
    images, maps = random(4, 3, 16, 16).clamp(-1, 1), torch.randint(0, 5, (4, 16, 16))
    dataset = [{"pixel_values": image, "labels": labels} for image, labels in zip(images, maps, strict=True)]
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=max_steps,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
    trainer.train(**options)
    return trainer


@pytest.mark.parametrize("form", ["self-contained", "heads-only, local"])
def test_trainer_trains_saves_and_resumes_the_heads_only(save_as, tmp_path, form, messages):
    folder, model = save_as(form)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tmp_path / "run", max_steps=2)

    resumed = FEDDForSegmentation.from_pretrained(folder)
    train(resumed, tmp_path / "run", max_steps=4, resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))

    again = FEDDForSegmentation.from_pretrained(tmp_path / "run" / "checkpoint-4")
    for name, tensor in again.state_dict().items():
        is_backbone = name.startswith("backbone.")
        assert torch.equal(tensor, before[name]) == is_backbone, name
    assert is_frozen(resumed)
    assert is_frozen(again)
    assert not any("missing keys" in message for message in messages())


def test_a_misspelt_field_is_refused_by_from_backbone():
    with pytest.raises(TypeError, match=r"\['blokcs'\] are no fields of FEDDConfig"):
        FEDDForSegmentation.from_backbone("embedded", blokcs=[1])


def test_another_noise_seed_is_refused_when_a_model_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"from_backbone\(noise_seed=\.\.\.\)"):
        FEDDForSegmentation.from_pretrained(tmp_path, noise_seed=1)
