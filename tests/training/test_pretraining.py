from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from guided_diffusion import gaussian_diffusion
from safetensors.torch import load_file

from fedd_hf.data.painted import paint_dataset
from fedd_hf.training.arguments import PretrainingArguments
from fedd_hf.training.pretraining import Checkpoints, _measure_loss, make_unet, pretrain_backbone, save_backbone

WEIGHTS = "diffusion_pytorch_model.safetensors"
QUICK = {"image_sizes": [8, 16], "exposures": [24, 16], "batch_sizes": [4, 4], "look_every": 4}


@pytest.fixture(scope="module")
def painted():
    return paint_dataset(4, seed=0, size=32)


@pytest.fixture
def make_tiny():
    def make():
        torch.manual_seed(0)
        return make_unet([8, 16], 16)

    return make


def quick(**fields):
    return PretrainingArguments(**(QUICK | fields))


def weights_of(unet):
    return torch.cat([parameter.detach().flatten() for parameter in unet.parameters()])


# --- the network


def test_the_network_of_the_embedded_backbone_is_made():
    embedded = UNet2DModel.load_config("src/fedd_hf/embedded", subfolder="unet")

    made = make_unet([16, 32, 64, 96, 128], 64).config

    differing = {
        name for name in embedded if not name.startswith("_") and list_of(embedded[name]) != list_of(made[name])
    }
    assert differing == set()


def list_of(value):
    return list(value) if isinstance(value, tuple) else value


# --- stages


def test_stages_hold_whole_batches_and_follow_each_other():
    first, second = PretrainingArguments(image_sizes=[8, 16], exposures=[10, 9], batch_sizes=[4, 3]).stages()

    assert (first.numbers, first.num_steps) == (range(8), 2)
    assert (second.numbers, second.num_steps) == (range(8, 17), 3)


# --- training


def test_the_loss_is_that_of_the_original():
    """Same noise, same timestep: guided-diffusion's loss of the predicted noise."""
    betas = gaussian_diffusion.get_named_beta_schedule("linear", 1000)
    original = gaussian_diffusion.GaussianDiffusion(
        betas=betas,
        model_mean_type=gaussian_diffusion.ModelMeanType.EPSILON,
        model_var_type=gaussian_diffusion.ModelVarType.FIXED_SMALL,
        loss_type=gaussian_diffusion.LossType.MSE,
    )
    torch.manual_seed(0)
    unet = make_unet([8, 16], 16).eval()
    batch = {"pixel_values": torch.rand(3, 3, 16, 16) * 2 - 1, "noise": torch.randn(3, 3, 16, 16)}
    batch["timestep"] = torch.tensor([0, 500, 999])

    with torch.no_grad():
        ours = _measure_loss(unet, DDPMScheduler(), batch)
        theirs = original.training_losses(
            lambda x, t: unet(x, t).sample, batch["pixel_values"], batch["timestep"], noise=batch["noise"]
        )

    assert float(ours) == pytest.approx(float(theirs["loss"].mean()), rel=1e-5)


def test_training_lowers_the_loss_and_leaves_the_moving_average(make_tiny, painted, make_accelerator):
    unet = make_tiny()
    arguments = PretrainingArguments(image_sizes=[16], exposures=[480], batch_sizes=[8], learning_rate=4e-3)

    history = pretrain_backbone(unet, DDPMScheduler(), painted, arguments, make_accelerator())

    assert len(history["losses"]) == 60
    assert np.mean(history["losses"][-20:]) < 0.5 * np.mean(history["losses"][:5])
    assert not unet.training


def test_a_look_every_few_steps_finds_a_folder_that_opens(make_tiny, painted, make_accelerator, tmp_path):
    def look(folder, exposures):
        unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
        return {"norm": float(weights_of(unet).norm())}

    unet, folder = make_tiny(), tmp_path / "average"
    history = pretrain_backbone(unet, DDPMScheduler(), painted, quick(), make_accelerator(), folder=folder, look=look)

    assert [row["exposures"] for row in history["looks"]] == [16, 32, 40]
    assert len({row["norm"] for row in history["looks"]}) == 3
    kept = UNet2DModel.from_pretrained(folder, subfolder="unet").float()
    torch.testing.assert_close(weights_of(kept), weights_of(unet), rtol=1e-3, atol=1e-4)


class Interrupted(Checkpoints):
    """Checkpoints of a run that is interrupted right after one of them."""

    last_step = None

    def save(self, step, history):
        super().save(step, history)
        if step == self.last_step:
            raise InterruptedError


def open_checkpoints(folder, accelerator, last_step=None, **identity):
    checkpoints = Interrupted(folder, accelerator, identity)
    checkpoints.last_step = last_step
    return checkpoints


