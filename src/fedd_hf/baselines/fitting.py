"""Training of whole networks until validation photos say stop, as Keras' `fit` with the authors' two callbacks."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainingArguments

from .recipes import FittingArguments

Photos: TypeAlias = Dataset | list[dict[str, Tensor]]

SCORE = "score"
TENTH = 0.1


def fit(
    model: nn.Module,
    train: Photos,
    validation: Photos,
    score: Callable[[Tensor, Tensor], Tensor],
    arguments: FittingArguments,
) -> list[dict[str, float]]:
    """Train a network in place through transformers' Trainer, and leave it at its best epoch.

    Args:
        model (`torch.nn.Module`):
            Network whose output has `loss` and `logits`.
        train (`datasets.Dataset` or `list[dict]`):
            What it learns from: items that it takes by keyword, `labels` among them.
        validation (`datasets.Dataset` or `list[dict]`):
            The same of the photos that say when to stop.
        score (`Callable[[torch.Tensor, torch.Tensor], torch.Tensor]`):
            From logits and labels of all validation photos to what is to grow.
        arguments ([`FittingArguments`]):
            How to train.

    Returns:
        `list[dict]`: `loss` of the validation photos and `score` of each epoch.
    """
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            _trainer_arguments(folder, arguments, len(train)),
            train_dataset=train,
            eval_dataset=validation,
            compute_metrics=lambda predicted: {SCORE: _score(predicted, score)},
            callbacks=[EarlyStoppingCallback(arguments.patience)],
            optimizer_cls_and_kwargs=(torch.optim.Adam, {"lr": arguments.learning_rate}),
        )
        trainer.train()
    model.eval()
    scored = [entry for entry in trainer.state.log_history if f"eval_{SCORE}" in entry]
    return [{"loss": entry["eval_loss"], "score": entry[f"eval_{SCORE}"]} for entry in scored]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of photos whose class is right."""
    return (logits.argmax(dim=-1) == labels).float().mean()


def _trainer_arguments(folder: str, arguments: FittingArguments, num_photos: int) -> TrainingArguments:
    return TrainingArguments(
        folder,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        num_train_epochs=arguments.max_epochs,
        max_grad_norm=0,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={
            "mode": "max",
            "factor": TENTH,
            "patience": arguments.plateau_patience,
            "min_lr": arguments.min_learning_rate,
        },
        eval_strategy="epoch",
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=SCORE,
        logging_strategy="no",
        disable_tqdm=False,  # by default bars go with the library's warnings
        remove_unused_columns=False,
        dataloader_drop_last=num_photos > 1 and num_photos % arguments.batch_size == 1,  # BatchNorm needs two
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),
    )


def _score(predicted: EvalPrediction, score: Callable[[Tensor, Tensor], Tensor]) -> float:
    logits: Any = predicted.predictions
    return float(score(torch.from_numpy(logits), torch.from_numpy(predicted.label_ids)))
