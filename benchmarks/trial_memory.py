"""Memory of 1, 4 and 8 trials at once: data and features must be there once per node, whatever the number of trials.

    python benchmarks/trial_memory.py --scenario sample
    python benchmarks/trial_memory.py --scenario movie_book_windows --data-root data --at-once 1,4,8

Real trials (`sweeps.core.trial.train_trial` in a `TrialWorker`) on a local Ray with as many logical CPUs. They train on a
part of the sequences, with all features, and the memory of each is read when it ends an epoch while all of them run. The
column `per trial` must be far below the size of the features.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llmemf.batches import TrialData
from llmemf.features.cluster import leave_ray
from llmemf.scenarios.sequences import Sequences
from sweeps.cluster.ray_session import set_environment
from sweeps.core.options import Options
from sweeps.core.plan import Plan, plan_sweep
from sweeps.core.sweep_data import load_data

set_environment(None)

import ray
from ray import tune

from sweeps.core.trial import train_trial
from sweeps.core.worker import TrialWorker

MB = 2**20
TRAINED_SEQUENCES, VALID_CASES = 1024, 256


@dataclass(frozen=True)
class Sample:
    """One process, in bytes.

    Attributes:
        rss: all pages that it touched. pss: shared ones divided by their users. uss: those it has alone.
        store: pages of Ray's object store among them.
    """

    rss: int
    pss: int
    uss: int
    store: int


def memory_of(process: int) -> Sample:
    """Memory of a process, as Linux counts it."""
    rollup = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE))
    kilobytes = {name: int(value) for name, value in rollup.items()}
    store, inside = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = "plasma" in line
        elif inside and line.startswith("Rss:"):
            store += int(line.split()[1])
    uss = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Sample(*(1024 * value for value in (kilobytes["Rss"], kilobytes["Pss"], uss, store)))


class MemoryReader(tune.Callback):
    """Reads the memory of each trial as it reports an epoch, once all of them have reported one; then they may stop."""

    def __init__(self, count: int) -> None:
        self.count, self.started, self.samples = count, set(), {}

    @property
    def done(self) -> bool:
        return len(self.samples) == self.count

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self.started.add(trial.trial_id)
        if len(self.started) == self.count:
            self.samples.setdefault(trial.trial_id, memory_of(result["pid"]))


def run_trials(count: int, plan: Plan, function: Any, folder: Path) -> list[Sample]:
    """Memory of so many trials at once, each at the end of an epoch."""
    reader = MemoryReader(count)
    config = {**plan.fixed, **(plan.points[0] if plan.points else {}), "epochs": 10**6, "patience": 0}
    config |= {"valid_cases": VALID_CASES, "trial": tune.grid_search(list(range(1, count + 1)))}
    try:
        tune.run(
            function,
            name="tune",
            storage_path=str(folder),
            config=config,
            metric="objective",
            mode="max",
            resources_per_trial={"cpu": 1},
            callbacks=[reader],
            stop=lambda trial_id, result: reader.done,
            verbose=0,
        )
    finally:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
    return list(reader.samples.values())


def with_data(data: TrialData, folder: Path) -> Any:
    """The processes of a sweep's trials; their data is in the object store from now on."""
    return tune.with_parameters(
        TrialWorker, run_trial=train_trial, data=data, folder=str(folder), checkpoint_epochs=[1]
    )


def store_bytes() -> int:
    """Memory that the object store of this Ray takes: the pages of its file."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == "raylet" and f"PPid:\t{os.getpid()}\n" in (
                folder / "status"
            ).read_text():
                files = {str(link.readlink()): link.stat().st_blocks * 512 for link in (folder / "fd").iterdir()}
                return sum(size for name, size in files.items() if "plasma" in name)
        except OSError:
            continue
    raise SystemExit("the raylet of this Ray is not found")


def shortened(data: TrialData) -> TrialData:
    """All features, the first training sequences only."""
    train = data.train
    rows = min(TRAINED_SEQUENCES, len(train))
    end = train.offsets[rows]
    cut = Sequences(train.users[:rows], train.offsets[: rows + 1], train.items[:end], train.times[:end])
    return replace(data, train=cut)


def start_ray(cpus: int, store: int) -> None:
    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=store,
    )
    logging.getLogger("ray").setLevel(logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="sample")
    parser.add_argument("--data-root", default="data", type=Path)
    parser.add_argument("--at-once", default="1,4,8")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    counts = [int(text) for text in arguments.at_once.split(",")]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    options = Options(
        scenario=arguments.scenario, data_root=arguments.data_root, assignments=arguments.assignments, gpus_per_trial=0
    )
    plan = plan_sweep(options)
    data = shortened(load_data(plan).trial_data)
    matrices = [matrix for matrix in (data.text, data.image) if matrix is not None]
    features = sum(matrix.rows.nbytes for matrix in matrices)
    start_ray(max(counts), 2 * features + 400 * MB)
    console.print(f"{arguments.scenario}: {features / MB:,.0f} MiB of features for {data.num_items:,} items\n")
    folder = Path(tempfile.mkdtemp(prefix="trial-memory-"))
    # A trial checks for this file to know that its node sees the sweep's folder.
    (folder / "sweep.yaml").touch()
    function = with_data(data, folder)
    table = Table(box=None, padding=(0, 1))
    columns = (
        "trials",
        "RSS each",
        "PSS each",
        "alone each",
        "store seen by each",
        "object store",
        "total",
        "per trial",
    )
    for name in columns:
        table.add_column(name, justify="right")
    first = 0.0
    for count in counts:
        samples, used = run_trials(count, plan, function, folder), store_bytes()
        total = sum(sample.uss for sample in samples) + used + statistics.mean(s.rss - s.uss - s.store for s in samples)
        first = first or total
        growth = "" if count == counts[0] else f"{(total - first) / (count - counts[0]) / MB:,.0f}"
        means = [
            statistics.mean(getattr(sample, part) for sample in samples) for part in ("rss", "pss", "uss", "store")
        ]
        table.add_row(str(count), *(f"{value / MB:,.0f}" for value in [*means, used, total]), growth)
    console.print(table)
    console.print(
        "MiB; total: alone + object store + program files once; per trial: growth of the total per further trial\n"
    )
    leave_ray()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
