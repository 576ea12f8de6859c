"""Processes that each stand for one trial, as many as trials run at once; each measures configurations."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.costs.measure import TrialCost, measure
from sweeps.state.sweep_record import SweepRecord

if TYPE_CHECKING:
    from llmemf.batches import TrialData

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
        import joblib

        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "data"
        joblib.dump(self.data, path)
        context = multiprocessing.get_context("spawn")
        indexes, all_ready = context.SimpleQueue(), context.Barrier(self.count)
        for index in range(self.count):
            indexes.put(index)
        self._pool = ProcessPoolExecutor(self.count, context, _prepare, (path, self.record, indexes, all_ready))
        began = time.perf_counter()
        self._results([self._pool.submit(os.getpid) for _ in range(self.count)])
        self.start_seconds = time.perf_counter() - began
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def measure(self, configs: Sequence[TrialConfig], seconds: float) -> list[TrialCost]:
        """Measure each configuration in a process of its own, all at the same time; no more than `count` of them.

        Raises:
            InputError: a process died, or a configuration does not fit.
        """
        return self._results([self._pool.submit(_measure, config, seconds) for config in configs])

    @staticmethod
    def _results(futures: list[Future]) -> list[Any]:
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise InputError("a trial of the estimate ended early: its memory ran out, or somebody ended it") from None
        except Exception as error:
            raise InputError(f"a trial cannot run: {error}") from error


def _prepare(path: Path, record: SweepRecord, indexes: Any, all_ready: Any) -> None:
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
    import joblib
    import torch
    from ray import tune  # noqa: F401

    from llmemf.training import Trainer  # noqa: F401

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    _data = joblib.load(path, mmap_mode="r")  # this program made it a moment ago
    all_ready.wait()


def _measure(config: TrialConfig, seconds: float) -> TrialCost:
    assert _data is not None, "the process was prepared"
    return measure(config, _data, seconds)


def visible_gpus(index: int, gpus_per_trial: float, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of the trial with this index, packed as Ray packs them; Ray hides all from one that asks for none.

    Args:
        visible: the variable as it is now.
    """
    if not gpus_per_trial:
        return ""
    count = max(1, int(gpus_per_trial))
    first = index * count if gpus_per_trial >= 1 else index // int(1 / gpus_per_trial + 1e-9)
    names = visible.split(",") if visible else [str(number) for number in range(first + count)]
    return ",".join(names[first : first + count])
