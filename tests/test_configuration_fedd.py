import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from transformers import AutoConfig

from fedd_hf import FEDDConfig

SHA256 = "ab" * 32
COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("unet", "fields"),
    [
        ({}, {}),
        ({}, {"num_labels": 2, "blocks": [4]}),
        ({"layers_per_block": 1}, {"blocks": [0, 5], "timesteps": [0, 999]}),
        ({"layers_per_block": 3}, {"blocks": (11,), "voting": "mean"}),
        ({}, {"id2label": {0: "rest", 1: "lesion"}, "beta_schedule": "scaled_linear"}),
        (
            {},
            {"backbone": "fedd/ddpm", "backbone_revision": COMMIT, "backbone_sha256": SHA256, "save_backbone": False},
        ),
    ],
)
def test_config_survives_a_round_trip_through_json(make_config, unet, fields):
    config = make_config(unet, **fields)

    again = FEDDConfig.from_dict(json.loads(config.to_json_string()))

    assert again.to_json_string(use_diff=False) == config.to_json_string(use_diff=False)


def test_config_survives_a_round_trip_through_a_folder(make_config, tmp_path):
    config = make_config({"layers_per_block": 3}, num_labels=2, blocks=[9])

    config.save_pretrained(tmp_path)

    again = AutoConfig.from_pretrained(tmp_path)
    for name in (
        "backbone_config",
        "blocks",
        "timesteps",
        "id2label",
        "label2id",
        "classifier_dropout",
        "save_backbone",
    ):
        assert getattr(again, name) == getattr(config, name)


def test_defaults_are_the_segmentation_model_of_the_paper():
    config = FEDDConfig()

    assert config.blocks == [6, 8]
    assert config.timesteps == [100]
    assert config.feature_channels == (512, 512)
    assert (config.image_size, config.ensemble_size, config.noise_seed) == (256, 5, 0)


