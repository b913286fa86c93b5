import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from fedd_hf import FEDDImageProcessor
from fedd_hf.features import read_maps
from fedd_hf.training import pixels
from fedd_hf.training.pixels import (
    LabelMaps,
    PixelDraws,
    StoredFeatures,
    balanced_weights,
    measure_channels,
    order_photos,
    sample_maps,
)


def upsample(feature_map, size):
    """Upsample maps of shape (..., height, width, channels) and flatten their pixels."""
    maps = feature_map.reshape(-1, *feature_map.shape[-3:]).double().movedim(-1, 1)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).movedim(1, -1).flatten(0, 2).float()


def numbered(num_photos, size=(8, 8)):
    """Photos whose one full-size map says which photo and which pixel it is, and whose labels are the pixel's."""
    height, width = size
    pixel_ids = torch.arange(height * width, dtype=torch.float32).view(height, width, 1)
    maps = [(torch.cat([torch.full_like(pixel_ids, photo), pixel_ids], dim=2),) for photo in range(num_photos)]
    return maps, pixel_ids[:, :, 0].expand(num_photos, -1, -1)


# --- sample_maps


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (7, 5)], ids=str)
def test_sampled_features_are_those_of_the_upsampled_maps_joined_in_their_order(size):
    maps = [torch.randn(side, side, side + 1) for side in (1, 2, 8, 12, 32, 64)]

    sampled = sample_maps(maps, torch.arange(size[0] * size[1]), size)

    expected = torch.cat([upsample(feature_map, size) for feature_map in maps], dim=1)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-5)


def test_a_map_of_the_size_of_the_image_is_read_as_it_is():
    feature_map = torch.randn(16, 24, 3)
    drawn = torch.randint(16 * 24, (100,))

    assert torch.equal(sample_maps([feature_map], drawn, (16, 24)), feature_map.flatten(0, 1)[drawn])


def test_pixels_of_several_oblong_images_are_read_from_their_own_maps():
    maps = [torch.randn(3, 8, 8, 2), torch.randn(3, 12, 12, 5)]
    drawn = torch.randint(3 * 24 * 40, (600,))

    sampled = sample_maps(maps, drawn, (24, 40))

    expected = torch.cat([upsample(feature_map, (24, 40))[drawn] for feature_map in maps], dim=1)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-6)


def test_features_in_half_precision_are_interpolated_in_float32():
    feature_map = torch.randn(64, 64, 3).half()
    drawn = torch.randint(256 * 256, (500,))

    sampled = sample_maps([feature_map], drawn, (256, 256))

    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled, upsample(feature_map, (256, 256))[drawn], rtol=0, atol=1e-6)


# --- PixelDraws


def test_a_draw_holds_the_features_and_labels_of_its_own_pixels_drawn_uniformly(handmade):
    draws = PixelDraws(handmade(*numbered(3, size=(6, 11))), num_draws=6, pixels_per_draw=4000, seed=0)

    for draw in range(6):
        batch = draws[draw]
        assert (batch["features"].shape, batch["labels"].dtype) == ((4000, 2), torch.int64)
        assert torch.equal(batch["features"][:, 1].long(), batch["labels"])
        assert set(batch["features"][:, 0].tolist()) == {draws.photos[draw]}
        assert batch["labels"].bincount(minlength=66).min() > 25  # 61 expected, standard deviation 8


def test_a_draw_depends_on_seed_and_number_alone(handmade):
    def make(seed):
        return PixelDraws(handmade(*numbered(20)), num_draws=40, pixels_per_draw=10, seed=seed)

    before, draws = torch.get_rng_state(), make(seed=7)
    draws[3], draws[39]

    assert torch.equal(draws[5]["features"], make(seed=7)[5]["features"])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(draws[5]["labels"], draws[6]["labels"])
    assert not torch.equal(draws[5]["labels"], make(seed=8)[5]["labels"])
    assert draws.photos != make(seed=8).photos


def test_all_photos_come_once_before_any_comes_again():
    order = order_photos(num_photos=7, num_draws=31, seed=3)

    assert len(order) == 31
    for start in range(0, 28, 7):
        assert sorted(order[start : start + 7]) == list(range(7))
    assert order[:7] != order[7:14]
    assert order_photos(num_photos=7, num_draws=12, seed=3) == order[:12]


