"""Run a group: for every row a search (where it has one), its configuration over seeds, and the evaluation on the test split.

A row that fails or cannot run on this data is in the table like the others. Everything that was done is in the event logs of
the group and of its sweeps, so that a driver that continues repeats nothing.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.ray_session import OBJECT_STORE_EXTRA, LogWatch, quiet, start_ray, stop_ray
from sweeps.core.console import print_stopped
from sweeps.core.exits import ALL_FAILED, COMPLETED, SOME_FAILED, exit_stuck, stopped_code
from sweeps.core.interrupt import Interrupted, StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import code_version
from sweeps.core.storage import check_reachable, held, is_storage_fault, stopped_by_storage
from sweeps.core.sweep import Sweep, TrialBackend
from sweeps.core.sweep_data import SweepData, load_scenario
from sweeps.groups import evaluation, terminal
from sweeps.groups.evaluation import TestEvaluation, ranks_path
from sweeps.groups.group import Group, Outcome
from sweeps.groups.plan import fit_to_data
from sweeps.groups.render import files
from sweeps.groups.results import GroupState, RowResult
from sweeps.groups.row_run import evaluate_winner, is_done, log_file, run_row
from sweeps.groups.table import Table, build_table
from sweeps.groups.tracking import GroupTracking
from sweeps.state import leaderboard


@dataclass
class GroupBackend(TrialBackend):
    """What tests put in the place of the trial floor.

    Attributes:
        train: runs the trials of a sweep without Ray.
        rank: instead of `evaluate_on_test`.
    """

    train: Callable[[Sweep], None] | None = None
    rank: Callable[[Path, SweepData], TestEvaluation] | None = None


def run_group(
    group: Group,
    console: Console,
    *,
    time_budget: float | None = None,
    retry_failed: bool = False,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue a group to its end.

    Args:
        time_budget: seconds after which it stops in order; `--resume` continues it.
        retry_failed: whether failed seeds, and failed trials of a search that found nothing, run again.
        backend: for tests.

    Returns:
        The exit code: 0 completed, 1 no row has a result, 2 it had to stop, 3 its time budget was spent, 4 some rows or
        seeds have none, 130 interrupted by the user.

    Raises:
        InputError: something that the user can repair: data, storage, tracking, resources, a full disk.
    """
    check_reachable(group)
    with held(group.folder, group.name, group.file), StopRequest(time_budget) as stop, quiet(group) as watch:
        watch.stop = stop.request
        run = GroupRun(group, console, stop, watch, backend or GroupBackend(), retry_failed)
        try:
            run.open()
            run.run()
            return run.conclude()
        except (Interrupted, KeyboardInterrupt):
            stop.request("interrupted")
            run.close("interrupted", stop.reason)
            print_stopped(console, f"stopped ({stop.reason})", group.file, group.resume_command())
            return stopped_code(stop)
        except BaseException as error:
            with suppress(OSError):
                run.close("interrupted", type(error).__name__)
            if is_storage_fault(error):
                raise stopped_by_storage(error, group.resume_command()) from error
            raise
        finally:
            run.ray.stop()


class SharedRay:
    """One Ray for many sweeps, as long as what they share with their trials fits into its object store."""

    def __init__(self) -> None:
        self._parallel = self._room = self._held = 0

    def start(self, plan: Plan, data: SweepData) -> int:
        """A running session with room for this data; returns how many trials run at once.

        Raises:
            InputError: no cluster answers, it is not fit for this sweep, or not even one trial fits.
        """
        needed = data.shared_bytes()
        # The last sweep's data is let go only after the next one's has come.
        if not self._parallel or self._held + needed > self._room:
            self.stop()
            self._parallel, notices = start_ray(plan.record, needed)
            plan.notices += notices
            self._room = needed + OBJECT_STORE_EXTRA // 2
        self._held = needed
        return self._parallel

    def stop(self) -> None:
        self._parallel = 0
        stop_ray()


