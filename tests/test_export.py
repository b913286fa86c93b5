"""Tests of the export to ONNX, and of the graphs that torch.compile and torch.export make of a model."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig

from fedd_hf import FEDDForImageClassification, FEDDForSegmentation, FEDDImageProcessor, export
from fedd_hf.export import MAX_BATCH_SIZE, export_onnx
from fedd_hf.image_processing_fedd import read_image
from fedd_hf.modeling_fedd import FEDDSegmenterOutput

TASKS = ("segmentation", "classification")


def images(batch_size, seed=7):
    return torch.rand((batch_size, 3, 16, 16), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def outputs_of(model, pixel_values):
    return [output.numpy() for output in model(pixel_values=pixel_values).to_tuple()]


def softmax(logits):
    return torch.from_numpy(logits).softmax(dim=1).numpy()


@pytest.fixture
def models(segmenter, classifier):
    return {"segmentation": segmenter, "classification": classifier}


@pytest.fixture(scope="session")
def exported(_tiny_models, tmp_path_factory):
    """The files of the tiny models."""
    folder = tmp_path_factory.mktemp("exported")
    return {task: export_onnx(_tiny_models[task], folder / task) for task in TASKS}


@pytest.fixture(scope="session")
def sessions(exported):
    """The tiny models in onnxruntime."""
    import onnxruntime

    return {task: onnxruntime.InferenceSession(path) for task, path in exported.items()}


@pytest.fixture
def without_onnx(monkeypatch):
    """Let a file of a few bytes stand for the model, which nobody compares with torch."""
    monkeypatch.setattr(export, "_check_packages", lambda: None)
    monkeypatch.setattr(export, "_write", lambda model, path: path.write_bytes(b"model"))
    monkeypatch.setattr(export, "_check", lambda model, path: None)


# With onnxruntime


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, MAX_BATCH_SIZE])
@pytest.mark.parametrize("task", TASKS)
def test_onnxruntime_says_what_torch_does(models, sessions, task, batch_size):
    pixel_values = images(batch_size)

    actual = sessions[task].run(None, {"pixel_values": pixel_values.numpy()})

    expected = outputs_of(models[task], pixel_values)
    np.testing.assert_allclose(softmax(actual[0]), softmax(expected[0]), rtol=0, atol=1e-6)
    assert [output.shape for output in actual] == [output.shape for output in expected]
    for votes, expected_votes in zip(actual[1:], expected[1:], strict=True):
        assert np.abs(votes - expected_votes).mean() < 1e-4


@pytest.mark.slow
def test_pixels_are_the_one_input_and_noise_is_inside(sessions):
    names = {
        task: ([value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()])
        for task, session in sessions.items()
    }

    assert names == {
        "segmentation": (["pixel_values"], ["logits", "votes"]),
        "classification": (["pixel_values"], ["logits"]),
    }


@pytest.mark.slow
def test_map_of_a_photo_is_that_of_the_model(segmenter, sessions):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    processor = FEDDImageProcessor(size=16)

    logits, votes = sessions["segmentation"].run(None, dict(processor(images=photo, return_tensors="np")))

    output = FEDDSegmenterOutput(logits=torch.from_numpy(logits), votes=torch.from_numpy(votes))
    with torch.no_grad():
        expected = segmenter(**processor(images=photo, return_tensors="pt"))
    (actual_map,), (expected_map,) = (
        processor.post_process_semantic_segmentation(outputs, [(40, 56)]) for outputs in (output, expected)
    )
    assert (actual_map == expected_map).float().mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "card"), [("segmentation", "segmentation_model"), ("classification", "classification_model")]
)
def test_example_of_the_card_runs(models, exported, task, card, tmp_path, monkeypatch):
    template = (Path(__file__).parents[1] / "hub_cards" / f"{card}.md.j2").read_text()
    *_, example = re.findall(r"```python\n(.*?)```", template, flags=re.DOTALL)
    monkeypatch.setattr(export, "export_onnx", lambda model, folder: exported[task])
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), "tan").save("photo.jpg")
    names = {"model": models[task], "processor": FEDDImageProcessor(size=16), "read_image": read_image}
    names["photo"] = read_image("photo.jpg")

    exec(example, names)

    pixel_values = names["processor"](images=names["photo"], return_tensors="pt")["pixel_values"]
    logits, *votes = outputs_of(models[task], pixel_values)
    if votes:
        assert (names["segmentation_map"] == votes[0][0].argmax(axis=0)).mean() > 0.99
    else:
        np.testing.assert_allclose(names["logits"], logits, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_mean_voting_has_no_votes(make_config, tmp_path):
    import onnxruntime

    fields = {"hidden_sizes": [8, 6], "ensemble_size": 1, "timesteps": [50], "blocks": [2]}
    model = FEDDForSegmentation(make_config(voting="mean", output_hidden_states=True, **fields))

    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path))

    assert [value.name for value in session.get_outputs()] == ["logits"]


@pytest.mark.slow
def test_large_weights_lie_beside_the_model(classifier, tmp_path, monkeypatch):
    import onnxruntime
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    path = export_onnx(classifier, tmp_path)

    assert {"model.onnx", "model.onnx.data"} <= {file.name for file in tmp_path.iterdir()}
    (actual,) = onnxruntime.InferenceSession(path).run(None, {"pixel_values": images(2).numpy()})
    np.testing.assert_allclose(actual, *outputs_of(classifier, images(2)), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_file_names_no_folder_of_this_machine(exported, tiny_backbone, tmp_path):
    for file in exported["classification"].parent.iterdir():
        content = file.read_bytes()
        for place in (tiny_backbone, tmp_path, Path(__file__).parents[1], sys.prefix):
            assert str(place).encode() not in content, file.name


# The check, the folder, the model


@pytest.mark.parametrize("error", [0.01, float("nan")])
@pytest.mark.parametrize("task", TASKS)
def test_wrong_probabilities_are_refused_and_no_file_is_left(models, task, error, tmp_path, monkeypatch):
    import onnxruntime

    class Session:
        def __init__(self, path, providers):
            assert Path(path).read_bytes() == b"model"

        def run(self, names, inputs):
            logits, *others = outputs_of(models[task], torch.from_numpy(inputs["pixel_values"]))
            logits[-1, -1] += error
            return [logits, *others]

    monkeypatch.setattr(export, "_write", lambda model, path: path.write_bytes(b"model"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)

    with pytest.raises(ValueError, match=r"the logits of 1 photos differ from torch's by (0\.00\d+|nan), more than"):
        export_onnx(models[task], tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []


@pytest.mark.usefixtures("without_onnx")
def test_failure_leaves_the_earlier_model(classifier, tmp_path, monkeypatch):
    export_onnx(classifier, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(model, path):
        raise ValueError("no")

    monkeypatch.setattr(export, "_check", fail)
    with pytest.raises(ValueError, match="no"):
        export_onnx(classifier, tmp_path)

    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert "model.onnx" in before


@pytest.mark.usefixtures("without_onnx")
def test_configuration_comes_along(segmenter, tmp_path):
    path = export_onnx(segmenter, tmp_path / "new" / "exported")

    config = AutoConfig.from_pretrained(path.parent)
    assert path.read_bytes() == b"model"
    assert (config.voting, config.id2label) == ("majority", segmenter.config.id2label)
    assert (config.backbone, config.save_backbone) == (None, True)


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("save_backbone", [True, False])
def test_export_leaves_the_checkpoint_beside_it(classifier, tmp_path, save_backbone):
    classifier.config.save_backbone = save_backbone
    classifier.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    loaded = FEDDForImageClassification.from_pretrained(tmp_path)

    export_onnx(loaded, tmp_path)

    assert (tmp_path / "config.json").read_bytes() == before
    assert FEDDForImageClassification.from_pretrained(tmp_path).config.save_backbone == save_backbone


@pytest.mark.usefixtures("without_onnx")
def test_folder_of_another_model_is_refused(segmenter, classifier, tmp_path):
    segmenter.config.save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"holds another model, which differs in \['blocks', 'timesteps', 'id2label'"):
        export_onnx(classifier, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.usefixtures("without_onnx")
def test_model_stays_as_it_is(classifier, tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(export, "_check", lambda model, path: exported.append(model))
    classifier.to(torch.bfloat16).train()
    classifier.config.output_hidden_states = True

    export_onnx(classifier, tmp_path)

    assert (classifier.dtype, classifier.training) == (torch.bfloat16, True)
    assert classifier.config.output_hidden_states
    assert classifier.config.backbone is not None
    assert (exported[0].dtype, exported[0].training) == (torch.float32, False)


def test_backbone_is_refused(classifier, tmp_path):
    with pytest.raises(TypeError, match="FEDDForSegmentation or FEDDForImageClassification, got .*FEDDBackbone"):
        export_onnx(classifier.backbone, tmp_path)


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_package_names_the_extra(classifier, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ImportError, match=rf'needs .*{name}.* Type `pip install "fedd-hf\[export\]"`'):
        export_onnx(classifier, tmp_path)


# Graphs of torch


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_model_compiles_into_one_graph(models, task):
    compiled = torch.compile(models[task], fullgraph=True, backend="eager")

    for actual, expected in zip(outputs_of(compiled, images(2)), outputs_of(models[task], images(2)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_exported_program_takes_any_batch_size_that_the_file_promises(models, task):
    model = models[task]
    batch = torch.export.Dim("batch_size", min=1, max=MAX_BATCH_SIZE)
    shapes = {"pixel_values": {0: batch}}

    program = torch.export.export(model, (), {"pixel_values": images(2)}, dynamic_shapes=shapes).module()

    for batch_size in (1, 2, 5, MAX_BATCH_SIZE):
        pixel_values = images(batch_size)
        for actual, expected in zip(outputs_of(program, pixel_values), outputs_of(model, pixel_values), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    with pytest.raises(Exception, match="63"):
        program(pixel_values=images(MAX_BATCH_SIZE + 1))
