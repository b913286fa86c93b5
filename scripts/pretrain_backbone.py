"""Pretrain a DDPM backbone on photos without labels, from random weights or from another backbone.

Usage:
    python scripts/pretrain_backbone.py --datasets pad-ufes-20=pad isic=isic painted --output-dir runs/backbone
    python scripts/pretrain_backbone.py --datasets folder=photos --backbone embedded --image-sizes 64 \
        --exposures 40000 --batch-sizes 12 --probe pad-ufes-20=pad --output-dir runs/backbone-2

Of each dataset only the split `train` is seen. Type the same command again to resume an interrupted run.
Leaves `backbone/`, a diffusers folder with its card, `pretraining.json` (losses, probes) and `samples/` to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub import HfApi
from transformers import HfArgumentParser, set_seed
from transformers.utils import logging

from fedd_hf.compare.feature_probe import FeatureProbe
from fedd_hf.data.loading import DataArguments, load_splits, need_split
from fedd_hf.data.splits import keep_photos, rank_photos
from fedd_hf.evaluation.report import describe_machine, write_report
from fedd_hf.hub.cards import render_card
from fedd_hf.hub.guard import check_folder
from fedd_hf.hub.push import PushArguments, Repository, push_repository
from fedd_hf.training.arguments import PretrainingArguments, ReadingArguments, RunArguments
from fedd_hf.training.ddim_samples import draw_samples
from fedd_hf.training.pretraining import Checkpoints, Look, make_unet, pretrain_backbone, save_backbone
from fedd_hf.training.run import start_accelerator
from fedd_hf.unet_files_fedd import locate_backbone

PROBED_PHOTOS = 60


@dataclass(frozen=True, kw_only=True)
class SourceArguments:
    """What is seen, from where training starts, and by what it is judged.

    Args:
        datasets (`list[str]`): `NAME=FOLDER` of each dataset, or `painted`.
        repeats (`list[int]`, *optional*): How often an epoch sees the photos of each dataset; once by default.
        backbone (`str`, *optional*): Backbone to go on from: its moving average becomes the start.
        block_out_channels (`list[int]`): Channels of each level of a new network.
        probe (`str`, *optional*): `NAME=FOLDER` of a dataset with masks, whose split `validation` is held out.
        probe_blocks (`list[int]`): Decoder blocks that the probe reads.
        probe_timestep (`int`): Noise level at which it reads them.
        license (`str`): Licence of the weights, which the photos must allow.
    """

    datasets: list[str] = field(metadata={"help": "NAME=FOLDER of each dataset, or painted"})
    repeats: list[int] | None = field(default=None, metadata={"help": "how often an epoch sees each dataset"})
    backbone: str | None = field(default=None, metadata={"help": "backbone to go on from"})
    block_out_channels: list[int] = field(
        default_factory=lambda: [16, 32, 64, 96, 128], metadata={"help": "channels of each level of a new network"}
    )
    probe: str | None = field(default=None, metadata={"help": "NAME=FOLDER of a dataset with masks"})
    probe_blocks: list[int] = field(default_factory=lambda: [6, 8, 10, 12], metadata={"help": "blocks it reads"})
    probe_timestep: int = field(default=50, metadata={"help": "noise level at which it reads them"})
    license: str = field(default="cc-by-4.0", metadata={"help": "licence of the weights"})

    def __post_init__(self) -> None:
        if self.repeats is not None and (len(self.repeats) != len(self.datasets) or min(self.repeats) < 1):
            raise ValueError(
                f"`repeats` must have a number of at least 1 for each of {self.datasets}, got {self.repeats}."
            )


def pretrain(sources: SourceArguments, training: PretrainingArguments, run: RunArguments) -> None:
    accelerator = start_accelerator(run)
    photos, counts = load_photos(sources)
    unet, scheduler = open_backbone(sources, training)
    identity = {"sources": asdict(sources), "training": asdict(training), "photos": counts}
    folder, image_size = Path(run.output_dir), training.image_sizes[-1]
    checkpoints = Checkpoints(folder, accelerator, identity)
    probe = None if sources.probe is None else open_probe(sources, image_size)
    look = make_look(probe, folder / "samples", image_size, accelerator)
    history = pretrain_backbone(unet, scheduler, photos, training, accelerator, checkpoints, folder / "average", look)
    if accelerator.is_main_process:
        report = {"experiment": "pretraining", **identity, **history, "machine": describe_machine()}
        write_result(unet, scheduler, report, folder)
        if run.push_to_hub is not None:
            push(folder / "backbone", run.push_to_hub)
        accelerator.print(f"Pretrained on {len(photos)} photos: {folder / 'backbone'}")
    checkpoints.finish()


def load_photos(sources: SourceArguments) -> tuple[Dataset, list[dict[str, Any]]]:
    """Return the training photos of all datasets, and how many each has and how often an epoch sees them."""
    parts, counts = [], []
    for named, times in zip(sources.datasets, sources.repeats or [1] * len(sources.datasets), strict=True):
        rows = need_split(load_splits(parse_dataset(named), "pretraining"), "train").select_columns(["image"])
        counts.append({"dataset": named.partition("=")[0], "photos": len(rows), "times": times})
        parts.append(rows.repeat(times))
    return concatenate_datasets(parts), counts


def parse_dataset(named: str) -> DataArguments:
    name, _, root = named.partition("=")
    return DataArguments(dataset=name, root=root or None)


def open_backbone(sources: SourceArguments, training: PretrainingArguments) -> tuple[UNet2DModel, DDPMScheduler]:
    """Make a network and its noise schedule, or open those to go on from."""
    if sources.backbone is None:
        set_seed(training.seed)
        return make_unet(sources.block_out_channels, training.image_sizes[-1]), DDPMScheduler()
    folder = locate_backbone(sources.backbone)
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet").float()
    return unet, DDPMScheduler.from_pretrained(folder, subfolder="scheduler")


def open_probe(sources: SourceArguments, image_size: int) -> FeatureProbe:
    splits = load_splits(parse_dataset(str(sources.probe)))
    train, held_out = need_split(splits, "train"), need_split(splits, "validation")
    labelled = keep_photos(train, set(rank_photos(train["image_id"][:], seed=0)[:PROBED_PHOTOS]))
    reading = ReadingArguments(blocks=sources.probe_blocks, timesteps=[sources.probe_timestep], image_size=image_size)
    return FeatureProbe(labelled, held_out, reading)


def make_look(probe: FeatureProbe | None, samples: Path, image_size: int, accelerator: Accelerator) -> Look:
    """Return what is done at each look: samples are drawn, and features probed where there are masks."""

    def look(backbone: Path, exposures: int) -> dict[str, Any]:
        if accelerator.is_main_process:
            samples.mkdir(parents=True, exist_ok=True)
            draw_samples(backbone, image_size).save(samples / f"{exposures:08d}.png")
        found = {} if probe is None else probe(backbone)
        accelerator.print("".join([f"{exposures} exposures", *(f", {name} {found[name]:.3f}" for name in found)]))
        return found

    return look


def write_result(unet: UNet2DModel, scheduler: DDPMScheduler, report: dict[str, Any], folder: Path) -> None:
    save_backbone(unet, scheduler, folder / "backbone")
    write_report(report, folder / "pretraining.json")
    told = report | {"sources": name_backbone(report["sources"])}
    card = render_card("backbone_pretrained.md.j2", num_parameters=unet.num_parameters(), **told)
    (folder / "backbone" / "README.md").write_text(card)


def name_backbone(sources: dict[str, Any]) -> dict[str, Any]:
    """Name a backbone that is a folder by its last part: its card may be read on another machine."""
    backbone = sources["backbone"]
    return sources | {"backbone": Path(backbone).name} if backbone and Path(backbone).is_dir() else sources


def push(folder: Path, repo_id: str) -> None:
    """Publish a backbone and its card in one commit; other files of the repository stay."""
    check_folder(folder)
    repository = Repository(repo_id=repo_id, repo_type="model", folder=folder, is_whole=False)
    push_repository(repository, PushArguments(), HfApi())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = HfArgumentParser([SourceArguments, PretrainingArguments, RunArguments], description=__doc__)
    disable_progress_bars()
    logging.set_verbosity_error()  # new heads are reported as missing
    try:
        pretrain(*parser.parse_args_into_dataclasses(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"pretrain_backbone: {error}")


if __name__ == "__main__":
    main()
