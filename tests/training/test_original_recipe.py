import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from torch import nn

from fedd_hf.training import original_recipe
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.original_recipe import BATCH_SIZE, LEARNING_RATE, AllPixels, Progress, train_as_original
from fedd_hf.training.pixel_heads import train_pixel_classifiers


@pytest.fixture
def tiny(features, handmade):
    """Two photos, seen at 16 pixels: 512 pixels, eight batches an epoch."""
    maps = [tuple(feature_map.float() for feature_map in of_photo) for of_photo in features.read([0, 3], [(), ()])]
    labels = torch.zeros(2, 16, 16)
    labels[:, 8:] = 4
    labels[1, :, :8] = 1
    return handmade(maps, labels)


@pytest.fixture
def two_epochs(monkeypatch):
    monkeypatch.setattr(original_recipe, "MAX_EPOCHS", 2)


def members_of(head):
    """Return the weights of each member."""
    return [member.state_dict() for member in head.members]


# --- stop rule


def test_the_first_four_epochs_are_not_watched():
    progress = Progress()

    for epoch in range(4):
        progress.epoch = epoch
        assert not any(progress.watch(1.0 + batch) for batch in range(500))

    assert (progress.misses, progress.best_loss) == (0, float("inf"))
    assert (progress.batch, progress.batches_of_all) == (2000, 2000)


def test_the_51st_batch_without_a_better_loss_stops():
    progress = Progress(epoch=4)

    stops = [progress.watch(loss) for loss in [0.5] + [0.6] * 51]

    assert stops == [False] * 51 + [True]


def test_a_better_loss_starts_the_count_anew():
    progress = Progress(epoch=4)

    stops = [progress.watch(loss) for loss in [0.5] + [0.6] * 50 + [0.4] + [0.5] * 51]

    assert stops == [False] * 102 + [True]


def test_an_equal_loss_is_not_better():
    progress = Progress(epoch=7)

    stops = [progress.watch(0.5) for _ in range(52)]

    assert stops.index(True) == 51


def test_misses_are_counted_over_the_ends_of_epochs():
    progress = Progress(epoch=4)
    assert not any(progress.watch(loss) for loss in [0.5] + [0.6] * 30)
    progress.epoch = 5

    stops = [progress.watch(0.6) for _ in range(21)]

    assert stops == [False] * 20 + [True]


def test_the_next_member_remembers_no_loss_of_the_one_before():
    progress = Progress(member=1, epoch=6, batch=9, batches_of_all=700, best_loss=0.1, misses=20, loss=0.2)
    progress.last_losses = [0.3]

    following = progress.next_member()

    assert math.isnan(following.loss)
    following.loss = 0.0

    assert following == Progress(member=2, batches_of_all=700, loss=0.0, last_losses=[0.3, 0.2])


def test_a_member_stops_when_its_loss_no_longer_falls(make_segmenter, tiny, accelerator, monkeypatch):
    seen = []

    def step(*_):
        seen.append(1)
        return 1.0

    monkeypatch.setattr(original_recipe, "_step", step)

    losses = train_as_original(make_segmenter(ensemble_size=3), tiny, 0, accelerator)

    assert len(seen) == 3 * (4 * 8 + 1 + 51)  # four epochs of eight batches, the best one, 51 that are no better
    assert losses == [1.0] * 3


def test_a_member_that_never_stops_is_trained_for_100_epochs(make_segmenter, tiny, accelerator, monkeypatch):
    falling = iter(range(10**6, 0, -1))
    monkeypatch.setattr(original_recipe, "_step", lambda *_: float(next(falling)))

    train_as_original(make_segmenter(ensemble_size=1), tiny, 0, accelerator)

    assert next(falling) == 10**6 - 100 * 8


# --- pixels


@pytest.mark.parametrize("counted", [64, 127, 128, 511])
def test_a_last_partial_batch_is_dropped(counted, tiny):
    tiny.labels_of.flatten()[counted:] = 255
    original_pixels = AllPixels(tiny)
    original_pixels.counted = torch.arange(counted)

    batches = list(original_pixels.batches([0, 0, 0], first=0))

    assert len(batches) == counted // 64
    assert {len(labels) for _, labels in batches} == {64}


