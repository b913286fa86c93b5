"""DeepDerm: diagnoses first, then malignancy on their softmax; every layer learns."""

import pytest
import torch

from fedd_hf import FEDDImageProcessor
from fedd_hf.baselines.deepderm import (
    DIAGNOSES,
    DeepDermForImageClassification,
    train_deepderm,
    train_diagnoses,
    turn_at_random,
)
from fedd_hf.baselines.recipes import DEEPDERM_RECIPE, FittingArguments
from fedd_hf.prediction import predict_classification

QUICK = FittingArguments(learning_rate=1e-3, batch_size=3, max_epochs=1, patience=1, plateau_patience=1)


@pytest.fixture
def photos(photos):
    return photos.remove_columns("disease").add_column("disease", [*DIAGNOSES[:3], *DIAGNOSES[:3]])


@pytest.fixture
def processor():
    return FEDDImageProcessor(size=75)


@pytest.fixture
def deepderm():
    torch.manual_seed(0)
    return DeepDermForImageClassification.from_inception("random", image_size=75)


def test_the_recipe_is_the_authors():
    assert (DEEPDERM_RECIPE.learning_rate, DEEPDERM_RECIPE.batch_size, DEEPDERM_RECIPE.patience) == (1e-4, 30, 50)


def test_malignancy_is_a_linear_layer_on_the_softmax_of_diagnoses(deepderm):
    pixel_values = torch.rand(2, 3, 75, 75, generator=torch.Generator().manual_seed(0)) * 2 - 1

    with torch.no_grad():
        logits = deepderm(pixel_values).logits
        probabilities = deepderm.diagnose(pixel_values).softmax(dim=-1)

    expected = probabilities @ deepderm.malignancy.weight[0] + deepderm.malignancy.bias
    torch.testing.assert_close(logits[:, 1], expected)
    assert logits[:, 0].tolist() == [0, 0]


def test_a_turned_photo_keeps_its_size_and_its_colours():
    photo = torch.rand(3, 75, 75, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)

    turned = turn_at_random(75)(photo)

    assert turned.shape == photo.shape
    assert not torch.equal(turned, photo)
    assert set(turned.unique().tolist()) <= set(photo.unique().tolist())  # nothing is filled in


def test_both_stages_train_every_layer(deepderm, processor, photos, tmp_path):
    layers = {name: tensor.clone() for name, tensor in deepderm.named_parameters()}

    first = train_diagnoses(deepderm, processor, photos, photos, QUICK)
    second = train_deepderm(deepderm, processor, photos, photos, QUICK)

    assert len(first) == len(second) == 1
    assert first[0]["score"] == pytest.approx(-first[0]["loss"], rel=1e-3)
    assert not any(torch.equal(tensor, layers[name]) for name, tensor in deepderm.named_parameters())
    deepderm.save_pretrained(tmp_path)
    loaded = DeepDermForImageClassification.from_pretrained(tmp_path)
    scores = [predict_classification(model, processor, photos)["y_score"] for model in (deepderm, loaded)]
    assert scores[0].tolist() == scores[1].tolist()


def test_an_unknown_diagnosis_is_named(deepderm, processor, photos):
    strange = photos.remove_columns("disease").add_column("disease", ["acne"] * len(photos))

    with pytest.raises(ValueError, match=r"DeepDerm learns the diagnoses .* but photos have \['acne'\]"):
        train_diagnoses(deepderm, processor, strange, photos, QUICK)


def test_weights_that_cannot_be_fetched_are_told_with_what_to_do():
    with pytest.raises(OSError, match=r"ImageNet weights of Inception-v3 are on the Hub, which cannot be reached"):
        DeepDermForImageClassification.from_inception()
