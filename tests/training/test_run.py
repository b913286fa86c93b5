import json

import pytest
import torch
from safetensors import safe_open

from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.training import run as run_module
from fedd_hf.training.arguments import RunArguments, SegmentationArguments
from fedd_hf.training.original_recipe import make_member, train_as_original
from fedd_hf.training.pixel_heads import train_pixel_classifiers
from fedd_hf.training.run import RunState, save_run, start_accelerator


@pytest.fixture
def linear():
    return torch.nn.Linear(3, 2)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the accelerator


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        start_accelerator(RunArguments(output_dir=str(tmp_path / "run"), log_with="nonsense"))

    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.utils.imports._is_package_available", lambda *_, **__: False)

    with pytest.raises(ValueError, match="log_with.*'comet_ml'"):
        start_accelerator(RunArguments(output_dir=str(tmp_path / "run"), log_with="comet_ml"))


def test_precision_and_parts_are_those_of_the_run(tmp_path, make_accelerator):
    make_accelerator("bf16")
    arguments = RunArguments(output_dir=str(tmp_path), mixed_precision="bf16", gradient_accumulation_steps=4)

    accelerator = start_accelerator(arguments)

    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("bf16", 4)
    assert accelerator.split_batches
    assert accelerator.trackers == []


@pytest.mark.parametrize("field", ["gradient_accumulation_steps", "checkpoint_every"])
def test_less_than_one_is_refused(field, tmp_path):
    with pytest.raises(ValueError, match=f"`{field}` must be at least 1, got 0"):
        RunArguments(output_dir=str(tmp_path), **{field: 0})


# --- checkpoints


def test_a_run_without_checkpoints_begins_at_the_beginning(make_state, accelerator, tmp_path):
    state = make_state(accelerator)

    assert state.resume() == {}
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_brings_back_weights_optimizer_random_numbers_and_counters(
    make_state, make_accelerator, linear, weights_of, assert_same_bits
):
    accelerator = make_accelerator()
    model = accelerator.prepare_model(linear)
    optimizer = accelerator.prepare_optimizer(torch.optim.Adam(model.parameters(), lr=0.1))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    counters = {"losses": [0.1, 1 / 3, float("inf")], "epoch": 4}
    make_state(accelerator).save(3, counters)
    wanted, following = weights_of(model), torch.rand(3)
    moments = [state["exp_avg"].clone() for state in optimizer.optimizer.state.values()]

    accelerator = make_accelerator()
    other = accelerator.prepare_model(torch.nn.Linear(3, 2))
    again = accelerator.prepare_optimizer(torch.optim.Adam(other.parameters(), lr=0.1))

    assert make_state(accelerator).resume() == counters
    assert_same_bits(weights_of(other), wanted)
    assert torch.equal(torch.rand(3), following)
    for actual, moment in zip(again.optimizer.state.values(), moments, strict=True):
        assert torch.equal(actual["exp_avg"], moment)


def test_an_older_checkpoint_is_removed_once_a_newer_one_is_whole(make_state, accelerator, linear, tmp_path):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)

    for step in (5, 10, 100_000):
        state.save(step, {"step": step})

        assert len(names_in(tmp_path / "run" / "checkpoints")) == 1
    assert state.resume() == {"step": 100_000}


def test_of_two_checkpoints_the_newest_is_read(make_state, accelerator, linear, tmp_path, monkeypatch):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)
    with monkeypatch.context() as patch:
        patch.setattr(run_module.shutil, "rmtree", lambda *_, **__: None)  # killed before the older one was removed
        state.save(95, {"step": 95})
        state.save(100, {"step": 100})
    assert len(names_in(tmp_path / "run" / "checkpoints")) == 2

    assert state.resume() == {"step": 100}


def test_a_checkpoint_that_was_being_written_is_not_read_and_not_in_the_way(
    make_state, accelerator, linear, tmp_path, monkeypatch
):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)
    state.save(5, {"step": 5})
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_json", interrupt)
        with pytest.raises(InterruptedError):
            state.save(10, {"step": 10})
    assert len(names_in(tmp_path / "run" / "checkpoints")) == 2

    assert state.resume() == {"step": 5}
    state.save(10, {"step": 10})
    assert state.resume() == {"step": 10}
    assert len(names_in(tmp_path / "run" / "checkpoints")) == 1


def interrupt(*_, **__):
    raise InterruptedError


def test_a_first_checkpoint_that_was_being_written_is_no_checkpoint(make_state, accelerator, linear, monkeypatch):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)
    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "save_state", interrupt)
        with pytest.raises(InterruptedError):
            state.save(5, {"step": 5})

    assert state.resume() == {}


