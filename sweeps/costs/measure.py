"""What one configuration costs: a few real training steps and validation cases, scaled up to an epoch.

They are measured in processes that each stand for one trial, as many as trials run at once.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self, cast

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.state.sweep_record import SweepRecord

if TYPE_CHECKING:
    import torch

    from llmemf.batches import Batch, DeviceSequences, TrialData

TRAIN_SHARE, VALID_SHARE = 0.6, 0.4
PIECES = 3
"""Timed pieces of an epoch; their median counts."""
NICENESS = 15
"""Ray gives its workers this low priority (its `worker_niceness`), so that other programs on the machine come first."""
_data: TrialData | None = None
"""In a measuring process: what trials see."""


@dataclass(frozen=True)
class TrialCost:
    """What one configuration costs in one process.

    Attributes:
        build: seconds for model, optimiser and tables on the device.
        train: seconds per epoch, scaled up from `steps` training steps.
        valid: seconds per epoch, scaled up from `cases` validation cases.
        save: seconds of one checkpoint.
        memory: peak of the resident set, bytes.
        private: the part of it that no other trial shares: neither program files nor data.
        gpu_memory: peak of what torch reserved on the GPU, bytes; 0 without one.
        gpu_total: bytes of the GPU.
        device: name of the device.
    """

    build: float
    train: float
    valid: float
    save: float
    steps: int
    cases: int
    memory: int
    private: int
    gpu_memory: int = 0
    gpu_total: int = 0
    device: str = "CPU"

    @property
    def epoch(self) -> float:
        return self.train + self.valid


class _Subset:
    """Some of the training sequences in the place of all."""

    def __init__(self, sequences: DeviceSequences, rows: torch.Tensor) -> None:
        self.sequences, self.rows = sequences, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: torch.Tensor) -> Batch:
        return self.sequences.batch(self.rows[index])


def measure(config: TrialConfig, data: TrialData, seconds: float) -> TrialCost:
    """Train and validate pieces of epochs for about so many seconds; two first pieces warm up.

    Raises:
        InputError: the configuration does not fit the data.
        NonFiniteLoss: training diverged at once.
    """
    import numpy as np
    import torch

    from llmemf.memory import memory_gb, process_bytes
    from llmemf.training import Trainer

    began = time.perf_counter()
    trainer = Trainer(config.model_copy(update={"epochs": 10**9, "patience": 0}), data)
    build = time.perf_counter() - began
    sequences, batch = trainer.train_sequences, config.batch_size
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.permutation(len(sequences))).to(sequences.device)
    cases = rng.permutation(np.arange(len(data.valid)) if trainer.valid_cases is None else trainer.valid_cases)
    num_steps, epochs = math.ceil(len(sequences) / batch), trainer.epochs()

    def piece(steps: int, num_cases: int) -> tuple[float, float]:
        """Seconds per training step, and seconds of the validation."""
        trainer.train_sequences = cast("DeviceSequences", _Subset(sequences, rows[: steps * batch]))
        trainer.valid_cases = np.sort(cases[:num_cases])
        metrics = next(epochs)
        return metrics["seconds_train"] / steps, metrics["seconds_valid"]

    few = min(len(cases), 2 * config.eval_batch_size)
    piece(1, few)
    step, short = piece(1, few)
    steps = max(1, min(num_steps, int(seconds * TRAIN_SHARE / PIECES / step)))
    many = min(len(cases), max(2 * few, int(few * seconds * VALID_SHARE / PIECES / short)))
    step, valid = map(median, zip(*(piece(steps, many) for _ in range(PIECES)), strict=True))
    if many < len(cases):
        # The fixed part of a validation does not grow with its cases and is not scaled up.
        per_case = (valid - short) / (many - few) if valid > short else valid / many
        valid += per_case * (len(cases) - many)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trainer.save(folder)
        save = time.perf_counter() - began
    peak, gpu = memory_gb(trainer.device), cast("dict[str, Any]", {})
    memory = int(peak["memory_gb"] * 2**30)
    if trainer.device.type == "cuda":
        facts = torch.cuda.get_device_properties(trainer.device)
        gpu = {"gpu_memory": int(peak["gpu_mem_gb"] * 2**30), "gpu_total": facts.total_memory, "device": facts.name}
    resident, *shared = (process_bytes(name) or 0 for name in ("VmRSS", "RssFile", "RssShmem"))
    private = max(memory, resident) - sum(shared)
    return TrialCost(build, step * num_steps, valid, save, steps, many, memory, private, **gpu)


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
