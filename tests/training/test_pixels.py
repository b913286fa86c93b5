import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from fedd_hf import FEDDImageProcessor
from fedd_hf.features import read_maps
from fedd_hf.training import pixels
from fedd_hf.training.pixels import (
    FLIPS,
    PixelDraws,
    StoredFeatures,
    StreamedFeatures,
    balanced_weights,
    measure_channels,
    order_photos,
    pass_on,
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


def mirror(dataset, flip):
    """Turn photos and masks round before anything else sees them."""
    transposes = [(Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT)[axis] for axis in flip]

    def turn(row):
        for transpose in transposes:
            row = row | {name: row[name].transpose(transpose) for name in ("image", "mask")}
        return row

    return dataset.map(turn)


# --- sample_maps


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (256, 256), (7, 5)], ids=str)
@pytest.mark.parametrize("block_size", [1, 2, 8, 12, 32, 64], ids=lambda size: f"block{size}")
def test_sampled_features_are_those_of_the_upsampled_map(block_size, size):
    feature_map = torch.randn(block_size, block_size, 3)
    drawn = torch.randint(size[0] * size[1], (500,))

    sampled = sample_maps([feature_map], drawn, size)

    assert (sampled.shape, sampled.dtype) == ((500, 3), torch.float32)
    torch.testing.assert_close(sampled, upsample(feature_map, size)[drawn], rtol=0, atol=1e-6)


def test_every_pixel_of_an_oblong_map_is_exact():
    feature_map = torch.randn(6, 3, 2)

    sampled = sample_maps([feature_map], torch.arange(20 * 14), (20, 14))

    torch.testing.assert_close(sampled, upsample(feature_map, (20, 14)), rtol=0, atol=1e-6)


def test_corners_and_edges_are_exact():
    feature_map = torch.randn(3, 3, 4)
    corners = torch.tensor([0, 7, 56, 63])

    sampled = sample_maps([feature_map], corners, (8, 8))

    torch.testing.assert_close(sampled, feature_map[[0, 0, 2, 2], [0, 2, 0, 2]], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        sample_maps([feature_map], torch.arange(64), (8, 8)), upsample(feature_map, (8, 8)), rtol=0, atol=1e-5
    )


def test_a_map_of_the_size_of_the_image_is_read_as_it_is():
    feature_map = torch.randn(16, 24, 3)
    drawn = torch.randint(16 * 24, (100,))

    assert torch.equal(sample_maps([feature_map], drawn, (16, 24)), feature_map.flatten(0, 1)[drawn])


def test_maps_of_all_sizes_are_read_at_the_same_pixels_and_joined_in_their_order():
    maps = [torch.randn(size, size, size + 1) for size in (1, 2, 8, 12, 32, 64)]
    drawn = torch.randint(32 * 32, (300,))

    sampled = sample_maps(maps, drawn, (32, 32))

    expected = torch.cat([upsample(feature_map, (32, 32))[drawn] for feature_map in maps], dim=1)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)], ids=str)
def test_pixels_of_several_images_are_read_from_their_own_maps(size):
    maps = [torch.randn(3, 8, 8, 2), torch.randn(3, 12, 12, 5)]
    drawn = torch.randint(3 * size[0] * size[1], (600,))

    sampled = sample_maps(maps, drawn, size)

    expected = torch.cat([upsample(feature_map, size)[drawn] for feature_map in maps], dim=1)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_features_in_half_precision_are_joined_in_float32(dtype):
    feature_map = torch.randn(64, 64, 3).to(dtype)
    drawn = torch.randint(256 * 256, (500,))

    sampled = sample_maps([feature_map], drawn, (256, 256))

    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled, upsample(feature_map, (256, 256))[drawn], rtol=0, atol=1e-6)


# --- PixelDraws


def test_a_draw_holds_the_features_and_labels_of_its_own_pixels(handmade):
    draws = PixelDraws(handmade(*numbered(5)), num_draws=5, pixels_per_draw=40, seed=0)

    batch = draws.__getitems__([0, 1, 2, 3, 4])

    assert (batch["features"].shape, batch["features"].dtype) == ((5, 40, 2), torch.float32)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((5, 40), torch.int64)
    assert torch.equal(batch["features"][:, :, 1].long(), batch["labels"])
    assert batch["features"][:, 0, 0].tolist() == draws.photos
    assert (batch["features"][:, :, 0] == batch["features"][:, :1, 0]).all()