@pytest.mark.parametrize("last_step", [4, 8])
def test_an_interrupted_run_resumes_to_the_same_weights(last_step, make_tiny, painted, make_accelerator, tmp_path):
    """The resolution changes after 6 steps."""
    unbroken, resumed = make_tiny(), make_tiny()
    wanted = pretrain_backbone(unbroken, DDPMScheduler(), painted, quick(), make_accelerator())
    accelerator = make_accelerator()
    checkpoints = open_checkpoints(tmp_path, accelerator, last_step)
    with pytest.raises(InterruptedError):
        pretrain_backbone(make_tiny(), DDPMScheduler(), painted, quick(), accelerator, checkpoints)
    (tmp_path / "checkpoints" / "partial").mkdir()  # of a checkpoint that was being written
    accelerator = make_accelerator()
    checkpoints = open_checkpoints(tmp_path, accelerator)

    history = pretrain_backbone(resumed, DDPMScheduler(), painted, quick(), accelerator, checkpoints)
    checkpoints.finish()

    assert history["losses"] == wanted["losses"]
    assert torch.equal(weights_of(resumed), weights_of(unbroken))
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_checkpoint_stays(make_tiny, accelerator, tmp_path):
    accelerator.prepare_model(make_tiny())
    checkpoints = open_checkpoints(tmp_path, accelerator)

    for step in (5, 100_000):
        checkpoints.save(step, {"losses": [step]})

    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert checkpoints.resume() == {"losses": [100_000]}


def test_a_checkpoint_of_another_run_is_refused(make_tiny, make_accelerator, tmp_path):
    accelerator = make_accelerator()
    accelerator.prepare_model(make_tiny())
    open_checkpoints(tmp_path, accelerator, seed=0).save(5, {})

    for other in (
        open_checkpoints(tmp_path, accelerator, seed=1),
        open_checkpoints(tmp_path, make_accelerator("bf16"), seed=0),
    ):
        with pytest.raises(ValueError, match="other arguments, photos or processes.*delete it to start anew"):
            other.resume()


def test_a_batch_that_processes_cannot_share_equally_is_refused(make_tiny, painted):
    accelerator = SimpleNamespace(num_processes=3)

    with pytest.raises(ValueError, match=r"`batch_sizes` \[4, 4\] cannot be shared equally by 3 processes\."):
        pretrain_backbone(make_tiny(), DDPMScheduler(), painted, quick(), accelerator)


def test_parts_of_a_batch_are_refused(make_tiny, painted, make_accelerator):
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` must be 1"):
        pretrain_backbone(
            make_tiny(), DDPMScheduler(), painted, quick(), make_accelerator(gradient_accumulation_steps=2)
        )


def test_a_backbone_is_written_whole_in_half_precision_and_replaced(make_tiny, tmp_path):
    unet = make_tiny()
    save_backbone(unet, DDPMScheduler(), tmp_path / "backbone")
    with torch.no_grad():
        unet.conv_in.weight.zero_()
    save_backbone(unet, DDPMScheduler(), tmp_path / "backbone")

    kept = load_file(tmp_path / "backbone" / "unet" / WEIGHTS)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}
    assert not kept["conv_in.weight"].any()
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def test_a_backbone_does_not_tell_the_folder_that_it_went_on_from(make_tiny, tmp_path):
    save_backbone(make_tiny(), DDPMScheduler(), tmp_path / "first")
    unet = UNet2DModel.from_pretrained(tmp_path / "first", subfolder="unet").float()
    save_backbone(unet, DDPMScheduler(), tmp_path / "second")

    configs = [(tmp_path / name / "unet" / "config.json").read_text() for name in ("first", "second")]
    assert configs[0] == configs[1]
    first, second = (load_file(tmp_path / name / "unet" / WEIGHTS) for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- two processes

PRETRAIN = """
import json, os, sys
from pathlib import Path
import torch
from datasets import load_from_disk
from diffusers import DDPMScheduler
from fedd_hf.training.arguments import PretrainingArguments, RunArguments
from fedd_hf.training.pretraining import make_unet, pretrain_backbone
from fedd_hf.training.run import start_accelerator

photos, folder = sys.argv[1:]
arguments = PretrainingArguments(image_sizes=[16], exposures=[200], batch_sizes=[4])
accelerator = start_accelerator(RunArguments(output_dir=folder))
torch.manual_seed(0)
told = pretrain_backbone(make_unet([8, 16], 16), DDPMScheduler(), load_from_disk(photos), arguments, accelerator)
Path(os.environ["RESULTS"], f"{accelerator.process_index}.json").write_text(json.dumps(told))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_over_fifty_steps(run_processes, painted, tmp_path):
    painted.save_to_disk(tmp_path / "photos")

    (alone,) = run_processes(PRETRAIN, tmp_path / "photos", tmp_path / "one", processes=1)
    first, second = run_processes(PRETRAIN, tmp_path / "photos", tmp_path / "two")

    assert first["losses"] == second["losses"]
    assert len(alone["losses"]) == 50
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-4)
