"""The training of the original: its pixels, its stop rule, and its result beside the obvious loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import original_recipe
from benchmark_size import QUICK
from networks import make_heads, paper_config
from original_recipe import AllPixels, StopRule, fewest_pixels, make_classifier, train_as_original, train_classifier

SIZE = (16, 16)


class TwoPhotos:
    """Two photos of 256 pixels whose upper halves are lesion and background, their lower halves skin."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.maps = [tuple(torch.randn(side, side, 64, generator=generator) for side in (4, 8)) for _ in range(2)]
        self.labels_of = torch.zeros(2, *SIZE, dtype=torch.uint8)
        self.labels_of[1] = 1
        self.labels_of[:, 8:] = 4

    def __len__(self):
        return 2

    def labels(self, photo):
        return self.labels_of[photo]

    def read(self, photo):
        return self.maps[photo]


@pytest.fixture
def photos():
    return TwoPhotos()


def test_every_pixel_that_counts_is_drawn_once_an_epoch_in_whole_batches(photos):
    photos.labels_of[0, 0, :3] = 255
    photos.labels_of[1, 0, :2] = 255

    batches = list(AllPixels(photos).batches([0, 0, 0]))

    assert [len(labels) for _, labels in batches] == [64] * 7  # of 507
    drawn = torch.cat([labels for _, labels in batches])
    assert drawn.max() < 5
    assert len(torch.cat([features for features, _ in batches]).unique(dim=0)) == 448


def test_a_class_of_fewer_than_20_pixels_in_a_photo_is_never_drawn_there(photos):
    photos.labels_of[0].flatten()[:19] = 3
    photos.labels_of[1].flatten()[:20] = 3

    pixels = AllPixels(photos)

    assert pixels.labels.flatten()[pixels.counted].bincount(minlength=5).tolist() == [109, 108, 0, 20, 256]


def test_the_51st_batch_without_a_better_loss_after_four_epochs_stops():
    stop = StopRule()

    assert not any(stop(epoch, 1.0) for epoch in range(4) for _ in range(500))
    assert [stop(4, loss) for loss in [0.5] + [0.6] * 50 + [0.4]] == [False] * 52
    assert [stop(5, 0.4) for _ in range(51)] == [False] * 50 + [True]


@pytest.mark.parametrize(("number", "pixels"), [(30, 7_867_648), (60, 15_731_968)])
def test_the_fewest_pixels_are_those_of_four_epochs_and_52_batches(number, pixels):
    assert fewest_pixels(number, image_size=256) == 4 * number * 65_536 + 52 * 64 == pixels


def test_a_loss_that_never_falls_ends_a_training_after_the_fewest_pixels(photos):
    classifier, rule = make_classifier(128, 5), StopRule()
    epochs = (AllPixels(photos).batches([0, 0, epoch]) for epoch in range(100))

    num_pixels, _ = train_classifier(classifier, epochs, lambda epoch, _loss: rule(epoch, 1.0))

    assert num_pixels == fewest_pixels(2, image_size=16)


def test_members_are_those_of_the_obvious_loop_on_upsampled_features(photos, monkeypatch):
    monkeypatch.setattr(original_recipe, "MAX_EPOCHS", 1)
    model = make_heads(paper_config(QUICK))

    losses = train_as_original(model, photos, seed=3)

    maps = tuple(torch.stack(of_block).movedim(-1, 1) for of_block in zip(*photos.maps, strict=True))
    inputs = torch.cat([F.interpolate(block, SIZE, mode="bilinear", align_corners=False) for block in maps], dim=1)
    inputs, labels = inputs.movedim(1, -1).flatten(0, 2), photos.labels_of.flatten().long()
    logits = model.decode_head(maps, SIZE)
    for member in (0, 1):
        torch.manual_seed(int(np.random.SeedSequence([3, member]).generate_state(1)[0]))
        network = make_classifier(128, 5)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for drawn in np.random.default_rng([3, member, 0]).permutation(512).reshape(-1, 64):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(inputs[drawn]), labels[drawn])
            loss.backward()
            optimizer.step()

        assert losses[member] == pytest.approx(loss.item(), rel=1e-4)
        expected = network.eval()(inputs).view(2, *SIZE, 5).movedim(-1, 1)
        torch.testing.assert_close(logits[:, member], expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(logits[:, 0], logits[:, 1])
