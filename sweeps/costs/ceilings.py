"""What the device here reaches at most: the rate of a large matrix product, and of a copy."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweeps.costs.scaling import Device

ROUNDS = 5
CPU_SIDE, GPU_SIDE = 1024, 8192
COPIED = 2**26
"""Bytes of a copy on a CPU, far more than its caches hold; 16 times as many on a GPU."""


def ceilings(device: str, memory: float) -> Device:
    """Measure for a fraction of a second, the best of some rounds.

    Products are of the type that the objective has there: fp32 on a CPU, half precision on a GPU.

    Args:
        device: "cpu", "cuda", ...
        memory: bytes that it has.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    side, kind = (GPU_SIDE, torch.float16) if on_gpu else (CPU_SIDE, torch.float32)
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    source = torch.ones(COPIED * (16 if on_gpu else 1) // 4, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(left, right), device)
    copy = _best(lambda: target.copy_(source), device)
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    # A copy reads and writes.
    return Device(name, 2 * side**3 / product, 2 * source.numel() * 4 / copy, memory, padded=on_gpu)


def _best(work: Callable[[], object], device: str) -> float:
    import torch

    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    found = []
    for _ in range(ROUNDS + 1):
        wait()
        began = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - began)
    return min(found[1:])
