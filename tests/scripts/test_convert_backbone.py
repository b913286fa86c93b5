"""scripts/convert_backbone.py, end to end on a tiny network."""

import runpy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from guided_diffusion.unet import UNetModel
from huggingface_hub import ModelCard

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_backbone.py"
TINY_FLAGS = ["--image-size", "16", "--num-channels", "32", "--num-res-blocks", "1", "--channel-mult", "1", "2"]
TINY_FLAGS += ["--attention-resolutions", "8", "--num-head-channels", "16", "--no-learn-sigma"]


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = UNetModel(
        image_size=16,
        in_channels=3,
        model_channels=32,
        out_channels=3,
        num_res_blocks=1,
        attention_resolutions=(2,),
        channel_mult=(1, 2),
        num_head_channels=16,
        use_scale_shift_norm=True,
        resblock_updown=True,
    )
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_it_writes_a_folder_and_says_what_it_did(main, checkpoint, tmp_path, capsys):
    main(["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "adm"), *TINY_FLAGS])

    printed = capsys.readouterr().out
    unet = UNet2DModel.from_pretrained(tmp_path / "adm" / "unet")
    assert f"{unet.num_parameters():,} parameters in {len(unet.state_dict())} tensors (torch.float32)" in printed
    assert str(tmp_path / "adm") in printed


def test_the_card_states_the_facts_of_the_conversion(main, checkpoint, tmp_path, capsys):
    main(["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "adm"), "--fp16", *TINY_FLAGS])

    sha256 = next(line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("SHA-256"))
    card = ModelCard.load(tmp_path / "adm" / "README.md")
    num_tensors = len(UNet2DModel.from_pretrained(tmp_path / "adm" / "unet").state_dict())
    for fact in ("`tiny.pt`", sha256, f"all {num_tensors} tensors were equal", "| float16 |", "0 to 3"):
        assert fact in card.text


def test_weights_of_another_origin_get_no_card(main, checkpoint, tmp_path):
    main(["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "adm"), "--no-card", *TINY_FLAGS])

    assert not (tmp_path / "adm" / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "does not fit the flags"),
        ([*TINY_FLAGS, "--sha256", "0" * 64], "was expected"),
        ([*TINY_FLAGS, "--num-head-channels", "24"], "`num_head_channels` must divide"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(main, checkpoint, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "adm"), *arguments])

    assert str(exit_info.value).startswith("convert_backbone: ")
    assert message in str(exit_info.value)
    assert "\n" not in str(exit_info.value)
    assert list(tmp_path.iterdir()) == [checkpoint]
