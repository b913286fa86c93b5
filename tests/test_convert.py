"""The converter against the original network: same numbers, nothing lost, nothing left behind."""

import copy
import os
import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from guided_diffusion.nn import timestep_embedding
from guided_diffusion.script_util import create_model

from fedd_hf.backbone_fedd import block_module
from fedd_hf.convert import (
    ADMArchitecture,
    Inventory,
    convert_checkpoint,
    convert_state_dict,
    read_checkpoint,
    take_inventory,
)
from fedd_hf.files import hash_file

TIMESTEPS = torch.tensor([0, 50, 100, 500, 999])
# float32 differs by the order of sums only (1e-6); the mildest wrong setting below gives 2e-5.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def paper_at_width(width):
    """The paper's network, narrower and at 64 px: attention still on its three lowest levels."""
    return ADMArchitecture(
        image_size=64,
        num_channels=width,
        channel_mult=(1, 1, 2, 2, 4, 4),
        attention_resolutions=(8, 4, 2),
        num_head_channels=width // 2,
    )


TINY = ADMArchitecture(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(8,),
    num_head_channels=16,
)


def original_network(architecture):
    """guided-diffusion's own reading of the flags, weights left as it initialises them."""
    return create_model(
        image_size=architecture.image_size,
        num_channels=architecture.num_channels,
        num_res_blocks=architecture.num_res_blocks,
        channel_mult=",".join(map(str, architecture.channel_mult or ())),
        learn_sigma=architecture.learn_sigma,
        attention_resolutions=",".join(map(str, architecture.attention_resolutions)),
        num_head_channels=architecture.num_head_channels,
        use_scale_shift_norm=architecture.use_scale_shift_norm,
        resblock_updown=architecture.resblock_updown,
        use_new_attention_order=architecture.use_new_attention_order,
    ).eval()


@torch.no_grad()
def randomize(network):
    """Give every tensor random values: guided-diffusion starts half its branches at zero, which would hide errors."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        else:
            tensor.normal_(0, 0.2, generator=generator)
            is_norm = name.endswith(("in_layers.0.weight", "out_layers.0.weight", "norm.weight", "out.0.weight"))
            tensor.add_(1.0 if is_norm else 0.0)
    return network


def as_unet(network, architecture, **wrong_config):
    converted = convert_state_dict(network.state_dict(), architecture)
    unet = UNet2DModel(**architecture.unet_config() | wrong_config)
    unet.load_state_dict(converted, strict=not wrong_config)
    return unet.eval()


@torch.no_grad()
def record(network, modules, *inputs):
    """Return the output of each module, then that of the network."""
    outputs = []
    hooks = [module.register_forward_hook(lambda *call: outputs.append(call[-1])) for module in modules]
    result = network(*inputs)
    for hook in hooks:
        hook.remove()
    return [*outputs, result if isinstance(result, torch.Tensor) else result.sample]


@contextmanager
def double_means_double(architecture):
    """Let guided-diffusion compute in float64.

    It calls `.float()` in its norms and before softmax, to protect float16; for float64 that would be a downcast. The
    timestep embedding stays the float32 one, cast, because that is what diffusers does on its side.
    """
    embedding = timestep_embedding(TIMESTEPS, architecture.num_channels).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr("guided_diffusion.unet.timestep_embedding", lambda *_: embedding)
        yield


def original_activations(network, architecture, dtype):
    sample = noisy_sample(architecture, dtype)
    if dtype == torch.float32:
        return record(network, network.output_blocks, sample, TIMESTEPS)
    network = copy.deepcopy(network).double()
    network.dtype = torch.float64
    with double_means_double(architecture):
        return record(network, network.output_blocks, sample, TIMESTEPS)


def unet_activations(unet, architecture, dtype):
    unet = copy.deepcopy(unet).double() if dtype == torch.float64 else unet
    num_blocks = len(architecture.block_out_channels) * (architecture.num_res_blocks + 1)
    modules = [block_module(unet, block) for block in range(num_blocks)]
    return record(unet, modules, noisy_sample(architecture, dtype), TIMESTEPS)


def noisy_sample(architecture, dtype):
    generator = torch.Generator().manual_seed(1)
    shape = (len(TIMESTEPS), 3, architecture.image_size, architecture.image_size)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)


def relative_errors(actual, expected):
    """Return ||actual - expected|| / ||expected|| of shape (blocks + 1, timesteps), computed in float64."""
    errors = []
    for ours, theirs in zip(actual, expected, strict=True):
        ours, theirs = ours.double().flatten(1), theirs.double().flatten(1)
        errors.append((ours - theirs).norm(dim=1) / theirs.norm(dim=1))
    return torch.stack(errors)


@pytest.fixture(autouse=True)
def one_thread(request):
    """Small tensors gain nothing from threads, and on shared cores those wait for one another."""
    num_threads = torch.get_num_threads()
    if "slow" not in request.keywords:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def paper_network(request):
    architecture = paper_at_width(request.param)
    return architecture, randomize(original_network(architecture))


@pytest.fixture(scope="module")
def narrow_network():
    """The paper's network at width 32 and what it computes."""
    architecture = paper_at_width(32)
    network = randomize(original_network(architecture))
    return architecture, network, original_activations(network, architecture, torch.float32)


