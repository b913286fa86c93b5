import copy
import gc
import hashlib
import json
import pickle
import shutil
import struct
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from transformers import AutoBackbone, AutoModel

from fedd_hf import FEDDBackbone, FEDDConfig, FEDDForImageClassification, FEDDForSegmentation
from fedd_hf.backbone_fedd import block_module
from fedd_hf.configuration_fedd import default_features
from fedd_hf.pretrained_fedd import make_noise
from fedd_hf.unet_files_fedd import (
    fetch_backbone,
    hash_backbone,
    locate_backbone,
    read_backbone_config,
    read_backbone_defaults,
    read_backbone_tensors,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"


def levels(*up_block_types, **changes):
    """UNet arguments with these up blocks, from deep to shallow, and the down blocks that belong to them."""
    down_block_types = [name.replace("Up", "Down") for name in reversed(up_block_types)]
    widths = [8, 16, 16, 24, 24][: len(up_block_types)]
    sizes = {
        "block_out_channels": widths,
        "up_block_types": list(up_block_types),
        "down_block_types": down_block_types,
    }
    return sizes | changes


ATTENTION, PLAIN, RESNET = "AttnUpBlock2D", "UpBlock2D", "ResnetUpsampleBlock2D"
ARCHITECTURES = {
    "one kind, plain": levels(PLAIN, PLAIN, PLAIN, upsample_type="conv", downsample_type="conv"),
    "one kind, attention": levels(ATTENTION, ATTENTION, ATTENTION),
    "one kind, resnet": levels(RESNET, RESNET),
    "two levels, attention last": levels(PLAIN, ATTENTION, upsample_type="conv", downsample_type="conv"),
    "one layer": levels(ATTENTION, RESNET, RESNET, layers_per_block=1),
    "three layers": levels(ATTENTION, RESNET, layers_per_block=3),
    "default time scale shift": levels(ATTENTION, PLAIN, RESNET, resnet_time_scale_shift="default"),
    "attention that upsamples by convolution": levels(ATTENTION, ATTENTION, PLAIN, upsample_type="conv"),
    "four levels, mixed": levels(RESNET, ATTENTION, PLAIN, ATTENTION),
    "five levels, like the embedded one": levels(ATTENTION, ATTENTION, RESNET, RESNET, RESNET),
    "no attention in the middle": levels(PLAIN, ATTENTION, add_attention=False),
}


def make_unet(config):
    """A whole UNet, frozen and channels last as well: torch sums in another order where it is not (1e-7)."""
    torch.manual_seed(0)
    unet = UNet2DModel(**copy.deepcopy(config.backbone_config)).eval().requires_grad_(False)
    return unet.to(memory_format=torch.channels_last)


def make_backbone(config, unet):
    """A backbone with the weights of `unet`, by name; what the backbone lacks is left out."""
    backbone = FEDDBackbone(config)
    weights = unet.state_dict()
    backbone.unet.load_state_dict({name: weights[name] for name in backbone.unet.state_dict()})
    return backbone


def whole_unet_features(unet, config, pixel_values, noise):
    """The slow way: the untruncated UNet, with a hook on each block, one pass per timestep."""
    alphas_cumprod, features = config.alphas_cumprod(), {block: [] for block in config.blocks}
    hooks = [
        block_module(unet, block).register_forward_hook(
            lambda _module, _args, output, block=block: features[block].append(output)
        )
        for block in config.blocks
    ]
    with torch.no_grad():
        for timestep in config.timesteps:
            alpha_bar = float(alphas_cumprod[timestep])
            unet(alpha_bar**0.5 * pixel_values + (1 - alpha_bar) ** 0.5 * noise, timestep)
    for hook in hooks:
        hook.remove()
    return [torch.cat(of_timesteps, dim=1) for of_timesteps in features.values()]


def read(backbone, pixel_values):
    return backbone(pixel_values).feature_maps


def is_channels_last(backbone):
    return all(
        parameter.is_contiguous(memory_format=torch.channels_last)
        for parameter in backbone.unet.parameters()
        if parameter.ndim == 4
    )


def assert_same_features(feature_maps, expected):
    """The same up to the order of sums: 1e-5 of the largest value."""
    for actual, wanted in zip(feature_maps, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def images(size, batch_size=2, seed=0):
    return torch.rand((batch_size, 3, size, size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Reading


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_truncated_backbone_gives_the_features_of_the_whole_unet_bit_for_bit(make_config, architecture):
    unet_changes = ARCHITECTURES[architecture]
    factor = 2 ** (len(unet_changes["block_out_channels"]) - 1)
    config = make_config(unet_changes, blocks=[0], image_size=2 * factor)
    unet, pixel_values = make_unet(config), images(2 * factor)

    for block in range(config.num_blocks):
        config.blocks = [block]
        backbone = make_backbone(config, unet)
        (feature_map,) = read(backbone, pixel_values)
        (expected,) = whole_unet_features(unet, config, pixel_values, backbone.noise)

        assert torch.equal(feature_map, expected), f"block {block}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_knows_the_shapes_of_the_feature_maps(make_config, architecture):
    config = make_config(ARCHITECTURES[architecture], blocks=[0], image_size=32)
    config.blocks = list(range(config.num_blocks))

    feature_maps = read(FEDDBackbone(config), images(32, batch_size=1))

    for block, channels, feature_map in zip(config.blocks, config.feature_channels, feature_maps, strict=True):
        assert feature_map.shape == (1, channels, config.block_size(block), config.block_size(block))
        assert channels == config.block_channels(block)


def test_each_block_has_one_map_with_the_channels_of_all_timesteps(make_config):
    config = make_config(blocks=[1, 2, 6], timesteps=[0, 50, 999])
    unet, pixel_values = make_unet(config), images(16)
    backbone = make_backbone(config, unet)

    feature_maps = read(backbone, pixel_values)

    expected = whole_unet_features(unet, config, pixel_values, backbone.noise)
    for actual, wanted in zip(feature_maps, expected, strict=True):
        assert torch.equal(actual, wanted)


def test_each_timestep_is_read_as_if_it_were_alone(make_config):
    both = make_config(blocks=[4], timesteps=[50, 250])
    unet, pixel_values = make_unet(both), images(16)

    (feature_map,) = read(make_backbone(both, unet), pixel_values)

    (alone,) = read(make_backbone(make_config(blocks=[4], timesteps=[250]), unet), pixel_values)
    assert torch.equal(feature_map.chunk(2, dim=1)[1], alone)


@pytest.mark.parametrize("image_size", [8, 24, 32])
def test_image_size_may_differ_from_the_sample_size_of_the_unet(make_config, image_size):
    config = make_config(blocks=[0, 5], image_size=image_size)
    unet, pixel_values = make_unet(config), images(image_size)
    backbone = make_backbone(config, unet)

    feature_maps = read(backbone, pixel_values)

    expected = whole_unet_features(unet, config, pixel_values, backbone.noise)
    for actual, wanted in zip(feature_maps, expected, strict=True):
        assert torch.equal(actual, wanted)


# The module of diffusers that ends each output block of guided-diffusion, for the paper's network (method.md 2.3).
PAPER_MODULES = """
up_blocks.0.attentions.0 up_blocks.0.attentions.1 up_blocks.0.upsamplers.0
up_blocks.1.attentions.0 up_blocks.1.attentions.1 up_blocks.1.upsamplers.0
up_blocks.2.attentions.0 up_blocks.2.attentions.1 up_blocks.2.upsamplers.0
up_blocks.3.resnets.0 up_blocks.3.resnets.1 up_blocks.3.upsamplers.0
up_blocks.4.resnets.0 up_blocks.4.resnets.1 up_blocks.4.upsamplers.0
up_blocks.5.resnets.0 up_blocks.5.resnets.1 up_blocks.5.resnets.2
"""


def test_blocks_of_the_paper_end_in_the_modules_of_its_table():
    with torch.device("meta"):
        unet = UNet2DModel(**FEDDConfig().backbone_config)
    names = {module: name for name, module in unet.named_modules()}

    assert [names[block_module(unet, block)] for block in range(18)] == PAPER_MODULES.split()


def test_what_runs_after_the_last_block_is_gone(make_config):
    backbone = FEDDBackbone(make_config(blocks=[1, 3]))

    (first, second) = backbone.unet.up_blocks
    assert (len(first.resnets), len(first.attentions), len(first.upsamplers)) == (3, 3, 1)
    assert (len(second.resnets), len(second.attentions), second.upsamplers) == (1, 1, None)
    assert not any(name.startswith("unet.conv_out") for name in backbone.state_dict())


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 16, 16), (3, 16, 16), (2, 3, 16, 8)])
def test_images_of_another_shape_are_refused(make_config, shape):
    backbone = FEDDBackbone(make_config())

    with pytest.raises(ValueError, match=r"shape \(batch_size, 3, 16, 16\), got .* FEDDImageProcessor\(size=16\)"):
        backbone(torch.zeros(shape))


def test_images_do_not_depend_on_the_batch_that_they_are_in(make_config):
    backbone, pixel_values = FEDDBackbone(make_config(timesteps=[50, 100])), images(16, batch_size=3)

    alone = zip(*(read(backbone, pixel_values[index : index + 1]) for index in range(3)), strict=True)

    assert_same_features(read(backbone, pixel_values), [torch.cat(feature_maps) for feature_maps in alone])


def hooked_modules(backbone):
    return [module for module in backbone.modules() if module._forward_hooks]


def test_hooks_are_installed_once_and_keep_nothing(make_config):
    backbone = FEDDBackbone(make_config(blocks=[1, 4], timesteps=[50, 100]))
    before = hooked_modules(backbone)

    feature_map = weakref.ref(read(backbone, images(16))[0])

    assert before == [block_module(backbone.unet, block) for block in (1, 4)]
    assert hooked_modules(backbone) == before
    assert feature_map() is None


def test_nothing_is_kept_after_an_error(make_config):
    backbone, pixel_values = FEDDBackbone(make_config(blocks=[1, 4])), images(16)
    expected = read(backbone, pixel_values)
    collected = []

    def fail(_module, _args, output):
        collected.append(weakref.ref(output))
        raise RuntimeError("out of memory")

    failing = block_module(backbone.unet, 1).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        backbone(pixel_values)
    failing.remove()

    gc.collect()
    assert collected[0]() is None
    assert all(torch.equal(*maps) for maps in zip(read(backbone, pixel_values), expected, strict=True))


def test_a_unet_that_runs_by_itself_collects_nothing(make_config):
    backbone = FEDDBackbone(make_config())

    backbone.unet(images(16), 100)

    assert len(read(backbone, images(16))) == len(backbone.config.blocks)


def test_threads_that_share_a_model_do_not_read_the_maps_of_one_another(make_config):
    backbone = FEDDBackbone(make_config(blocks=[1, 4], timesteps=[50, 100]))
    photos = [images(16, seed=seed) for seed in range(8)]
    expected = [read(backbone, photo) for photo in photos]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda photo: read(backbone, photo), photos * 4))

    for maps, wanted in zip(found, expected * 4, strict=True):
        assert all(torch.equal(*pair) for pair in zip(maps, wanted, strict=True))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_reads_its_own_maps(make_config, copy_of):
    backbone, pixel_values = FEDDBackbone(make_config()), images(16)
    copied = copy_of(backbone)
    expected = read(backbone, pixel_values)

    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()

    assert all(torch.equal(*maps) for maps in zip(read(copied, pixel_values), expected, strict=True))


