"""transformers' semantic-segmentation example, followed step by step on six painted photos.

Source: transformers, `examples/pytorch/semantic-segmentation/run_semantic_segmentation.py`, with FEDDImageProcessor in
the place of albumentations and the metric of this repository in that of `mean_iou`.
"""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor, SkinTone
from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import tone_labels

METRIC = Path(__file__).parents[1] / "hub_cards" / "metrics" / "mean_iou_by_group"
ID2LABEL = {0: "background", 1: "lesion", 2: "marker", 3: "ruler", 4: "skin"}
LABEL2ID = {label: str(index) for index, label in ID2LABEL.items()}  # strings, as the example has them
SIZE = 16


@pytest.fixture(scope="module")
def painted():
    """Six painted photos, two of each tone."""
    return paint_dataset(num_per_tone=2, seed=3, size=32)


@pytest.fixture(scope="module")
def checkpoint(tiny_backbone, tmp_path_factory):
    """A folder with new heads and their processor, as one pulls it from the Hub to fine-tune it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "segmenter"
    torch.manual_seed(0)
    fields = {"blocks": [2, 4], "timesteps": [50], "ensemble_size": 2, "hidden_sizes": [16, 8]}
    FEDDForSegmentation.from_backbone(tiny_backbone, image_size=SIZE, **fields).save_pretrained(folder)
    FEDDImageProcessor(size=SIZE).save_pretrained(folder)
    return folder


def open_checkpoint(folder):
    """Open a folder as the example does: configuration, model and processor one after another."""
    hub = {"cache_dir": None, "revision": "main", "token": None, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, label2id=LABEL2ID, id2label=ID2LABEL, **hub)
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, config=config, **hub)
    return model, AutoImageProcessor.from_pretrained(folder, do_reduce_labels=False, **hub)


def preprocess_with(processor, dataset):
    """Prepare photos when they are read, as the example does."""

    def preprocess(batch):
        images = [image.convert("RGB") for image in batch["image"]]
        return dict(processor(images=images, segmentation_maps=batch["mask"], return_tensors="pt"))

    return dataset.with_transform(preprocess)


def measure_with(metric, processor, tones):
    """Make `compute_metrics`, which brings logits to the size of the labels and reads `do_reduce_labels`."""

    def compute_metrics(eval_pred):
        logits, labels = eval_pred
        logits = F.interpolate(torch.from_numpy(logits), labels.shape[-2:], mode="bilinear", align_corners=False)
        labels = labels - 1 if processor.do_reduce_labels else labels
        result = metric.compute(
            predictions=logits.argmax(dim=1).tolist(),
            references=labels.tolist(),
            groups=tones,
            labels=list(ID2LABEL.values()),
        )
        return {f"{row['metric']}_{row['skin_tone']}": row["value"] for row in result["by_group"]}

    return compute_metrics


@pytest.fixture
def make_trainer(checkpoint, painted, tmp_path):
    """Make the Trainer of the example on a model from the checkpoint."""

    def make(max_steps=20, **options):
        model, processor = open_checkpoint(checkpoint)
        arguments = {
            "output_dir": tmp_path / "run",
            "max_steps": max_steps,
            "learning_rate": 0.01,
            "per_device_train_batch_size": 3,
            "per_device_eval_batch_size": 4,
            "remove_unused_columns": False,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "logging_steps": 1,
        }
        named = {name: options.pop(name) for name in list(options) if hasattr(TrainingArguments, name)}
        metric = evaluate.load(str(METRIC), cache_dir=str(tmp_path / "metrics"))
        dataset = preprocess_with(processor, painted)
        return Trainer(
            model=model,
            args=TrainingArguments(**(arguments | named)),
            train_dataset=dataset,
            eval_dataset=dataset,
            compute_metrics=measure_with(metric, processor, tone_labels(painted)),
            processing_class=processor,
            data_collator=default_data_collator,
            **options,
        )

    return make


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_only_heads_changed(model, before):
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("decode_head.") for name in changed)


def test_example_of_transformers_trains_evaluates_saves_and_reloads(make_trainer, tmp_path, messages):
    trainer = make_trainer()
    before = weights_of(trainer.model)

    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.save_metrics("eval", metrics)
    trainer.create_model_card(dataset="painted", tags=["image-segmentation", "vision"])

    assert_only_heads_changed(trainer.model, before)
    assert losses_of(trainer)[-1] < losses_of(trainer)[0]
    assert {f"eval_mean_iou_{tone}" for tone in ("all", *(tone.label for tone in SkinTone))} <= set(metrics)
    assert 0 < metrics["eval_mean_iou_all"] <= 1

    again, processor = open_checkpoint(tmp_path / "run")
    pixel_values = torch.stack([row["pixel_values"] for row in trainer.eval_dataset])
    assert torch.equal(again.eval()(pixel_values).logits, trainer.model.eval()(pixel_values).logits)
    assert again.config.id2label == ID2LABEL
    assert processor.to_dict() == trainer.processing_class.to_dict()
    assert messages() == []


def test_predictions_of_the_trainer_are_the_logits_alone(make_trainer):
    trainer = make_trainer()

    predictions = trainer.predict(trainer.eval_dataset).predictions

    assert isinstance(predictions, np.ndarray)
    assert predictions.shape == (6, 5, SIZE, SIZE)


def test_a_loss_of_ones_own_trains_the_heads_through_the_logits(make_trainer):
    def weighted(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs.logits, labels, torch.tensor([1.0, 5, 1, 1, 1]), ignore_index=255)

    trainer = make_trainer(compute_loss_func=weighted)
    before = weights_of(trainer.model)

    trainer.train()

    assert losses_of(trainer)[-1] < losses_of(trainer)[0]
    assert_only_heads_changed(trainer.model, before)
    assert all(parameter.grad is None for parameter in trainer.model.backbone.parameters())


def test_accumulated_batches_weigh_as_much_as_one_batch(make_trainer):
    at_once = make_trainer(max_steps=1, learning_rate=0.0, per_device_train_batch_size=6)
    in_two = make_trainer(max_steps=1, learning_rate=0.0, per_device_train_batch_size=3, gradient_accumulation_steps=2)

    at_once.train()
    in_two.train()

    # Batch statistics are those of three photos and not of six, so that the losses are only nearly equal.
    assert losses_of(in_two) == pytest.approx(losses_of(at_once), rel=0.1)
