"""What a sweep costs beside training: per trial, per epoch and once, with Ray, Optuna, ASHA off and MLflow over SQLite.

    python benchmarks/overhead.py [--epoch-seconds 1.8] [--json out.json]

Three sweeps of trials that do nothing, one at a time on a local Ray: one trial of one epoch, one of 200 epochs, nine of one
epoch. Their wall clocks give the cost of an epoch's report, of a trial's start and end (a new process that imports torch),
and what is paid once. The shares are arithmetic on these, for a trial of 100 epochs and for a sweep of 25 trials that
successive halving cuts to 289 epochs in all, at the given seconds per epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, TRIALS = 200, 9
HALVING_EPOCHS, HALVING_TRIALS = 289, 25
SWEEP = """
import json, sys, time
from rich.console import Console
from sweep_fakes import fake_evaluate, fast_trial, tiny_data
from sweeps.plan import Options, plan_sweep
from sweeps.sweep import StandIns, run_sweep

trials, epochs = map(int, sys.argv[1:])
plan = plan_sweep(
    Options(scenario="sample", name="s1", search="optuna", trials=trials, epochs=epochs, scheduler="none", concurrency=1,
            assignments=["lr=1e-4,1e-3"])
)
stand_ins = StandIns(data=tiny_data(), trainable=fast_trial, evaluate=fake_evaluate)
began = time.perf_counter()
run_sweep(plan, Console(file=open("log", "w")), stand_ins=stand_ins)
print(json.dumps(time.perf_counter() - began))
"""


def seconds(trials: int, epochs: int) -> float:
    """Wall clock of one sweep in a process of its own."""
    folder = tempfile.mkdtemp(prefix="overhead-")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "sweeps")])}
    command = [sys.executable, "-c", SWEEP, str(trials), str(epochs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    shutil.rmtree(folder)
    return json.loads(done.stdout.splitlines()[-1])


def measure(epoch_seconds: float) -> dict[str, float]:
    """All figures of this benchmark by name."""
    seconds(1, 1)  # warms the disk's cache
    shortest, long, many = seconds(1, 1), seconds(1, EPOCHS), seconds(TRIALS, 1)
    report = (long - shortest) / (EPOCHS - 1)
    trial = (many - shortest) / (TRIALS - 1)
    halving = HALVING_TRIALS * trial + HALVING_EPOCHS * report
    return {
        "ms per report": 1000 * report,
        "seconds per trial": trial,
        "seconds once per sweep": shortest - trial,
        "share of a trial of 100 epochs": (trial + 100 * report) / (100 * epoch_seconds),
        "share of a halving sweep": halving / (HALVING_EPOCHS * epoch_seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epoch-seconds", type=float, default=1.8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(given.epoch_seconds)
    for name, value in found.items():
        print(f"{name:32} {value:.4g}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
