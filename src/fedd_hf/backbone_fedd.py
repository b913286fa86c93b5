"""FEDDBackbone: noise and a frozen, truncated DDPM UNet, read with forward hooks, turn an image into feature maps."""

from __future__ import annotations

import os
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from transformers import initialization
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import CompileableContextVar

from .configuration_fedd import FEDDConfig, block_address
from .pretrained_fedd import FEDDPreTrainedModel, holds_backbone, make_noise

# The activations of the call that is running in this thread; as transformers collects outputs of its own models.
_activations = CompileableContextVar("fedd_activations")


class FEDDBackbone(BackboneMixin, FEDDPreTrainedModel):
    """A DDPM UNet that is never trained and never runs past the last block that is read.

    Its weights lie channels last, which is faster on CPUs, and so do the feature maps.

    Args:
        config ([`FEDDConfig`]):
            Says which UNet, which blocks and timesteps, and at which image size.

    Source: ddpm-segmentation (2112.03126), `feature_extractors.py`; FEDD (MICCAI 2023), section 3.1.
    """

    noise: Tensor
    has_attentions = False
    _keep_in_fp32_modules_strict = ["noise"]
    _keys_to_ignore_on_load_unexpected = [r"unet\.", r"^decode_head\.", r"^classifier\."]

    def __init__(self, config: FEDDConfig) -> None:
        super().__init__(config)
        self.num_features = [
            len(config.timesteps) * config.block_channels(block) for block in range(config.num_blocks)
        ]
        alphas_cumprod = config.alphas_cumprod()
        self.alphas_cumprod = tuple(float(alphas_cumprod[timestep]) for timestep in config.timesteps)
        self.unet = truncate(_build_unet(config.backbone_config), last_block=max(config.blocks))
        self.register_buffer("noise", make_noise(config.noise_seed, config.image_size))
        for block in config.blocks:
            block_module(self.unet, block).register_forward_hook(_collect)
        self.post_init()
        self.freeze()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Open the backbone of a FEDD model, or a bare one as [`FEDDPreTrainedModel.from_backbone`] does.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder or repository of a FEDD model or of a diffusers UNet, or `"embedded"`.
            args:
                As in [`FEDDPreTrainedModel.from_pretrained`].
            kwargs:
                As there, or as in [`FEDDPreTrainedModel.from_backbone`].
        """
        if pretrained_model_name_or_path is not None and holds_backbone(pretrained_model_name_or_path, kwargs):
            return cls.from_backbone(str(pretrained_model_name_or_path), **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw the noise anew, unless it came from a checkpoint, and weights that no checkpoint holds."""
        if module is self:
            initialization.copy_(self.noise, make_noise(self.config.noise_seed, self.config.image_size))
        else:
            super()._init_weights(module)

    def freeze(self) -> FEDDBackbone:
        """Take gradients away, keep the noise in float32 and lay the convolutions out channels last."""
        self.noise = self.noise.float()
        self.unet.to(memory_format=torch.channels_last)
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FEDDBackbone:
        """Stay in evaluation mode: a frozen network has no dropout."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> FEDDBackbone:
        """Move the noise with the network, but never cast it: a map must not depend on `dtype`."""
        noise = self.noise
        super()._apply(fn, recurse)
        if not noise.is_meta:
            self.noise = noise.to(self.noise.device)
        return self

    @can_return_tuple
    @torch.no_grad()
    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None, **kwargs: Any) -> BackboneOutput:
        """Read the feature maps of a batch of images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`):
                Images scaled to [-1, 1], as [`FEDDImageProcessor`] returns them.
            output_hidden_states (`bool`, *optional*):
                Whether to return the feature maps as `hidden_states` too.
            kwargs:
                `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`]: `feature_maps`, one of shape `(batch_size, channels,
            block_height, block_width)` per block; its channels are those of the block, once for each timestep.
            Strides are channels-last.

        Raises:
            ValueError: If the images are not of the size that the noise has.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != self.noise.shape:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {', '.join(map(str, self.noise.shape))}), got "
                f"{tuple(pixel_values.shape)}. Type FEDDImageProcessor(size={self.noise.shape[-1]})(images=...)."
            )
        passes = [
            self._read(self.add_noise(pixel_values, alpha_bar), timestep)
            for timestep, alpha_bar in zip(self.config.timesteps, self.alphas_cumprod, strict=True)
        ]
        feature_maps = tuple(
            torch.cat(maps, dim=1) if len(maps) > 1 else maps[0] for maps in zip(*passes, strict=True)
        )
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BackboneOutput(feature_maps=feature_maps, hidden_states=feature_maps if wants_states else None)

    def add_noise(self, pixel_values: Tensor, alpha_bar: float) -> Tensor:
        """Sample x_t from x_0 in float32 or wider, then cast to the UNet's dtype. Source: DDPM (2006.11239), eq. 4."""
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        noisy = alpha_bar**0.5 * pixel_values.to(dtype) + (1.0 - alpha_bar) ** 0.5 * self.noise.to(dtype)
        return noisy.to(self.unet.dtype, memory_format=torch.channels_last)

    def _read(self, sample: Tensor, timestep: int) -> list[Tensor]:
        """Run the UNet once and return the activations of the blocks that are read."""
        activations: list[Tensor] = []
        token = _activations.set(activations)
        try:
            self.unet(sample, timestep, return_dict=False)
        finally:
            _activations.reset(token)
        return activations


def _collect(module: nn.Module, args: Any, output: Tensor) -> None:
    """Append the activation of a block to the list of the call that is running, if it is one of FEDD."""
    activations = _activations.get()
    if activations is not None:
        activations.append(output)


def _build_unet(unet_config: dict[str, Any]) -> UNet2DModel:
    try:
        return UNet2DModel(**unet_config)
    except TypeError as error:
        raise ValueError(f"`backbone_config` must hold the arguments of a diffusers UNet2DModel: {error}.") from error


def truncate(unet: UNet2DModel, last_block: int) -> UNet2DModel:
    """Remove, in place, everything that runs after `last_block`."""
    level, layer = block_address(unet.config, last_block)
    del unet.up_blocks[level + 1 :]
    up_block = unet.up_blocks[level]
    if layer < unet.config["layers_per_block"]:
        up_block.upsamplers = None
    up_block.resnets = up_block.resnets[: layer + 1]
    if hasattr(up_block, "attentions"):
        up_block.attentions = up_block.attentions[: layer + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
    return unet


def block_module(unet: UNet2DModel, block: int) -> nn.Module:
    """Return the module whose output is the activation of a block.

    A block of guided-diffusion ends after its attention, and the last one of a level after the upsampling too.

    Source: guided-diffusion, `unet.py`, `UNetModel.output_blocks`.
    """
    level, layer = block_address(unet.config, block)
    up_block = unet.up_blocks[level]
    if layer == unet.config["layers_per_block"] and up_block.upsamplers is not None:
        return up_block.upsamplers[-1]
    return getattr(up_block, "attentions", up_block.resnets)[layer]


__all__ = ["FEDDBackbone"]
