import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fedd_hf.prediction import count_pixels, segment_photos
from fedd_hf.training.arguments import RunArguments, SegmentationArguments
from fedd_hf.training.pixel_heads import absorb_standardisation, train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures, measure_channels
from fedd_hf.training.run import start_accelerator

QUICK = {"num_steps": 30, "images_per_step": 3, "pixels_per_image": 100, "learning_rate": 1e-2}
FEW = {"num_steps": 12, "images_per_step": 4, "pixels_per_image": 20}


def quick(**fields):
    return SegmentationArguments(**(QUICK | fields))


def few(**fields):
    return SegmentationArguments(**(FEW | fields))


def maps_of(features):
    """All maps as the decode head takes them."""
    maps = [features.read(photo) for photo in range(len(features))]
    return tuple(torch.stack(of_block).float().movedim(-1, 1) for of_block in zip(*maps, strict=True))


def labels_of(features):
    return torch.stack([features.labels(photo) for photo in range(len(features))])


# --- standardisation


def test_absorbed_linear_layer_takes_raw_features():
    layer, inputs = nn.Linear(6, 4), 5 + 3 * torch.randn(10, 6)
    mean, std = inputs.mean(dim=0), inputs.std(dim=0)
    expected = layer((inputs - mean) / std)

    absorb_standardisation([layer], mean, std)

    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_absorbed_head_gives_the_logits_of_the_head_on_standardised_maps(make_segmenter, features):
    head = make_segmenter().decode_head.eval()
    for member in head.members:
        nn.init.normal_(member.projections[0].bias)
    maps = maps_of(features)
    mean, std = measure_channels(features, range(6))
    standardised = [
        (feature_map - of_map[0][:, None, None]) / of_map[1][:, None, None]
        for feature_map, of_map in zip(maps, zip(mean.split([16, 8]), std.split([16, 8]), strict=True), strict=True)
    ]
    expected = head(tuple(standardised), (32, 32))

    for member in head.members:
        absorb_standardisation(member.projections, mean, std)

    torch.testing.assert_close(head(maps, (32, 32)), expected, rtol=1e-4, atol=1e-4)


# --- what is learned


def test_pixel_classifiers_overfit_a_handful_of_painted_photos(
    make_segmenter, make_store, processor, painted, accelerator
):
    model, handful = make_segmenter(), painted.select(range(3))
    files = make_store(model).extract(handful, accelerator)
    arguments = SegmentationArguments(num_steps=300, images_per_step=3, pixels_per_image=300, learning_rate=1e-2)

    losses = train_pixel_classifiers(model, StoredFeatures(files, handful, processor), arguments, accelerator)

    assert len(losses) == 300
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:2])
    segmented = segment_photos(model, processor, [row["image"] for row in handful])
    hits = sum(
        sum(count["tp"] for count in count_pixels(np.asarray(row["mask"]), photo.segmentation_map, 5))
        for row, photo in zip(handful, segmented, strict=True)
    )
    assert hits / (3 * 64 * 64) > 0.9


def test_pixel_training_changes_the_head_and_nothing_else(
    make_segmenter, features, accelerator, weights_of, assert_same_bits, count_passes
):
    model = make_segmenter()
    before, files, passes = weights_of(model), [file.read_bytes() for file in features.files], count_passes(model)

    train_pixel_classifiers(model, features, few(), accelerator)

    after = weights_of(model)
    backbone = {name for name in before if name.startswith("backbone.")}
    assert_same_bits({name: after[name] for name in backbone}, {name: before[name] for name in backbone})
    projection = "decode_head.members.0.projections.0.weight"
    assert not torch.equal(after[projection], before[projection])
    assert not any(module.training for module in model.decode_head.modules())
    assert [file.read_bytes() for file in features.files] == files
    assert passes.total() == 0


def test_pixels_of_255_do_not_count(make_segmenter, features, relabel, accelerator):
    labels = labels_of(features)
    labels[:, :, 16:] = 255
    labels[:, :, :16] = 4
    model = make_segmenter()

    losses = train_pixel_classifiers(model, relabel(features, labels), quick(), accelerator)

    logits = model.decode_head(maps_of(features), (32, 32))
    assert np.isfinite(losses).all()
    assert (logits.argmax(dim=2)[..., :16] == 4).float().mean() > 0.9


def test_a_photo_without_a_single_pixel_that_counts_does_not_spoil_the_weights(
    make_segmenter, features, relabel, accelerator
):
    labels = labels_of(features)
    labels[0] = 255
    arguments = few(images_per_step=1, class_weights="balanced")
    model = make_segmenter()

    train_pixel_classifiers(model, relabel(features, labels), arguments, accelerator)

    assert all(torch.isfinite(tensor).all() for tensor in model.decode_head.state_dict().values())


def test_pixel_classifiers_train_in_bfloat16_and_predict_in_float32(make_segmenter, features, make_accelerator):
    model = make_segmenter()

    losses = train_pixel_classifiers(model, features, few(), make_accelerator("bf16"))

    assert np.isfinite(losses).all()
    assert {tensor.dtype for tensor in model.decode_head.parameters()} == {torch.float32}
    fresh = make_segmenter()
    fresh.decode_head.load_state_dict(model.decode_head.state_dict())
    wanted = fresh.decode_head.eval()(maps_of(features), (32, 32))
    assert torch.equal(model.decode_head(maps_of(features), (32, 32)), wanted)