def test_labels_follow_the_pixels_of_an_oblong_image(handmade):
    draws = PixelDraws(handmade(*numbered(3, size=(6, 11))), num_draws=6, pixels_per_draw=200, seed=0)

    batch = draws.__getitems__([0, 1, 2, 3, 4, 5])

    assert torch.equal(batch["features"][:, :, 1].long(), batch["labels"])
    assert set(batch["labels"].flatten().tolist()) == set(range(66))


def test_pixels_are_drawn_uniformly(handmade):
    draws = PixelDraws(handmade(*numbered(1, size=(4, 4))), num_draws=16, pixels_per_draw=1000, seed=0)

    labels = draws.__getitems__(list(range(16)))["labels"]

    counts = torch.bincount(labels.flatten(), minlength=16)
    assert counts.min() > 850  # 1000 expected, standard deviation 31
    assert counts.max() < 1150


def test_a_draw_is_the_same_whatever_was_drawn_before_and_with_it(handmade):
    def draw(*batches):
        draws = PixelDraws(handmade(*numbered(4)), num_draws=12, pixels_per_draw=10, seed=7)
        return [draws.__getitems__(list(batch)) for batch in batches][-1]

    alone = draw([5])
    for batches, place in (
        (([0], [1], [5]), 0),
        (([4, 5, 6],), 1),
        (([11, 3], [5, 0]), 0),
        (([5], [5]), 0),
    ):
        batch = draw(*batches)
        assert torch.equal(batch["features"][place], alone["features"][0])
        assert torch.equal(batch["labels"][place], alone["labels"][0])


def test_draws_leave_the_random_numbers_of_torch_alone(handmade):
    def draw():
        return PixelDraws(handmade(*numbered(4)), num_draws=4, pixels_per_draw=10, seed=7).__getitems__([0, 3])

    state = torch.get_rng_state()

    first = draw()

    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(first["features"], draw()["features"])


def test_two_visits_of_a_photo_draw_other_pixels(handmade):
    draws = PixelDraws(handmade(*numbered(1)), num_draws=2, pixels_per_draw=20, seed=0)

    first, second = draws.__getitems__([0, 1])["labels"]

    assert not torch.equal(first, second)


def test_another_seed_draws_other_photos_and_pixels(handmade):
    draws = [PixelDraws(handmade(*numbered(20)), num_draws=20, pixels_per_draw=20, seed=seed) for seed in (0, 1)]

    assert draws[0].photos != draws[1].photos
    assert not torch.equal(*(of_seed.__getitems__([0])["labels"] for of_seed in draws))


def test_all_photos_come_once_before_any_comes_again():
    order = order_photos(num_photos=7, num_draws=31, seed=3)

    assert len(order) == 31
    for start in range(0, 28, 7):
        assert sorted(order[start : start + 7]) == list(range(7))
    assert len(set(order[28:])) == 3
    assert order[:7] != order[7:14]


def test_the_order_of_a_longer_training_begins_as_that_of_a_shorter():
    assert order_photos(5, 23, seed=0)[:12] == order_photos(5, 12, seed=0)


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    assert order_photos(30, 60, seed=1) == order_photos(30, 60, seed=1)
    assert order_photos(30, 60, seed=1) != order_photos(30, 60, seed=2)


def test_fewer_draws_than_photos_see_as_many_photos_as_draws():
    assert len(set(order_photos(100, 10, seed=0))) == 10


def test_a_batch_that_is_stacked_is_passed_on(handmade):
    draws = PixelDraws(handmade(*numbered(4)), num_draws=8, pixels_per_draw=10, seed=0)

    batches = list(torch.utils.data.DataLoader(draws, batch_size=3, collate_fn=pass_on))

    assert [len(batch["labels"]) for batch in batches] == [3, 3, 2]
    assert torch.equal(
        torch.cat([batch["features"] for batch in batches]), draws.__getitems__(list(range(8)))["features"]
    )


# --- flips


def test_photo_and_labels_are_flipped_alike(handmade):
    features = handmade(*numbered(3, size=(6, 11)), flips=FLIPS)
    draws = PixelDraws(features, num_draws=60, pixels_per_draw=50, seed=0)

    batch = draws.__getitems__(list(range(60)))

    assert torch.equal(batch["features"][:, :, 1].long(), batch["labels"])
    counts = {flip: [asked for _, asked in features.asked].count(flip) for flip in FLIPS}
    assert min(counts.values()) > 5  # 15 expected, standard deviation 3.4


def test_a_photo_is_flipped_in_other_ways_at_other_visits(handmade):
    features = handmade(*numbered(1), flips=FLIPS)

    PixelDraws(features, num_draws=30, pixels_per_draw=5, seed=0).__getitems__(list(range(30)))

    assert {flip for _, flip in features.asked} == set(FLIPS)