# --- stored features and labels


def test_stored_maps_are_those_of_the_files_or_some_of_them(
    make_store, make_segmenter, painted, processor, accelerator
):
    store = make_store(make_segmenter(blocks=[1, 2, 4, 5, 7], timesteps=[0, 50]))
    features = StoredFeatures(store.extract(painted, accelerator), painted, processor)

    whole, chosen = features.read(2), features.select_maps([4, 1]).read(2)

    assert all(map(torch.equal, whole, read_maps(features.files[2])))
    assert len(chosen) == 2
    assert all(map(torch.equal, chosen, (whole[4], whole[1])))


def test_labels_are_the_masks_at_the_size_of_the_model(features, painted):
    for photo, row in enumerate(painted):
        labels = features.labels(photo)
        assert labels.dtype == torch.uint8
        assert np.array_equal(labels.numpy(), np.asarray(row["mask"].resize((32, 32), resample=0)))
    assert features.labels(2) is features.labels(2)


def test_labels_of_a_cropped_photo_are_cropped_and_255_stays(painted):
    def change(row):
        return {"mask": row["mask"].resize((96, 64), resample=0).point(lambda label: 255 if label == 1 else label)}

    oblong, processor = painted.map(change), FEDDImageProcessor(size=32, geometry="center_crop")

    labels = LabelMaps(oblong, processor).read(1)

    photo = oblong[1]["image"].resize((96, 64))
    expected = processor(photo, segmentation_maps=oblong[1]["mask"], return_tensors="pt")["labels"][0]
    assert torch.equal(labels.long(), expected)
    assert (labels == 255).any()


def test_label_maps_in_memory_are_bounded(painted, processor, monkeypatch):
    monkeypatch.setattr(pixels, "LABELS_KEPT", 2)
    labels = LabelMaps(painted, processor)

    first = [labels.read(photo) for photo in range(6)]

    assert all(torch.equal(labels.read(photo), first[photo]) for photo in range(6))
    assert labels.read.cache_info().currsize == 2


def test_a_mask_that_is_missing_or_has_a_foreign_class_is_named(painted, processor):
    missing = painted.map(lambda row, index: {"mask": None} if index == 2 else {}, with_indices=True)
    foreign = painted.map(lambda row: {"mask": row["mask"].point(lambda label: 7 if label == 1 else label)})

    with pytest.raises(ValueError, match=f"The mask of photo '{painted['image_id'][2]}' cannot be read"):
        LabelMaps(missing, processor).read(2)
    with pytest.raises(ValueError, match=f"The mask of photo '{painted['image_id'][0]}' cannot be read.*7"):
        LabelMaps(foreign, processor).read(0)


# --- statistics


def test_mean_and_deviation_of_channels_are_those_of_numpy_also_far_from_zero(handmade):
    values = 1000 + torch.randn(4, 6, 6, 3)
    maps = [(feature_map, 5 * feature_map[:3]) for feature_map in values]

    mean, std = measure_channels(handmade(maps, torch.zeros(4, 6, 6)), range(4))

    both = [values.double().numpy(), 5 * values[:, :3].double().numpy()]
    np.testing.assert_allclose(mean, np.concatenate([of_map.mean(axis=(0, 1, 2)) for of_map in both]), rtol=1e-6)
    np.testing.assert_allclose(std, np.concatenate([of_map.std(axis=(0, 1, 2)) for of_map in both]), rtol=1e-4)


def test_a_channel_that_never_changes_has_a_deviation_to_divide_by(handmade):
    mean, std = measure_channels(handmade([(torch.full((3, 3, 2), 7.0),)], torch.zeros(1, 3, 3)), [0])

    assert mean.tolist() == [7, 7]
    assert (std > 0).all()


def test_balanced_weights_are_those_of_scikit_learn_over_pixels_that_count(handmade):
    labels = torch.tensor([[[0, 0, 0], [1, 1, 255]], [[2, 0, 0], [255, 255, 255]]])
    counted = labels[labels != 255].numpy()

    weights = balanced_weights(handmade([(), ()], labels), 4)

    expected = compute_class_weight("balanced", classes=np.arange(3), y=counted) * 3 / 4
    np.testing.assert_allclose(weights, [*expected, 1], rtol=1e-6)  # a class that no photo shows weighs 1
