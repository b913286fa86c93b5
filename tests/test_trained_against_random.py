"""Does pre-training help? The embedded backbone against the same network with random weights, on painted photos."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy import stats

from fedd_hf import FEDDConfig, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset
from fedd_hf.evaluation.segmentation import segmentation_metrics
from fedd_hf.features import FeatureStore
from fedd_hf.prediction import predict_segmentation
from fedd_hf.training.arguments import SegmentationArguments
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures

SEEDS = range(5)
PER_TONE, PHOTO_SIZE, NUM_STEPS = 5, 128, 100


def trained_backbone():
    return FEDDForSegmentation.from_backbone("embedded")


def random_backbone(seed):
    """The network of the embedded backbone, its blocks, timesteps and noise, with the weights that torch draws."""
    fields = trained_backbone().config.to_dict()
    config = FEDDConfig(**(fields | {"backbone": None, "backbone_sha256": None}))
    torch.manual_seed(seed)
    return FEDDForSegmentation(config)


def score(model, train, test, seed, root):
    """Train the heads on one set of photos and return the pooled mean IoU on another."""
    processor = FEDDImageProcessor(size=model.config.image_size)
    accelerator = Accelerator(cpu=True)
    files = FeatureStore(root, model, processor).extract(train, accelerator)
    features = StoredFeatures(files, train, processor)
    train_pixel_classifiers(model, features, SegmentationArguments(num_steps=NUM_STEPS, seed=seed), accelerator)
    mean_iou = segmentation_metrics(predict_segmentation(model, processor, test))["mean_iou"]
    return mean_iou(np.ones((1, len(test)))).item()


def test_the_random_network_differs_from_the_embedded_one_in_its_weights_only():
    trained, random = trained_backbone(), random_backbone(seed=0)

    names = ("blocks", "timesteps", "image_size", "noise_seed", "backbone_config", "ensemble_size")
    assert all(getattr(trained.config, name) == getattr(random.config, name) for name in names)
    assert torch.equal(trained.backbone.noise, random.backbone.noise)
    weights, drawn = dict(trained.backbone.unet.named_parameters()), dict(random.backbone.unet.named_parameters())
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in drawn.items()}
    changed = [name for name in weights if not torch.equal(weights[name], drawn[name])]
    assert len(changed) > 0.9 * len(weights)


@pytest.mark.slow
def test_trained_backbone_against_random_weights(record_property, tmp_path):
    """Five pairs of briefly trained heads, each with its own photos and seeds.

    The result is printed as it is, only its sanity is asserted.
    """
    pairs = []
    for seed in SEEDS:
        train = paint_dataset(PER_TONE, seed=300 + seed, size=PHOTO_SIZE)
        test = paint_dataset(PER_TONE, seed=400 + seed, size=PHOTO_SIZE)
        pairs.append(
            [score(model, train, test, seed, tmp_path) for model in (trained_backbone(), random_backbone(seed))]
        )

    trained, random = np.array(pairs).T
    difference = trained - random
    half_width = stats.t.ppf(0.975, len(SEEDS) - 1) * difference.std(ddof=1) / len(SEEDS) ** 0.5
    result = (
        f"mean IoU on painted photos: trained {trained.mean():.3f}, random {random.mean():.3f}, difference "
        f"{difference.mean():+.3f} [{difference.mean() - half_width:+.3f}, {difference.mean() + half_width:+.3f}] "
        f"(95 % t-interval, {len(SEEDS)} pairs)"
    )
    record_property("trained against random", result)
    assert np.isfinite(pairs).all()
    assert not np.array_equal(trained, random)
