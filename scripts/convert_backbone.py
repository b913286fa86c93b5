"""Convert a guided-diffusion (ADM) checkpoint into a diffusers folder that FEDD reads.

Usage:
    python scripts/convert_backbone.py --checkpoint 256x256_diffusion_uncond.pt --output-dir backbones/adm-256
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fedd_hf.convert import ADMArchitecture, convert_checkpoint, find_checkpoint, take_inventory
from fedd_hf.files import hash_file
from fedd_hf.hub.cards import render_card

PAPER = ADMArchitecture()


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the .pt file, a flat state dict")
    parser.add_argument("--output-dir", type=Path, required=True, help="new folder for unet/, scheduler/, README.md")
    parser.add_argument("--sha256", help="refuse a file that has another hash")
    parser.add_argument("--fp16", action="store_true", help="store half precision")
    parser.add_argument("--training-data", default="ImageNet (ILSVRC 2012)", help="named in the card")
    parser.add_argument("--no-card", action="store_true", help="for weights that are not of OpenAI's release")
    flags = parser.add_argument_group(
        "architecture", "flags of guided-diffusion; defaults: 256x256_diffusion_uncond.pt"
    )
    flags.add_argument("--image-size", type=int, default=PAPER.image_size)
    flags.add_argument("--num-channels", type=int, default=PAPER.num_channels)
    flags.add_argument("--num-res-blocks", type=int, default=PAPER.num_res_blocks)
    flags.add_argument("--channel-mult", type=int, nargs="+", help="by default as guided-diffusion for this size")
    flags.add_argument("--attention-resolutions", type=int, nargs="*", default=PAPER.attention_resolutions)
    flags.add_argument("--num-head-channels", type=int, default=PAPER.num_head_channels)
    for name in ("learn_sigma", "resblock_updown", "use_scale_shift_norm", "use_new_attention_order"):
        option = f"--{name.replace('_', '-')}"
        flags.add_argument(option, action=argparse.BooleanOptionalAction, default=getattr(PAPER, name))
    return parser.parse_args(arguments)


def read_architecture(args: argparse.Namespace) -> ADMArchitecture:
    return ADMArchitecture(**{name: getattr(args, name) for name in ADMArchitecture.__dataclass_fields__})


def render_backbone_card(args: argparse.Namespace, architecture: ADMArchitecture, sha256: str) -> str:
    return render_card(
        "backbone_adm.md.j2",
        **take_inventory(architecture)._asdict(),
        file_name=args.checkpoint.name,
        sha256=sha256,
        training_data=args.training_data,
        dtype="float16" if args.fp16 else "float32",
        image_size=architecture.image_size,
        num_blocks=len(architecture.block_out_channels) * (architecture.num_res_blocks + 1),
    )


def convert(args: argparse.Namespace) -> None:
    architecture = read_architecture(args)
    print(f"Reading {args.checkpoint}", flush=True)
    sha256 = hash_file(find_checkpoint(args.checkpoint))
    unet = convert_checkpoint(
        args.checkpoint,
        args.output_dir,
        architecture=architecture,
        sha256=args.sha256 or sha256,
        dtype=torch.float16 if args.fp16 else torch.float32,
        card=None if args.no_card else render_backbone_card(args, architecture, sha256),
    )
    print(f"SHA-256 {sha256}")
    print(f"Wrote {unet.num_parameters():,} parameters in {len(unet.state_dict())} tensors ({unet.dtype})")
    print(f"Read back and equal, bit by bit: {args.output_dir}")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    try:
        convert(args)
    except (OSError, ValueError) as error:
        sys.exit(f"convert_backbone: {error}")


if __name__ == "__main__":
    main()
