import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedd_hf import FEDDForImageClassification
from fedd_hf.training.arguments import ClassificationArguments
from fedd_hf.training.malignancy_heads import (
    ClassifierStack,
    EarlyStopping,
    draw_classifier,
    paper_reading,
    train_classifiers,
    train_malignancy_classifier,
)

EPOCHS = ClassificationArguments(max_epochs=12, learning_rate=1e-2)


@pytest.fixture
def pooled():
    """Separable pooled features of 40 photos for training and 20 for validation."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 2
    inputs = 3 + 2 * torch.randn(60, 64, generator=generator) + labels[:, None]
    return (inputs[:40], labels[:40]), (inputs[40:], labels[40:])


@pytest.fixture
def readings(pooled):
    """The same photos as three readings see them, each with other features."""
    generator = torch.Generator().manual_seed(6)
    noise = torch.randn(3, 60, 64, generator=generator) * torch.tensor([0.0, 1.0, 3.0])[:, None, None]
    (seen, labels), (unseen, unseen_labels) = pooled
    return (seen + noise[:, :40], labels), (unseen + noise[:, 40:], unseen_labels)


def make_network(dropout=0.0):
    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))


def train_alone(network, train, validation, seed, arguments):
    """The recipe as anyone would write it; returns the network at its best epoch, on standardised features."""
    (seen, labels), (unseen, unseen_labels) = train, validation
    mean, std = seen.mean(dim=0), seen.std(dim=0, correction=0)
    torch.manual_seed(seed)
    for layer in network:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    optimizer = torch.optim.Adam(network.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    losses, best = [], None
    while len(losses) < arguments.max_epochs and len(losses) - np.argmin([*losses, 1e9]) <= arguments.patience:
        network.train()
        optimizer.zero_grad()
        two_logits(network, (seen - mean) / std, labels).backward()
        optimizer.step()
        network.eval()
        losses.append(two_logits(network, (unseen - mean) / std, unseen_labels).item())
        if losses[-1] == min(losses):
            best = copy.deepcopy(network)
    return best, losses, mean, std


def two_logits(network, features, labels):
    z = network(features)
    return F.cross_entropy(torch.cat([torch.zeros_like(z), z], dim=1), labels)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_each_classifier_is_what_it_would_be_alone(readings, accelerator):
    (seen, labels), (unseen, unseen_labels) = readings
    # A bias before a BatchNorm has no gradient but weight decay's; were that tiny, Adam would follow rounding errors.
    arguments = ClassificationArguments(max_epochs=80, patience=3, learning_rate=1e-2, weight_decay=1e-2)
    seeds = [3, 4, 4]

    stack, losses = train_classifiers(make_network(), *readings, seeds, arguments, accelerator)

    scores = stack(unseen)
    for index, seed in enumerate(seeds):
        best, losses_alone, mean, std = train_alone(
            make_network(), (seen[index], labels), (unseen[index], unseen_labels), seed, arguments
        )
        assert len(losses[index]) == len(losses_alone)
        np.testing.assert_allclose(losses[index], losses_alone, rtol=0, atol=1e-5)
        alone = best((unseen[index] - mean) / std).squeeze(-1)
        torch.testing.assert_close(scores[index], alone, rtol=0, atol=1e-5)
    assert len({len(of_one) for of_one in losses}) > 1  # they really stop at different epochs


def test_dropout_is_another_for_each_classifier():
    one = draw_classifier(make_network(dropout=0.5), seed=0)
    features = torch.randn(20, 64).expand(2, -1, -1)

    logits = ClassifierStack([one, one]).train()(features)

    assert not torch.equal(*logits)


def test_each_classifier_has_its_own_running_statistics(readings, accelerator):
    stack, losses = train_classifiers(make_network(), *readings, [0, 0, 0], EPOCHS, accelerator)

    means = stack.members[1].running_mean
    assert not torch.equal(means[0], means[1])
    assert stack.members[1].num_batches_tracked.tolist() == [int(np.argmin(of_one)) + 1 for of_one in losses]


def test_one_that_has_stopped_keeps_its_best_while_others_go_on(accelerator):
    stopping = EarlyStopping(num_classifiers=2, patience=2)

    better = [stopping.add(losses).tolist() for losses in ([1.0, 1.0], [1.1, 0.9], [1.2, 0.8], [0.1, 0.9], [0.1, 0.9])]

    assert better == [[True, True], [False, True], [False, True], [False, False], [False, False]]
    assert stopping.best_loss.tolist() == [1.0, 0.8]
    assert not stopping.is_running.any()
    assert stopping.losses_of_each() == [[1.0, 1.1, 1.2], [1.0, 0.9, 0.8, 0.9, 0.9]]


def test_the_classifier_that_is_given_stays_as_it_is(readings, accelerator, weights_of, assert_same_bits):
    network = make_network()
    before = weights_of(network)

    train_classifiers(network, *readings, [0, 1, 2], EPOCHS, accelerator)

    assert_same_bits(weights_of(network), before)


def test_gradient_accumulation_does_not_change_a_full_batch(readings, make_accelerator, assert_same_bits):
    whole, _ = train_classifiers(make_network(), *readings, [0, 1, 2], EPOCHS, make_accelerator())
    accelerator = make_accelerator()
    accelerator.gradient_accumulation_steps = 4

    parts, _ = train_classifiers(make_network(), *readings, [0, 1, 2], EPOCHS, accelerator)

    assert_same_bits(parts.state_dict(), whole.state_dict())


def test_accelerate_holds_nothing_after_a_training(readings, accelerator):
    train_classifiers(make_network(), *readings, [0, 1, 2], EPOCHS, accelerator)

    assert accelerator._models == accelerator._optimizers == []


# --- one classifier --------------------------------------------------------------------------------------------------


def test_the_malignancy_classifier_takes_raw_pooled_features(make_classifier, pooled, accelerator):
    model = make_classifier()

    losses = train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    assert losses[-1] < 0.8 * losses[0]
    inputs, labels = pooled[0]
    assert (model.classify(inputs).argmax(dim=-1) == labels).float().mean() > 0.9


def test_a_feature_that_never_changes_does_no_harm(make_classifier, pooled, accelerator):
    model = make_classifier()
    for inputs, _ in pooled:
        inputs[:, 0] = 7.0

    losses = train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    assert np.isfinite(losses).all()
    assert torch.isfinite(model.classify(pooled[0][0])).all()


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


def test_the_same_seed_gives_the_same_malignancy_classifier_also_where_one_was_trained_before(
    make_classifier, pooled, accelerator, weights_of, assert_same_bits
):
    model = make_classifier()
    losses = train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)
    first = weights_of(model.classifier)
    torch.rand(3)

    assert train_malignancy_classifier(model, *pooled, EPOCHS, accelerator) == losses
    assert_same_bits(weights_of(model.classifier), first)


def test_malignancy_training_changes_the_classifier_and_nothing_else(
    make_classifier, pooled, accelerator, weights_of, assert_same_bits
):
    model = make_classifier()
    before, inputs_before = weights_of(model), copy.deepcopy(pooled)

    train_malignancy_classifier(model, *pooled, EPOCHS, accelerator)

    after = weights_of(model)
    backbone = {name for name in before if name.startswith("backbone.")}
    assert_same_bits({name: after[name] for name in backbone}, {name: before[name] for name in backbone})
    assert not torch.equal(after["classifier.0.weight"], before["classifier.0.weight"])
    assert torch.equal(pooled[0][0], inputs_before[0][0])
    assert not any(module.training for module in model.classifier.modules())


def test_the_classifier_trains_in_bfloat16_and_predicts_in_float32(make_classifier, pooled, make_accelerator):
    model = make_classifier()

    losses = train_malignancy_classifier(model, *pooled, EPOCHS, make_accelerator("bf16"))

    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert {tensor.dtype for tensor in model.classifier.parameters()} == {torch.float32}
    fresh = make_classifier()
    fresh.classifier.load_state_dict(model.classifier.state_dict())
    fresh.classifier.eval()
    assert torch.equal(model.classify(pooled[0][0]), fresh.classify(pooled[0][0]))


# --- the paper's readings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label_fraction", "block"), [(0.05, 4), (0.1, 6), (0.1 + 0.05, 12), (0.2, 14)])
def test_a_reading_of_the_paper_can_be_given_to_from_backbone(tiny_backbone, label_fraction, block):
    reading = paper_reading(label_fraction)

    assert reading == {"blocks": [block], "timesteps": [0]}
    if block < 9:  # all that the tiny backbone has
        fields = {"image_size": 32, "pooled_size": 64}
        model = FEDDForImageClassification.from_backbone(tiny_backbone, **fields, **reading)
        assert (model.config.blocks, model.config.timesteps) == ([block], [0])


def test_a_fraction_that_the_paper_has_not_is_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match=r"\[0.05, 0.1, 0.15, 0.2\], got 0.5"):
        paper_reading(0.5)