def test_photos_of_a_store_are_never_flipped(features):
    assert features.flips == ((),)


@pytest.mark.parametrize("flip", FLIPS, ids=str)
def test_flipped_features_are_those_of_the_flipped_photo(flip, make_segmenter, painted, processor, accelerator):
    model, options = make_segmenter(), {"dtype": "float32", "batch_size": 4}
    small = painted.map(lambda row: {name: row[name].resize((32, 32), resample=0) for name in ("image", "mask")})
    streamed = StreamedFeatures(model, small, processor, accelerator, augment=True, **options)
    turned = StreamedFeatures(model, mirror(small, flip), processor, accelerator, **options)

    (maps,), (expected,) = streamed.read([4], [flip]), turned.read([4], [()])

    assert streamed.flips == FLIPS
    for actual, wanted in zip(maps, expected, strict=True):
        assert torch.equal(actual, wanted)
    assert torch.equal(streamed.labels(4).flip(flip), turned.labels(4))


def test_photos_of_one_batch_are_each_flipped_in_their_own_way(make_segmenter, painted, processor, accelerator):
    streamed = StreamedFeatures(make_segmenter(), painted, processor, accelerator, batch_size=4, augment=True)

    together = streamed.read([0, 0, 1, 0], [(), (1,), (0,), (0, 1)])

    for maps, photo, flip in zip(together, [0, 0, 1, 0], [(), (1,), (0,), (0, 1)], strict=True):
        (alone,) = streamed.read([photo], [flip])
        assert all(torch.equal(actual, wanted) for actual, wanted in zip(maps, alone, strict=True))


# --- stored and streamed


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_streamed_draws_are_those_of_the_store_bit_for_bit(
    dtype, make_segmenter, make_store, painted, processor, accelerator
):
    model = make_segmenter(timesteps=[0, 50])
    files = make_store(model, dtype=dtype, batch_size=3).extract(painted, accelerator)
    stored = StoredFeatures(files, painted, processor)
    streamed = StreamedFeatures(model, painted, processor, accelerator, dtype=dtype, batch_size=3)

    batches = [
        PixelDraws(features, num_draws=12, pixels_per_draw=30, seed=2).__getitems__([0, 3, 4, 7, 11])
        for features in (stored, streamed)
    ]

    assert torch.equal(batches[0]["features"], batches[1]["features"])
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])


def test_stored_maps_are_those_of_the_files(features):
    maps = features.read([3, 0], [(), ()])

    for of_photo, photo in zip(maps, (3, 0), strict=True):
        wanted = read_maps(features.files[photo])
        assert all(torch.equal(actual, expected) for actual, expected in zip(of_photo, wanted, strict=True))


def test_labels_are_the_masks_at_the_size_of_the_model(features, painted):
    for photo, row in enumerate(painted):
        labels = features.labels(photo)
        assert labels.dtype == torch.uint8
        assert np.array_equal(labels.numpy(), np.asarray(row["mask"].resize((32, 32), resample=0)))


def test_labels_of_a_cropped_photo_are_cropped(make_segmenter, painted, accelerator):
    oblong = painted.map(lambda row: {name: row[name].resize((96, 64), resample=0) for name in ("image", "mask")})
    processor = FEDDImageProcessor(size=32, geometry="center_crop")

    streamed = StreamedFeatures(make_segmenter(), oblong, processor, accelerator)

    expected = processor(oblong[1]["image"], segmentation_maps=oblong[1]["mask"], return_tensors="pt")["labels"][0]
    assert torch.equal(streamed.labels(1).long(), expected)


def test_pixels_of_255_stay_255(features, painted, processor):
    masks = painted.map(lambda row: {"mask": row["mask"].point(lambda value: 255 if value == 1 else value)})

    labels = StoredFeatures(features.files, masks, processor).labels(0)

    assert torch.equal(labels == 255, features.labels(0) == 1)
    assert (labels == 255).any()


@pytest.mark.parametrize("kind", ["stored", "streamed"])
def test_label_maps_in_memory_are_bounded(
    kind, features, make_segmenter, painted, processor, accelerator, monkeypatch
):
    monkeypatch.setattr(pixels, "LABELS_KEPT", 2)
    opened = {
        "stored": lambda: StoredFeatures(features.files, painted, processor),
        "streamed": lambda: StreamedFeatures(make_segmenter(), painted, processor, accelerator),
    }[kind]()

    first = [opened.labels(photo) for photo in range(6)]
    again = [opened.labels(photo) for photo in range(6)]

    assert opened.labels.cache_info().currsize == 2
    assert all(torch.equal(actual, wanted) for actual, wanted in zip(again, first, strict=True))


