import numpy as np
import pytest
import torch

from fedd_hf.modeling_fedd import pool_features
from fedd_hf.training.feature_store import FeatureMaps, extract_feature_maps, extract_pooled_features


def as_model_sees(processor, dataset):
    return processor([row["image"] for row in dataset], return_tensors="pt")["pixel_values"]


def test_feature_maps_are_those_of_the_backbone(make_segmenter, processor, painted, accelerator):
    model = make_segmenter()

    features = extract_feature_maps(model, processor, painted, accelerator)

    expected = model.backbone(as_model_sees(processor, painted))
    assert [tuple(maps.shape) for maps in features.feature_maps] == [(6, 16, 16, 16), (6, 8, 32, 32)]
    for actual, wanted in zip(features.feature_maps, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_labels_are_the_masks_at_the_size_of_the_model(make_segmenter, processor, painted, accelerator):
    features = extract_feature_maps(make_segmenter(), processor, painted, accelerator)

    masks = [np.asarray(row["mask"].resize((32, 32), resample=0)) for row in painted]
    assert features.labels.dtype == torch.int64
    assert np.array_equal(features.labels.numpy(), np.stack(masks))


def test_more_photos_than_a_batch_stay_in_order(make_segmenter, processor, painted, accelerator):
    model = make_segmenter()
    many = painted.select([*range(6), *range(6)])

    features = extract_feature_maps(model, processor, many, accelerator)

    assert len(features) == 12
    for maps in features.feature_maps:
        torch.testing.assert_close(maps[:6], maps[6:])


def test_a_batch_holds_the_maps_and_labels_of_its_images():
    first, second = torch.randn(4, 2, 3, 3), torch.randn(4, 5, 6, 6)
    features = FeatureMaps((first, second), torch.arange(4)[:, None, None].expand(4, 6, 6))

    maps, labels = features.__getitems__([3, 1, 1])

    assert torch.equal(maps[0], torch.stack([first[3], first[1], first[1]]))
    assert torch.equal(maps[1], torch.stack([second[3], second[1], second[1]]))
    assert labels[:, 0, 0].tolist() == [3, 1, 1]


def test_pooled_features_are_those_that_the_model_classifies(make_classifier, processor, painted, accelerator):
    model = make_classifier()

    pooled, labels = extract_pooled_features(model, processor, painted, accelerator)

    (feature_map,) = model.backbone(as_model_sees(processor, painted))
    torch.testing.assert_close(pooled, pool_features(feature_map, 64))
    assert labels.tolist() == [int(malignant) for malignant in painted["malignant"]]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_mixed_precision_of_the_training_does_not_stay_in_the_backbone(
    task, make_segmenter, make_classifier, processor, painted, make_accelerator
):
    model = make_segmenter() if task == "segmentation" else make_classifier()
    extract = extract_feature_maps if task == "segmentation" else extract_pooled_features
    pixel_values = as_model_sees(processor, painted)
    before = model.backbone(pixel_values)

    extract(model, processor, painted, make_accelerator("bf16"))

    for actual, wanted in zip(model.backbone(pixel_values), before, strict=True):
        assert torch.equal(actual, wanted)