class GroupRun:
    """A running group; `watch` is the watch over the logs, which listens again after Ray and MLflow have started."""

    def __init__(
        self, group: Group, console: Console, stop: StopRequest, watch: LogWatch, backend: GroupBackend, retry_failed: bool
    ) -> None:  # fmt: skip
        self.group, self.console, self.stop, self.watch = group, console, stop, watch
        self.backend, self.retry_failed = backend, retry_failed
        self.state, self.ray = GroupState(group.folder), SharedRay()
        self.tracking: GroupTracking | None = None
        self.undelivered: list[str] = []

    def open(self) -> None:
        """Load the scenario, take the group over, and say what it is.

        Raises:
            InputError: data is missing or has changed, or the tracking server cannot be reached.
        """
        group, data = self.group, self.backend.data
        with self.console.status(f"loading {group.scenario}"):
            self.scenario = data.scenario if data else load_scenario(group.scenario, group.data_root)
        if group.fingerprint not in ("", self.scenario.fingerprint):
            raise InputError(
                f"scenario {self.scenario.name!r} has changed since {group.kind} {group.name!r} was started (fingerprint "
                f"{self.scenario.fingerprint[:8]}, was {group.fingerprint[:8]}): bring the old data back, or start anew"
            )
        group.fingerprint, group.status = self.scenario.fingerprint, "running"
        fit_to_data(group, self.scenario)
        terminal.print_start(group, self.scenario, self.state, self.console)
        with self.console.status("opening the tracking database"):
            tracking = GroupTracking(group, self.backend.client)
            tracking.open_group()
        self.tracking = tracking
        self.listen()
        if not self.console.is_terminal:
            self.console.print(f"each trial is shown in {log_file(group)}", soft_wrap=True)
        group.save()
        self.state.write(
            "opened", host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), code=code_version(),
            rows=group.names, fingerprint=group.fingerprint,
            **({"taken_over": group.taken_over} if group.taken_over else {}),
        )  # fmt: skip

    def listen(self) -> None:
        """Take signals and logs back: Ray and MLflow set their own handlers when they start."""
        self.stop.listen()
        self.watch.listen()

    def run(self) -> None:
        """All rows, one after the other, each shown as it ends; then the test of the winner, where only that is tested.

        Raises:
            Interrupted: it was asked to stop.
            InputError: something that concerns all rows: storage, tracking, resources.
        """
        for place, row in enumerate(self.group.rows, start=1):
            self.stop.check()
            earlier = is_done(self, row)
            if not earlier:
                run_row(self, row, f"{place} of {len(self.group.rows)}")
            table = self.table(row.name)
            line = terminal.line_of(table, table.rows[0], earlier)
            self.console.print(line, soft_wrap=not self.console.is_terminal)
        if self.group.test == "winner":
            evaluate_winner(self)

    def conclude(self) -> int:
        """Write and print the results of all rows; the exit code."""
        results = self.state.results.values()
        done, short = any(row.outcome == "done" for row in results), any(row.is_short for row in results)
        page = self.tracking.writer.page() if self.tracking else ""
        notes = [*self.undelivered, self.close("failed" if not done else "incomplete" if short else "completed")]
        terminal.print_end(self.table(), self.state, notes, page, self.console)
        return ALL_FAILED if not done else SOME_FAILED if short else COMPLETED

    def leave_stuck(self, reason: str) -> None:
        """End a group whose Ray does not answer any more."""
        self.close("interrupted", reason)
        exit_stuck(self.console, reason, self.group.resume_command())

    def table(self, *names: str) -> Table:
        """The table of all that is known by now, or of some rows."""
        return table_of(self.group, self.scenario, self.state, names)

    def close(self, outcome: Outcome, reason: str = "") -> str:
        """Write tables and event log, and close the run in MLflow; says what could not be delivered there."""
        if self.tracking is None:
            return ""
        tracking, self.tracking = self.tracking, None
        group, table = self.group, self.table()
        group.status = outcome
        written = files(table)
        for folder in filter(None, (group.folder, group.source)):
            for name, text in written.items() if folder.is_dir() else ():
                write_text(folder / name, text)
        group.save()
        self.state.write("stopped", reason=reason or outcome)
        page = leaderboard.shortened(next(iter(written.values())))
        paths = [group.folder / name for name in (*written, group.file.name)]
        with self.console.status("delivering to MLflow"):
            return tracking.close_group(outcome, table.summary(), paths, page)


def table_of(group: Group, scenario: Scenario, state: GroupState, names: Sequence[str] = ()) -> Table:
    """The table of a group as far as it is, of some rows or of all."""
    results = [state.results.get(name, RowResult(name)) for name in names or group.names]
    trained = {row.name: evaluation.ended_seeds(group.sweep_folder(row.name, "seeds")) for row in results}
    ranks = {
        row.name: [evaluation.load_ranks(ranks_path(group.folder, row.name, seed)) for seed in sorted(row.seeds)]
        for row in results
        if row.outcome == "done" and row.seeds
    }
    return build_table(group, scenario, results, trained, ranks)