@pytest.mark.parametrize(
    ("num_labels", "labels"),
    [
        (5, ["background", "lesion", "marker", "ruler", "skin"]),
        (2, ["benign", "malignant"]),
        (3, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ],
)
def test_labels_follow_the_task(make_config, num_labels, labels):
    config = make_config(num_labels=num_labels)

    assert config.id2label == dict(enumerate(labels))
    assert config.label2id == {label: index for index, label in enumerate(labels)}
    assert config.num_labels == num_labels


def test_two_configs_do_not_share_their_lists():
    first, second = FEDDConfig(), FEDDConfig()

    first.blocks.append(9)
    first.backbone_config["sample_size"] = 64

    assert second.blocks == [6, 8]
    assert second.backbone_config["sample_size"] == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": [9]}, r"`blocks` must rise within \[0, 8\] .* got \[9\]"),
        ({"blocks": [-1]}, r"`blocks` must rise within \[0, 8\]"),
        ({"blocks": [4, 2]}, r"`blocks` must rise .* got \[4, 2\]"),
        ({"blocks": [2, 2]}, r"`blocks` must rise .* got \[2, 2\]"),
        ({"blocks": []}, r"`blocks` must rise .* got \[\]"),
        ({"blocks": [True]}, r"`blocks` must rise .* got \[True\]"),
        ({"blocks": ["2"]}, r"`blocks` must rise .* got \['2'\]"),
        ({"blocks": [2.0]}, r"`blocks` must rise .* got \[2.0\]"),
        ({"blocks": 4}, r"`blocks` must be a list, got 4. Type `blocks=\[4\]`"),
        ({"timesteps": [1000]}, r"`timesteps` must rise within \[0, 999\] .* got \[1000\]"),
        ({"timesteps": [100, 50]}, r"`timesteps` must rise .* got \[100, 50\]"),
        ({"image_size": 18}, r"`image_size` must be a multiple of 4, .* got 18"),
        ({"image_size": "16"}, r"`image_size` must be a multiple of 4, .* got '16'"),
        ({"image_size": True}, r"`image_size` must be a multiple of 4, .* got True"),
        ({"noise_seed": -1}, r"`noise_seed` must be an integer of at least 0, got -1"),
        ({"noise_seed": True}, r"`noise_seed` must be an integer of at least 0, got True"),
        ({"noise_seed": "0"}, r"`noise_seed` must be an integer of at least 0, got '0'"),
        ({"num_train_timesteps": 0}, r"`num_train_timesteps` must be a positive integer, got 0"),
        ({"beta_start": 0.0}, r"0 < beta_start <= beta_end < 1, got 0.0 and 0.02"),
        ({"beta_start": "1e-4"}, r"0 < beta_start <= beta_end < 1, got '1e-4' and 0.02"),
        ({"beta_start": 0.03}, r"0 < beta_start <= beta_end < 1, got 0.03 and 0.02"),
        ({"beta_schedule": "sigmoid"}, r"`beta_schedule` must be one of .*'squaredcos_cap_v2'.* got 'sigmoid'"),
        ({"voting": "loudest"}, r"`voting` must be one of \['majority', 'mean'\], got 'loudest'"),
        ({"ensemble_size": 0}, r"`ensemble_size` must be a positive integer, got 0"),
        ({"ensemble_size": True}, r"`ensemble_size` must be a positive integer, got True"),
        ({"pooled_size": "512"}, r"`pooled_size` must be a positive integer, got '512'"),
        ({"hidden_sizes": []}, r"`hidden_sizes` must be positive integers, got \[\]"),
        ({"hidden_sizes": [128, True]}, r"`hidden_sizes` must be positive integers, got \[128, True\]"),
        ({"classifier_dropout": [0.5]}, r"`classifier_dropout` must hold 2 rates in \[0, 1\), got \[0.5\]"),
        ({"classifier_dropout": [0.5, 1.0]}, r"`classifier_dropout` must hold 2 rates in \[0, 1\)"),
        ({"classifier_dropout": [0.5, "0"]}, r"`classifier_dropout` must hold 2 rates in \[0, 1\)"),
        ({"semantic_loss_ignore_index": "no"}, r"`semantic_loss_ignore_index` must be an integer, got 'no'"),
        ({"id2label": {0: "skin", 2: "lesion"}}, r"`id2label` must name the classes 0, 1, 2"),
        ({"id2label": {0: "skin", 1: "skin"}}, r"`id2label` must name the classes .* once each"),
        ({"num_labels": 0}, r"`id2label` must name the classes .* got {}"),
        ({"save_backbone": False}, r"`save_backbone=False` needs a `backbone` .* got None"),
        ({"save_backbone": "no"}, r"`save_backbone` must be True or False, got 'no'"),
    ],
)
def test_field_outside_the_method_is_refused(make_config, fields, message):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        (
            {"up_block_types": ["AttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]},
            r"\['CrossAttnUpBlock2D'\] cannot be",
        ),
        (
            {"up_block_types": ["UpBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"]},
            r"'AttnSkipUpBlock2D', 'SkipUpBlock2D'",
        ),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D", "DownBlock2D"]}, r"\['SkipDownBlock2D'\] cannot be"),
        ({"up_block_types": ["UpBlock2D"]}, r"one up block, one down block and one width per level"),
        ({"layers_per_block": 0}, r"a positive `layers_per_block`"),
        ({"num_class_embeds": 10}, r"class-conditional \(`num_class_embeds`\)"),
        ({"class_embed_type": "timestep"}, r"class-conditional"),
        ({"time_embedding_type": "fourier"}, r"time_embedding_type='fourier'"),
        ({"center_input_sample": True}, r"center_input_sample=True"),
        ({"in_channels": 1}, r"UNets of RGB pixels; this one has in_channels=1"),
    ],
)
def test_unet_that_cannot_be_read_is_refused(make_config, unet, message):
    with pytest.raises(ValueError, match=message):
        make_config(unet)


@pytest.mark.parametrize("missing", ["up_block_types", "down_block_types", "block_out_channels", "layers_per_block"])
def test_backbone_config_without_the_shape_of_the_network_is_refused(tiny_unet_config, missing):
    del tiny_unet_config[missing]

    with pytest.raises(ValueError, match=rf"\['{missing}'\] is missing"):
        FEDDConfig(backbone_config=tiny_unet_config)


