"""What a backbone sees in pre-training: photo, crop, noise and timestep of each exposure."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

FLIPS = (None, *Image.Transpose)  # the eight symmetries of a square


class Exposures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A range of exposures. Each depends on the seed and its number alone, in whatever process, also after a resume.

    Args:
        photos (`datasets.Dataset`):
            Rows with an `image`; each is seen once before any is seen again.
        numbers (`range`):
            Numbers of the exposures.
        image_size (`int`):
            Side of the crops, in pixels.
        num_train_timesteps (`int`):
            Length of the noise schedule.
        least_crop (`float`):
            Least side of a crop as a share of the photo's shorter side.
        seed (`int`):
            Seed of everything.
    """

    def __init__(
        self, photos: Dataset, numbers: range, image_size: int, num_train_timesteps: int, least_crop: float, seed: int
    ) -> None:
        self.photos, self.numbers = photos.select_columns(["image"]), numbers
        self.image_size, self.num_train_timesteps = image_size, num_train_timesteps
        self.least_crop, self.seed = least_crop, seed
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return `pixel_values` and `noise`, float32 of shape `(3, image_size, image_size)`, and `timestep`."""
        number = self.numbers[index]
        rng = np.random.default_rng([self.seed, number])
        epoch, position = divmod(number, len(self.photos))
        photo = self.photos[int(self._order(epoch)[position])]["image"]
        pixels = np.asarray(draw_crop(photo, self.image_size, self.least_crop, rng), np.float32) / 127.5 - 1
        noise = rng.standard_normal((3, self.image_size, self.image_size), np.float32)
        timestep = int(rng.integers(self.num_train_timesteps))
        return {
            "pixel_values": torch.from_numpy(pixels).movedim(-1, 0),
            "noise": torch.from_numpy(noise),
            "timestep": torch.tensor(timestep),
        }

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.photos))


def draw_crop(photo: Image.Image, image_size: int, least_crop: float, rng: np.random.Generator) -> Image.Image:
    """Cut a square out of a photo at random, resize it, and turn and mirror it at random."""
    photo = photo.convert("RGB")
    side = min(photo.size) * math.sqrt(rng.uniform(least_crop**2, 1))
    left, top = (rng.uniform(0, length - side) for length in photo.size)
    crop = photo.resize((image_size, image_size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    flip = FLIPS[rng.integers(len(FLIPS))]
    return crop if flip is None else crop.transpose(flip)
