"""The heads of FEDD on frozen networks: what they read, that it stays frozen, saving, training."""

import pytest
import torch
from accelerate import Accelerator

from fedd_hf.baselines.encoders import LITE0
from fedd_hf.baselines.fitting import accuracy
from fedd_hf.baselines.frozen_models import (
    FrozenNetworkForImageClassification,
    FrozenNetworkForSegmentation,
    HeldFeatures,
    halve_to_pooled_size,
    train_frozen_classifier,
)
from fedd_hf.baselines.frozen_networks import DINOV2, NETWORKS, open_network
from fedd_hf.baselines.recipes import FittingArguments
from fedd_hf.prediction import predict_classification, predict_segmentation
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers

QUICK = FittingArguments(learning_rate=1e-3, batch_size=4, max_epochs=3, patience=3, plateau_patience=2)


@pytest.fixture
def pixel_values():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_returns_the_maps_that_it_announces(name, pixel_values):
    network = open_network(name, weights="random")

    with torch.no_grad():
        maps = network.read(pixel_values)

    assert tuple(feature_map.shape[1] for feature_map in maps) == network.channels
    assert all(len(feature_map) == 2 for feature_map in maps)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_colour_is_the_photo_and_position_is_where_a_pixel_lies(pixel_values):
    (colour,) = open_network("colour").read(pixel_values)
    (both,) = open_network("colour and position").read(pixel_values)

    torch.testing.assert_close(colour, pixel_values)
    torch.testing.assert_close(both[:, :3], pixel_values)
    assert both[0, 3:, 0, 0].tolist() == [-1, -1]
    assert both[1, 3:, 31, 0].tolist() == [1, -1]


@pytest.mark.parametrize(("size", "patches"), [(126, 9), (128, 9)])
def test_dinov2_sees_a_whole_number_of_patches(size, patches):
    with torch.no_grad():
        (tokens,) = open_network(DINOV2, weights="random").read(torch.zeros(1, 3, size, size))

    assert tokens.shape == (1, 384, patches, patches)


def test_pooled_features_are_as_long_as_the_authors(pixel_values):
    model = FrozenNetworkForImageClassification.from_network("EfficientNetB0", weights="random", image_size=32)

    with torch.no_grad():
        assert model.pool(pixel_values).shape == (2, 640)


def test_channels_are_halved_as_long_as_512_are_left():
    assert [halve_to_pooled_size(number) for number in (384, 512, 1024, 1280, 2048)] == [384, 512, 512, 640, 512]


@pytest.mark.parametrize("kind", [FrozenNetworkForSegmentation, FrozenNetworkForImageClassification])
def test_a_saved_model_says_the_same_and_stays_frozen(kind, pixel_values, tmp_path):
    model = kind.from_network(LITE0, image_size=32)
    model.save_pretrained(tmp_path)

    loaded = kind.from_pretrained(tmp_path).train()

    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())
    assert not any(module.training for module in loaded.backbone.modules())
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(pixel_values).logits, model(pixel_values).logits)


def test_held_features_are_those_computed_anew(photos, processor):
    model = FrozenNetworkForSegmentation.from_network(LITE0, image_size=32)
    held = HeldFeatures(model, photos, processor, Accelerator())

    assert len(held) == len(photos)
    inputs = processor(photos[4]["image"], segmentation_maps=photos[4]["mask"], return_tensors="pt")
    with torch.no_grad():
        anew = model.backbone(inputs["pixel_values"]).feature_maps
    for feature_map, reference in zip(held.read(4), anew, strict=True):
        torch.testing.assert_close(feature_map, reference[0].movedim(0, -1).half(), rtol=1e-2, atol=1e-2)
    assert torch.equal(held.labels(4), inputs["labels"][0].to(torch.uint8))


def test_the_pixel_head_of_fedd_learns_on_a_frozen_network(photos, processor):
    model, accelerator = FrozenNetworkForSegmentation.from_network(LITE0, image_size=32), Accelerator()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    arguments = SegmentationArguments(num_steps=40, images_per_step=4)

    losses = train_pixel_classifiers(
        model, HeldFeatures(model, photos, processor, accelerator), arguments, accelerator
    )

    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    assert len(predict_segmentation(model, processor, photos)) == 5 * len(photos)


def test_the_classifier_learns_on_a_frozen_network(photos, processor):
    model = FrozenNetworkForImageClassification.from_network(LITE0, image_size=32)

    history = train_frozen_classifier(model, processor, photos, photos, QUICK)

    assert len(history) == 3
    scores = predict_classification(model, processor, photos)
    right = ((scores["y_score"] > 0.5) == scores["y_true"]).mean()
    assert right == pytest.approx(max(epoch["score"] for epoch in history))


def test_a_last_batch_of_one_photo_is_left_out(photos, processor):
    model = FrozenNetworkForImageClassification.from_network("colour", image_size=32)

    assert len(train_frozen_classifier(model, processor, photos.select(range(5)), photos, QUICK)) == 3


def test_accuracy_is_the_share_of_right_classes():
    logits = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0], [0.0, 0.5]])

    assert float(accuracy(logits, torch.tensor([1, 0, 0, 1]))) == 0.75


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="A network must be one of .* got 'AlexNet'"):
        open_network("AlexNet")
    with pytest.raises(ValueError, match="`weights` must be one of"):
        open_network(LITE0, weights="places365")
