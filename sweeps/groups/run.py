"""Run a group: for every row a search (where it has one), its configuration over seeds, and the evaluation on the test split.

A row that fails or cannot run on this data is in the table like the others. Everything that was done is in the event logs of
the group and of its sweeps, so that a driver that continues repeats nothing.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console

from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.ray_session import OBJECT_STORE_EXTRA, LogWatch, quiet, start_ray, stop_ray
from sweeps.core.console import print_resume
from sweeps.core.interrupt import Interrupted, StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import code_version
from sweeps.core.storage import check_reachable, held, is_storage_fault, stopped_by_storage
from sweeps.core.sweep import (
    ALL_FAILED,
    CLUSTER_LOST,
    COMPLETED,
    INTERRUPTED,
    NEEDS_USER,
    SOME_FAILED,
    TIME_SPENT,
)
from sweeps.core.sweep_data import SweepData, load_scenario
from sweeps.groups import evaluation, terminal
from sweeps.groups.evaluation import ranks_path
from sweeps.groups.group import Group, Outcome, Row
from sweeps.groups.kind import Kind
from sweeps.groups.results import GroupState, RowResult
from sweeps.groups.row_run import GroupBackend, evaluate_winner, run_row
from sweeps.groups.row_sweeps import is_level
from sweeps.groups.table import Table, build_table
from sweeps.groups.tracking import GroupTracking
from sweeps.state import leaderboard
from sweeps.state.sweep_state import SweepState


def run_group(
    kind: Kind,
    group: Group,
    console: Console,
    *,
    time_budget: float | None = None,
    retry_failed: bool = False,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue a group to its end.

    Args:
        kind: what is special about groups of its kind.
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
    record = group.folder / f"{group.kind}.yaml"
    with held(group.folder, group.name, record), StopRequest(time_budget) as stop, quiet(group) as watch:
        watch.stop = stop.request
        run = GroupRun(kind, group, console, stop, watch, backend or GroupBackend(), retry_failed)
        try:
            run.open()
            run.run()
            done = any(result.outcome == "done" for result in run.state.results.values())
            page = run.tracking.writer.page() if run.tracking else ""
            short = [row.name for row in run.state.results.values() if row.is_short]
            notes = [*run.undelivered, run.close("failed" if not done else "incomplete" if short else "completed")]
            table = run.table()
            beside = " (and beside the sweep's leaderboard)" if kind.beside_group(group) else ""
            files = ", ".join(kind.files(table)) + beside
            terminal.print_end(kind.blocks(table, console), table, run.state, files, notes, page, console)
            return ALL_FAILED if not done else SOME_FAILED if short else COMPLETED
        except (Interrupted, KeyboardInterrupt):
            reason = stop.reason or "interrupted"
            run.close("interrupted", reason)
            print_resume(console, f"stopped ({reason}); what was saved continues with:", group.resume_command())
            return TIME_SPENT if stop.planned else INTERRUPTED if reason == "interrupted" else NEEDS_USER
        except BaseException as error:
            with suppress(OSError):
                run.close("interrupted", type(error).__name__)
            if is_storage_fault(error):
                raise stopped_by_storage(error, group.resume_command()) from error
            raise
        finally:
            run.ray.stop()


class SharedRay:
    """One Ray for many sweeps, as long as what they share with their trials fits into its object store.

    Attributes:
        parallel: trials at once in the running session, 0 where none runs.
    """

    def __init__(self) -> None:
        self.parallel = 0
        self._room = self._held = 0

    def start(self, plan: Plan, data: SweepData) -> int:
        """A running session with room for this data; returns how many trials run at once.

        Raises:
            InputError: no cluster answers, it is not fit for this sweep, or not even one trial fits.
        """
        needed = data.shared_bytes()
        # The last sweep's data is let go only after the next one's has come.
        if not self.parallel or self._held + needed > self._room:
            self.stop()
            self.parallel, notices = start_ray(plan.record, needed)
            plan.notices += notices
            self._room = needed + OBJECT_STORE_EXTRA // 2
        self._held = needed
        return self.parallel

    def stop(self) -> None:
        self.parallel = 0
        stop_ray()


class GroupRun:
    """A running group.

    Args:
        kind: what is special about groups of its kind.
        group: what to run.
        console: where to show it.
        stop: the request to stop.
        watch: the watch over the logs, which listens again after Ray and MLflow have started.
        backend: for tests.
        retry_failed: see `run_group`.
    """

    def __init__(
        self, kind: Kind, group: Group, console: Console, stop: StopRequest, watch: LogWatch, backend: GroupBackend,
        retry_failed: bool,
    ) -> None:  # fmt: skip
        self.kind, self.group, self.console, self.stop, self.watch = kind, group, console, stop, watch
        self.backend, self.retry_failed = backend, retry_failed
        self.state = GroupState(group.folder)
        self.ray = SharedRay()
        self.tracking: GroupTracking | None = None
        self.undelivered: list[str] = []

    def open(self) -> None:
        """Load the scenario, take the group over, and say what it is.

        Raises:
            InputError: data is missing or has changed, or the tracking server cannot be reached.
        """
        group = self.group
        with self.console.status(f"loading {group.scenario}"):
            self.scenario = (
                self.backend.data.scenario if self.backend.data else load_scenario(group.scenario, group.data_root)
            )
        if group.fingerprint not in ("", self.scenario.fingerprint):
            raise InputError(
                f"scenario {self.scenario.name!r} has changed since {group.kind} {group.name!r} was started (fingerprint "
                f"{self.scenario.fingerprint[:8]}, was {group.fingerprint[:8]}): bring the old data back, or start anew"
            )
        group.fingerprint, group.status = self.scenario.fingerprint, "running"
        self.kind.finalize(group, self.scenario)
        terminal.print_start(group, self.kind.facts(group, self.scenario), self.state, self.console)
        with self.console.status("opening the tracking database"):
            tracking = GroupTracking(group, self.kind.params(group), self.backend.client)
            tracking.open_group()
        self.tracking = tracking
        self.listen()
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
            earlier = self._is_done(row)
            if not earlier:
                run_row(self, row, f"{place} of {len(self.group.rows)}")
            table = self.table(row.name)
            line = self.kind.line(table, table.rows[0], place, earlier)
            self.console.print(line, soft_wrap=not self.console.is_terminal)
        if self.group.test == "winner":
            evaluate_winner(self)

    def _is_done(self, row: Row) -> bool:
        result = self.state.result(row.name)
        kept = all(ranks_path(self.group.folder, row.name, seed).exists() for seed in result.seeds)
        is_level_all = all(is_level(self.group, row, step) for step in ("search", "seeds"))
        retried = self.retry_failed and SweepState(self.group.sweep_folder(row.name, "seeds")).failed()
        return result.outcome == "done" and kept and is_level_all and not retried

    def leave_stuck(self, reason: str) -> None:
        self.close("interrupted", reason)
        why = f"{reason}; Ray does not answer. What was saved continues with:"
        print_resume(self.console, why, self.group.resume_command())
        # Nothing of Ray in this process can be ended any more, and it would hold the exit up for minutes.
        os._exit(NEEDS_USER if reason == CLUSTER_LOST else INTERRUPTED)

    def table(self, *names: str) -> Table:
        """The table of all that is known by now, or of some rows."""
        return table_of(self.kind, self.group, self.scenario, self.state, names)

    def close(self, outcome: Outcome, reason: str = "") -> str:
        """Write tables and event log, and close the run in MLflow; says what could not be delivered there."""
        if self.tracking is None:
            return ""
        tracking, self.tracking = self.tracking, None
        group, table = self.group, self.table()
        group.status = outcome
        files = self.kind.files(table)
        for folder in filter(None, (group.folder, self.kind.beside_group(group))):
            for name, text in files.items() if folder.is_dir() else ():
                write_text(folder / name, text)
        group.save()
        self.state.write("stopped", reason=reason or outcome)
        page = leaderboard.shortened(next(iter(files.values())))
        paths = [group.folder / name for name in (*files, f"{group.kind}.yaml")]
        with self.console.status("delivering to MLflow"):
            return tracking.close_group(outcome, table.summary(), paths, page)


def table_of(kind: Kind, group: Group, scenario: Scenario, state: GroupState, names: Sequence[str] = ()) -> Table:
    """The table of a group as far as it is, of some rows or of all."""
    results = [state.results.get(name, RowResult(name)) for name in names or group.names]
    trained = {row.name: evaluation.ended_seeds(group.sweep_folder(row.name, "seeds")) for row in results}
    ranks = {
        row.name: [evaluation.load_ranks(ranks_path(group.folder, row.name, seed)) for seed in sorted(row.seeds)]
        for row in results
        if row.outcome == "done" and row.seeds
    }
    table = build_table(group, scenario, results, trained, ranks, kind.papers)
    kind.annotate(table)
    return table
