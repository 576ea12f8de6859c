"""What one configuration costs: a few real training steps and validation cases, scaled up to an epoch."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from llmemf.batches import Batch, DeviceSequences, TrialData
    from llmemf.config import TrialConfig

TRAIN_SHARE, VALID_SHARE = 0.6, 0.4
PIECES = 3
"""Timed pieces of an epoch; their median counts."""


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