def test_every_pixel_that_counts_is_drawn_once_an_epoch(handmade):
    pixel_ids = torch.arange(16 * 16).view(16, 16, 1).float()
    features = handmade([(pixel_ids,), (256 + pixel_ids,)], torch.zeros(2, 16, 16))

    batches = list(AllPixels(features).batches([0, 0, 0], first=0))

    drawn = torch.cat([sampled for sampled, _ in batches]).flatten()
    assert sorted(drawn.tolist()) == list(range(512))
    assert drawn.tolist() != sorted(drawn.tolist())


def test_an_epoch_goes_on_from_any_batch(tiny):
    original_pixels = AllPixels(tiny)

    whole = list(original_pixels.batches([0, 1, 2], first=0))
    rest = list(original_pixels.batches([0, 1, 2], first=5))

    assert len(rest) == 3
    for (features, labels), (wanted, wanted_labels) in zip(rest, whole[5:], strict=True):
        assert torch.equal(features, wanted)
        assert torch.equal(labels, wanted_labels)


def test_another_seed_member_or_epoch_has_another_order(tiny):
    original_pixels = AllPixels(tiny)

    first = [next(original_pixels.batches(seed, 0))[0] for seed in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1])]

    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_pixels_that_do_not_count_are_never_drawn(tiny):
    tiny.labels_of[0, :8] = 255

    drawn = torch.cat([labels for _, labels in AllPixels(tiny).batches([0, 0, 0], first=0)])

    assert drawn.bincount(minlength=5).tolist() == [64, 128, 0, 0, 192]


def test_a_class_of_fewer_than_20_pixels_in_a_photo_is_never_drawn_there(handmade):
    labels = torch.zeros(2, 16, 16)
    labels[0].flatten()[:19] = 3
    labels[1].flatten()[:20] = 3
    labels[1].flatten()[20:39] = 2
    features = handmade([(torch.zeros(4, 4, 2),)] * 2, labels)

    original_pixels = AllPixels(features)

    assert len(original_pixels.counted) == 512 - 19 - 19
    counted = original_pixels.labels.flatten()[original_pixels.counted]
    assert counted.bincount(minlength=5).tolist() == [473 - 19, 0, 0, 20, 0]
    assert torch.equal(features.labels(0), labels[0].to(torch.uint8))  # what was read stays


# --- training


def test_members_differ_and_are_in_evaluation_mode(make_segmenter, tiny, accelerator, two_epochs):
    model = make_segmenter(ensemble_size=3)

    losses = train_as_original(model, tiny, 0, accelerator)

    first, second, third = members_of(model.decode_head)
    name = "projections.0.weight"
    assert not torch.equal(first[name], second[name])
    assert not torch.equal(second[name], third[name])
    assert len(losses) == 3
    assert not any(module.training for module in model.decode_head.modules())


@pytest.mark.slow
def test_the_recipe_learns(make_segmenter, tiny, accelerator):
    model = make_segmenter()

    losses = train_as_original(model, tiny, 0, accelerator)

    assert max(losses) < 0.3
    maps = tuple(torch.stack(of_block).movedim(-1, 1) for of_block in zip(*tiny.maps, strict=True))
    predicted = model.decode_head(maps, (16, 16)).argmax(dim=2)
    assert (predicted == tiny.labels_of[:, None]).float().mean() > 0.8


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    make_segmenter, tiny, accelerator, two_epochs, weights_of, assert_same_bits
):
    weights = []
    for seed in (0, 0, 1):
        model = make_segmenter()
        torch.rand(3)
        train_as_original(model, tiny, seed, accelerator)
        weights.append(weights_of(model.decode_head))

    assert_same_bits(weights[0], weights[1])
    assert not torch.equal(weights[0]["members.0.projections.0.weight"], weights[2]["members.0.projections.0.weight"])


def test_training_changes_the_head_and_nothing_else(
    make_segmenter, tiny, accelerator, two_epochs, weights_of, assert_same_bits
):
    model = make_segmenter()
    before = weights_of(model.backbone)

    train_as_original(model, tiny, 0, accelerator)

    assert_same_bits(weights_of(model.backbone), before)


def test_the_recipe_is_chosen_by_its_name(make_segmenter, tiny, accelerator, two_epochs, weights_of, assert_same_bits):
    direct, chosen = make_segmenter(), make_segmenter()

    losses = train_as_original(direct, tiny, 5, accelerator)

    arguments = SegmentationArguments(recipe="original", seed=5)
    assert train_pixel_classifiers(chosen, tiny, arguments, accelerator) == losses
    assert_same_bits(weights_of(chosen.decode_head), weights_of(direct.decode_head))


