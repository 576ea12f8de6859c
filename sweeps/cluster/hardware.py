"""What a machine is made of, in one line: times mean little without it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from llmemf import text_format
from sweeps.cluster.resources import machine


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
