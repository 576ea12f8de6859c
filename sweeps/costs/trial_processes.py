"""Processes that each stand for one trial, as many as trials run at once; each measures configurations."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.costs.measure import TrialCost, measure
from sweeps.state.sweep_record import SweepRecord

if TYPE_CHECKING:
    from llmemf.batches import TrialData

ALIGNMENT = 64
NICENESS = 15
"""Ray gives its workers this low priority (its `worker_niceness`), so that other programs on the machine come first."""
_data: TrialData | None = None
"""In a measuring process: what trials see."""


class TrialProcesses:
    """So many processes, each with the threads and the part of a GPU that a trial gets.

    Args:
        data: what trials see; all processes map one copy of it, as trials map Ray's object store.
        record: resources of a trial.

    Attributes:
        start_seconds: from the start of the processes until all of them were ready for a trial.
    """

    def __init__(self, data: TrialData, record: SweepRecord, count: int) -> None:
        self.data, self.record, self.count = data, record, count
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile()
        places = share_data(self.data, self._file)
        context = multiprocessing.get_context("spawn")
        indexes, all_ready = context.SimpleQueue(), context.Barrier(self.count)
        for index in range(self.count):
            indexes.put(index)
        given = (self._file.name, places, self.record, indexes, all_ready)
        self._pool = ProcessPoolExecutor(self.count, context, _prepare, given)
        began = time.perf_counter()
        self._results([self._pool.submit(os.getpid) for _ in range(self.count)])
        self.start_seconds = time.perf_counter() - began
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def measure(self, configs: Sequence[TrialConfig], seconds: float) -> list[TrialCost]:
        """Measure each configuration in a process of its own, all at the same time; no more than `count` of them.

        Raises:
            InputError: a process died, or a configuration does not fit.
        """
        return self._results([self._pool.submit(_measure, config.to_dict(), seconds) for config in configs])

    @staticmethod
    def _results(futures: list[Future]) -> list[Any]:
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise InputError("a trial of the estimate ended early: its memory ran out, or somebody ended it") from None
        except Exception as error:
            raise InputError(f"a trial cannot run: {error}") from error


def _prepare(path: str, places: list[tuple[int, int]], record: SweepRecord, indexes: Any, all_ready: Any) -> None:
    """In a new process: take a trial's resources, import what a trial imports, attach the data."""
    global _data
    threads = max(1, int(record.cpus_per_trial))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus(indexes.get(), record.gpus_per_trial, visible)
    os.nice(max(0, int(os.environ.get("RAY_worker_niceness", NICENESS)) - os.nice(0)))  # noqa: SIM112 (Ray spells it so)
    # What libraries print must not come between the lines of the estimate.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    import torch
    from ray import tune  # noqa: F401

    from llmemf.training import Trainer  # noqa: F401

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    _data = attach_data(path, places)
    all_ready.wait()


def _measure(values: dict[str, Any], seconds: float) -> TrialCost:
    from llmemf.config import build_config
    from llmemf.models import model_class

    assert _data is not None, "the process was prepared"
    return measure(build_config(model_class(values["model"]).config_class, values), _data, seconds)


def share_data(data: TrialData, file: IO[bytes]) -> list[tuple[int, int]]:
    """Write data into an open file; returns (start, bytes) of the pickle and of its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    places = []
    parts: list[bytes | memoryview] = [head, *(buffer.raw() for buffer in buffers)]
    for part in parts:
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        places.append((file.tell(), len(part)))
        file.write(part)
    file.flush()
    return places


def attach_data(path: str, places: list[tuple[int, int]]) -> TrialData:
    """The data of `share_data`, its arrays read-only in shared memory; this program made the pickle a moment ago."""
    with Path(path).open("rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    head, *parts = [memory[start : start + length] for start, length in places]
    return pickle.loads(head, buffers=parts)


def visible_gpus(index: int, gpus_per_trial: float, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of the trial with this index, packed as Ray packs them; Ray hides all from one that asks for none.

    Args:
        visible: the variable as it is now.
    """
    if not gpus_per_trial:
        return ""
    if gpus_per_trial >= 1:
        count = int(gpus_per_trial)
        wanted = list(range(index * count, (index + 1) * count))
    else:
        wanted = [index // int(1 / gpus_per_trial + 1e-9)]
    names = visible.split(",") if visible else None
    return ",".join(names[number] if names else str(number) for number in wanted)


def available_memory() -> int:
    """Bytes that this machine has left for new processes."""
    path = Path("/proc/meminfo")
    if path.exists():
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
