"""What a process was like before its first trial, so that a further one starts in the same place.

A trial may leave things behind in the process that ran it: random states, torch's threads and flags, environment variables,
signal handlers, memory. `ProcessState.restore` brings back what can be brought back and names what cannot: a process in which
threads, children, files open for writing, hooks or memory were left is not used again.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.modules.module as torch_modules

from llmemf.memory import reset_memory_peak

MEMORY_SHARE, MEMORY_BYTES = 0.25, 256 * 2**20
"""A trial may leave so much more memory than the first one left: this share of it, or these bytes where that is more."""
JOIN_SECONDS = 1.0
SMALLEST = 5e-324
SIGNALS = tuple(number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP))
BACKENDS = (
    "cuda.matmul.allow_tf32",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.benchmark_limit",
    "cudnn.deterministic",
    "cudnn.allow_tf32",
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.enabled",
    "mkldnn.deterministic",
    "mkldnn.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)
"""Attributes of `torch.backends`, the specific ones after those that set them as well."""
ATTENTION = ("flash", "mem_efficient", "math", "cudnn")
HOOKS = (
    "backward_pre_hooks",
    "backward_hooks",
    "forward_pre_hooks",
    "forward_hooks",
    "module_registration_hooks",
    "parameter_registration_hooks",
    "buffer_registration_hooks",
)

Setting = tuple[str, Callable[[], Any], Callable[[Any], Any]]
"""Name, how to read it, how to set it."""


class ProcessState:
    """The state of this process as it is now.

    To be made, and restored, on the main thread with no trial in the process.
    """

    def __init__(self) -> None:
        self._kept = {name: _copied(read()) for name, read, _ in settings()}
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.initial_seed()
        self._threads = set(threading.enumerate())
        self._children, self._files = children(), files_open_for_writing()
        self._left: dict[str, int] = {}
        # What was imported and shared stays for good: the collector need not look at it between trials.
        gc.collect()
        gc.freeze()

    def restore(self) -> str:
        """Bring the process back to that state; says what stays different, "" if nothing does."""
        # What is left may change a setting when it ends.
        problems = [*self._remains(), *self._restore_settings()]
        if problems:
            return "; ".join(problems)
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(self._random[3])
        torch.set_rng_state(self._random[2])
        grown = self._grown()
        reset_memory_peak()
        return grown

    def _restore_settings(self) -> Iterator[str]:
        for name, read, write in settings():
            before = self._kept[name]
            if _same(read(), before):
                continue
            try:
                write(_copied(before))
            except (RuntimeError, ValueError, TypeError, OSError) as error:
                yield f"{name} cannot be set back ({error})"
            else:
                if not _same(read(), before):
                    yield f"{name} stays {read()!r}"

    def _remains(self) -> Iterator[str]:
        gc.collect()
        left = set(threading.enumerate()) - self._threads
        for thread in left:
            thread.join(JOIN_SECONDS)
        if names := sorted(thread.name for thread in left if thread.is_alive()):
            yield f"thread {names[0]} is left"
        if more := children() - self._children:
            yield f"process {min(more)} is left"
        if paths := sorted(files_open_for_writing() - self._files):
            yield f"{paths[0]} is still open"
        if names := [name for name in HOOKS if getattr(torch_modules, f"_global_{name}", None)]:
            yield f"torch's global {names[0]} are left"

    def _grown(self) -> str:
        """Why memory that trials left makes the process unfit; the first one leaves what all share from then on."""
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


def settings() -> Iterator[Setting]:
    """All that can be read and set back."""
    yield "environment", lambda: dict(os.environ), _set_environment
    yield "umask", _umask, os.umask
    yield "module path", lambda: sys.path, lambda value: sys.path.__setitem__(slice(None), value)
    yield "recursion limit", sys.getrecursionlimit, sys.setrecursionlimit
    yield "warning filters", lambda: warnings.filters, lambda value: warnings.filters.__setitem__(slice(None), value)
    root = logging.getLogger()
    yield "log handlers", lambda: root.handlers, lambda value: root.handlers.__setitem__(slice(None), value)
    yield "log level", lambda: root.level, root.setLevel
    yield "standard output", lambda: sys.stdout, lambda value: setattr(sys, "stdout", value)
    yield "standard error", lambda: sys.stderr, lambda value: setattr(sys, "stderr", value)
    yield "NumPy's error handling", np.geterr, lambda value: np.seterr(**value)
    for number in SIGNALS:
        yield number.name, lambda number=number: signal.getsignal(number), _signal_setter(number)
    yield "torch's threads", torch.get_num_threads, torch.set_num_threads
    yield "torch's threads between operations", torch.get_num_interop_threads, torch.set_num_interop_threads
    yield "torch's default type", torch.get_default_dtype, torch.set_default_dtype
    yield "torch's default device", torch.get_default_device, _set_default_device
    yield "gradients", torch.is_grad_enabled, torch.set_grad_enabled
    yield "anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled
    yield "deterministic algorithms", _deterministic, _set_deterministic
    yield "precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    yield "denormal numbers", lambda: SMALLEST * 1.0 > 0.0, lambda value: torch.set_flush_denormal(not value)
    for kind in ("cpu", "cuda"):
        yield (
            f"autocast on {kind}",
            lambda kind=kind: torch.is_autocast_enabled(kind),
            lambda value, kind=kind: torch.set_autocast_enabled(kind, value),
        )
        yield (
            f"autocast's type on {kind}",
            lambda kind=kind: torch.get_autocast_dtype(kind),
            lambda value, kind=kind: torch.set_autocast_dtype(kind, value),
        )
    for kind in ("blas", "linalg"):
        library = getattr(torch.backends.cuda, f"preferred_{kind}_library")
        yield f"preferred {kind} library", library, library
    yield "autocast's cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
    cuda = torch.backends.cuda
    for kind in ATTENTION:
        yield f"{kind} attention", getattr(cuda, f"{kind}_sdp_enabled"), getattr(cuda, f"enable_{kind}_sdp")
    for path in BACKENDS:
        holder, _, name = path.rpartition(".")
        owner = torch.backends
        for part in filter(None, holder.split(".")):
            owner = getattr(owner, part)
        yield (
            f"torch.backends.{path}",
            lambda owner=owner, name=name: _read_backend(owner, name),
            lambda value, owner=owner, name=name: setattr(owner, name, value),
        )


def _read_backend(owner: Any, name: str) -> Any:
    """None where this torch has no such flag, or mixed old and new flags forbid reading it."""
    try:
        return getattr(owner, name)
    except (AttributeError, RuntimeError):
        return None


def _set_environment(wanted: dict[str, str]) -> None:
    for key in set(os.environ) - set(wanted):
        del os.environ[key]
    os.environ.update(wanted)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _signal_setter(number: int) -> Callable[[Any], None]:
    # None stands for a handler that was not installed from Python and cannot be named.
    return lambda handler: None if handler is None else signal.signal(number, handler)


def _set_default_device(device: torch.device) -> None:
    # None instead of the CPU: naming a device makes every call pass through Python.
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value


def _same(now: Any, before: Any) -> bool:
    return now is before or bool(now == before)


def children() -> set[int]:
    """Processes that this one has started and that still run; empty where the system does not tell."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found |= {int(number) for number in path.read_text().split() if _runs(number)}
        except OSError:
            continue
    return found


def _runs(process: str) -> bool:
    """Whether it has not ended yet; its parent may not have asked for its end."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def files_open_for_writing() -> set[str]:
    """Paths of the regular files that this process could write to; empty where the system does not tell."""
    found = set()
    for link in Path("/proc/self/fd").glob("*"):
        try:
            path = os.readlink(link)
            flags = int(Path(f"/proc/self/fdinfo/{link.name}").read_text().partition("flags:")[2].split()[0], 8)
            if path.startswith("/") and Path(path).is_file() and flags & (os.O_WRONLY | os.O_RDWR):
                found.add(path)
        except (OSError, ValueError, IndexError):
            continue
    return found


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
