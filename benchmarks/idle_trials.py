"""A sweep whose trials wait instead of training; prints what it took beside them, as JSON. Used by `overhead.py`.

    python benchmarks/idle_trials.py TRIALS EPOCHS SECONDS [--fresh-workers]

One trial at a time on a local Ray, with Optuna and MLflow over SQLite, in the current folder. Between the last epoch of a
trial and the first one of the next lies the time of that epoch and what the sweep adds; the event log has the
time of each. What a report blocks is measured where it blocks, in the trial.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests" / "sweeps", ROOT):
    sys.path.insert(0, str(folder))
# Ray's workers import this file and the fakes.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent), str(ROOT / "tests" / "sweeps")])

from sweeps.core.trial import run_epochs

DOMAINS, RANKING = ("movie", "book"), ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")


class IdleTrainer:
    """Yields as many metrics as a real trainer, and waits."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.epochs_left, self.seconds = config["epochs"], config["lr"]

    def save(self, folder: Path) -> None:
        for name in ("state.pt", "best.safetensors", "config.yaml"):
            (folder / name).write_text("{}")

    def epochs(self) -> Iterator[dict[str, Any]]:
        blocked = 0.0
        for epoch in range(1, self.epochs_left + 1):
            time.sleep(self.seconds)
            ranks = {
                f"{kind}/{domain}/{name}": 0.1 for kind in ("val", "val_full") for domain in DOMAINS for name in RANKING
            }
            metrics = {"epoch": epoch, "objective": 0.1 + epoch / 1e4, "best_epoch": epoch, "stopped_early": False}
            metrics |= {
                **ranks,
                "train/loss": 1.0,
                "train/blocked": blocked,
                "seconds_train": self.seconds,
                "val/mrr": 0.1,
            }
            began = time.perf_counter()
            yield metrics
            blocked = time.perf_counter() - began


def idle_trial(config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()) -> Iterator[dict[str, Any]]:
    return run_epochs(lambda: IdleTrainer(config), config, folder, checkpoint_epochs)


def measure(trials: int, epochs: int, seconds: float, fresh_workers: bool) -> dict[str, Any]:
    """Run the sweep.

    Returns:
        `trial`: seconds of the start and end of each trial but the first; `blocked`: seconds of each report; `busy`: CPU
        seconds of the driver per report; `wall`: seconds of the whole sweep.
    """
    from idle_trials import idle_trial
    from rich.console import Console
    from sweep_fakes import fake_evaluate, tiny_data

    from sweeps.core.options import Options
    from sweeps.core.plan import plan_sweep
    from sweeps.core.run import run_sweep
    from sweeps.core.sweep import TrialBackend
    from sweeps.state.sweep_state import SweepState

    options = {"scenario": "sample", "name": "s1", "search": "optuna", "scheduler": "none", "concurrency": 1}
    # The learning rate is how long to wait; the other settings are Optuna's to propose.
    assignments = [f"lr={seconds}", "l2=1e-6,1e-5,1e-4"]
    plan = plan_sweep(
        Options(**options, trials=trials, epochs=epochs, assignments=assignments, fresh_workers=fresh_workers)
    )
    cpu: list[float] = []

    def saved(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu.append(used.ru_utime + used.ru_stime)

    backend = TrialBackend(data=tiny_data(), trainable=idle_trial, evaluate=fake_evaluate, saved=saved)
    began = time.perf_counter()
    with Path("log").open("w") as log:
        run_sweep(plan, Console(file=log), backend=backend)
    wall = time.perf_counter() - began
    events = list(SweepState(plan.record.folder).epochs())
    starts = [
        (event["time"] - before["time"]) / 1000 - seconds
        for before, event in itertools.pairwise(events)
        if event["result"]["epoch"] == 1
    ]
    blocked = [event["result"]["train/blocked"] for event in events if event["result"]["epoch"] > 1]
    return {
        "trial": starts,
        "blocked": blocked,
        "busy": statistics.median(after - before for before, after in itertools.pairwise(cpu)),
        "wall": wall,
    }


if __name__ == "__main__":
    trials, epochs, seconds, *flags = sys.argv[1:]
    print(json.dumps(measure(int(trials), int(epochs), float(seconds), "--fresh-workers" in flags)))
