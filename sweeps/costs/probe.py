"""A process that stands for one trial: it imports what a trial imports, trains a little, and tells what that took.

`estimate` starts it, hands it the data as an open file that all copies map into memory (as trials map Ray's object
store), and then one configuration after the other, a JSON line each; answers are JSON lines too. It ends with its input.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from llmemf.batches import Batch, DeviceSequences, TrialData
    from llmemf.config import TrialConfig
    from sweeps.costs.scaling import Device

ALIGNMENT = 64
NICENESS = 15
"""Ray's workers make way for everything else that runs on their machine (its `worker_niceness`)."""
TRAIN_SHARE, VALID_SHARE = 0.6, 0.4
ROUNDS = 5
"""Timed pieces of an epoch, of which the median counts."""


@dataclass(frozen=True)
class Measured:
    """What one configuration costs, in one process.

    Attributes:
        build: seconds for model, optimiser and tables on the device.
        train, valid: seconds of a whole epoch, scaled up from `steps` training steps and `cases` validation cases.
        save: seconds of one checkpoint.
        memory: peak of the resident set, bytes.
        private: the part of it that no other trial shares: neither program files nor data.
        libraries: resident set before anything was built.
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
    libraries: int
    gpu_memory: int = 0
    gpu_total: int = 0
    device: str = "CPU"

    @property
    def epoch(self) -> float:
        return self.train + self.valid

    def scaled(self, factor: float) -> Measured:
        """The same with other times for an epoch."""
        return replace(self, train=factor * self.train, valid=factor * self.valid)


def share_data(data: TrialData, file: IO[bytes]) -> str:
    """Write data into an open file; the text that comes back tells `attach_data` where its arrays lie."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    places = []
    for part in (head, *(buffer.raw() for buffer in buffers)):
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        places.append((file.tell(), len(part)))
        file.write(part)
    file.flush()
    return json.dumps(places)


def attach_data(handle: int, places: str) -> TrialData:
    """The data of `share_data`, its arrays read-only in shared memory; the pickle is this program's own, never a file's."""
    memory = memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
    head, *parts = [memory[start : start + length] for start, length in json.loads(places)]
    return pickle.loads(head, buffers=parts)


class _Some:
    """Some of the training sequences, in the place of all."""

    def __init__(self, sequences: DeviceSequences, rows: torch.Tensor) -> None:
        self.sequences, self.rows = sequences, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: torch.Tensor) -> Batch:
        return self.sequences.batch(self.rows[index])


def measure(config: TrialConfig, data: TrialData, seconds: float) -> Measured:
    """Train and validate pieces of epochs for about so many seconds; the first piece only warms up.

    Raises:
        InputError: the configuration does not fit the data.
        NonFiniteLoss: training diverged at once.
    """
    import numpy as np
    import torch

    from llmemf.memory import memory_gb
    from llmemf.training import Trainer

    libraries = _resident()[0]
    began = time.perf_counter()
    trainer = Trainer(config.model_copy(update={"epochs": 10**9, "patience": 0}), data)
    sequences, all_cases = trainer.train_sequences, trainer.valid_cases
    all_cases = np.arange(len(data.valid)) if all_cases is None else all_cases
    build = time.perf_counter() - began
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.permutation(len(sequences))).to(sequences.device)
    cases = _interleaved(rng.permutation(all_cases), data)
    num_steps, batch = math.ceil(len(sequences) / config.batch_size), config.batch_size
    epochs = trainer.epochs()

    def piece(steps: int, num_cases: int) -> tuple[float, float]:
        trainer.train_sequences = _Some(sequences, rows[: steps * batch])
        trainer.valid_cases = np.sort(cases[:num_cases])
        metrics = next(epochs)
        return metrics["seconds_train"] / steps, metrics["seconds_valid"]

    few = min(len(cases), 2 * config.eval_batch_size)
    piece(1, few)
    step, short = piece(1, few)
    steps = max(1, min(num_steps, int(seconds * TRAIN_SHARE / ROUNDS / step)))
    many = min(len(cases), max(2 * few, int(few * seconds * VALID_SHARE / ROUNDS / short)))
    pieces = [piece(steps, many) for _ in range(ROUNDS)]
    step, long = median(piece[0] for piece in pieces), median(piece[1] for piece in pieces)
    if many < len(cases):
        # What a validation begins with, whatever the number of its cases, is not scaled up.
        per_case = (long - short) / (many - few) if long > short else long / many
        long += per_case * (len(cases) - many)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trainer.save(folder)
        save = time.perf_counter() - began
    peak = memory_gb(trainer.device)
    resident, shared = _resident()
    memory = int(peak["memory_gb"] * 2**30)
    gpu = {}
    if trainer.device.type == "cuda":
        properties = torch.cuda.get_device_properties(trainer.device)
        gpu = {
            "gpu_memory": int(peak["gpu_mem_gb"] * 2**30),
            "gpu_total": properties.total_memory,
            "device": properties.name,
        }
    return Measured(
        build, step * num_steps, long, save, steps, many, memory, max(memory, resident) - shared, libraries, **gpu
    )


def _interleaved(cases: np.ndarray, data: TrialData) -> np.ndarray:
    """The cases so that each beginning of the list has both domains in their proportion."""
    import numpy as np

    in_y = data.valid.targets[cases] >= data.num_x
    place = np.empty(len(cases))
    for part in (in_y, ~in_y):
        place[part] = (np.arange(part.sum()) + 0.5) / max(1, part.sum())
    return cases[np.argsort(place, kind="stable")]


def _resident() -> tuple[int, int]:
    """Bytes of the resident set, and the part of it that lies in files or shared memory (0 where that is not told)."""
    from llmemf.memory import peak_bytes, process_bytes

    resident = process_bytes("VmRSS")
    if resident is None:
        return peak_bytes(), 0
    return resident, process_bytes("RssFile") + process_bytes("RssShmem")


def serve(threads: int, handle: int, places: str, answer: Callable[[dict[str, Any]], None]) -> None:
    """Import, attach the data, then measure what stands on the lines of the standard input."""
    import torch
    from ray import tune  # noqa: F401  a trial's process has it

    from llmemf.config import build_config
    from llmemf.models import model_class
    from llmemf.training import Trainer  # noqa: F401

    torch.set_num_threads(threads)
    data = attach_data(handle, places)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    answer({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "ceilings" in asked:
                answer(asdict(_ceilings(asked["ceilings"])))
                continue
            config = build_config(model_class(asked["config"]["model"]).config_class, asked["config"])
            answer(asdict(measure(config, data, asked["seconds"])))
        except Exception as error:  # noqa: BLE001  whatever it is, the parent says it
            answer({"problem": f"{type(error).__name__}: {error}"})


def _ceilings(device: str) -> Device:
    import torch

    from llmemf.models.recommender import pick_device
    from sweeps.costs.ceilings import ceilings

    found = pick_device(device)
    on_gpu = found.type == "cuda"
    memory = (
        torch.cuda.get_device_properties(found).total_memory if on_gpu else os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    )
    return ceilings(str(found), memory)


def main() -> None:
    os.nice(max(0, int(os.environ.get("RAY_worker_niceness", NICENESS)) - os.nice(0)))
    # Libraries that print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], answer)


if __name__ == "__main__":
    main()