def test_backbone_config_that_is_no_dictionary_is_refused():
    with pytest.raises(ValueError, match="`backbone_config` must be a dictionary, got str"):
        FEDDConfig(backbone_config="google/ddpm-cat-256")


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:-1], COMMIT.replace("0", "g")])
def test_repository_backbone_without_a_commit_is_refused(make_config, revision):
    with pytest.raises(ValueError, match="`backbone_revision` must be a commit of 40 hexadecimal digits"):
        make_config(backbone="fedd/ddpm", backbone_revision=revision, backbone_sha256=SHA256)


@pytest.mark.parametrize(
    ("backbone", "revision"), [("fedd/ddpm", COMMIT), ("embedded", None), ("../ddpm", None), ("./ddpm", None)]
)
@pytest.mark.parametrize("sha256", [None, "abc", SHA256.upper()])
def test_backbone_without_a_hash_is_refused(make_config, backbone, revision, sha256):
    with pytest.raises(ValueError, match="needs `backbone_sha256`, 64 hexadecimal digits"):
        make_config(backbone=backbone, backbone_revision=revision, backbone_sha256=sha256)


@pytest.mark.parametrize(
    ("config_json", "message"),
    [
        ({"model_type": "segformer", "num_labels": 5}, "configuration of a 'segformer', not of a 'fedd' model"),
        (
            {"_class_name": "UNet2DModel", "layers_per_block": 2},
            r"'UNet2DModel'.* type FEDDForSegmentation.from_backbone",
        ),
    ],
)
def test_configuration_of_another_model_is_refused(tmp_path, config_json, message):
    (tmp_path / "config.json").write_text(json.dumps(config_json))

    with pytest.raises(ValueError, match=message):
        FEDDConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedule_is_that_of_diffusers(make_config, schedule):
    config = make_config(beta_schedule=schedule, beta_start=2e-4, beta_end=0.03)
    scheduler = DDPMScheduler(1000, beta_schedule=schedule, beta_start=2e-4, beta_end=0.03)

    # diffusers multiplies a thousand float32 factors: each may add an error of 6e-8, relative to the result.
    np.testing.assert_allclose(config.alphas_cumprod(), scheduler.alphas_cumprod.double(), rtol=1000 * 6e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("timestep", "signal", "noise"),
    [
        (0, 0.999949999, 0.010000000),
        (50, 0.984861154, 0.173345050),
        (100, 0.946119227, 0.323818482),
        (250, 0.722096275, 0.691792577),
        (500, 0.278920523, 0.960314189),
        (999, 0.006352818, 0.999979821),
    ],
)
def test_schedule_has_the_values_of_guided_diffusion(timestep, signal, noise):
    alpha_bar = FEDDConfig().alphas_cumprod()[timestep]

    assert alpha_bar**0.5 == pytest.approx(signal, abs=5e-10)  # method.md 3.2 prints nine digits
    assert (1.0 - alpha_bar) ** 0.5 == pytest.approx(noise, abs=5e-10)


def test_schedule_does_not_depend_on_the_default_dtype():
    expected = FEDDConfig().alphas_cumprod()

    torch.set_default_dtype(torch.bfloat16)
    try:
        actual = FEDDConfig().alphas_cumprod()
    finally:
        torch.set_default_dtype(torch.float32)

    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("block", "channels", "size"),
    [
        *[(block, 1024, 8) for block in (0, 1)],
        *[(block, 1024, 16) for block in (2, 3, 4)],
        (5, 1024, 32),
        *[(block, 512, 32) for block in (6, 7)],
        *[(block, 512, 64) for block in (8, 9, 10)],
        (11, 512, 128),
        *[(block, 256, 128) for block in (12, 13)],
        *[(block, 256, 256) for block in (14, 15, 16, 17)],
    ],
)
def test_blocks_of_the_paper_have_the_shapes_of_its_table(block, channels, size):
    config = FEDDConfig()

    assert (config.block_channels(block), config.block_size(block)) == (channels, size)


# Fields that FEDDConfig does not have


def write_config(config, folder, **fields):
    """Save a configuration, with other fields laid into its file."""
    config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize("value", ["x", None, False, ["a", 1]], ids=str)
@pytest.mark.parametrize("loader", [FEDDConfig, AutoConfig])
def test_attribute_that_a_user_adds_is_saved_and_read_back(make_config, tmp_path, value, loader, messages):
    config = make_config(voting="mean")
    config.lab_notes = value

    config.save_pretrained(tmp_path)

    again = loader.from_pretrained(tmp_path)
    assert again.lab_notes == value
    assert again.voting == "mean"
    assert messages() == []