# A backbone of transformers


def test_backbone_names_its_blocks_as_stages(make_config):
    backbone = FEDDBackbone(make_config(blocks=[1, 4], timesteps=[50, 100]))

    output = backbone(images(16), output_hidden_states=True)

    assert backbone.out_indices == backbone.config.blocks == [1, 4]
    assert backbone.out_features == ["block1", "block4"]
    assert backbone.channels == [feature_map.shape[1] for feature_map in output.feature_maps]
    assert output.hidden_states == output.feature_maps
    assert isinstance(backbone(images(16), return_dict=False), tuple)


def test_blocks_and_out_indices_are_one(make_config):
    config = make_config(blocks=[1, 4])

    config.out_indices = [0, -1]
    assert config.blocks == [0, 8]
    config.out_features = ["block2"]
    assert config.blocks == [2]
    assert not {"out_indices", "out_features", "stage_names"} & set(config.to_dict())
    with pytest.raises(ValueError, match="`blocks` must rise"):
        config.out_indices = [4, 1]


@pytest.mark.parametrize("loader", [FEDDBackbone, AutoModel])
@pytest.mark.parametrize("save_backbone", [True, False], ids=["self-contained", "heads-only"])
def test_backbone_of_a_model_opens_by_itself(tiny_backbone, tmp_path, loader, save_backbone):
    model = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[1, 4], timesteps=[50], image_size=16)
    model.config.save_backbone = save_backbone
    model.save_pretrained(tmp_path / "model")

    backbone = loader.from_pretrained(tmp_path / "model")

    assert isinstance(backbone, FEDDBackbone)
    for feature_map, wanted in zip(read(backbone, images(16)), read(model.backbone, images(16)), strict=True):
        assert torch.equal(feature_map, wanted)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("source", ["embedded", "folder", "bare"])
