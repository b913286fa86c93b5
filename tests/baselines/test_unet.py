"""U-Nets: the authors' loss and score, ImageNet weights, saving, training."""

import numpy as np
import pytest
import torch

from fedd_hf import FEDDImageProcessor
from fedd_hf.baselines.encoders import ENCODERS, LITE0
from fedd_hf.baselines.frozen_networks import open_network
from fedd_hf.baselines.recipes import CLASSIFIER_RECIPE, UNET_RECIPE, FittingArguments
from fedd_hf.baselines.unet import UNetForSegmentation, soft_iou, train_unet, unet_loss
from fedd_hf.data.painted import paint_dataset
from fedd_hf.prediction import predict_segmentation

QUICK = FittingArguments(learning_rate=1e-3, batch_size=4, max_epochs=2, patience=2, plateau_patience=1)


ONE_STEP = FittingArguments(learning_rate=1e-3, batch_size=6, max_epochs=1, patience=1, plateau_patience=1)


@pytest.fixture
def unet():
    return UNetForSegmentation.from_encoder(LITE0, image_size=32)


@pytest.fixture
def logits():
    return torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels():
    labels = torch.randint(4, (2, 6, 7), generator=torch.Generator().manual_seed(1))  # the fifth class is absent
    labels[0, :2] = 255
    return labels


def slow_pixels(logits, labels):
    """Probabilities and one-hot truth of each pixel that counts, as lists."""
    for photo in range(labels.shape[0]):
        for row in range(labels.shape[1]):
            for column in range(labels.shape[2]):
                if labels[photo, row, column] != 255:
                    values = np.exp(logits[photo, :, row, column].numpy())
                    yield values / values.sum(), np.eye(5)[labels[photo, row, column]]


def test_loss_is_dice_plus_categorical_focal_as_keras_has_them(logits, labels):
    predicted, truth = (np.array(part) for part in zip(*slow_pixels(logits, labels), strict=True))
    true_positives = (predicted * truth).sum(0)
    false_positives, false_negatives = predicted.sum(0) - true_positives, truth.sum(0) - true_positives
    f_score = (2 * true_positives + 1e-5) / (2 * true_positives + false_negatives + false_positives + 1e-5)
    focal = -truth * 0.25 * (1 - predicted) ** 2 * np.log(predicted)

    expected = (1 - f_score.mean()) + focal.mean()

    assert float(unet_loss(logits, labels)) == pytest.approx(expected, rel=1e-9)


def test_score_is_the_soft_iou_as_keras_has_it(logits, labels):
    predicted, truth = (np.array(part) for part in zip(*slow_pixels(logits, labels), strict=True))
    intersection = (predicted * truth).sum(0)
    union = predicted.sum(0) + truth.sum(0) - intersection

    expected = ((intersection + 1e-5) / (union + 1e-5)).mean()

    assert float(soft_iou(logits, labels)) == pytest.approx(expected, rel=1e-9)


def test_recipes_are_the_authors():
    assert (
        FittingArguments(
            learning_rate=1e-4,
            batch_size=64,
            max_epochs=1000,
            patience=100,
            plateau_patience=50,
            min_learning_rate=1e-5,
        )
        == UNET_RECIPE
    )
    assert (
        FittingArguments(
            learning_rate=1e-4, batch_size=30, max_epochs=500, patience=50, plateau_patience=25, min_learning_rate=1e-5
        )
        == CLASSIFIER_RECIPE
    )


def test_a_number_that_cannot_be_is_named():
    with pytest.raises(ValueError, match="`patience` must be at least 1, got 0"):
        FittingArguments(batch_size=1, max_epochs=1, patience=0, plateau_patience=1)


def test_the_encoder_has_the_features_of_imagenet(unet):
    pixel_values = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    with torch.no_grad():
        own = unet.unet.encoder(unet.normalise(pixel_values))[1:]
        expected = open_network(LITE0).read(pixel_values)

    for stage, reference in zip(own, expected, strict=True):
        torch.testing.assert_close(stage, reference)


