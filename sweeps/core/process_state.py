"""The state of a worker process before its first trial, so that every later trial begins in the same place.

A trial changes random states and memory, and may change torch's threads and modes. `ProcessState.restore` sets
these back. A process in which a trial left a thread or memory gets no further trial.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmemf.memory import reset_memory_peak

MEMORY_SHARE, MEMORY_BYTES = 0.25, 256 * 2**20
"""Trials may leave so much more memory than the first one left: this share of it, or these bytes where that is more."""
JOIN_SECONDS = 1.0
TORCH_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
)
"""How to read each of torch's settings that changes numbers or speed, and how to set it."""


class ProcessState:
    """The state of this process as it is now; to be made, and restored, while no trial runs in it."""

    def __init__(self) -> None:
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.initial_seed()
        self._torch = [read() for read, _ in TORCH_SETTINGS]
        self._threads = set(threading.enumerate())
        self._left: dict[str, int] = {}
        # What was imported and shared stays for good: the collector need not look at it between trials.
        gc.collect()
        gc.freeze()

    def restore(self) -> str:
        """Bring the process back to that state; says why it must not run another trial, "" if it may."""
        gc.collect()
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                return f"thread {thread.name} is left"
        for (_, write), value in zip(TORCH_SETTINGS, self._torch):
            write(value)
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(self._random[3])
        torch.set_rng_state(self._random[2])
        problem = self._grown()
        reset_memory_peak()
        return problem

    def _grown(self) -> str:
        """Which memory trials left, "" if little; the first trial leaves what all of them share from then on."""
        held = {"memory": own_bytes()}
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
            give_back_gpu_memory()
            held["GPU memory"] = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        for name, size in held.items():
            first = self._left.setdefault(name, size)
            if size > first + max(MEMORY_SHARE * first, MEMORY_BYTES):
                return f"{(size - first) >> 20} MiB of {name} are left"
        return ""


def own_bytes() -> int:
    """What the process holds alone after freed memory went back to the system; 0 where the system does not tell."""
    if hasattr(trim := ctypes.CDLL(None), "malloc_trim"):
        trim.malloc_trim(0)
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def give_back_gpu_memory() -> None:
    """Let other processes have what this one no longer uses."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
