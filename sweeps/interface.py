"""Sweeps from Python: the functions that `from sweeps import ...` offers.

They take the settings objects of the command line, give data frames, and raise its errors as `InputError`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from llmemf.config import read_yaml
from llmemf.errors import InputError, nearest
from sweeps.core.console import CommandConsole
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_extend, plan_resume
from sweeps.core.summary import print_fallback
from sweeps.groups.new_group import GroupOptions
from sweeps.groups.plan import NEW, find_group, plan_group
from sweeps.state import leaderboard
from sweeps.state.metrics import metrics_of
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.groups.group import Group


@dataclass(frozen=True)
class SweepResults:
    """A stored sweep, read anew at each question; it may still run.

    Attributes:
        folder: the sweep's folder.
    """

    folder: Path

    @property
    def record(self) -> SweepRecord:
        """All that it was started with, and its `status`: running, interrupted, completed, incomplete or failed."""
        return SweepRecord.load(self.folder)

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, the best first: outcome, settings, and validation metrics of its best epoch."""
        import pandas as pd

        rows = leaderboard.rows(list(SweepState.load(self.record).records.values()))
        return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()

    @property
    def curves(self) -> pd.DataFrame:
        """One row per trial and epoch: objective, losses, validation metrics."""
        import pandas as pd

        state = SweepState.load(self.record)
        rows = [
            {
                "trial": state.records[event["trial"]].name,
                "epoch": event["result"]["epoch"],
                **metrics_of(event["result"]),
            }
            for event in state.epochs()
        ]
        return pd.DataFrame(rows).set_index(["trial", "epoch"]).sort_index() if rows else pd.DataFrame()

    @property
    def test(self) -> pd.Series:
        """Test metrics of the best trial; empty before the search has ended."""
        import pandas as pd

        tests = SweepState.load(self.record).tests
        return pd.Series(tests[-1]["metrics"] if tests else {}, dtype=float, name="test")

    @property
    def best(self) -> dict[str, Any]:
        """The full configuration of the best trial, as `llmemf train --config` reads it; empty where there is none."""
        path = self.folder / "best.yaml"
        return read_yaml(path) if path.exists() else {}

    def report(self, *, breakdown: bool = True, quiet: bool = True) -> Path:
        """Write the report into the sweep's folder and its MLflow run; gives the HTML page.

        Args:
            breakdown: whether to rank the validation cases by the kept weights.

        Raises:
            InputError: the event log is damaged, or the folder cannot be written.
        """
        from sweeps.reporting.write import write_report

        return Path(write_report(self.record, _console(quiet), breakdown=breakdown)["page"])


@dataclass(frozen=True)
class GroupResults:
    """A stored comparison, ablation, rerun or study.

    Attributes:
        group: all that it was started with, its rows, and its `status`.
    """

    group: Group

    @property
    def table(self) -> pd.DataFrame:
        """Its CSV table: one line per row, domain and metric; empty before its first end."""
        import pandas as pd

        path = self.group.folder / f"{self.group.kind}.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame()


def run_sweep(
    options: Options,
    *,
    resume: bool = False,
    extend: int | None = None,
    time_budget: float | None = None,
    allow_sample: bool = False,
    quiet: bool = False,
) -> SweepResults:
    """Run a sweep to its end, or continue a stored one (`options.name`, or the newest).

    Args:
        options: those of the command line.
        resume: continue it as it was started.
        extend: continue it with so many further trials.
        time_budget: seconds after which it stops in order, to be resumed.
        allow_sample: run on the embedded sample where the scenario's data is missing.
        quiet: print nothing.

    Returns:
        Its results, whether it came to its end or not: `results.record.status` says so.

    Raises:
        InputError: what the command line would say with exit code 2.
    """
    from sweeps.core.run import run_sweep as run
    from sweeps.reporting.write import write_at_end

    plan = plan_extend(options, extend) if extend else plan_resume(options) if resume else plan_sweep(options)
    console, record = _console(quiet), plan.record
    print_fallback(record.requested, record.scenario, record.data_root, console, allow_sample or plan.resumed)
    run(plan, console, time_budget=time_budget, report=write_at_end)
    return SweepResults(record.folder)


def load_sweep(name: str | None = None, storage: str | Path = "mlruns") -> SweepResults:
    """A stored sweep, the newest without a name.

    Raises:
        InputError: there is none; existing ones are offered.
    """
    return SweepResults(find_sweep(Path(storage).expanduser(), "load_sweep", name=name).folder)


def load_group(kind: str, name: str | None = None, storage: str | Path = "mlruns") -> GroupResults:
    """A stored group, the newest of its kind without a name.

    Args:
        kind: comparison, ablation, rerun or study.

    Raises:
        InputError: there is none, or no such kind; existing ones are offered.
    """
    if kind not in NEW:
        raise InputError(f"load_group: unknown kind {kind!r}: {nearest(kind, NEW)}")
    return GroupResults(find_group(kind, Path(storage).expanduser(), name, asked="load_group"))


def compare(options: GroupOptions, **how: Any) -> GroupResults:
    """Compare systems with one budget and one protocol; `how` as in `run_group`."""
    return run_group("comparison", options, **how)


def ablation(options: GroupOptions, **how: Any) -> GroupResults:
    """Take LLM-EMF apart; `how` as in `run_group`."""
    return run_group("ablation", options, **how)


def rerun(options: GroupOptions, **how: Any) -> GroupResults:
    """Train a sweep's best configurations again, over seeds; `how` as in `run_group`."""
    return run_group("rerun", options, **how)


def study(options: GroupOptions, **how: Any) -> GroupResults:
    """Vary settings of one system; `how` as in `run_group`."""
    return run_group("study", options, **how)


def run_group(
    kind: str,
    options: GroupOptions,
    *,
    resume: bool = False,
    time_budget: float | None = None,
    allow_sample: bool = False,
    quiet: bool = False,
) -> GroupResults:
    """Run a group to its end, or continue a stored one (`options.name`, or the newest of its kind).

    Args:
        kind: comparison, ablation, rerun or study.
        options: those of the command line.

    Returns:
        Its results, whether it came to its end or not: `results.group.status` says so.

    Raises:
        InputError: what the command line would say with exit code 2.
    """
    from sweeps.groups.run import run_group as run

    group = plan_group(kind, options, resume=resume)
    console = _console(quiet, 160)
    print_fallback(group.requested, group.scenario, group.data_root, console, allow_sample or resume)
    run(group, console, time_budget=time_budget, retry_failed=options.retry_failed)
    return GroupResults(group)


def _console(quiet: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, force_jupyter=False) if quiet else CommandConsole(width)
