"""What a trial asks for against what there is: how many trials run at once."""

from __future__ import annotations

import os

from llmemf.errors import InputError
from sweeps.settings import SweepRecord


def machine() -> dict[str, float]:
    """CPUs and GPUs of this machine that the process may use."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"CPU": float(cpus), "GPU": float(torch.cuda.device_count())}


def default_gpus() -> float:
    return 1.0 if machine()["GPU"] else 0.0


def slots(record: SweepRecord, resources: dict[str, float], *, where: str = "this machine") -> int:
    """How many trials run at once.

    Raises:
        InputError: not even one fits.
    """
    fit = []
    for option, kind in (("cpus_per_trial", "CPU"), ("gpus_per_trial", "GPU")):
        wanted, there = getattr(record, option), resources.get(kind, 0.0)
        flag = f"--{option.replace('_', '-')}"
        if wanted < 0 or (kind == "CPU" and wanted == 0):
            raise InputError(f"{flag} {wanted:g}: a positive number is expected")
        if wanted > there:
            raise InputError(f"one trial asks for {wanted:g} {kind}s, {where} has {there:g}: lower {flag}")
        if wanted:
            fit.append(int(there / wanted + 1e-9))
    most = min(fit)
    if record.concurrency is None:
        return most
    if record.concurrency < 1:
        raise InputError(f"--concurrency {record.concurrency}: at least 1 is expected")
    return min(record.concurrency, most)
