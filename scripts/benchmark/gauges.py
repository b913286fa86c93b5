"""Clock, resident memory and the machine's own rate of matrix products."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedd_hf.evaluation.report import describe_machine

PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # to clear_refs: the peak of resident memory begins anew. Source: Linux, proc_pid_clear_refs(5)


@dataclass
class Memory:
    """Resident memory in bytes, before something ran and at its peak."""

    before: int
    peak: int = 0

    @property
    def used(self) -> int:
        """Bytes that were needed on top of what was there before."""
        return self.peak - self.before


@contextmanager
def peak_memory() -> Iterator[Memory]:
    """Measure the peak of this process's resident memory, mapped files included, while the block runs.

    Raises:
        OSError: If the system does not tell.
    """
    _return_freed_memory()
    memory = Memory(before=resident_bytes())
    (PROCESS / "clear_refs").write_text(RESET_PEAK)
    yield memory
    memory.peak = _read_status("VmHWM")


def resident_bytes() -> int:
    """Return the resident memory of this process.

    Raises:
        OSError: If the system does not tell.
    """
    return _read_status("VmRSS")


def time_passes(run: Callable[[], Any], passes: int) -> list[float]:
    """Return the seconds of each of some calls."""
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def matrix_rate(size: int, passes: int) -> float:
    """Return the floating-point operations per second of the fastest float32 product of square matrices."""
    left, right, out = (torch.randn(size, size) for _ in range(3))
    return 2 * size**3 / min(time_passes(lambda: torch.mm(left, right, out=out), passes))


def describe_hardware() -> dict[str, str | int | None]:
    """Return what measurements depend on: versions, processor, cores and memory."""
    cores = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return describe_machine() | {
        "processor": cores.group(1) if cores else None,
        "memory_gib": round(memory / 2**30),
    }


def _read_status(name: str) -> int:
    try:
        status = (PROCESS / "status").read_text()
    except FileNotFoundError as error:
        raise OSError("Memory is read from /proc, which only Linux has. Run the benchmark there.") from error
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise OSError(f"{PROCESS / 'status'} has no {name}: this system does not tell the peak of memory.")
    return int(found.group(1)) * 1024


def _return_freed_memory() -> None:
    """Give back what was freed, so that nothing of it hides in the next peak. The C library of some systems cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
