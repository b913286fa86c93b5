"""How much a benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BenchmarkSize:
    """Numbers of photos, passes and seconds; the defaults are those of the published report.

    Args:
        image_size (`int`): Side of the square that the full-size network sees, in pixels.
        network_width (`int`): Channels of its first level; the paper's network has 256.
        passes (`int`): Timed repetitions, of which the fastest counts.
        matrix_size (`int`): Side of the square matrices whose product gives the machine's rate.
        training_photos (`tuple[int, ...]`): Labelled photos of each timed training, multiples of three.
        original_photos (`int`): Photos whose full-resolution matrix fits into memory, a multiple of three.
        original_seconds (`float`): How long the original's pixels per second are measured.
        num_steps (`int`, *optional*): Steps of each training, by default those of the recipe.
        seeds (`tuple[int, ...]`): Seeds of the heads whose mean IoU is compared.
        labelled_photos (`int`): Labelled photos of that comparison, a multiple of three.
        unseen_photos (`int`): Painted photos on which they are compared, a multiple of three.
        full_size_photos (`int`): Photos that the full-size network sees in that comparison.
        painted_size (`int`): Image size of the embedded backbone there; its own default is 128.
        small_size (`int`): Image size of the embedded backbone where thousands of photos pass through it.
        growth_photos (`tuple[int, ...]`): Numbers of photos over which time and memory may grow.
        process_photos (`int`): Photos that one or two processes extract, a multiple of three.
    """

    image_size: int = 256
    network_width: int = 256
    passes: int = 5
    matrix_size: int = 4096
    training_photos: tuple[int, ...] = (30, 60)
    original_photos: int = 9
    original_seconds: float = 60.0
    num_steps: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    labelled_photos: int = 30
    unseen_photos: int = 60
    full_size_photos: int = 8
    painted_size: int = 128
    small_size: int = 64
    growth_photos: tuple[int, ...] = (100, 1000, 10015)
    process_photos: int = 63


QUICK = BenchmarkSize(
    image_size=64,
    network_width=32,
    passes=2,
    matrix_size=512,
    training_photos=(3, 6),
    original_photos=3,
    original_seconds=1.0,
    num_steps=5,
    seeds=(0,),
    labelled_photos=3,
    unseen_photos=3,
    full_size_photos=2,
    painted_size=32,
    small_size=32,
    growth_photos=(4, 8),
    process_photos=6,
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """What a benchmark is run with.

    Args:
        size ([`BenchmarkSize`]): How much is measured.
        num_threads (`int`): Threads of each measured process.
        work_dir (`Path`): Existing folder for what lives as long as a measurement.
        pad_root (`Path`, *optional*): Folder of PAD-UFES-20.
        ham_root (`Path`, *optional*): Folder of HAM10000.
    """

    size: BenchmarkSize
    num_threads: int
    work_dir: Path
    pad_root: Path | None = None
    ham_root: Path | None = None
