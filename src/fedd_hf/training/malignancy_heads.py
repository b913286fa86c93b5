"""Training of malignancy classifiers on pooled features, many of them at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm

from fedd_hf.modeling_fedd import FEDDForImageClassification

from .arguments import ClassificationArguments

# Best (block, timestep) by share of DDI that is labelled.
# Source: FEDD (MICCAI 2023), text of the results; its Figure 6 shows block 10 as the best at 20 %.
PAPER_READINGS = {0.05: (4, 0), 0.10: (6, 0), 0.15: (12, 0), 0.20: (14, 0)}

PooledFeatures = tuple[Tensor, Tensor]


def paper_reading(label_fraction: float | None) -> dict[str, list[int]]:
    """Return `blocks` and `timesteps` that the paper reads, of its 256 px backbone, for a share of DDI labelled.

    Args:
        label_fraction (`float`):
            0.05, 0.10, 0.15 or 0.20.

    Raises:
        ValueError: If it is another one.

    Example:
        >>> paper_reading(0.05)
        {'blocks': [4], 'timesteps': [0]}
    """
    reading = PAPER_READINGS.get(round(label_fraction or 0.0, 6))
    if reading is None:
        raise ValueError(f"The paper reads DDI at `label_fraction` {list(PAPER_READINGS)}, got {label_fraction}.")
    block, timestep = reading
    return {"blocks": [block], "timesteps": [timestep]}


class ClassifierStack(nn.Module):
    """Classifiers of one shape as one tensor program: the first axis of each tensor counts the classifiers.

    Args:
        classifiers (`list[nn.Module]`):
            Networks from pooled features to one logit.
    """

    def __init__(self, classifiers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = copy.deepcopy(classifiers[0])
        parameters, buffers = stack_module_state(list(classifiers))
        stacked = {name: nn.Parameter(tensor.detach()) for name, tensor in parameters.items()} | buffers
        for name, tensor in stacked.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.members.get_submodule(owner), attribute, tensor)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features, `(num_classifiers, num_images, pooled_size)`, into logits `(num_classifiers, num_images)`."""

        def classify(tensors: dict[str, Tensor], pooled: Tensor) -> Tensor:
            return functional_call(self.members, tensors, pooled).squeeze(-1)

        tensors = dict(self.members.named_parameters()) | dict(self.members.named_buffers())
        return vmap(classify, randomness="different")(tensors, features)

    def state_of(self, index: int) -> dict[str, Tensor]:
        """Return the state dict of one classifier."""
        return {name: tensor[index] for name, tensor in self.members.state_dict().items()}


class EarlyStopping:
    """The stop rule of several classifiers, each on its own: no better validation loss for `patience` epochs.

    Args:
        num_classifiers (`int`):
            How many are watched.
        patience (`int`):
            Epochs without a better loss after which one stops.
    """

    def __init__(self, num_classifiers: int, patience: int) -> None:
        self.patience = patience
        self.losses: list[list[float]] = []  # of each epoch
        self.best_loss = np.full(num_classifiers, np.inf)
        self.best_epoch = np.zeros(num_classifiers, dtype=int)
        self.is_running = np.ones(num_classifiers, dtype=bool)

    def add(self, losses: list[float]) -> np.ndarray:
        """Take in the losses of an epoch and return which classifiers have never been better and still run."""
        self.losses.append(losses)
        is_better = self.is_running & (np.array(losses) < self.best_loss)
        self.best_loss = np.where(is_better, losses, self.best_loss)
        self.best_epoch[is_better] = len(self.losses)
        self.is_running &= len(self.losses) - self.best_epoch < self.patience
        return is_better

    def losses_of_each(self) -> list[list[float]]:
        """Return the losses of each classifier up to the epoch in which it stopped."""
        last_epochs = self.best_epoch + self.patience
        return [list(losses[:last]) for losses, last in zip(zip(*self.losses, strict=True), last_epochs, strict=True)]


def train_malignancy_classifier(
    model: FEDDForImageClassification,
    train: PooledFeatures,
    validation: PooledFeatures,
    arguments: ClassificationArguments,
    accelerator: Accelerator,
) -> list[float]:
    """Train a new malignancy classifier in place and return the validation loss at each epoch.

    Args:
        model ([`FEDDForImageClassification`]):
            Model whose classifier is drawn anew, trained, and set back to its best epoch.
        train (`tuple[torch.Tensor, torch.Tensor]`):
            Pooled features of shape `(num_images, pooled_size)` and labels, 0 benign or 1 malignant.
        validation (`tuple[torch.Tensor, torch.Tensor]`):
            The same of the photos that say when to stop.
        arguments ([`ClassificationArguments`]):
            How to train.
        accelerator (`accelerate.Accelerator`):
            Where, and in which precision.
    """
    seen, unseen = ((features[None], labels) for features, labels in (train, validation))
    seeds = [arguments.seed]
    stack, (losses,) = train_classifiers(model.classifier, seen, unseen, seeds, arguments, accelerator)
    model.classifier.to(accelerator.device).load_state_dict(stack.state_of(0))
    model.classifier.eval()
    return losses


