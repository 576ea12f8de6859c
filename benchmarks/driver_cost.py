"""The driver's own cost per trial and per report, for sweeps of 10, 100 and 1,000 trials: it must stay flat.

    python benchmarks/driver_cost.py [--trials 10,100,1000] [--epochs 6]

It calls everything that a sweep does in its driver (proposal, event log, Optuna, ASHA, MLflow over SQLite, display,
retention) as Ray Tune calls it, without Ray; what Ray adds is in `overhead.py`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from sweeps.core.callback import SweepCallback
from sweeps.core.display import Display
from sweeps.core.interrupt import StopRequest
from sweeps.search.asha import ResumableASHA
from sweeps.search.search import SweepSearch
from sweeps.search.space_entries import build_space
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import TrackingTarget
from sweeps.tracking.owned_runs import RunOwner
from sweeps.tracking.runs import Tracking

SPACE = {"lr": [1e-4, 1e-3, 1e-2], "l2": [1e-5, 1e-3], "alpha, beta": {"simplex": 0.1}, "lambda1": [0.1, 0.5, 1.0]}
AT_ONCE = 8


def simulate(trials: int, epochs: int, method: str) -> dict[str, float]:
    """One sweep without Ray.

    Returns:
        milliseconds: per proposal, report and end of a trial (medians over the last tenth of the sweep, ten calls at
        least), blocked per trial, per write to MLflow, and for rebuilding the search from the event log.
    """
    folder = Path(tempfile.mkdtemp(prefix="driver-cost-"))
    space = build_space(SPACE)
    state = SweepState(folder)
    points = space.fresh(0, [], trials if method == "grid" else trials // 2)
    search = SweepSearch(space, state, method=method, trials=trials, epochs=epochs, points=points)
    target = TrackingTarget(
        f"sqlite:///{folder / 'mlflow.db'}", "cost", RunOwner("s1", "s1"), (folder / "artifacts").as_uri()
    )
    tracking = Tracking(target)
    tracking.connect()
    tracking.open(state)
    console = Console(file=io.StringIO())
    display = Display(console, title="cost", planned=trials, slots=AT_ONCE, records=state.records)
    retention = CheckpointRetention(folder, state, 5)
    sweep: Any = SimpleNamespace(
        folder=folder, state=state, search=search, tracking=tracking, display=display, retention=retention
    )
    callback = SweepCallback(sweep, StopRequest())
    scheduler = ResumableASHA([], max_t=epochs, grace_period=2, reduction_factor=3, metric="objective", mode="max")
    took: dict[str, list[float]] = {"propose": [], "report": [], "end": []}
    running: list[tuple[SimpleNamespace, int]] = []
    started = time.perf_counter()
    number = 0
    while running or number < trials:
        while number < trials and len(running) < AT_ONCE:
            number += 1
            before = time.perf_counter()
            trial = SimpleNamespace(trial_id=f"id{number}", config=search.suggest(f"id{number}"))
            scheduler.on_trial_add(None, trial)
            callback.on_trial_start(0, [], trial)
            took["propose"].append(time.perf_counter() - before)
            running.append((trial, 0))
        trial, epoch = running.pop(0)
        epoch += 1
        value = (trial.config["trial"] * 7919 + epoch * 104729) % 1000 / 1000
        result = {"epoch": epoch, "epochs": epochs, "objective": value, "best_epoch": epoch, "stopped_early": False}
        result |= {f"val/{domain}/{name}": value for domain in "xy" for name in ("mrr", "ndcg_5", "ndcg_10", "hr_10")}
        before = time.perf_counter()
        stopped = scheduler.on_trial_result(None, trial, result) == "STOP"
        callback.on_trial_result(0, [], trial, {**result, "done": stopped})
        callback.on_step_end(0, [])
        took["report"].append(time.perf_counter() - before)
        if stopped or epoch == epochs:
            before = time.perf_counter()
            scheduler.on_trial_complete(None, trial, result)
            search.on_trial_complete(trial.trial_id)
            callback.on_trial_complete(0, [], trial)
            took["end"].append(time.perf_counter() - before)
        else:
            running.append((trial, epoch))
    driven = time.perf_counter() - started
    tracking.close("completed")
    delivered = time.perf_counter() - started
    before = time.perf_counter()
    SweepSearch(space, SweepState(folder), method=method, trials=trials, epochs=epochs)
    replayed = time.perf_counter() - before
    shutil.rmtree(folder)
    late = {name: 1000 * statistics.median(values[-max(10, len(values) // 10) :]) for name, values in took.items()}
    return {
        **late,
        "blocked": 1000 * driven / trials,
        "write": 1000 * delivered / (len(took["report"]) + 3 * trials),
        "resume": 1000 * replayed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="10,100,1000")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    print("without Ray, milliseconds (calls: medians over the last tenth of each sweep)")
    print("search    trials   propose    report       end  per trial  MLflow/write    resume")
    for method in ("grid", "optuna"):
        for trials in map(int, options.trials.split(",")):
            found = simulate(trials, options.epochs, method)
            calls = "".join(f"{found[name]:10.2f}" for name in ("propose", "report", "end"))
            rest = f"{found['blocked']:11.1f}{found['write']:14.1f}{found['resume']:10.0f}"
            print(f"{method:8}{trials:8}{calls}{rest}", flush=True)


if __name__ == "__main__":
    main()