def test_attribute_that_a_user_adds_lasts_through_several_savings(make_config, tmp_path):
    config = make_config()
    config.lab_notes = "x"

    for number in range(3):
        config.save_pretrained(tmp_path / str(number))
        config = FEDDConfig.from_pretrained(tmp_path / str(number))

    assert config.lab_notes == "x"
    assert json.loads((tmp_path / "2" / "config.json").read_text())["user_attributes"] == {"lab_notes": "x"}


def test_attributes_that_users_add_are_not_shared(make_config):
    config = make_config()
    config.lab_notes = "x"

    assert not hasattr(make_config(), "lab_notes")
    assert not hasattr(FEDDConfig, "lab_notes")


def test_unknown_fields_are_named_in_one_warning_and_not_set(make_config, tmp_path, messages):
    folder = write_config(make_config(), tmp_path, lab_notes="x", clinic={"a": {"impl": "b.C"}})

    config = FEDDConfig.from_pretrained(folder)

    (warning,) = messages()
    assert warning.endswith("they are ignored: ['clinic', 'lab_notes'].")
    assert not hasattr(config, "lab_notes")
    assert not hasattr(config, "clinic")


ACTED_ON = {
    "quantization_config": {"quant_method": "torchao"},
    "attn_implementation": "somebody/kernel",
    "_attn_implementation": "somebody/kernel",
    "_attn_implementation_internal": "somebody/kernel",
    "_experts_implementation": "somebody/kernel",
    "kernel_config": {"somebody/kernel": "x"},
    "custom_pipelines": {"image-segmentation": {"impl": "code.Pipeline"}},
    "transformers_weights": "other.safetensors",
    "adapter_kwargs": {"_adapter_model_path": "somebody/else"},
    "base_model_tp_plan": {"backbone": "colwise"},
}


@pytest.mark.parametrize("place", ["top", "user_attributes"])
@pytest.mark.parametrize(("name", "value"), ACTED_ON.items(), ids=ACTED_ON)
def test_field_that_transformers_would_act_on_is_refused_by_name(make_config, tmp_path, name, value, place):
    fields = {name: value} if place == "top" else {"user_attributes": {name: value}}
    folder = write_config(make_config(), tmp_path, **fields)

    with pytest.raises(ValueError, match=rf"config.json of FEDD may not hold {{'{name}': "):
        FEDDConfig.from_pretrained(folder)


TAKEN = {
    "auto_map": {"AutoModel": "somebody/else--code.Model"},
    "backbone_config": {"sample_size": 8},
    "model_type": "segformer",
    "blocks": [0],
    "dtype": "float16",
    "to_dict": "x",
    "from_pretrained": "x",
    "feature_channels": [1],
    "_commit_hash": "x",
    "__class__": "x",
    "clinic": {"a": {"b": 2.5}},
}


@pytest.mark.parametrize(("name", "value"), TAKEN.items(), ids=TAKEN)
def test_added_attribute_takes_the_place_of_nothing(make_config, tmp_path, name, value, messages):
    saved = FEDDConfig.from_pretrained(write_config(make_config(), tmp_path))
    folder = write_config(make_config(), tmp_path, user_attributes={name: value})

    config = FEDDConfig.from_pretrained(folder)

    (warning,) = messages()
    assert warning.endswith(f"they are ignored: [{name!r}].")
    assert config.to_dict() == saved.to_dict()


@pytest.mark.parametrize("value", ["x", ["lab_notes"], 1])
def test_added_attributes_that_are_no_dictionary_are_refused(make_config, tmp_path, value):
    folder = write_config(make_config(), tmp_path, user_attributes=value)

    with pytest.raises(ValueError, match="`user_attributes` in a config.json of FEDD must be a dictionary"):
        FEDDConfig.from_pretrained(folder)


@pytest.mark.parametrize("loader", [FEDDConfig, AutoConfig])
def test_dtype_auto_says_nothing_about_a_configuration(make_config, tmp_path, loader):
    make_config(dtype="float16").save_pretrained(tmp_path)

    assert loader.from_pretrained(tmp_path, dtype="auto").dtype == torch.float16