def test_backbone_opens_what_diffusers_writes(tiny_backbone, source):
    path = {"embedded": "embedded", "folder": tiny_backbone, "bare": tiny_backbone / "unet"}[source]

    backbone = FEDDBackbone.from_pretrained(path, blocks=[2], timesteps=[0], image_size=16)

    (expected,) = read(FEDDForSegmentation.from_backbone(path, **features_of(backbone)).backbone, images(16))
    assert torch.equal(read(backbone, images(16))[0], expected)


def features_of(backbone):
    return {name: getattr(backbone.config, name) for name in ("blocks", "timesteps", "image_size")}


def test_a_backbone_saved_alone_takes_heads(tiny_backbone, tmp_path):
    backbone = FEDDBackbone.from_pretrained(tiny_backbone, blocks=[2], timesteps=[0], image_size=16)
    backbone.save_pretrained(tmp_path)

    model = FEDDForSegmentation.from_pretrained(tmp_path)

    assert torch.equal(read(model.backbone, images(16))[0], read(backbone, images(16))[0])
    assert torch.equal(read(AutoModel.from_pretrained(tmp_path), images(16))[0], read(backbone, images(16))[0])


def test_auto_backbone_builds_one_from_a_config(make_config):
    backbone = AutoBackbone.from_config(make_config(blocks=[1, 4]))

    assert isinstance(backbone, FEDDBackbone)
    assert [feature_map.shape[1] for feature_map in read(backbone, images(16))] == backbone.channels


