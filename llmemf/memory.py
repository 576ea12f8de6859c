"""Memory of this process: its resident set, the peak of that, and the memory that torch reserved on a GPU."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

_has_older_peak = False
"""Whether the peak of this process is that of an earlier trial."""


def memory_gb(device: torch.device | str = "cpu") -> dict[str, float]:
    """The largest amount of memory of this process so far, or since `reset_memory_peak`, in GiB.

    Returns:
        `memory_gb`, the peak of the resident set: libraries and touched pages of shared data are in it, so several trials
        on one node together need less than their sum; left out where the system could not reset it after an earlier
        trial. On a GPU also `gpu_mem_gb`, the peak of the memory that torch reserved there, without the driver's own part.
    """
    found = {} if _has_older_peak else {"memory_gb": peak_bytes() / 2**30}
    if torch.device(device).type == "cuda":
        found["gpu_mem_gb"] = torch.cuda.max_memory_reserved(device) / 2**30
    return found


def reset_memory_peak() -> None:
    """Let the peak of the resident set begin anew, for a further trial in this process; only Linux can."""
    global _has_older_peak
    before = process_bytes("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        _has_older_peak = True
    else:
        # Some systems take the request and do nothing.
        peak = process_bytes("VmHWM")
        _has_older_peak = before is None or peak is None or peak > 1.1 * before


def peak_bytes() -> int:
    """Peak of the resident set in bytes; on Linux of this program alone (`getrusage` would count its parent's memory too)."""
    found = process_bytes("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def process_bytes(name: str) -> int | None:
    """A line of /proc/self/status in bytes; None on systems without it.

    Args:
        name: `VmRSS`, the resident set, and its parts `RssFile` and `RssShmem`, or `VmHWM`, the peak of it.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None