@pytest.mark.parametrize(
    ("identity", "options"),
    [
        ({"run": 2}, {}),
        ({"run": 1, "photos": ["a"]}, {}),
        ({"run": 1}, {"gradient_accumulation_steps": 2}),
        ({"run": 1}, {"mixed_precision": "bf16"}),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused(identity, options, make_state, make_accelerator, linear, tmp_path):
    accelerator = make_accelerator()
    accelerator.prepare_model(linear)
    make_state(accelerator).save(5, {})
    accelerator = make_accelerator(**options)
    accelerator.prepare_model(torch.nn.Linear(3, 2))

    with pytest.raises(ValueError, match="was left by a run with other arguments, photos or processes") as error:
        make_state(accelerator, identity=identity).resume()

    assert str(tmp_path / "run" / "checkpoints") in str(error.value)
    assert "delete it to start anew" in str(error.value)


def test_counters_are_json(make_state, accelerator, linear, tmp_path):
    accelerator.prepare_model(linear)

    make_state(accelerator).save(5, {"losses": [0.5]})

    (file,) = (tmp_path / "run" / "checkpoints").glob("*/counters.json")
    counters = json.loads(file.read_text())
    assert counters["losses"] == [0.5]
    assert len(counters["identity"]) == 64


def test_a_checkpoint_is_due_every_so_many_steps(make_state, accelerator):
    state = make_state(accelerator, every=4)

    assert [step for step in range(1, 13) if state.is_due(step)] == [4, 8, 12]


def test_a_finished_run_leaves_no_checkpoint(make_state, accelerator, linear, tmp_path):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)
    state.save(5, {})

    state.finish()

    assert list((tmp_path / "run").iterdir()) == []
    assert state.resume() == {}


def test_a_run_that_never_wrote_a_checkpoint_can_be_finished(make_state, accelerator):
    make_state(accelerator).finish()


def test_a_removal_that_was_killed_leaves_nothing_to_go_on_from(
    make_state, accelerator, linear, monkeypatch, tmp_path
):
    accelerator.prepare_model(linear)
    state = make_state(accelerator)
    state.save(5, {})
    with monkeypatch.context() as patch:
        patch.setattr(run_module.shutil, "rmtree", lambda *_, **__: None)
        state.finish()

    assert state.resume() == {}
    state.save(5, {})
    state.finish()
    assert list((tmp_path / "run").iterdir()) == []


def tensor_names(folder):
    names = set()
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names |= set(tensors.keys())
    return names


def test_a_checkpoint_of_pixel_classifiers_holds_nothing_but_the_head(
    make_segmenter, features, make_accelerator, make_state, killed, tmp_path
):
    model, accelerator = make_segmenter(), make_accelerator()
    arguments = SegmentationArguments(num_steps=4, images_per_step=2, pixels_per_image=10)
    with pytest.raises(killed):
        train_pixel_classifiers(model, features, arguments, accelerator, make_state(accelerator, 2, every=2))

    assert tensor_names(tmp_path / "run" / "checkpoints") == set(model.decode_head.state_dict())


def test_a_checkpoint_of_the_original_recipe_holds_nothing_but_heads(
    make_segmenter, features, make_accelerator, make_state, killed, tmp_path
):
    model, accelerator = make_segmenter(), make_accelerator()
    with pytest.raises(killed):
        train_as_original(model, features, 0, accelerator, make_state(accelerator, 2, every=2))

    member = make_member(model.config)
    names = {*model.decode_head.state_dict(), *member.state_dict()}
    assert tensor_names(tmp_path / "run" / "checkpoints") == names
    size = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    assert size < 3 * sum(tensor.nbytes for tensor in model.decode_head.state_dict().values()) + 20_000


# --- what a run leaves


def arguments_of(tmp_path, **fields):
    return RunArguments(output_dir=str(tmp_path / "run"), **fields)


def test_a_run_leaves_model_processor_and_report(make_segmenter, processor, accelerator, tmp_path):
    model = make_segmenter()

    save_run(model, processor, {"photos": 6}, arguments_of(tmp_path), accelerator)

    files = {name for name in names_in(tmp_path / "run") if not name.endswith(".py")}  # code for trust_remote_code
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json", "run.json"}
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"photos": 6}
    opened = FEDDForSegmentation.from_pretrained(tmp_path / "run")
    assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert FEDDImageProcessor.from_pretrained(tmp_path / "run").size["height"] == 32


def test_the_folder_of_the_backbone_is_found_again_from_the_folder_of_the_run(
    make_segmenter, processor, accelerator, tmp_path, tiny_backbone
):
    model = make_segmenter()

    save_run(model, processor, {}, arguments_of(tmp_path), accelerator)

    opened = FEDDForSegmentation.from_pretrained(tmp_path / "run")
    assert opened.config.backbone == str(tiny_backbone)


def test_heads_alone_are_saved_with_the_way_to_their_backbone(make_segmenter, processor, accelerator, tmp_path):
    model = make_segmenter()
    model.config.save_backbone = False

    save_run(model, processor, {}, arguments_of(tmp_path), accelerator)

    opened = FEDDForSegmentation.from_pretrained(tmp_path / "run")
    assert torch.equal(opened.backbone.unet.conv_in.weight, model.backbone.unet.conv_in.weight)


def test_a_save_that_fails_leaves_the_files_of_the_run_before(
    make_segmenter, processor, accelerator, tmp_path, monkeypatch
):
    save_run(make_segmenter(), processor, {"run": 1}, arguments_of(tmp_path), accelerator)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(FEDDImageProcessor, "save_pretrained", interrupt)
        with pytest.raises(InterruptedError):
            save_run(make_segmenter(ensemble_size=3), processor, {"run": 2}, arguments_of(tmp_path), accelerator)

    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before

    save_run(make_segmenter(ensemble_size=3), processor, {"run": 3}, arguments_of(tmp_path), accelerator)
    assert names_in(tmp_path / "run") == sorted(before)
    assert FEDDForSegmentation.from_pretrained(tmp_path / "run").config.ensemble_size == 3


def test_what_else_lies_in_the_folder_stays(make_segmenter, processor, accelerator, tmp_path):
    (tmp_path / "run" / "test").mkdir(parents=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")

    save_run(make_segmenter(), processor, {}, arguments_of(tmp_path), accelerator)

    assert {"test", "notes.txt", "model.safetensors"} <= set(names_in(tmp_path / "run"))


def test_the_checkpoints_lie_in_the_folder_of_the_run(accelerator, tmp_path):
    state = RunState(arguments_of(tmp_path, checkpoint_every=7), accelerator, {})

    assert (state.folder, state.every) == (tmp_path / "run" / "checkpoints", 7)
