import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedd_hf.inference import count_pixels, segment_photos
from fedd_hf.modeling_fedd import FeatureMapLinear, PixelLinear
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from fedd_hf.training.feature_store import FeatureMaps, extract_feature_maps
from fedd_hf.training.heads import (
    absorb_standardisation,
    sample_pixels,
    standardise_maps,
    train_malignancy_classifier,
    train_pixel_classifiers,
)

QUICK = SegmentationArguments(num_steps=30, images_per_step=3, pixels_per_image=100, learning_rate=1e-2)
EPOCHS = ClassificationArguments(max_epochs=12, learning_rate=1e-2)


@pytest.fixture
def features(make_segmenter, processor, painted, accelerator):
    return extract_feature_maps(make_segmenter(), processor, painted, accelerator)


@pytest.fixture
def pooled():
    """Separable pooled features of 40 photos for training and 20 for validation."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 2
    inputs = 3 + 2 * torch.randn(60, 64, generator=generator) + labels[:, None]
    return (inputs[:40], labels[:40]), (inputs[40:], labels[40:])


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(actual, wanted):
    assert actual.keys() == wanted.keys()
    assert [name for name in actual if not torch.equal(actual[name], wanted[name])] == []


# --- sample_pixels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [(32, 32), (24, 40)], ids=["square", "oblong"])
@pytest.mark.parametrize("block_size", [1, 2, 8, 12, 32, 64], ids=lambda size: f"block{size}")
def test_sampled_features_are_those_of_the_upsampled_map(block_size, image_size):
    height, width = image_size
    feature_map = torch.rand(2, 3, block_size, block_size)
    pixel_ids = torch.arange(height * width).view(1, height, width).expand(2, -1, -1)

    (sampled,), ids = sample_pixels([feature_map], pixel_ids, pixels_per_image=500)

    upsampled = F.interpolate(feature_map, size=image_size, mode="bilinear", align_corners=False).flatten(2)
    assert sampled.shape == (2, 3, 1, 500)
    for image in range(2):
        torch.testing.assert_close(sampled[image, :, 0], upsampled[image][:, ids[image, 0]], rtol=0, atol=1e-5)


def test_corners_and_edges_can_be_drawn_and_are_exact():
    feature_map = torch.randn(1, 4, 3, 3)
    pixel_ids = torch.arange(64).view(1, 8, 8)

    (sampled,), ids = sample_pixels([feature_map], pixel_ids, pixels_per_image=5000)

    upsampled = F.interpolate(feature_map, size=(8, 8), mode="bilinear", align_corners=False)[0].flatten(1)
    assert set(ids.flatten().tolist()) == set(range(64))
    torch.testing.assert_close(sampled[0, :, 0], upsampled[:, ids[0, 0]], rtol=0, atol=1e-5)


def test_labels_follow_the_pixels():
    image_size = (16, 24)
    labels = torch.randint(5, (3, *image_size))
    labels_as_map = labels[:, None].float()

    (sampled,), drawn = sample_pixels([labels_as_map], labels, pixels_per_image=200)

    assert drawn.shape == (3, 1, 200)
    torch.testing.assert_close(sampled[:, 0], drawn.float(), rtol=0, atol=1e-4)


def test_all_maps_are_read_at_the_same_pixels():
    coarse, fine = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 16, 16)
    coarse_upsampled = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)

    (from_coarse, from_upsampled, _), _ = sample_pixels(
        [coarse, coarse_upsampled, fine], torch.zeros(2, 16, 16, dtype=torch.long), pixels_per_image=50
    )

    torch.testing.assert_close(from_coarse, from_upsampled, rtol=0, atol=1e-5)


def test_pixels_are_drawn_uniformly():
    pixel_ids = torch.arange(16).view(1, 4, 4)

    _, ids = sample_pixels([torch.zeros(1, 1, 4, 4)], pixel_ids, pixels_per_image=16_000)

    counts = torch.bincount(ids.flatten(), minlength=16)
    assert counts.min() > 850  # 1000 expected, standard deviation 31
    assert counts.max() < 1150


def test_features_in_half_precision_are_read_at_the_right_pixels():
    feature_map = torch.randn(1, 3, 64, 64).to(torch.bfloat16)
    pixel_ids = torch.arange(256 * 256).view(1, 256, 256)

    (sampled,), ids = sample_pixels([feature_map], pixel_ids, pixels_per_image=500)

    upsampled = F.interpolate(feature_map.float(), size=(256, 256), mode="bilinear", align_corners=False).flatten(2)
    torch.testing.assert_close(sampled[0, :, 0].float(), upsampled[0][:, ids[0, 0]], rtol=0, atol=2e-2)  # bf16: 2^-8


# --- standardisation -------------------------------------------------------------------------------------------------


def test_standardised_maps_have_mean_0_and_deviation_1_in_each_channel():
    maps = (5 + 3 * torch.randn(4, 3, 6, 6), 0.1 * torch.randn(4, 2, 12, 12))

    standardised, mean, std = standardise_maps(FeatureMaps(maps, torch.zeros(4, 12, 12)))

    for feature_map in standardised.feature_maps:
        for channel in range(feature_map.shape[1]):
            values = feature_map[:, channel].numpy()
            assert values.mean() == pytest.approx(0, abs=1e-5)
            assert values.std() == pytest.approx(1, abs=1e-4)
    assert mean.shape == std.shape == (5,)
    assert mean[0].item() == pytest.approx(maps[0][:, 0].numpy().mean(), abs=1e-5)


def test_a_channel_that_never_changes_becomes_zero():
    standardised, _, _ = standardise_maps(FeatureMaps((torch.full((2, 1, 3, 3), 7.0),), torch.zeros(2, 3, 3)))

    assert torch.equal(standardised.feature_maps[0], torch.zeros(2, 1, 3, 3))


def test_standardisation_of_a_single_value_is_finite():
    standardised, mean, std = standardise_maps(FeatureMaps((torch.ones(1, 2, 1, 1),), torch.zeros(1, 3, 3)))

    for tensor in (*standardised.feature_maps, mean, std):
        assert torch.isfinite(tensor).all()


def test_absorbed_linear_layer_takes_raw_features():
    layer, inputs = nn.Linear(6, 4), 5 + 3 * torch.randn(10, 6)
    mean, std = inputs.mean(dim=0), inputs.std(dim=0)
    expected = layer((inputs - mean) / std)

    absorb_standardisation(layer, mean, std)

    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_absorbed_pixel_layer_takes_raw_features():
    layer, inputs = PixelLinear(6, 4), 5 + 3 * torch.randn(2, 6, 8, 8)
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    expected = layer((inputs - mean[:, None, None]) / std[:, None, None])

    absorb_standardisation(layer, mean, std)

    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_absorbed_head_gives_the_logits_of_the_head_on_standardised_maps(make_segmenter, features):
    head = make_segmenter().decode_head.eval()
    nn.init.normal_(head.projection.bias)
    standardised, mean, std = standardise_maps(features)
    expected = head(standardised.feature_maps, (32, 32))

    assert isinstance(head.projection, FeatureMapLinear)
    absorb_standardisation(head.projection, mean, std)

    torch.testing.assert_close(head(features.feature_maps, (32, 32)), expected, rtol=1e-4, atol=1e-4)


# --- pixel classifiers -----------------------------------------------------------------------------------------------


def test_training_lowers_the_loss(make_segmenter, features, accelerator):
    losses = train_pixel_classifiers(make_segmenter(), features, QUICK, accelerator)

    assert len(losses) == QUICK.num_steps
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:2])


def test_pixel_classifiers_overfit_a_handful_of_painted_photos(make_segmenter, processor, painted, accelerator):
    model = make_segmenter()
    few = painted.select(range(3))
    arguments = SegmentationArguments(num_steps=300, images_per_step=3, pixels_per_image=300, learning_rate=1e-2)

    train_pixel_classifiers(model, extract_feature_maps(model, processor, few, accelerator), arguments, accelerator)

    segmented = segment_photos(model, processor, [row["image"] for row in few])
    hits = sum(
        sum(count["tp"] for count in count_pixels(np.asarray(row["mask"]), photo.segmentation_map, 5))
        for row, photo in zip(few, segmented, strict=True)
    )
    assert hits / (3 * 64 * 64) > 0.9


def test_the_same_seed_gives_the_same_pixel_classifiers(make_segmenter, features, accelerator):
    models = [make_segmenter(), make_segmenter()]

    losses = []
    for model in models:
        torch.rand(3)  # what was drawn before must not matter
        losses.append(train_pixel_classifiers(model, features, QUICK, accelerator))

    assert losses[0] == losses[1]
    assert_same_bits(*(weights_of(model.decode_head) for model in models))


def test_another_seed_gives_other_pixel_classifiers(make_segmenter, features, accelerator):
    models = [make_segmenter(), make_segmenter()]

    for seed, model in enumerate(models):
        arguments = SegmentationArguments(num_steps=2, images_per_step=3, pixels_per_image=10, seed=seed)
        train_pixel_classifiers(model, features, arguments, accelerator)

    assert not torch.equal(*(model.decode_head.projection.weight for model in models))


def test_training_again_starts_anew(make_segmenter, features, accelerator):
    model = make_segmenter()
    train_pixel_classifiers(model, features, QUICK, accelerator)
    first = weights_of(model.decode_head)

    train_pixel_classifiers(model, features, QUICK, accelerator)

    assert_same_bits(weights_of(model.decode_head), first)


def test_pixel_training_changes_the_head_and_nothing_else(make_segmenter, features, accelerator):
    model = make_segmenter()
    before, maps_before = weights_of(model), [maps.clone() for maps in features.feature_maps]

    train_pixel_classifiers(model, features, QUICK, accelerator)

    after = weights_of(model)
    backbone = {name for name in before if name.startswith("backbone.")}
    assert_same_bits({name: after[name] for name in backbone}, {name: before[name] for name in backbone})
    assert not torch.equal(after["decode_head.projection.weight"], before["decode_head.projection.weight"])
    assert all(torch.equal(now, then) for now, then in zip(features.feature_maps, maps_before, strict=True))


def test_trained_pixel_classifiers_are_in_evaluation_mode(make_segmenter, features, accelerator):
    model = make_segmenter()

    train_pixel_classifiers(model, features, QUICK, accelerator)

    assert not any(module.training for module in model.decode_head.modules())


def test_pixels_of_255_do_not_count(make_segmenter, features, accelerator):
    labels = features.labels.clone()
    labels[:, :, 16:] = 255
    labels[:, :, :16] = 4
    model = make_segmenter()

    losses = train_pixel_classifiers(model, FeatureMaps(features.feature_maps, labels), QUICK, accelerator)

    logits = model.decode_head(features.feature_maps, (32, 32))
    assert np.isfinite(losses).all()
    assert (logits.argmax(dim=2)[..., :16] == 4).float().mean() > 0.9


def test_a_photo_without_a_single_pixel_that_counts_does_not_spoil_the_weights(make_segmenter, features, accelerator):
    labels = features.labels.clone()
    labels[0] = 255
    arguments = SegmentationArguments(num_steps=20, images_per_step=1, pixels_per_image=50)
    model = make_segmenter()

    train_pixel_classifiers(model, FeatureMaps(features.feature_maps, labels), arguments, accelerator)

    assert all(torch.isfinite(tensor).all() for tensor in model.decode_head.state_dict().values())


def test_pixel_classifiers_train_in_bfloat16_and_predict_in_float32(make_segmenter, features, make_accelerator):
    model = make_segmenter()

    losses = train_pixel_classifiers(model, features, QUICK, make_accelerator("bf16"))

    assert np.isfinite(losses).all()
    assert {tensor.dtype for tensor in model.decode_head.parameters()} == {torch.float32}
    fresh = make_segmenter()
    fresh.decode_head.load_state_dict(model.decode_head.state_dict())
    wanted = fresh.decode_head.eval()(features.feature_maps, (32, 32))
    assert torch.equal(model.decode_head(features.feature_maps, (32, 32)), wanted)


# --- malignancy classifier -------------------------------------------------------------------------------------------


def test_malignancy_training_lowers_the_validation_loss(make_classifier, pooled, accelerator):
    losses = train_malignancy_classifier(make_classifier(), *pooled, EPOCHS, accelerator)

    assert losses[-1] < 0.8 * losses[0]


def test_the_malignancy_classifier_takes_raw_pooled_features(make_classifier, pooled, accelerator):
    model = make_classifier()

    train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    inputs, labels = pooled[0]
    assert (model.classify(inputs).argmax(dim=-1) == labels).float().mean() > 0.9


def test_early_stopping_restores_the_best_epoch(make_classifier, pooled, accelerator):
    train, (inputs, labels) = pooled
    contrary = (inputs, 1 - labels)  # the better the training, the worse the validation
    model = make_classifier()
    arguments = ClassificationArguments(max_epochs=60, patience=5, learning_rate=1e-2)

    losses = train_malignancy_classifier(model, train, contrary, arguments, accelerator)

    assert np.argmin(losses) == len(losses) - 1 - arguments.patience
    assert len(losses) < arguments.max_epochs
    returned = F.cross_entropy(model.classify(contrary[0]), contrary[1]).item()
    assert returned == pytest.approx(min(losses), rel=1e-4)


def test_the_best_epoch_is_restored_also_when_training_ran_to_its_end(make_classifier, pooled, accelerator):
    train, (inputs, labels) = pooled
    contrary = (inputs, 1 - labels)
    model = make_classifier()
    arguments = ClassificationArguments(max_epochs=8, patience=50, learning_rate=1e-2)

    losses = train_malignancy_classifier(model, train, contrary, arguments, accelerator)

    assert len(losses) == 8
    assert losses[-1] > min(losses)
    returned = F.cross_entropy(model.classify(contrary[0]), contrary[1]).item()
    assert returned == pytest.approx(min(losses), rel=1e-4)


def test_the_same_seed_gives_the_same_malignancy_classifier(make_classifier, pooled, accelerator):
    models = [make_classifier(), make_classifier()]

    losses = []
    for model in models:
        torch.rand(3)
        losses.append(train_malignancy_classifier(model, *pooled, EPOCHS, accelerator))

    assert losses[0] == losses[1]
    assert_same_bits(*(weights_of(model.classifier) for model in models))


def test_malignancy_training_changes_the_classifier_and_nothing_else(make_classifier, pooled, accelerator):
    model = make_classifier()
    before, inputs_before = weights_of(model), copy.deepcopy(pooled)

    train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    after = weights_of(model)
    backbone = {name for name in before if name.startswith("backbone.")}
    assert_same_bits({name: after[name] for name in backbone}, {name: before[name] for name in backbone})
    assert not torch.equal(after["classifier.0.weight"], before["classifier.0.weight"])
    assert torch.equal(pooled[0][0], inputs_before[0][0])


def test_a_trained_malignancy_classifier_is_in_evaluation_mode(make_classifier, pooled, accelerator):
    model = make_classifier()

    train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    assert not any(module.training for module in model.classifier.modules())


def test_the_classifier_trains_in_bfloat16_and_predicts_in_float32(make_classifier, pooled, make_accelerator):
    model = make_classifier()

    losses = train_malignancy_classifier(model, *pooled, EPOCHS, make_accelerator("bf16"))

    assert np.isfinite(losses).all()
    fresh = make_classifier()
    fresh.classifier.load_state_dict(model.classifier.state_dict())
    fresh.classifier.eval()
    assert torch.equal(model.classify(pooled[0][0]), fresh.classify(pooled[0][0]))
