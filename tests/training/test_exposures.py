import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as PilImage

from fedd_hf.training.exposures import Exposures, draw_crop

SIZE = 16


@pytest.fixture
def photos():
    """Five photos, each of one colour."""
    pictures = [PilImage.new("RGB", (40, 30), (40 * number, 10, 10)) for number in range(5)]
    return Dataset.from_dict({"image": pictures}).cast_column("image", Image())


@pytest.fixture
def see(photos):
    def see(numbers, **options):
        fields = {"image_size": SIZE, "num_train_timesteps": 1000, "least_crop": 0.6, "seed": 0} | options
        return Exposures(photos, numbers, **fields)

    return see


def photo_of(exposure):
    return round((float(exposure["pixel_values"][0].mean()) + 1) * 127.5 / 40)


def test_an_exposure_has_pixels_between_minus_one_and_one_noise_and_a_timestep(see):
    exposure = see(range(1))[0]

    assert exposure["pixel_values"].shape == exposure["noise"].shape == (3, SIZE, SIZE)
    assert exposure["pixel_values"].dtype == exposure["noise"].dtype == torch.float32
    assert exposure["pixel_values"].abs().max() <= 1
    assert 0 <= exposure["timestep"] < 1000


def test_every_photo_is_seen_once_before_any_is_seen_again(see):
    exposures = see(range(15))

    seen = [photo_of(exposures[index]) for index in range(15)]

    for start in (0, 5, 10):
        assert sorted(seen[start : start + 5]) == [0, 1, 2, 3, 4]
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:]


def test_an_exposure_depends_on_its_number_and_not_on_where_the_range_begins(see):
    late, whole = see(range(7, 12)), see(range(12))

    for index in range(5):
        assert all(torch.equal(late[index][name], whole[7 + index][name]) for name in late[index])


def test_another_seed_gives_other_noise(see):
    assert not torch.equal(see(range(1))[0]["noise"], see(range(1), seed=1)[0]["noise"])


def test_noise_is_standard_normal_and_timesteps_are_uniform(see):
    exposures = see(range(400))
    noise = torch.stack([exposures[index]["noise"] for index in range(400)])
    timesteps = np.array([int(exposures[index]["timestep"]) for index in range(400)])

    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert abs(timesteps.mean() - 499.5) < 50
    assert timesteps.min() < 50
    assert timesteps.max() > 950


def test_a_whole_crop_is_the_square_of_the_shorter_side():
    y, x = np.mgrid[:20, :20]
    photo = PilImage.fromarray(np.stack([x * 10, y * 10, 0 * x], axis=-1).astype(np.uint8))

    crop = np.asarray(draw_crop(photo, 20, 1.0, np.random.default_rng(0)))

    symmetries = [
        np.rot90(side, turns) for side in (np.asarray(photo), np.asarray(photo)[:, ::-1]) for turns in range(4)
    ]
    assert any(np.array_equal(crop, symmetry) for symmetry in symmetries)


def test_crops_are_turned_and_mirrored_in_all_eight_ways():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 1] = 255
    rng = np.random.default_rng(0)

    places = {
        tuple(np.argwhere(np.asarray(draw_crop(PilImage.fromarray(pixels), 8, 1.0, rng))[..., 0])[0])
        for _ in range(200)
    }

    assert len(places) == 8
