"""How good `--estimate` is: an estimate, then the real sweep, as ratios of the two (estimated over real).

    python benchmarks/estimate_ratio.py --scenario sample
    python benchmarks/estimate_ratio.py --scenario movie_book_windows --data-root data --trials 6 --epochs 3

Both must find the machine in the same state; what else runs on it is in both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweeps.cluster.resources import machine, slots
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.sweep_data import load_data
from sweeps.costs.estimate import estimate
from sweeps.state.event_log import EVENT_LOG, EventLog

MB = 2**20
GRID = Path(__file__).resolve().parent.parent / "sweeps" / "grid.py"


def real_figures(folder: Path) -> dict[str, float]:
    """Seconds, epochs and memory of a finished sweep, from its event log."""
    events = EventLog(folder / EVENT_LOG).read()
    epochs = [event for event in events if event["event"] == "epoch"]
    times = [event["result"]["seconds_train"] + event["result"]["seconds_valid"] for event in epochs]
    by_trial: dict[int, list[int]] = {}
    for index, event in enumerate(epochs):
        by_trial.setdefault(event["trial"], []).append(index)
    around = [epochs[found[-1]]["seconds"] - sum(times[index] for index in found) for found in by_trial.values()]
    return {
        "epochs per trial": len(epochs) / len(by_trial),
        "seconds per epoch": statistics.mean(times),
        "seconds around the epochs, per trial": statistics.mean(around),
        "memory per trial, MiB": 1024 * statistics.mean(event["result"]["memory_gb"] for event in epochs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="sample")
    parser.add_argument("--data-root", default="data", type=Path)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="estimate-ratio-") as storage:
        options = Options(**vars(arguments), storage=Path(storage), name="real")
        plan = plan_sweep(options)
        found = estimate(plan, load_data(plan), slots(plan.record, machine()), console)
        command = [sys.executable, str(GRID), "--storage", storage, "--name", "real"]
        for key, value in vars(arguments).items():
            command += [] if value is None else [f"--{key.replace('_', '-')}", str(value)]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        real = real_figures(plan.record.folder)
    estimated = {
        "epochs per trial": found.epochs,
        "seconds per epoch": found.mean("epoch"),
        "seconds around the epochs, per trial": found.start,
        "memory per trial, MiB": found.mean("memory") / MB,
        "whole sweep, seconds": found.expected,
    }
    table = Table(box=None, padding=(0, 1))
    for name in ("", "estimated", "real", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, value in estimated.items():
        truth = real.get(name, wall)
        table.add_row(name, f"{value:.1f}", f"{truth:.1f}", f"{value / truth:.2f}")
    console.print()
    console.print(table)


if __name__ == "__main__":
    main()