def plain_network(*sizes):
    """The pixel classifier of ddpm-segmentation."""
    inputs, first, second, outputs = sizes
    return nn.Sequential(
        nn.Linear(inputs, first),
        nn.ReLU(),
        nn.BatchNorm1d(first),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.BatchNorm1d(second),
        nn.Linear(second, outputs),
    )


def test_the_result_is_that_of_the_obvious_loop_on_upsampled_features(make_segmenter, tiny, accelerator, monkeypatch):
    monkeypatch.setattr(original_recipe, "MAX_EPOCHS", 1)
    model = make_segmenter(ensemble_size=1)
    (loss,) = train_as_original(model, tiny, 3, accelerator)

    config = model.config
    network = plain_network(sum(config.feature_channels), *config.hidden_sizes, config.num_labels)
    set_seed(int(np.random.SeedSequence([3, 0]).generate_state(1)[0]))
    network.apply(original_recipe.draw_weights)
    upsampled = [
        F.interpolate(feature_map.movedim(-1, 0)[None], (16, 16), mode="bilinear", align_corners=False)
        for of_photo in tiny.maps
        for feature_map in of_photo
    ]
    photos = [torch.cat(upsampled[:2], dim=1), torch.cat(upsampled[2:], dim=1)]
    inputs = torch.cat(photos).movedim(1, -1).flatten(0, 2)
    labels = tiny.labels_of.flatten().long()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order = np.random.default_rng([3, 0, 0]).permutation(512)
    for start_of_batch in range(0, 512, BATCH_SIZE):
        drawn = order[start_of_batch : start_of_batch + BATCH_SIZE]
        optimizer.zero_grad()
        wanted = F.cross_entropy(network(inputs[drawn]), labels[drawn])
        wanted.backward()
        optimizer.step()

    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    logits = model.decode_head(
        tuple(torch.stack(maps).movedim(-1, 1) for maps in zip(*tiny.maps, strict=True)), (16, 16)
    )
    expected = network.eval()(inputs).view(2, 16, 16, 5).movedim(-1, 1)
    torch.testing.assert_close(logits[:, 0], expected, rtol=1e-3, atol=1e-3)


# --- kills


@pytest.mark.parametrize("kill_at", [5, 8, 16, 20, 30])
def test_a_run_that_is_killed_in_the_middle_of_a_member_goes_on_with_the_same_bits(
    kill_at, make_segmenter, tiny, make_accelerator, make_state, killed, two_epochs, weights_of, assert_same_bits
):
    """Two members of two epochs of eight batches: killed in an epoch, at its end, at the end of a member, later."""
    wanted, model = make_segmenter(), make_segmenter()
    losses = train_as_original(wanted, tiny, 0, make_accelerator())
    accelerator = make_accelerator()
    with pytest.raises(killed):
        train_as_original(model, tiny, 0, accelerator, make_state(accelerator, kill_at, every=1))
    model, accelerator = make_segmenter(), make_accelerator()

    resumed = train_as_original(model, tiny, 0, accelerator, make_state(accelerator, every=1))

    assert resumed == losses
    assert_same_bits(weights_of(model.decode_head), weights_of(wanted.decode_head))


def test_what_the_stop_rule_remembers_is_stored(
    make_segmenter, tiny, make_accelerator, make_state, killed, monkeypatch, tmp_path
):
    losses = iter([1.0] * 200)
    monkeypatch.setattr(original_recipe, "_step", lambda *_: next(losses))
    accelerator = make_accelerator()
    with pytest.raises(killed):
        train_as_original(make_segmenter(), tiny, 0, accelerator, make_state(accelerator, 40, every=10))
    (file,) = (tmp_path / "run").rglob("counters.json")
    counters = json.loads(file.read_text())
    assert (counters["epoch"], counters["misses"], counters["best_loss"]) == (4, 7, 1.0)
    rest = iter([1.0] * 200)
    monkeypatch.setattr(original_recipe, "_step", lambda *_: next(rest))
    accelerator = make_accelerator()

    train_as_original(make_segmenter(), tiny, 0, accelerator, make_state(accelerator, every=1000))

    assert 200 - len(list(rest)) == 2 * (4 * 8 + 52) - 40