@pytest.mark.slow
def test_backbone_compiles_into_one_graph(make_config):
    backbone, pixel_values = FEDDBackbone(make_config(timesteps=[50, 100])), images(16)

    compiled = torch.compile(backbone, backend="eager", fullgraph=True)

    for actual, expected in zip(read(compiled, pixel_values), read(backbone, pixel_values), strict=True):
        assert torch.equal(actual, expected)


# Memory format


def test_feature_maps_are_channels_last(make_config):
    for feature_map in read(FEDDBackbone(make_config()), images(16)):
        assert feature_map.is_contiguous(memory_format=torch.channels_last)


def test_weights_that_stay_contiguous_give_the_same_features(make_config):
    backbone, pixel_values = FEDDBackbone(make_config()), images(16)
    expected = read(backbone, pixel_values)

    backbone.unet.to(memory_format=torch.contiguous_format)  # as where accelerate reads them from disk

    for feature_map, wanted in zip(read(backbone, pixel_values), expected, strict=True):
        assert torch.equal(feature_map, wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_channels_last_backbone_gives_the_features_of_a_contiguous_unet(make_config, architecture):
    config = make_config(ARCHITECTURES[architecture], blocks=[0], timesteps=[50], image_size=32)
    config.blocks = list(range(config.num_blocks))
    unet = make_unet(config).to(memory_format=torch.contiguous_format)
    backbone, pixel_values = make_backbone(config, unet), images(32)

    feature_maps = read(backbone, pixel_values)

    assert unet.conv_in.weight.is_contiguous()
    assert not backbone.unet.conv_in.weight.is_contiguous()
    assert_same_features(feature_maps, whole_unet_features(unet, config, pixel_values, backbone.noise))


def test_backbone_is_channels_last_however_it_is_loaded(tiny_backbone, make_config, tmp_path):
    model = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[2], image_size=16)
    model.save_pretrained(tmp_path)

    assert is_channels_last(FEDDBackbone(make_config()))
    assert is_channels_last(model.backbone)
    assert is_channels_last(FEDDForSegmentation.from_pretrained(tmp_path).backbone)
    assert is_channels_last(FEDDForSegmentation.from_pretrained(tmp_path, dtype=torch.bfloat16).backbone)