def test_class_weights_let_a_rare_class_be_found(make_segmenter, handmade, accelerator):
    """A lesion of a tenth of the pixels that looks like half of the skin: the best guess is skin without weights."""
    labels = torch.full((2, 32, 32), 4)
    labels[:, :2] = labels[:, 2:4] = 1
    blurred = torch.zeros(32, 32, 8)
    blurred[:16, :, 0] = 1
    maps = [(torch.zeros(16, 16, 16), blurred)] * 2

    found = {}
    for class_weights in (None, "balanced"):
        model = make_segmenter()
        arguments = quick(num_steps=150, images_per_step=2, class_weights=class_weights)
        train_pixel_classifiers(model, handmade(maps, labels), arguments, accelerator)
        logits = model.decode_head(maps_of(handmade(maps, labels)), (32, 32))
        found[class_weights] = (logits.argmax(dim=2) == 1)[..., :4, :].float().mean().item()

    assert found == {None: pytest.approx(0, abs=0.1), "balanced": pytest.approx(1, abs=0.1)}


# --- seeds


def test_the_same_seed_gives_the_same_pixel_classifiers_also_on_a_head_that_was_trained_before(
    make_segmenter, features, accelerator, weights_of, assert_same_bits
):
    model, other = make_segmenter(), make_segmenter()
    losses = train_pixel_classifiers(model, features, few(), accelerator)
    other_losses = train_pixel_classifiers(other, features, few(seed=1), accelerator)
    torch.rand(3)  # what was drawn before must not matter

    again = train_pixel_classifiers(other, features, few(), accelerator)

    assert again == losses != other_losses
    assert_same_bits(weights_of(other.decode_head), weights_of(model.decode_head))


# --- accumulation


@pytest.fixture
def count_optimizer_steps():
    """Count the steps that any optimizer takes."""
    steps = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    yield steps
    handle.remove()


def test_a_batch_that_is_cut_into_parts_still_takes_num_steps_optimizer_steps(
    make_segmenter, features, make_accelerator, count_optimizer_steps
):
    accelerator = make_accelerator(gradient_accumulation_steps=2)

    losses = train_pixel_classifiers(make_segmenter(), features, quick(images_per_step=6), accelerator)

    assert sum(count_optimizer_steps) == QUICK["num_steps"]
    assert len(losses) == 2 * QUICK["num_steps"]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:3])


def test_a_batch_that_cannot_be_cut_equally_is_refused_with_the_advice(make_segmenter, features, make_accelerator):
    accelerator = make_accelerator(gradient_accumulation_steps=3)

    with pytest.raises(ValueError, match=r"`images_per_step` 4 cannot be cut into 3 equal parts .*multiple of 3\."):
        train_pixel_classifiers(make_segmenter(), features, few(), accelerator)


# --- trackers


def test_losses_are_logged_with_tensorboard(make_segmenter, features, make_accelerator, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_accelerator()  # whose state start_accelerator finds
    arguments = RunArguments(output_dir=str(tmp_path / "run"), log_with="tensorboard")
    accelerator = start_accelerator(arguments)

    losses = train_pixel_classifiers(make_segmenter(), features, few(), accelerator)
    accelerator.end_training()

    (events,) = (tmp_path / "run" / "logs").rglob("events.out.tfevents.*")
    logged = reader.EventAccumulator(str(events.parent)).Reload()
    loss, rate = logged.Scalars("loss"), logged.Scalars("learning_rate")
    assert [point.step for point in loss] == list(range(1, FEW["num_steps"] + 1))
    assert [point.value for point in loss] == pytest.approx(losses, rel=1e-6)
    assert rate[-1].value == pytest.approx(0, abs=1e-6)


# --- processes (devices: tests/test_gpu.py)

TRAIN = """
import hashlib, json, os, sys
from pathlib import Path
from datasets import load_from_disk
from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.training.arguments import RunArguments, SegmentationArguments
from fedd_hf.features import FeatureStore
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures
from fedd_hf.training.run import start_accelerator

backbone, photos, root = sys.argv[1:]
fields = {"image_size": 32, "ensemble_size": 2, "hidden_sizes": [8, 8]}
model = FEDDForSegmentation.from_backbone(backbone, blocks=[4, 7], timesteps=[50], **fields)
processor = FEDDImageProcessor(size=32)
accelerator = start_accelerator(RunArguments(output_dir=root + "/run"))
dataset = load_from_disk(photos)
files = FeatureStore(Path(root), model, processor, batch_size=2, num_threads=1).extract(dataset, accelerator)
arguments = SegmentationArguments(num_steps=6, images_per_step=4, pixels_per_image=20)
losses = train_pixel_classifiers(model, StoredFeatures(files, dataset, processor), arguments, accelerator)
tensors = model.decode_head.state_dict().values()
bits = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
told = {"losses": losses, "bits": bits}
Path(os.environ["RESULTS"], f"{accelerator.process_index}.json").write_text(json.dumps(told))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_train_one_head_on_the_pixels_of_one_process(run_processes, tiny_backbone, painted, tmp_path):
    """Batch statistics are those of each process: losses differ a little from those of one process, not much."""
    painted.save_to_disk(tmp_path / "photos")
    inputs = [tiny_backbone, tmp_path / "photos"]

    (alone,) = run_processes(TRAIN, *inputs, tmp_path / "one", processes=1)
    first, second = run_processes(TRAIN, *inputs, tmp_path / "two")

    assert first == second
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=0.2)
