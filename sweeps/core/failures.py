"""Why a trial failed: by a fault of its own, which it would have again, or by one of the machine, for which it is retried."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

from llmemf.errors import PASSING_FAULTS, STORAGE_FAULTS, storage_fault

log = logging.getLogger(__name__)

SIGNS = {
    "stale": r"^(\S+\.)?StaleWorker: ",
    "disk": r"^(\S+\.)?StorageError: |inline_container\.cc|OutOfDiskError",
    "device": r"CUDA error: out of memory|CUDA-capable device\(?s?\)? (is|are|is/are) busy|uncorrectable ECC"
    r"|unspecified launch failure|no CUDA-capable device|CUDA driver initialization failed|CUDA unknown error"
    r"|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_INITIALIZED|GPU is lost|hardware stack error",
    "memory": r"OutOfMemoryError|MemoryError|running low on memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED",
    "lost": r"^(\S+\.)?NodeUnfit: |(ObjectLost|ObjectFetchTimedOut|ObjectReconstructionFailed\w*|OwnerDied|NodeDied|ActorDied"
    r"|ActorUnavailable|WorkerCrashed|RaySystem)Error",
}
"""Kind of failure -> what a message of it says; the first that matches counts. `storage` is told by its error number."""


def read_error(trial: Any) -> tuple[Exception | None, str]:
    """The last exception of a trial, as Tune kept it, and its full trace."""
    exception = None
    try:
        exception = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception as error:  # noqa: BLE001  what cannot be unpickled is known by its trace alone
        log.info("the exception of %s cannot be read: %s", trial, error)
    try:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", Path(trial.error_file).read_text())
    except (OSError, TypeError):
        trace = "" if exception is None else str(exception)
    return exception, trace[trace.rfind("Failure # ") :] if "Failure # " in trace else trace


def failure_kind(exception: Exception | None, trace: str) -> str:
    """Why a trial failed.

    Returns:
        `error`: its own fault, everything else is the machine's. `disk`: its files cannot be written until somebody mends
        that; `storage`: they cannot be written or read now. `device`: a GPU that is taken, broken or absent. `memory`: it
        ran out. `lost`: its process or node died. `stale`: its process was refused before the trial began in it.
    """
    from ray.exceptions import RayTaskError

    # Without the lines of source code that a trace quotes.
    said = "\n".join(line for line in trace.splitlines() if not line.startswith(" "))
    if number := storage_fault(said):
        return "storage" if number in PASSING_FAULTS else "disk"
    for kind, sign in SIGNS.items():
        if re.search(sign, said, re.MULTILINE):
            return kind
    own = isinstance(exception, RayTaskError) or (exception is None and "Traceback" in trace)
    return "error" if own else "lost"


def stop_reason(trace: str) -> str:
    """Why a sweep stops where trials fail by `disk`."""
    return STORAGE_FAULTS.get(storage_fault(trace) or 0, "the storage cannot be written")


def last_error(trace: str) -> str:
    """The exception's name and message out of a printed trace."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    for line in reversed(lines):
        name, colon, message = line.partition(": ")
        if colon and name.replace(".", "").replace("_", "").isalnum() and name.split(".")[-1][:1].isupper():
            return f"{name.split('.')[-1]}: {message}"[:300]
    return (lines[1] if len(lines) > 1 else "no trace was kept")[:300]
