"""Starts copies of `probe`, as many as trials run at once, and asks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from llmemf.batches import TrialData
from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.costs.probe import Measured, share_data
from sweeps.costs.scaling import Device
from sweeps.state.settings import SweepRecord

ROOT = Path(__file__).resolve().parent.parent


class Probes:
    """Processes that each stand for a trial, with the threads and the part of a GPU that a trial gets.

    Args:
        data: what trials see; all processes map one copy of it.
        record: resources of a trial.

    Attributes:
        imports: seconds from the start of the first process until it was ready for a trial.
    """

    def __init__(self, data: TrialData, record: SweepRecord) -> None:
        self.data, self.record = data, record
        self.imports = 0.0

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._file = self._stack.enter_context(tempfile.TemporaryFile())
        self._errors = self._stack.enter_context(tempfile.TemporaryFile())
        self._places = share_data(self.data, self._file)
        self._processes: list[subprocess.Popen] = []
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        self._stack.close()

    def start(self, count: int) -> None:
        """Have so many processes ready; those that run already stay."""
        new = range(len(self._processes), count)
        began = time.perf_counter()
        self._processes += [self._process(index) for index in new]
        for index in new:
            self._answer(index)
        if new and new[0] == 0:
            self.imports = time.perf_counter() - began

    def measure(self, configs: Sequence[TrialConfig], seconds: float) -> list[Measured]:
        """Measure each configuration in its own process, all at the same time.

        Raises:
            InputError: a process died, or a configuration does not fit.
        """
        for process, config in zip(self._processes, configs):
            process.stdin.write(json.dumps({"config": config.to_dict(), "seconds": seconds}) + "\n")
            process.stdin.flush()
        return [Measured(**self._answer(index)) for index in range(len(configs))]

    def ceilings(self, device: str) -> Device:
        """What the first process's device reaches at most; `device` as in a trial's configuration."""
        process = self._processes[0]
        process.stdin.write(json.dumps({"ceilings": device}) + "\n")
        process.stdin.flush()
        return Device(**self._answer(0))

    def _process(self, index: int) -> subprocess.Popen:
        threads = max(1, int(self.record.cpus_per_trial))
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        visible = visible_gpus(index, self.record.gpus_per_trial, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        handle = self._file.fileno()
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.costs.probe", str(threads), str(handle), self._places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
            pass_fds=(handle,),
        )

    def _answer(self, index: int) -> dict[str, Any]:
        line = self._processes[index].stdout.readline()
        if not line:
            code = self._processes[index].wait()
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()
            said = "memory ran out" if code == -9 else words[-1] if words else f"exit code {code}"
            raise InputError(f"the estimate's trial {index + 1} ended early: {said}")
        answer = json.loads(line)
        if "problem" in answer:
            raise InputError(f"a trial cannot run: {answer['problem']}")
        return answer


def visible_gpus(index: int, gpus_per_trial: float, visible: str | None) -> str | None:
    """CUDA_VISIBLE_DEVICES of the trial with this index, packed as Ray packs them; None leaves the environment alone.

    Args:
        visible: the variable as it is now.
    """
    if not gpus_per_trial:
        return None
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
    return total_memory()


def total_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