@pytest.mark.parametrize(
    "change", [copy.deepcopy, torch.nn.Module.half, torch.nn.Module.double, torch.nn.Module.train]
)
def test_backbone_stays_channels_last(make_config, change):
    assert is_channels_last(change(FEDDBackbone(make_config())))


def test_channels_last_weights_are_stored_bit_for_bit(tiny_backbone, tmp_path):
    model = FEDDForSegmentation.from_backbone(tiny_backbone, blocks=[8], image_size=16)

    model.save_pretrained(tmp_path / "first")
    FEDDForSegmentation.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")

    stored = read_safetensors(tmp_path / "first" / "model.safetensors")
    for name, tensor in read_safetensors(tiny_backbone / "unet" / WEIGHTS).items():
        assert name.startswith(("conv_out", "conv_norm_out")) or stored[f"backbone.unet.{name}"] == tensor
    first, second = (tmp_path / folder / "model.safetensors" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert model.config.backbone_sha256 == hash_backbone(tiny_backbone)


# Frozen


def test_backbone_stays_frozen_in_train_mode(make_config):
    backbone = FEDDBackbone(make_config({"dropout": 0.5}))

    backbone.train()

    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_backbone_in_a_training_model_stays_in_evaluation_mode(segmenter):
    segmenter.train()

    assert segmenter.decode_head.training
    assert not any(module.training for module in segmenter.backbone.modules())


def test_no_gradient_reaches_the_images(make_config):
    pixel_values = images(16).requires_grad_(True)

    feature_maps = read(FEDDBackbone(make_config()), pixel_values)

    assert not any(feature_map.requires_grad for feature_map in feature_maps)


# Noise


def test_noise_is_the_draw_of_a_cpu_generator(make_config):
    expected = torch.randn(3, 16, 16, generator=torch.Generator("cpu").manual_seed(7))

    assert torch.equal(FEDDBackbone(make_config(noise_seed=7)).noise, expected)


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()

    make_noise(seed=3, image_size=8)

    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_the_same_for_each_image(make_config):
    backbone = FEDDBackbone(make_config())
    image = images(16, batch_size=1)

    for feature_map in read(backbone, image.repeat(2, 1, 1, 1)):
        assert torch.equal(feature_map[0], feature_map[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_noise_survives_a_cast_of_the_model(make_config, dtype):
    backbone = FEDDBackbone(make_config())

    backbone.to(dtype)

    assert backbone.unet.dtype == dtype
    assert backbone.noise.dtype == torch.float32
    assert torch.equal(backbone.noise, make_noise(seed=0, image_size=16))


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_noise_survives_casts_of_a_whole_model(segmenter, cast):
    getattr(segmenter, cast)()

    assert segmenter.backbone.noise.dtype == torch.float32
    assert torch.equal(segmenter.backbone.noise, make_noise(seed=0, image_size=16))


def test_noise_moves_with_the_model(make_config):
    assert FEDDBackbone(make_config()).to("meta").noise.is_meta


@pytest.mark.parametrize("timestep", [0, 1, 100, 500, 999])
def test_noisy_sample_is_that_of_diffusers(make_config, timestep):
    config = make_config(timesteps=[timestep])
    backbone, pixel_values = FEDDBackbone(config), images(16)

    noisy = backbone.add_noise(pixel_values, backbone.alphas_cumprod[0])

    noise = backbone.noise.expand_as(pixel_values)
    expected = DDPMScheduler().add_noise(pixel_values, noise, torch.tensor([timestep, timestep]))
    # diffusers keeps alpha-bar in float32; at t = 0 that alone moves sqrt(1 - alpha-bar) by 1e-6 (method.md 2.7).
    torch.testing.assert_close(noisy, expected, rtol=0, atol=5e-6)


def test_noisy_sample_is_mixed_in_float32_and_then_cast(make_config):
    backbone, pixel_values = FEDDBackbone(make_config()), images(16)
    expected = backbone.add_noise(pixel_values, 0.3).to(torch.bfloat16)

    noisy = backbone.to(torch.bfloat16).add_noise(pixel_values, 0.3)

    assert torch.equal(noisy, expected)


def test_features_in_float64_are_those_in_float32(make_config):
    config = make_config(timesteps=[100])
    backbone, pixel_values = FEDDBackbone(config), images(16)
    in_float32 = read(backbone, pixel_values)

    in_float64 = read(backbone.double(), pixel_values)

    for actual, wanted in zip(in_float64, in_float32, strict=True):
        torch.testing.assert_close(actual.float(), wanted, rtol=1e-4, atol=1e-5)  # rounding of float32, 30 layers deep


# Where it comes from


def test_folder_describes_its_unet_and_schedule(tiny_backbone, tiny_unet_config):
    fields = read_backbone_config(tiny_backbone)

    assert fields["backbone_config"].items() >= tiny_unet_config.items()
    assert (fields["num_train_timesteps"], fields["beta_start"], fields["beta_end"]) == (1000, 1e-4, 0.02)
    assert fields["beta_schedule"] == "linear"


def test_schedule_of_the_backbone_becomes_that_of_the_model(backbone_copy):
    DDPMScheduler(500, 1e-3, 0.01, "scaled_linear").save_pretrained(backbone_copy / "scheduler")

    model = FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2], timesteps=[499], image_size=16)

    assert model.config.num_train_timesteps == 500
    assert model.config.beta_schedule == "scaled_linear"
    assert model.backbone.alphas_cumprod == pytest.approx(
        [DDPMScheduler(500, 1e-3, 0.01, "scaled_linear").alphas_cumprod[499].item()]
    )


def test_bare_unet_without_a_scheduler_is_read_with_the_usual_schedule(tiny_backbone, tmp_path):
    shutil.copytree(tiny_backbone / "unet", tmp_path / "bare")

    model = FEDDForSegmentation.from_backbone(tmp_path / "bare", blocks=[2], image_size=16)

    assert (model.config.beta_schedule, model.config.num_train_timesteps) == ("linear", 1000)


@pytest.mark.parametrize("change", [{"trained_betas": [0.1, 0.2]}, {"rescale_betas_zero_snr": True}])
def test_schedule_that_cannot_be_recomputed_is_refused(backbone_copy, change):
    path = backbone_copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(ValueError, match="trained or rescaled betas"):
        read_backbone_config(backbone_copy)


def test_missing_schedule_is_assumed_to_be_linear_and_said_so(tiny_backbone, tmp_path, messages):
    shutil.copytree(tiny_backbone / "unet", tmp_path / "bare")
    given = {"blocks": [2], "timesteps": [100], "image_size": 16}

    FEDDForSegmentation.from_backbone(tmp_path / "bare", **given)

    (message,) = messages()
    assert "no noise schedule beside the UNet" in message


@pytest.mark.parametrize(
    ("model", "expected"),
    [(FEDDForSegmentation, ([3, 5], [100])), (FEDDForImageClassification, ([3], [0]))],
)
def test_a_unet_without_defaults_is_read_by_its_shape_and_said_so(backbone_copy, messages, model, expected):
    config = model.from_backbone(backbone_copy, pooled_size=64).config

    assert (config.blocks, config.timesteps) == expected
    assert config.image_size == 16  # the sample size of the UNet
    (message,) = messages()
    assert all(f"{name}={getattr(config, name)}" in message for name in ("blocks", "timesteps", "image_size"))


@pytest.mark.parametrize(
    ("levels_of", "sample_size", "expected"),
    [
        (6, 256, ([6, 8], 256)),
        (5, 64, ([3, 5], 64)),
        (4, 32, ([3, 5], 32)),
        (2, (30, 20), ([0, 2], 30)),
        (1, None, ([0, 2], 256)),
    ],
)
def test_defaults_follow_the_paper_at_its_depth(make_config, levels_of, sample_size, expected):
    unet = levels(*[RESNET] * levels_of, block_out_channels=[8] * levels_of, sample_size=sample_size)
    fields = {"backbone_config": make_config(unet, blocks=[0], image_size=32).backbone_config}

    defaults = default_features(fields, "segmentation")

    assert (defaults["blocks"], defaults["image_size"]) == expected


def test_variant_of_the_weights_is_read_where_it_is_asked_for(backbone_copy, tmp_path):
    (backbone_copy / "unet" / WEIGHTS).rename(backbone_copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    given = {"blocks": [2], "timesteps": [100], "image_size": 16}

    with pytest.raises(FileNotFoundError, match=r"Type variant='fp16'"):
        FEDDForSegmentation.from_backbone(backbone_copy, **given)
    model = FEDDForSegmentation.from_backbone(backbone_copy, variant="fp16", save_backbone=False, **given)

    model.save_pretrained(tmp_path / "heads")
    loaded = FEDDForSegmentation.from_pretrained(tmp_path / "heads")
    assert torch.equal(read(loaded.backbone, images(16))[0], read(model.backbone, images(16))[0])


def test_embedded_backbone_is_a_pipeline_of_diffusers():
    pipeline = DDPMPipeline.from_pretrained(locate_backbone("embedded"))

    assert isinstance(pipeline.unet, UNet2DModel)


def test_defaults_beside_the_backbone_are_used(backbone_copy):
    defaults = {
        "segmentation": {"blocks": [1, 3], "timesteps": [10], "image_size": 8},
        "classification": {"blocks": [5]},
    }
    (backbone_copy / "fedd_defaults.json").write_text(json.dumps(defaults))

    config = FEDDForSegmentation.from_backbone(backbone_copy).config

    assert (config.blocks, config.timesteps, config.image_size) == ([1, 3], [10], 8)


def test_defaults_beside_the_backbone_can_be_overridden(backbone_copy):
    defaults = {"segmentation": {"blocks": [1, 3], "timesteps": [10], "image_size": 8}}
    (backbone_copy / "fedd_defaults.json").write_text(json.dumps(defaults))

    config = FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2]).config

    assert (config.blocks, config.timesteps, config.image_size) == ([2], [10], 8)