def test_a_saved_unet_says_the_same(unet, tmp_path):
    pixel_values = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    unet.save_pretrained(tmp_path)

    loaded = UNetForSegmentation.from_pretrained(tmp_path)

    assert loaded.config.encoder == LITE0
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values).logits, unet(pixel_values).logits)


def test_uncertainty_is_the_entropy_of_the_one_network(unet):
    outputs = unet(torch.zeros(1, 3, 32, 32), output_member_logits=True, output_uncertainty=True)

    probabilities = outputs.logits.softmax(dim=1)
    torch.testing.assert_close(outputs.uncertainty, -(probabilities * probabilities.log()).sum(dim=1))
    assert outputs.member_logits.shape == (1, 1, 5, 32, 32)


def test_training_returns_each_epoch_and_leaves_the_best(unet, processor, photos):
    validation = photos.select(range(3))

    history = train_unet(unet, processor, photos, validation, QUICK)

    assert len(history) == 2
    inputs = processor(validation["image"][:], segmentation_maps=validation["mask"][:], return_tensors="pt")
    with torch.no_grad():
        outputs = unet(**inputs)
    best = max(history, key=lambda epoch: epoch["score"])
    assert float(soft_iou(outputs.logits, inputs["labels"])) == pytest.approx(best["score"], abs=1e-4)


def test_the_same_seed_trains_the_same_unet(processor, photos):
    scores = []
    for _ in range(2):
        torch.manual_seed(0)
        unet = UNetForSegmentation.from_encoder(LITE0, image_size=32)
        scores.append(train_unet(unet, processor, photos, photos, QUICK))

    assert scores[0] == scores[1]


def test_training_stops_when_the_score_no_longer_grows(unet, processor, photos):
    still = FittingArguments(learning_rate=1e-30, batch_size=6, max_epochs=9, patience=2, plateau_patience=1)
    for module in unet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0  # nothing changes

    assert len(train_unet(unet, processor, photos, photos, still)) == 3


def test_predictions_are_tabulated_as_those_of_fedd(unet, processor, photos):
    table = predict_segmentation(unet, processor, photos)

    assert set(table["label"]) == {"background", "lesion", "marker", "ruler", "skin"}
    assert len(table) == 5 * len(photos)


def test_what_is_unknown_is_named():
    with pytest.raises(ValueError, match="must be one of .*'DenseNet121'.* got 'AlexNet'"):
        UNetForSegmentation.from_encoder("AlexNet")
    with pytest.raises(ValueError, match="`weights` must be one of"):
        UNetForSegmentation.from_encoder(LITE0, weights="places365")


def test_weights_that_cannot_be_fetched_are_told_with_what_to_do():
    with pytest.raises(OSError, match="ImageNet weights of MobileNetV2 are on the Hub, which cannot be reached"):
        UNetForSegmentation.from_encoder("MobileNetV2")


@pytest.mark.parametrize("encoder", [encoder for encoder in ENCODERS if encoder != LITE0])
def test_every_unet_takes_a_step(encoder, photos, processor):
    unet = UNetForSegmentation.from_encoder(encoder, weights="random", image_size=32)
    before = {name: tensor.clone() for name, tensor in unet.named_parameters()}

    (epoch,) = train_unet(unet, processor, photos, photos, ONE_STEP)

    assert 0 <= epoch["score"] <= 1
    assert np.isfinite(epoch["loss"])
    changed = [name for name, tensor in unet.named_parameters() if not torch.equal(tensor, before[name])]
    assert len(changed) > 0.9 * len(before)


def test_a_unet_learns_eight_photos_by_heart():
    photos, processor = paint_dataset(num_per_tone=3, seed=1, size=64).select(range(8)), FEDDImageProcessor(size=32)
    torch.manual_seed(0)
    unet = UNetForSegmentation.from_encoder(LITE0, image_size=32)
    for module in unet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1  # EfficientNets have 0.01, for which sixty steps are few
    hard = FittingArguments(learning_rate=3e-3, batch_size=8, max_epochs=60, patience=60, plateau_patience=60)

    history = train_unet(unet, processor, photos, photos, hard)

    assert max(epoch["score"] for epoch in history) > 0.6