def test_a_label_map_in_memory_is_not_read_again(features):
    assert features.labels(2) is features.labels(2)


def test_a_mask_that_cannot_be_read_is_named(features, painted, processor):
    damaged = painted.map(lambda row, index: {"mask": None} if index == 2 else {}, with_indices=True)

    with pytest.raises(ValueError, match=f"The mask of photo '{painted['image_id'][2]}' cannot be read"):
        StoredFeatures(features.files, damaged, processor).labels(2)


def test_a_mask_of_another_class_is_named(features, painted, processor):
    foreign = painted.map(lambda row: {"mask": row["mask"].point(lambda value: 7 if value == 1 else value)})

    with pytest.raises(ValueError, match=f"The mask of photo '{painted['image_id'][0]}' cannot be read.*7"):
        StoredFeatures(features.files, foreign, processor).labels(0)


def test_some_of_the_maps_can_be_chosen(make_store, make_segmenter, painted, processor, accelerator):
    store = make_store(make_segmenter(blocks=[1, 2, 4, 5, 7], timesteps=[0, 50]))
    features = StoredFeatures(store.extract(painted, accelerator), painted, processor)

    chosen = features.select_maps([4, 1])

    (whole,), (maps,) = features.read([2], [()]), chosen.read([2], [()])
    assert len(whole) == 5
    assert [torch.equal(maps[0], whole[4]), torch.equal(maps[1], whole[1])] == [True, True]
    assert len(maps) == 2
    assert torch.equal(chosen.labels(2), features.labels(2))


# --- statistics


def test_mean_and_deviation_of_channels_are_those_of_numpy(features):
    mean, std = measure_channels(features, [0, 2, 5])

    maps = features.read([0, 2, 5], [(), (), ()])
    expected = [
        np.concatenate([of_photo[index].double().numpy().reshape(-1, of_photo[index].shape[-1]) for of_photo in maps])
        for index in range(2)
    ]
    assert mean.shape == std.shape == (16 + 8,)
    np.testing.assert_allclose(
        mean, np.concatenate([values.mean(axis=0) for values in expected]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(std, np.concatenate([values.std(axis=0) for values in expected]), rtol=1e-5)


def test_far_from_zero_the_deviation_is_still_exact(handmade):
    values = 1000 + torch.randn(4, 6, 6, 3)
    labels = torch.zeros(4, 6, 6)

    mean, std = measure_channels(handmade([(feature_map,) for feature_map in values], labels), range(4))

    np.testing.assert_allclose(mean, values.numpy().mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, values.double().numpy().std(axis=(0, 1, 2)), rtol=1e-4)


def test_a_channel_that_never_changes_has_a_deviation_to_divide_by(handmade):
    maps = [(torch.full((3, 3, 2), 7.0),), (torch.full((3, 3, 2), 7.0),)]

    mean, std = measure_channels(handmade(maps, torch.zeros(2, 3, 3)), [0, 1])

    assert mean.tolist() == [7, 7]
    assert (std > 0).all()


def test_statistics_of_a_single_value_are_finite(handmade):
    mean, std = measure_channels(handmade([(torch.ones(1, 1, 2),)], torch.zeros(1, 3, 3)), [0])

    assert torch.isfinite(mean).all()
    assert torch.isfinite(std).all()


def test_balanced_weights_are_those_of_scikit_learn(features):
    labels = torch.stack([features.labels(photo) for photo in range(6)]).flatten().long().numpy()

    weights = balanced_weights(features, 5)

    classes = np.unique(labels)
    expected = compute_class_weight("balanced", classes=classes, y=labels) * len(classes) / 5
    np.testing.assert_allclose(weights[classes], expected, rtol=1e-5)


def test_pixels_that_do_not_count_do_not_weigh(handmade):
    labels = torch.tensor([[[0, 0, 0], [1, 1, 255]], [[2, 0, 0], [255, 255, 255]]])
    counted = labels[labels != 255].numpy()

    weights = balanced_weights(handmade([(), ()], labels), 3)

    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=counted), rtol=1e-6)


def test_a_class_that_no_photo_shows_weighs_1(handmade):
    weights = balanced_weights(handmade([()], torch.tensor([[[0, 0], [0, 3]]])), 5)

    assert weights.tolist() == pytest.approx([4 / 15, 1, 1, 4 / 5, 1])
    assert weights.dtype == torch.float32