def train_classifiers(
    classifier: nn.Module,
    train: PooledFeatures,
    validation: PooledFeatures,
    seeds: Sequence[int],
    arguments: ClassificationArguments,
    accelerator: Accelerator,
) -> tuple[ClassifierStack, list[list[float]]]:
    """Train many malignancy classifiers at once, each as if it were alone.

    Every process trains the same ones: the batch is whole and small.

    Args:
        classifier (`nn.Module`):
            What a classifier looks like; it stays as it is.
        train (`tuple[torch.Tensor, torch.Tensor]`):
            Pooled features that each classifier sees, of shape `(num_classifiers, num_images, pooled_size)`, and
            labels of the photos, `(num_images,)`, 0 benign or 1 malignant.
        validation (`tuple[torch.Tensor, torch.Tensor]`):
            The same of the photos that say when to stop.
        seeds (`list[int]`):
            Seed of the weights of each classifier.
        arguments ([`ClassificationArguments`]):
            How to train; its seed is that of dropout.
        accelerator (`accelerate.Accelerator`):
            Where, and in which precision.

    Returns:
        `tuple[ClassifierStack, list[list[float]]]`: the classifiers at their best epochs, and the validation losses
        of each up to its end.

    Source: FEDD (MICCAI 2023), supplement, section 3.
    """
    stack, best, optimizer = _prepare(classifier, seeds, arguments, accelerator)
    mean, std = _mean_and_std(train[0].to(accelerator.device))
    seen, unseen = (_standardise(part, mean, std) for part in (train, validation))
    stopping = EarlyStopping(len(seeds), arguments.patience)
    set_seed(arguments.seed)
    epochs, hidden = _epochs(stopping, arguments), not accelerator.is_main_process
    for epoch in tqdm(epochs, desc="Malignancy", unit="epoch", leave=False, disable=hidden):
        _step(stack, seen, optimizer, accelerator)
        _keep(stack, best, stopping.add(_validation_losses(stack, unseen)))
        accelerator.log({"validation_loss": float(np.mean(stopping.losses[-1]))}, step=epoch)
    best = accelerator.unwrap_model(best, keep_fp32_wrapper=False).eval()
    best.load_state_dict(broadcast(best.state_dict()))
    _absorb(best, mean, std)
    accelerator.free_memory()
    return best, stopping.losses_of_each()


def _prepare(
    classifier: nn.Module, seeds: Sequence[int], arguments: ClassificationArguments, accelerator: Accelerator
) -> tuple[Any, Any, Any]:
    """Hand new classifiers, room for the best of them and the optimizer to Accelerate, not distributed.

    Adam is fused where torch can: thousands of small layers are bound by memory.
    """
    stack = ClassifierStack([draw_classifier(classifier, seed) for seed in seeds])
    stack, best = (accelerator.prepare_model(part, evaluation_mode=True) for part in (stack, copy.deepcopy(stack)))
    optimizer = torch.optim.Adam(
        stack.parameters(),
        lr=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        fused=accelerator.distributed_type != DistributedType.XLA,
    )
    return stack, best, accelerator.prepare_optimizer(optimizer)


def _epochs(stopping: EarlyStopping, arguments: ClassificationArguments) -> Iterator[int]:
    """Count epochs from 1 until all classifiers have stopped."""
    for epoch in range(1, arguments.max_epochs + 1):
        if not stopping.is_running.any():
            return
        yield epoch


def draw_classifier(classifier: nn.Module, seed: int) -> nn.Module:
    """Return a new classifier of the same shape, float32 on the CPU, so that a seed means the same everywhere."""
    drawn = copy.deepcopy(classifier).to("cpu", torch.float32).train()
    set_seed(seed)
    for module in drawn.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return drawn


def _mean_and_std(features: Tensor) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(features, dim=1, keepdim=True, correction=0)
    return mean, std.clamp_min(1e-3)


def _standardise(part: PooledFeatures, mean: Tensor, std: Tensor) -> PooledFeatures:
    features, labels = (tensor.to(mean.device) for tensor in part)
    return (features - mean) / std, labels.float().expand(len(features), -1)


def _losses(stack: nn.Module, part: PooledFeatures) -> Tensor:
    """Return the cross-entropy of each classifier."""
    features, labels = part
    return binary_cross_entropy_with_logits(stack(features).float(), labels, reduction="none").mean(dim=1)


def _step(stack: nn.Module, train: PooledFeatures, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    losses = _losses(stack.train(), train)
    accelerator.backward(losses.sum() * accelerator.gradient_accumulation_steps)  # by which backward divides
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def _validation_losses(stack: nn.Module, validation: PooledFeatures) -> list[float]:
    """Return the validation loss of each classifier, the same on every process."""
    losses: Tensor = broadcast(_losses(stack.eval(), validation))
    return losses.tolist()


@torch.no_grad()
def _keep(stack: nn.Module, best: nn.Module, is_better: np.ndarray) -> None:
    """Copy the classifiers that are better."""
    indices = torch.from_numpy(np.flatnonzero(is_better))
    for kept, now in zip(best.state_dict().values(), stack.state_dict().values(), strict=True):
        kept[indices] = now[indices]


@torch.no_grad()
def _absorb(stack: ClassifierStack, mean: Tensor, std: Tensor) -> None:
    """Let first layers that were trained on (x - mean) / std take x itself."""
    weight, bias = (stack.members.get_submodule("0").get_parameter(name) for name in ("weight", "bias"))
    weight.div_(std)  # (num_classifiers, hidden_size, pooled_size)
    bias.sub_((weight @ mean.transpose(1, 2)).squeeze(-1))