@pytest.fixture(scope="module")
def tiny_network():
    return randomize(original_network(TINY))


@pytest.fixture
def tiny_state_dict(tiny_network):
    return {name: tensor.clone() for name, tensor in tiny_network.state_dict().items()}


@pytest.fixture
def tiny_checkpoint(tiny_state_dict, tmp_path):
    torch.save(tiny_state_dict, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


# Same numbers


@pytest.mark.parametrize(
    ("paper_network", "dtype"), [(64, torch.float32), (32, torch.float64)], indirect=["paper_network"]
)
def test_every_block_and_the_output_equal_the_original_at_every_timestep(paper_network, dtype):
    architecture, network = paper_network
    expected = original_activations(network, architecture, dtype)

    errors = relative_errors(unet_activations(as_unet(network, architecture), architecture, dtype), expected)

    assert errors.shape == (18 + 1, 5)
    assert errors.max() <= TOLERANCES[dtype]


@pytest.mark.parametrize(
    "wrong_config",
    [
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
        {"attention_head_dim": 8},
        {"attn_norm_num_groups": None},
        {"norm_eps": 1e-6},
    ],
    ids=str,
)
def test_a_wrong_setting_of_the_unet_is_seen_at_the_paper_s_blocks(narrow_network, wrong_config):
    architecture, network, expected = narrow_network

    unet = as_unet(network, architecture, **wrong_config)
    errors = relative_errors(unet_activations(unet, architecture, torch.float32), expected)

    assert errors[[6, 8, -1]].amax(dim=1).min() > TOLERANCES[torch.float32]


def test_the_wrong_attention_order_is_seen_at_the_paper_s_blocks(narrow_network):
    architecture, network, expected = narrow_network
    chunked = ADMArchitecture(**vars(architecture) | {"use_new_attention_order": True})

    errors = relative_errors(unet_activations(as_unet(network, chunked), chunked, torch.float32), expected)

    assert errors[[6, 8, -1]].amax(dim=1).min() > 0.05


@pytest.mark.parametrize(
    "flags",
    [
        {"use_new_attention_order": True},
        {"channel_mult": (1, 2, 3), "num_res_blocks": 3},
        {"channel_mult": (1, 2, 3), "num_res_blocks": 1},
        {"channel_mult": (1,)},
        {"attention_resolutions": (16, 8, 4)},
        {"attention_resolutions": (16, 4)},
        {"attention_resolutions": (2,)},
        {"resblock_updown": False},
        {"resblock_updown": False, "attention_resolutions": (16,)},
        {"use_scale_shift_norm": False},
        {"use_scale_shift_norm": False, "resblock_updown": False, "learn_sigma": False},
    ],
    ids=str,
)
def test_other_shapes_equal_the_original(flags):
    shape = {"image_size": 16, "num_channels": 32, "channel_mult": (1, 1, 2), "attention_resolutions": (8,)}
    architecture = ADMArchitecture(**shape | {"num_head_channels": 16} | flags)
    network = randomize(original_network(architecture))
    expected = original_activations(network, architecture, torch.float32)

    errors = relative_errors(unet_activations(as_unet(network, architecture), architecture, torch.float32), expected)

    assert errors.max() <= TOLERANCES[torch.float32]


def test_timestep_embeddings_are_equal_to_the_bit():
    time_proj = UNet2DModel(**paper_at_width(32).unet_config()).time_proj
    timesteps = torch.arange(1000)

    assert torch.equal(time_proj(timesteps), timestep_embedding(timesteps, 32))


def test_the_default_flags_are_the_paper_s_network():
    assert take_inventory(ADMArchitecture()) == Inventory(
        num_source_tensors=566, num_tensors=630, num_parameters=552_814_086
    )


@pytest.mark.slow
def test_the_paper_s_network_at_full_size_equals_the_original(tmp_path):
    if available_memory_gib() < 12 or shutil.disk_usage(tmp_path).free < 6 * 2**30:
        pytest.skip("needs 12 GiB of free memory and 6 GiB of disk")
    architecture, sample = ADMArchitecture(), torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    checkpoint, folder = tmp_path / "256x256_diffusion_uncond.pt", tmp_path / "adm"
    try:
        expected = full_size_original(architecture, checkpoint, sample)
        unet = convert_checkpoint(checkpoint, folder, architecture=architecture)
        modules = [block_module(unet, block) for block in (6, 8)]
        actual = record_until_last(unet, modules, sample, torch.tensor([100]))
        num_parameters = unet.num_parameters()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint.unlink(missing_ok=True)

    errors = relative_errors(actual, expected).flatten().tolist()

    assert num_parameters == 552_814_086
    assert [tuple(activation.shape) for activation in actual] == [(1, 512, 32, 32), (1, 512, 64, 64)]
    assert max(errors) <= TOLERANCES[torch.float32]


def full_size_original(architecture, checkpoint, sample):
    """Save a random network of the paper's size and return its blocks 6 and 8 at t = 100; it is freed on return."""
    with torch.device("meta"):
        network = original_network(architecture)
    network = randomize(network.to_empty(device="cpu"))
    torch.save(network.state_dict(), checkpoint)
    return record_until_last(
        network, [network.output_blocks[6], network.output_blocks[8]], sample, torch.tensor([100])
    )


class _LastBlockReachedError(Exception):
    pass


@torch.no_grad()
def record_until_last(network, modules, *inputs):
    """Return the outputs of the modules, without the costly half of the pass that comes after them."""

    def stop(*_call):
        raise _LastBlockReachedError

    outputs = []
    hooks = [module.register_forward_hook(lambda *call: outputs.append(call[-1])) for module in modules]
    hooks.append(modules[-1].register_forward_hook(stop))
    with pytest.raises(_LastBlockReachedError):
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return outputs


def available_memory_gib():
    """Free memory, reclaimable caches included where the system tells."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) / 2**20
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


# Nothing lost


def test_a_missing_tensor_is_refused(tiny_state_dict):
    del tiny_state_dict["middle_block.1.qkv.bias"]

    with pytest.raises(ValueError, match=r"1 missing \(middle_block\.1\.qkv\.bias\)"):
        convert_state_dict(tiny_state_dict, TINY)


def test_an_unexpected_tensor_and_one_of_another_shape_are_refused(tiny_state_dict):
    tiny_state_dict["betas"] = torch.zeros(1000)
    tiny_state_dict["out.2.bias"] = torch.zeros(3)

    with pytest.raises(
        ValueError, match=r"1 unexpected \(betas\); 1 of another shape \(out\.2\.bias: \(3,\) instead of \(6,\)\)"
    ):
        convert_state_dict(tiny_state_dict, TINY)


def test_a_class_conditional_checkpoint_is_refused_by_name(tiny_state_dict):
    tiny_state_dict["label_emb.weight"] = torch.zeros(1000, 128)

    with pytest.raises(ValueError, match=r"class-conditional \(`label_emb\.weight`\)"):
        convert_state_dict(tiny_state_dict, TINY)


def test_a_weight_that_float16_cannot_hold_is_refused(tiny_state_dict):
    tiny_state_dict["out.2.bias"][0] = 1e6

    with pytest.raises(
        ValueError, match=r"do not fit torch\.float16: 1 of 160 tensors are not finite \(conv_out\.bias\)"
    ):
        convert_state_dict(tiny_state_dict, TINY, torch.float16)


def test_a_dtype_nobody_asked_for_is_refused(tiny_state_dict):
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.float16, got torch\.bfloat16"):
        convert_state_dict(tiny_state_dict, TINY, torch.bfloat16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"image_size": 96}, r"`channel_mult` has a default for `image_size` \[64, 128, 256, 512\]"),
        ({"image_size": 512}, r"`channel_mult` must begin with 1: .* got \[0\.5, 1, 1, 2, 2, 4, 4\]"),
        ({"channel_mult": ()}, r"`channel_mult` must begin with 1: .* got \[\]"),
        ({"image_size": 48, "channel_mult": (1, 1, 2, 2, 4, 4)}, "`image_size` must be a multiple of 32 for 6 levels"),
        ({"num_channels": 48}, "multiple of 32 channels"),
        ({"num_res_blocks": 0}, "`num_res_blocks` must be at least 1, got 0"),
        ({"num_head_channels": -1}, "fixes the channels of a head, not the number of heads"),
        ({"num_head_channels": 96}, r"must divide the channels under attention, \[512, 1024\], got 96"),
        ({"attention_resolutions": (0,)}, "sides in pixels"),
    ],
    ids=str,
)
def test_an_architecture_that_diffusers_cannot_express_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        ADMArchitecture(**flags)


# Reading a file


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nowhere\.pt"):
        read_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>\n", b"PK\x03\x04 truncated", b"(lp0\n.", b"."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "page.pt"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"page\.pt is not a PyTorch checkpoint"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tiny_checkpoint):
    content = tiny_checkpoint.read_bytes()
    tiny_checkpoint.write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r"tiny\.pt is not a PyTorch checkpoint"):
        read_checkpoint(tiny_checkpoint)


def test_the_hash_is_checked_before_the_file_is_read(tmp_path):
    path = tmp_path / "page.pt"
    path.write_text("no checkpoint")

    with pytest.raises(ValueError, match=rf"has SHA-256 {hash_file(path)}, but {'0' * 64} was expected"):
        read_checkpoint(path, sha256="0" * 64)


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, write):
    path, target = tmp_path / "evil.pt", tmp_path / "owned"
    write({"weight": _Payload(target)}, path)

    with pytest.raises(ValueError, match=r"evil\.pt is not a PyTorch checkpoint of plain tensors"):
        read_checkpoint(path)

    assert not target.exists()


def test_a_wrapped_state_dict_is_refused_with_the_name_of_the_wrapper(tmp_path, tiny_state_dict):
    torch.save({"step": 3, "state_dict": tiny_state_dict}, tmp_path / "wrapped.pt")

    with pytest.raises(ValueError, match="wraps its tensors under state_dict"):
        read_checkpoint(tmp_path / "wrapped.pt")


@pytest.mark.parametrize(
    ("content", "got"), [([torch.zeros(1)], "got a list"), ({"step": 3}, "got step"), ({}, "got nothing")], ids=str
)
def test_anything_but_a_dictionary_of_tensors_is_refused(tmp_path, content, got):
    torch.save(content, tmp_path / "other.pt")

    with pytest.raises(ValueError, match=got):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, tiny_state_dict, value):
    tiny_state_dict["out.0.bias"][5] = value
    torch.save(tiny_state_dict, tmp_path / "damaged.pt")

    with pytest.raises(ValueError, match=r"damaged: 1 of 144 tensors are not finite \(out\.0\.bias\)"):
        read_checkpoint(tmp_path / "damaged.pt")


def test_a_checkpoint_from_before_zip_archives_is_read(tmp_path, tiny_state_dict):
    torch.save(tiny_state_dict, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    loaded = read_checkpoint(tmp_path / "old.pt")

    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_state_dict.items())


# Writing a folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_written_folder_holds_the_converted_network(tiny_checkpoint, tiny_state_dict, tmp_path, dtype):
    folder = tmp_path / "new" / "adm"

    returned = convert_checkpoint(tiny_checkpoint, folder, architecture=TINY, dtype=dtype, card="# A card\n")

    written = UNet2DModel.from_pretrained(folder / "unet", torch_dtype=dtype).state_dict()
    expected = convert_state_dict(tiny_state_dict, TINY, dtype)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert written.keys() == expected.keys() == returned.state_dict().keys()
    assert {tensor.dtype for tensor in written.values()} == {dtype}
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    assert (folder / "README.md").read_text() == "# A card\n"


@pytest.mark.parametrize(("learn_sigma", "variance_type"), [(True, "learned_range"), (False, "fixed_large")])
def test_the_scheduler_is_the_one_of_guided_diffusion(tmp_path, learn_sigma, variance_type):
    architecture = ADMArchitecture(**vars(TINY) | {"learn_sigma": learn_sigma})
    torch.save(original_network(architecture).state_dict(), tmp_path / "tiny.pt")

    convert_checkpoint(tmp_path / "tiny.pt", tmp_path / "adm", architecture=architecture)

    config = DDPMScheduler.from_pretrained(tmp_path / "adm" / "scheduler").config
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 1e-4, 0.02)
    assert (config.beta_schedule, config.prediction_type, config.variance_type) == ("linear", "epsilon", variance_type)


def test_an_output_folder_that_holds_anything_is_refused_and_left_alone(tiny_checkpoint, tmp_path):
    (tmp_path / "adm").mkdir()
    (tmp_path / "adm" / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="adm is not empty"):
        convert_checkpoint(tiny_checkpoint, tmp_path / "adm", architecture=TINY)

    assert [path.name for path in (tmp_path / "adm").iterdir()] == ["notes.txt"]


def test_an_interrupted_conversion_leaves_nothing(tiny_checkpoint, tmp_path, monkeypatch):
    def interrupt(_scheduler, _folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(DDPMScheduler, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tiny_checkpoint, tmp_path / "adm", architecture=TINY)

    assert list(tmp_path.iterdir()) == [tiny_checkpoint]


def test_a_bit_that_flips_on_disk_is_noticed_and_nothing_is_left(tiny_checkpoint, tmp_path, monkeypatch):
    save_pretrained = UNet2DModel.save_pretrained

    def save_damaged(unet, folder, **options):
        save_pretrained(unet, folder, **options)
        path = Path(folder) / "diffusion_pytorch_model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(UNet2DModel, "save_pretrained", save_damaged)
    with pytest.raises(OSError, match=r"1 of 160 tensors differ after writing"):
        convert_checkpoint(tiny_checkpoint, tmp_path / "adm", architecture=TINY)

    assert list(tmp_path.iterdir()) == [tiny_checkpoint]
