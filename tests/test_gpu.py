"""What a GPU changes: nothing but speed. For whoever has one, `pytest -m gpu tests/test_gpu.py`.

Set FEDD_TEST_DEVICE to name a device, such as `cuda:1` or `xpu`. With FEDD_TEST_DEVICE=cpu the same code runs without
a GPU, as a rehearsal.
"""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from transformers import AutoModelForSemanticSegmentation, Trainer, TrainingArguments, pipeline

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.data.painted import paint_dataset
from fedd_hf.features import FeatureStore, read_pooled
from fedd_hf.prediction import predict_classification, predict_segmentation
from fedd_hf.training.arguments import ClassificationArguments, SegmentationArguments
from fedd_hf.training.malignancy_heads import train_malignancy_classifier
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.pixels import StoredFeatures

pytestmark = pytest.mark.gpu

NAME = os.environ.get("FEDD_TEST_DEVICE")
FLOAT32_ERROR = 1e-4  # of the largest logit: sums in another order
BFLOAT16_ERROR = 0.05  # of the largest logit: 8 bits of mantissa


@pytest.fixture(scope="session")
def device():
    """The device that is tested. Without one the tests are skipped."""
    if NAME is not None:
        return torch.device(NAME)
    if not torch.accelerator.is_available():
        pytest.skip("There is no GPU. Set FEDD_TEST_DEVICE=cpu to rehearse.")
    return torch.accelerator.current_accelerator(check_available=True)


@pytest.fixture(scope="session")
def devices(device):
    """Two devices of a kind."""
    if device.type == "cpu":
        return [device, device]
    if torch.accelerator.device_count() < 2:
        pytest.skip("There is only one GPU.")
    return [torch.device(device.type, index) for index in range(2)]