def test_backbone_without_defaults_has_none(tiny_backbone):
    assert read_backbone_defaults(tiny_backbone, "segmentation") == {}


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="backbone folder '.*nowhere' does not exist"):
        locate_backbone(str(tmp_path / "nowhere"))


def test_folder_without_a_unet_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no diffusers UNet: neither unet/config.json nor config.json"):
        read_backbone_config(tmp_path)


def test_unreachable_repository_is_an_error_that_names_it():
    with pytest.raises(OSError, match="backbone 'fedd/nowhere' .* could not be loaded"):
        fetch_backbone("fedd/nowhere")


def test_unet_of_another_kind_is_refused_by_name(backbone_copy):
    path = backbone_copy / "unet" / "config.json"
    types = ["CrossAttnUpBlock2D"] * 3
    path.write_text(json.dumps(json.loads(path.read_text()) | {"up_block_types": types}))

    with pytest.raises(ValueError, match=r"\['CrossAttnUpBlock2D'\] cannot be read"):
        FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2], image_size=16)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.safetensors"])
def test_folder_without_safetensors_of_the_unet_is_refused(backbone_copy, name):
    (backbone_copy / "unet" / WEIGHTS).rename(backbone_copy / "unet" / name)

    with pytest.raises(FileNotFoundError, match=rf"holds no {WEIGHTS}. FEDD reads safetensors only, no pickles"):
        FEDDForSegmentation.from_backbone(backbone_copy, blocks=[2], image_size=16)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_damaged_safetensors_are_refused_by_name(backbone_copy, content):
    path = backbone_copy / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)

    with pytest.raises(ValueError, match=rf"{WEIGHTS} is damaged"):
        hash_backbone(backbone_copy)


