"""A function in a process of its own, so that no measurement sees the memory of another."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch


def run_alone(function: Callable[..., dict[str, Any]], *arguments: Any, num_threads: int) -> dict[str, Any]:
    """Call a function in a new process, which takes its memory with it when it ends.

    Args:
        function (`Callable`):
            A function of a module; arguments and result must pickle.
        arguments:
            What it is called with.
        num_threads (`int`):
            Threads of torch in that process.

    Raises:
        OSError: If the process is killed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_start, initargs=(num_threads,)) as executor:
        try:
            return executor.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise OSError(f"`{function.__name__}` was killed, most likely for want of memory.") from error


def _start(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the benchmark is killed, rather than disturb the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
