"""Trials that leave their process in different ways, one after the other; importable by Ray's workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sweeps.state.checkpoints import trial_folder

EPOCHS = 3
CHANGED_THREADS = 2
"""Threads of torch that every trial leaves; a worker of one CPU begins with one."""
VALUES = (0.5, 0.1, 0.6, 0.7, 0.1, 0.8, 0.9)
"""Objective of each trial; one of 0.1 is stopped after its first epoch where an earlier one had more."""


def odd_trial(config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()) -> Iterator[dict[str, Any]]:
    """The third fails, the fourth leaves a thread, and the process of the fifth dies when that trial is left."""
    number = config["trial"]
    seen = {"train/pid": float(os.getpid()), "train/changed": float(torch.get_num_threads() == CHANGED_THREADS)}
    torch.set_num_threads(CHANGED_THREADS)
    write_weights(folder, number)
    try:
        for epoch in range(1, EPOCHS + 1):
            if number == 3 and epoch == 2:
                raise ArithmeticError("no number")
            if number == 4:
                threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()
            yield report(epoch, EPOCHS, VALUES[number - 1], seen)
    except GeneratorExit:
        if number == 5:
            os._exit(1)
        raise


def uneven_trial(
    config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()
) -> Iterator[dict[str, Any]]:
    """One epoch. The first and the eleventh wait for a trial beside them; the tenth takes longer than the ninth."""
    number = config["trial"]
    write_weights(folder, number)
    while number in (1, 11) and not trial_folder(Path(folder), number + 1).exists():
        time.sleep(0.1)
    time.sleep(2 if number == 10 else 0.1)
    yield report(1, 1, number / 100, {"train/pid": float(os.getpid())})


def write_weights(folder: str, number: int) -> None:
    weights = trial_folder(Path(folder), number) / "epoch-0001"
    weights.mkdir(parents=True, exist_ok=True)
    for name in ("best.safetensors", "config.yaml"):
        (weights / name).write_text("{}")


def report(epoch: int, epochs: int, value: float, seen: dict[str, float]) -> dict[str, Any]:
    said = {"epoch": epoch, "epochs": epochs, "best_epoch": 1, "stopped_early": False}
    return {**said, "objective": value, "val/movie/mrr": value, **seen}
