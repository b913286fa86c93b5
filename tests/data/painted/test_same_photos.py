"""Quickstart's photos, held by hash: results from before and after a change can be compared only on the same photos.

Pixels are hashed, not files, so that another zlib changes nothing. numpy and scipy are those of constraints.txt.
"""

import hashlib

import numpy as np
import pytest

from fedd_hf.cli.quickstart_run import TEST_SEED, TRAIN_SEED, QuickstartSize
from fedd_hf.data.painted import paint_dataset

SIZE = QuickstartSize()


def hash_photos(photos):
    digest = hashlib.sha256()
    for row in photos:
        digest.update(np.asarray(row["image"]).tobytes() + np.asarray(row["mask"]).tobytes())
    return digest.hexdigest()


def hash_labels(photos):
    lines = [f"{row['image_id']},{row['skin_tone']},{row['malignant']}\n" for row in photos.remove_columns("image")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_first_photo_of_each_tone_is_the_same():
    labelled, held_out = (paint_dataset(1, seed, SIZE.photo_size) for seed in (TRAIN_SEED, TEST_SEED))

    assert hash_photos(labelled) == "1a162e9379245e5728a271c025bed94ae84e30dcf81ef25e21b33638f53a23e2"
    assert hash_photos(held_out) == "2b3102dcb35f4a97f4215e96328c0ba3486b43f9a0a613fb68f3ce229fb12e02"


def test_ids_tones_and_diagnoses_of_the_held_out_photos_are_the_same():
    held_out = paint_dataset(SIZE.test_per_tone, TEST_SEED, 32)  # labels do not depend on the size

    assert held_out["image_id"][:] == [f"painted-0002-{index:06d}" for index in range(60)]
    assert hash_labels(held_out) == "91689dbee87359f0aeb17545c10f07db88ff831e3f9c5f4fe9d64950bd163dd2"


@pytest.mark.slow
def test_all_photos_are_the_same():
    labelled = paint_dataset(SIZE.train_per_tone, TRAIN_SEED, SIZE.photo_size)
    held_out = paint_dataset(SIZE.test_per_tone, TEST_SEED, SIZE.photo_size)

    assert hash_photos(labelled) == "f68026e00ef376610db549a29c031919be3ae176adc43de7dec2363f8ead52eb"
    assert hash_photos(held_out) == "de2b8a8d1d9f87999cc85561f5c04ef754299ad940863b70448585642ea5fb82"
    assert hash_labels(held_out) == "91689dbee87359f0aeb17545c10f07db88ff831e3f9c5f4fe9d64950bd163dd2"
