"""What a sweep costs beside training: per trial, per epoch and once, with Ray, Optuna and MLflow over SQLite.

    python benchmarks/overhead.py [--rounds 5] [--epoch-seconds 1.8] [--json out.json]

Sweeps of trials that wait instead of training, one at a time on a local Ray (`idle_trials.py`), in turn with warm workers
(one process runs trials one after the other, as by default) and with fresh ones (`--fresh-workers`). The figures are medians
over all trials, or all epochs, of all rounds. Of a report there are two: for how long it blocks the trial, and for how long
it keeps the driver's CPU busy, MLflow's thread included, while the trial trains on.

The shares are arithmetic on these, for a trial of 100 epochs in a warm process, and for a sweep of 25 trials that successive
halving cuts to 289 epochs in all, of which the first starts the process; at the given seconds per epoch.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from figures import parser, report

HERE = Path(__file__).resolve().parent

EPOCHS, WAIT = 20, 0.1
TRIALS = {"warm": 9, "fresh": 4}
HALVING_EPOCHS, HALVING_TRIALS = 289, 25


def run(kind: str) -> dict[str, Any]:
    """What one sweep took (`idle_trials.measure`), in a process and a folder of its own."""
    folder = tempfile.mkdtemp(prefix="overhead-")
    flags = ["--fresh-workers"] if kind == "fresh" else []
    command = [sys.executable, str(HERE / "idle_trials.py"), str(TRIALS[kind]), str(EPOCHS), str(WAIT), *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    shutil.rmtree(folder)
    return json.loads(done.stdout.splitlines()[-1])


def measure(epoch_seconds: float, rounds: int) -> dict[str, float]:
    """All figures of this benchmark by name."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TRIALS}
    for _ in range(rounds):
        for kind, sweeps in found.items():
            sweeps.append(run(kind))
    trial = {
        kind: statistics.median(seconds for sweep in sweeps for seconds in sweep["trial"])
        for kind, sweeps in found.items()
    }
    everything = [sweep for sweeps in found.values() for sweep in sweeps]
    blocked = statistics.median(seconds for sweep in everything for seconds in sweep["blocked"])
    halving = HALVING_EPOCHS * epoch_seconds
    return {
        "ms per report": 1000 * blocked,
        "ms per report, driver busy": 1000 * statistics.median(sweep["busy"] for sweep in everything),
        "seconds per trial": trial["warm"],
        "seconds per trial, fresh": trial["fresh"],
        "seconds once per sweep": statistics.median(once(sweep) for sweep in found["fresh"]),
        "share of a trial of 100 epochs": (trial["warm"] + 100 * blocked) / (100 * epoch_seconds),
        "share of a trial of 100 epochs, fresh": (trial["fresh"] + 100 * blocked) / (100 * epoch_seconds),
        "share of a halving sweep": (trial["fresh"] + (HALVING_TRIALS - 1) * trial["warm"] + HALVING_EPOCHS * blocked)
        / halving,
        "share of a halving sweep, fresh": (HALVING_TRIALS * trial["fresh"] + HALVING_EPOCHS * blocked) / halving,
    }


def once(sweep: dict[str, Any]) -> float:
    """Seconds of a sweep of fresh workers that belong to none of its trials: starting and ending Ray, Tune, the database."""
    epochs = sum(sweep["blocked"]) + TRIALS["fresh"] * EPOCHS * WAIT
    return sweep["wall"] - epochs - TRIALS["fresh"] * statistics.median(sweep["trial"])


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--epoch-seconds", type=float, default=1.8)
    given = options.parse_args()
    report(measure(given.epoch_seconds, given.rounds), given.json)


if __name__ == "__main__":
    main()