def test_backbone_that_lacks_a_tensor_is_refused(backbone_copy):
    tensors = read_safetensors(backbone_copy / "unet" / WEIGHTS)
    del tensors["conv_in.bias"]
    write_safetensors(backbone_copy / "unet" / WEIGHTS, tensors)

    with pytest.raises(ValueError, match=r"lacks 1 tensors: \['conv_in.bias'\]"):
        read_backbone_tensors(backbone_copy)


# Hash


def read_safetensors(path):
    """Name -> (dtype, shape, bytes), by the letter of the format: a length, a JSON header, the bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], content[8 + length + start : 8 + length + end])
    return tensors


def write_safetensors(path, tensors, metadata=None):
    header, offset = {"__metadata__": {"format": "pt"} | (metadata or {})}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    encoded = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(encoded)) + encoded + b"".join(content for _, _, content in tensors.values())
    )


def slow_hash(tensors):
    content = b""
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        content += json.dumps([name, dtype, shape]).encode() + data
    return hashlib.sha256(content).hexdigest()


def test_hash_is_that_of_names_dtypes_shapes_and_bytes(tiny_backbone):
    assert hash_backbone(tiny_backbone) == slow_hash(read_safetensors(tiny_backbone / "unet" / WEIGHTS))


def test_hash_of_a_half_precision_backbone_is_that_of_its_bytes(tiny_backbone, tmp_path):
    UNet2DModel.from_pretrained(tiny_backbone / "unet").to(torch.bfloat16).save_pretrained(tmp_path)

    assert hash_backbone(tmp_path) == slow_hash(read_safetensors(tmp_path / WEIGHTS))


def test_hash_changes_with_one_byte(backbone_copy, tiny_backbone):
    path = backbone_copy / "unet" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    assert hash_backbone(backbone_copy) != hash_backbone(tiny_backbone)


def test_hash_does_not_depend_on_the_order_and_the_metadata_of_the_file(backbone_copy, tiny_backbone):
    tensors = read_safetensors(backbone_copy / "unet" / WEIGHTS)
    write_safetensors(backbone_copy / "unet" / WEIGHTS, dict(reversed(tensors.items())), {"author": "somebody"})

    assert hash_backbone(backbone_copy) == hash_backbone(tiny_backbone)


def test_hash_does_not_depend_on_sharding(tiny_backbone, tmp_path):
    UNet2DModel.from_pretrained(tiny_backbone / "unet").save_pretrained(tmp_path, max_shard_size="100KB")

    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert hash_backbone(tmp_path) == hash_backbone(tiny_backbone)


@pytest.mark.parametrize(
    "name",
    ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors", "ema.safetensors"],
)
def test_other_files_in_the_folder_do_not_matter(backbone_copy, tiny_backbone, name):
    tensor = ("F32", [1], b"\0\0\0\0")
    write_safetensors(backbone_copy / "unet" / name, {"something_else": tensor})
    (backbone_copy / "unet" / "README.md").write_text("Read me.")
    (backbone_copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")

    assert hash_backbone(backbone_copy) == hash_backbone(tiny_backbone)


@pytest.mark.parametrize("change", ["name", "dtype", "shape"])
def test_hash_covers_more_than_bytes(backbone_copy, tiny_backbone, change):
    tensors = read_safetensors(backbone_copy / "unet" / WEIGHTS)
    dtype, shape, content = tensors.pop("conv_in.bias")
    changed = {"name": (dtype, shape), "dtype": ("I32", shape), "shape": (dtype, [*shape, 1])}
    name = "conv_in.bias_" if change == "name" else "conv_in.bias"
    write_safetensors(backbone_copy / "unet" / WEIGHTS, tensors | {name: (*changed[change], content)})

    assert hash_backbone(backbone_copy) != hash_backbone(tiny_backbone)
