"""Trials one after the other in this process, as Ray Tune runs them in a `TrialWorker`; prints what the last one did.

python warm_trials.py FOLDER (fresh | warm)
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny import SMALL, make_data

from sweeps.core.trial import is_last, train_trial
from sweeps.core.worker import TrialWorker
from sweeps.state.checkpoints import newest, trial_folder

TARGET = {"model": "llm_emf", "seed": 3, "epochs": 3, "dropout": 0.2, "l2": 1e-4}
EARLIER = [
    ({**TARGET, "careless": True}, 99),
    ({"model": "sasrec", "seed": 5, "epochs": 3, "dim": 10, "id_dim": None}, 99),
    ({**TARGET, "seed": 4, "id_dim": 14, "encoder_layers": 2, "alpha": 0.1}, 99),
    ({**TARGET, "seed": 9, "epochs": 50, "lr": 0.3}, 3),
]
"""Settings of the trials before the target, and after how many epochs each is left at the latest."""
HELD = 2**26
"""Numbers that the careless trial holds: half a GiB."""
states: list[dict[str, Any]] = []


def any_trial(config: dict[str, Any], **shared: Any) -> Iterator[dict[str, Any]]:
    states.append(state())
    careless = config.pop("careless", False)
    if careless:
        torch.ones(HELD, dtype=torch.float64)
    for report in train_trial(config, **shared):
        if careless and is_last(report):
            leave_things_behind()
        yield report


def leave_things_behind() -> None:
    """What a trial may change in its process, and in which a later one would notice it."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")


def state() -> dict[str, Any]:
    """The process as far as it can be compared."""
    return {
        "random": [random.random(), np.random.random(), torch.rand(3).tolist()],
        "threads": [torch.get_num_threads(), threading.active_count()],
        "new tensor": str(torch.zeros(1).dtype),
        "torch": [torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()],
        "precision": torch.get_float32_matmul_precision(),
        "files": len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0,
    }


class WarmTrials:
    """A worker without Ray, which would give each trial its folder and call `step` as long as the scheduler allows."""

    def __init__(self, folder: Path) -> None:
        (folder / "sweep.yaml").write_text("name: s1\n")
        self.folder, self.count = folder, 0
        self.worker = TrialWorker.__new__(TrialWorker)
        self.worker._trial_info = SimpleNamespace(trial_resources=SimpleNamespace(required_resources={"CPU": 1.0}))
        self.worker.setup({}, any_trial, make_data(), str(folder), [2])

    def run(self, settings: dict[str, Any], epochs: int = 99) -> list[dict[str, Any]]:
        """The reports of a trial that is left after so many epochs."""
        self.count += 1
        os.chdir(self.folder)
        given = {**SMALL, **settings, "trial": self.count}
        self.worker.config = {key: value for key, value in given.items() if value is not None}
        if self.count > 1:
            assert self.worker.reset_config(self.worker.config)
        reports = [self.worker.step()]
        while not reports[-1]["done"] and len(reports) < epochs:
            reports.append(self.worker.step())
        return reports

    def weights(self) -> dict[str, str]:
        """Hashes of all that the last checkpoint holds."""
        folder = newest(trial_folder(self.folder, self.count))
        content = torch.load(folder / "state.pt", weights_only=True)
        found = {"best": hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()}
        moments = {
            f"{key}/{name}": value
            for key, part in content["optimizer"]["state"].items()
            for name, value in part.items()
        }
        for name, tensor in {**content["model"], **moments}.items():
            found[name] = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        return found


if __name__ == "__main__":
    trials = WarmTrials(Path(sys.argv[1]))
    before = [trials.run(settings, epochs) for settings, epochs in (EARLIER if sys.argv[2] == "warm" else [])]
    reports = trials.run(TARGET)
    print(json.dumps({"reports": reports, "before": before, "weights": trials.weights(), "states": states}))
