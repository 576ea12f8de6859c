"""What a trial asks for against what a machine has: how many trials run at once, and on what."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from llmemf import text_format
from llmemf.errors import InputError
from sweeps.state.sweep_record import SweepRecord


def machine() -> dict[str, float]:
    """CPUs and GPUs of this machine that the process may use."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"CPU": float(cpus), "GPU": float(torch.cuda.device_count())}


def describe_machine() -> str:
    """`2 CPUs (AMD EPYC 7B13), 16.8 GB, 1 GPU (NVIDIA A100)`: of this machine, which is the driver's."""
    has = machine()
    parts = [f"{text_format.plural(int(has['CPU']), 'CPU')} ({processor()})", text_format.size(memory())]
    if has["GPU"]:
        import torch

        parts.append(f"{text_format.plural(int(has['GPU']), 'GPU')} ({torch.cuda.get_device_name(0)})")
    return ", ".join(parts)


def processor() -> str:
    """The processor's own name where the system tells it, its architecture otherwise."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1].strip() if found else platform.machine()


def memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def described(cpus: float, gpus: float) -> str:
    """`4 CPUs, 1 GPU`, or `4 CPUs` without a GPU."""
    return f"{cpus:g} CPU{'s' * (cpus != 1)}" + (f", {gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "")


def default_gpus() -> float:
    """GPUs of a trial where the user names none: one, where the machine has one."""
    return 1.0 if machine()["GPU"] else 0.0


def check_request(record: SweepRecord) -> None:
    """Check what a trial asks for, wherever it runs.

    Raises:
        InputError: no machine could give that.
    """
    if record.cpus_per_trial <= 0:
        raise InputError(f"--cpus-per-trial {record.cpus_per_trial:g}: a positive number is expected")
    if record.gpus_per_trial < 0:
        raise InputError(f"--gpus-per-trial {record.gpus_per_trial:g}: 0 or a positive number is expected")
    gpus = record.gpus_per_trial
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus-per-trial {gpus:g}: a trial gets a share of one GPU, or whole GPUs")
    if record.concurrency is not None and record.concurrency < 1:
        raise InputError(f"--concurrency {record.concurrency}: at least 1 is expected")


def trials_that_fit(record: SweepRecord, resources: Mapping[str, float]) -> int:
    """How many trials one machine holds at once; a share of a GPU is never split over two of them."""
    fit = int(resources.get("CPU", 0.0) / record.cpus_per_trial + 1e-9)
    gpus, there = record.gpus_per_trial, int(resources.get("GPU", 0.0))
    if gpus:
        fit = min(fit, there // int(gpus) if gpus >= 1 else there * int(1 / gpus + 1e-9))
    return fit


def slots(record: SweepRecord, resources: Mapping[str, float]) -> int:
    """How many trials run at once on this machine.

    Raises:
        InputError: not even one fits.
    """
    check_request(record)
    most = trials_that_fit(record, resources)
    if not most:
        asks, there = (
            described(record.cpus_per_trial, record.gpus_per_trial),
            described(resources["CPU"], resources["GPU"]),
        )
        raise InputError(
            f"one trial asks for {asks}, this machine has {there}: lower --cpus-per-trial or --gpus-per-trial"
        )
    return most if record.concurrency is None else min(record.concurrency, most)