@pytest.fixture(autouse=True)
def _float32_is_float32():
    """Convolutions of NVIDIA GPUs round float32 to 10 bits of mantissa, unless told otherwise."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture
def models(segmenter, classifier):
    """A model of each task, on the CPU."""
    return {"segmentation": segmenter, "classification": classifier}


def copy_to(device, model):
    return copy.deepcopy(model).to(device)


def kinds_of_device(model):
    return {tensor.device.type for tensor in model.state_dict().values()}


def logits_of(model, pixel_values):
    """Real numbers rather than votes, from wherever the model is to the CPU."""
    with torch.no_grad():
        return model(pixel_values.to(model.device)).logits.float().cpu()


def assert_close(actual, expected, error):
    torch.testing.assert_close(actual, expected, rtol=0, atol=error * expected.abs().max().item())


# --- parity

TASKS = pytest.mark.parametrize("task", ["segmentation", "classification"])


@TASKS
def test_logits_of_the_device_are_those_of_the_cpu(models, pixel_values, device, task):
    on_device = copy_to(device, models[task])

    assert kinds_of_device(on_device) == {device.type}
    assert_close(logits_of(on_device, pixel_values), logits_of(models[task], pixel_values), FLOAT32_ERROR)


def test_all_outputs_are_on_the_device(segmenter, pixel_values, device):
    on_device = copy_to(device, segmenter)
    options = {"output_member_logits": True, "output_uncertainty": True, "output_hidden_states": True}

    output = on_device(pixel_values.to(device), labels=torch.zeros(2, 16, 16, dtype=torch.long).to(device), **options)

    expected = segmenter(pixel_values, labels=torch.zeros(2, 16, 16, dtype=torch.long), **options)
    for name in ("loss", "logits", "member_logits", "uncertainty"):
        assert output[name].device.type == device.type
        assert_close(output[name].cpu(), expected[name], FLOAT32_ERROR)
    assert {feature_map.device.type for feature_map in output.hidden_states} == {device.type}
    assert output.votes.device.type == device.type
    assert torch.equal(output.votes.sum(dim=1).cpu(), expected.votes.sum(dim=1))


def test_noise_is_the_same_bits_on_every_device(segmenter, device):
    noise = segmenter.backbone.noise.clone()

    on_device = copy_to(device, segmenter)

    assert on_device.backbone.noise.device.type == device.type
    assert torch.equal(on_device.backbone.noise.cpu(), noise)
    assert torch.equal(on_device.bfloat16().backbone.noise.cpu(), noise)


@TASKS
def test_gradients_of_the_device_are_those_of_the_cpu(models, pixel_values, device, task):
    shape = (2, 16, 16) if task == "segmentation" else (2,)
    labels = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0))
    on_cpu, on_device = models[task], copy_to(device, models[task])  # in evaluation mode: dropout differs

    on_cpu(pixel_values, labels=labels).loss.backward()
    on_device(pixel_values.to(device), labels=labels.to(device)).loss.backward()

    for (name, parameter), expected in zip(on_device.named_parameters(), on_cpu.parameters(), strict=True):
        assert (parameter.grad is None) == name.startswith("backbone.")
        if parameter.grad is not None:
            assert_close(parameter.grad.cpu(), expected.grad, 1e-3)


@pytest.mark.parametrize("save_backbone", [True, False], ids=["self-contained", "heads-only"])
def test_a_model_loads_onto_the_device(segmenter, pixel_values, device, tmp_path, save_backbone):
    segmenter.config.save_backbone = save_backbone
    segmenter.save_pretrained(tmp_path)

    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, device_map=str(device)).eval()

    assert kinds_of_device(loaded) == {device.type}
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())
    assert_close(logits_of(loaded, pixel_values), logits_of(segmenter, pixel_values), FLOAT32_ERROR)


def test_backbone_and_heads_may_lie_on_two_devices(segmenter, pixel_values, devices, tmp_path):
    segmenter.save_pretrained(tmp_path)
    first, second = devices

    device_map = {"backbone": str(first), "decode_head": str(second)}
    loaded = FEDDForSegmentation.from_pretrained(tmp_path, device_map=device_map).eval()

    assert {parameter.device for parameter in loaded.backbone.parameters()} == {first}
    assert {parameter.device for parameter in loaded.decode_head.parameters()} == {second}
    assert_close(logits_of(loaded, pixel_values), logits_of(segmenter, pixel_values), FLOAT32_ERROR)


def test_pipeline_on_the_device_gives_the_map_of_the_cpu(segmenter, device):
    photo = paint_dataset(num_per_tone=1, seed=5, size=48)[0]["image"]
    processor = FEDDImageProcessor(size=16)

    maps = []
    for place in (torch.device("cpu"), device):
        pipe = pipeline("image-segmentation", model=copy.deepcopy(segmenter), image_processor=processor, device=place)
        assert pipe.model.device.type == place.type
        maps.append({segment["label"]: torch.from_numpy(np.array(segment["mask"])) for segment in pipe(photo)})

    on_cpu, on_device = maps
    for label in on_cpu | on_device:
        nothing = torch.zeros(48, 48)
        differing = (on_cpu.get(label, nothing) != on_device.get(label, nothing)).float().mean()
        assert differing < 0.01  # pixels where two classes are nearly equal


# --- bfloat16


@TASKS
def test_bfloat16_gives_nearly_the_logits_of_float32(models, pixel_values, device, task, tmp_path):
    models[task].save_pretrained(tmp_path)

    options = {"dtype": torch.bfloat16, "device_map": str(device)}
    loaded = type(models[task]).from_pretrained(tmp_path, **options).eval()

    assert loaded.dtype == torch.bfloat16
    assert loaded.backbone.noise.dtype == torch.float32
    assert_close(logits_of(loaded, pixel_values), logits_of(models[task], pixel_values), BFLOAT16_ERROR)


@TASKS
def test_autocast_gives_nearly_the_logits_of_float32(models, pixel_values, device, task):
    on_device = copy_to(device, models[task])

    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = logits_of(on_device, pixel_values)

    assert_close(logits, logits_of(models[task], pixel_values), BFLOAT16_ERROR)


# --- torch.compile


@TASKS
def test_compiled_model_gives_the_logits_of_the_uncompiled(models, pixel_values, device, task):
    on_device = copy_to(device, models[task])
    torch.compiler.reset()

    compiled = torch.compile(on_device, fullgraph=True)

    expected = logits_of(on_device, pixel_values)
    for _ in range(2):  # the second call runs what the first compiled
        with torch.no_grad():
            logits = compiled(pixel_values.to(device)).logits
        assert logits.device.type == device.type
        assert_close(logits.float().cpu(), expected, FLOAT32_ERROR)


# --- training


@pytest.fixture(scope="module")
def painted():
    """Six painted photos, two of each tone, 64 pixels wide."""
    return paint_dataset(num_per_tone=2, seed=3, size=64)


@pytest.fixture
def make_accelerator(device):
    """Make an accelerator on the device; Accelerate allows only one in a process."""

    def make(mixed_precision="no"):
        forget()
        if device.index is not None:
            torch.accelerator.set_device_index(device.index)
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)
        assert accelerator.device.type == device.type
        return accelerator

    def forget():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    yield make
    forget()


@pytest.fixture
def new_segmenter(tiny_backbone):
    """A segmentation model with new heads, seen at 32 pixels."""
    fields = {"blocks": [4, 7], "timesteps": [50], "image_size": 32, "ensemble_size": 2, "hidden_sizes": [32, 16]}
    return FEDDForSegmentation.from_backbone(tiny_backbone, **fields)


@pytest.fixture
def new_classifier(tiny_backbone):
    """A malignancy classifier with a new head, seen at 32 pixels."""
    fields = {"blocks": [5], "timesteps": [50], "image_size": 32, "pooled_size": 64}
    return FEDDForImageClassification.from_backbone(tiny_backbone, **fields)


QUICK = SegmentationArguments(num_steps=30, images_per_step=3, pixels_per_image=100, learning_rate=1e-2)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_pixel_classifiers_train_and_predict_on_the_device(
    new_segmenter, painted, make_accelerator, device, tmp_path, mixed_precision
):
    accelerator, processor = make_accelerator(mixed_precision), FEDDImageProcessor(size=32)
    files = FeatureStore(tmp_path, new_segmenter, processor).extract(painted, accelerator)

    losses = train_pixel_classifiers(new_segmenter, StoredFeatures(files, painted, processor), QUICK, accelerator)

    assert kinds_of_device(new_segmenter) == {device.type}
    assert sum(losses[-5:]) / 5 < 0.8 * sum(losses[:2]) / 2
    assert predict_segmentation(new_segmenter, processor, painted)["image_id"].nunique() == 6


def test_malignancy_classifier_trains_and_predicts_on_the_device(
    new_classifier, painted, make_accelerator, device, tmp_path
):
    accelerator, processor = make_accelerator(), FEDDImageProcessor(size=32)
    files = FeatureStore(tmp_path, new_classifier, processor, pooled_size=64).extract(painted, accelerator)
    pooled = read_pooled(files)[:, 0], torch.tensor(painted["malignant"])

    train_malignancy_classifier(new_classifier, pooled, pooled, ClassificationArguments(max_epochs=3), accelerator)

    assert kinds_of_device(new_classifier) == {device.type}
    assert predict_classification(new_classifier, processor, painted)["y_score"].between(0, 1).all()


def test_features_of_the_device_are_those_of_the_cpu(new_segmenter, painted, make_accelerator, device, tmp_path):
    processor = FEDDImageProcessor(size=32)
    pixel_values = processor(list(painted["image"]), return_tensors="pt")["pixel_values"]
    expected = new_segmenter.backbone(pixel_values).feature_maps

    store = FeatureStore(tmp_path, new_segmenter, processor, dtype="float32")
    features = StoredFeatures(store.extract(painted, make_accelerator()), painted, processor)

    assert new_segmenter.device.type == device.type
    for photo, maps in enumerate(features.read(range(6), [()] * 6)):
        for stored, of_block in zip(maps, expected, strict=True):
            assert_close(stored.movedim(-1, 0), of_block[photo], FLOAT32_ERROR)


def test_trainer_of_transformers_trains_the_heads_on_the_device(new_segmenter, painted, device, tmp_path):
    batch = FEDDImageProcessor(size=32)(list(painted["image"]), list(painted["mask"]), return_tensors="pt")
    dataset = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    options = {"use_cpu": device.type == "cpu", "max_steps": 2, "report_to": [], "disable_tqdm": True}
    before = {name: tensor.clone() for name, tensor in new_segmenter.state_dict().items()}

    arguments = TrainingArguments(tmp_path, **options)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several in one process would be torch's DataParallel
    trainer = Trainer(new_segmenter, arguments, train_dataset=dataset)
    trainer.train()

    assert kinds_of_device(trainer.model) == {device.type}
    changed = {
        name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor.cpu(), before[name])
    }
    assert changed
    assert all(name.startswith("decode_head.") for name in changed)


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
processor, dataset = FEDDImageProcessor(size=32), load_from_disk(photos)
accelerator = start_accelerator(RunArguments(output_dir=root + "/run"))
files = FeatureStore(Path(root), model, processor, batch_size=2).extract(dataset, accelerator)
arguments = SegmentationArguments(num_steps=30, images_per_step=4, pixels_per_image=100, learning_rate=1e-2)
losses = train_pixel_classifiers(model, StoredFeatures(files, dataset, processor), arguments, accelerator)
tensors = model.decode_head.state_dict().values()
told = {
    "devices": sorted({str(parameter.device) for parameter in model.parameters()}),
    "processes": accelerator.num_processes,
    "losses": losses,
    "bits": hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest(),
}
Path(root, f"told-{accelerator.process_index}.json").write_text(json.dumps(told))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_two_devices_train_one_head(tiny_backbone, painted, devices, tmp_path):
    painted.save_to_disk(tmp_path / "photos")
    (tmp_path / "script.py").write_text(TRAIN)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_CPU": "true"} if devices[0].type == "cpu" else {})

    process = subprocess.run(
        [*launcher, tmp_path / "script.py", tiny_backbone, tmp_path / "photos", tmp_path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert process.returncode == 0, process.stderr
    told = [json.loads((tmp_path / f"told-{index}.json").read_text()) for index in range(2)]
    assert [of_process["devices"] for of_process in told] == [[str(device)] for device in devices]
    assert [of_process["processes"] for of_process in told] == [2, 2]
    assert told[0]["bits"] == told[1]["bits"]
    assert told[0]["losses"] == told[1]["losses"]
    assert sum(told[0]["losses"][-5:]) / 5 < 0.8 * sum(told[0]["losses"][:2]) / 2
