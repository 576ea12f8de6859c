"""Run a group: for every row a search (where it has one), its configuration over seeds, and the evaluation on the test split.

A row that fails or cannot run on this data is in the table like the others. Everything that was done is in the event logs of
the group and of its sweeps, so that a driver that continues repeats nothing.
"""

from __future__ import annotations

import os
import platform
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.models import model_class
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.ray_session import LogWatch, quiet
from sweeps.core.console import print_resume
from sweeps.core.interrupt import Interrupted, StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import code_version
from sweeps.core.storage import check_reachable, held, is_storage_fault, locked, stopped_by_storage
from sweeps.core.summary import caveats
from sweeps.core.sweep import (
    ALL_FAILED,
    CLUSTER_LOST,
    COMPLETED,
    INTERRUPTED,
    NEEDS_USER,
    SOME_FAILED,
    TIME_SPENT,
    PartOfGroup,
    Sweep,
    TrialBackend,
)
from sweeps.core.sweep_data import SweepData, load_data, load_scenario
from sweeps.groups import evaluation, terminal
from sweeps.groups.evaluation import TestEvaluation, ranks_path
from sweeps.groups.group import Group, Outcome, Row
from sweeps.groups.kind import Kind
from sweeps.groups.plan import config_of_trial, is_level, plan_search, plan_seeds
from sweeps.groups.results import GroupState, RowResult, SeedResult
from sweeps.groups.shared_ray import SharedRay
from sweeps.groups.table import Table, build_table
from sweeps.groups.tracking import GroupTracking
from sweeps.state import leaderboard
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of


@dataclass
class GroupBackend(TrialBackend):
    """What tests put in the place of the trial floor.

    Attributes:
        train: runs the trials of a sweep without Ray.
        rank: instead of `evaluate_on_test`.
    """

    train: Callable[[Sweep], None] | None = None
    rank: Callable[[Path, SweepData], TestEvaluation] | None = None


TestOfSeeds = Callable[[list[TrialRecord], dict[str, Path]], dict[str, dict[str, float]]]
"""Trials and folders of their weights in, test metrics by name of a trial out."""


class RowFailed(Exception):
    """A row has no number to show; the other rows are run all the same."""


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
            page = run.tracking.page() if run.tracking else ""
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
            tracking.open()
        self.tracking = tracking
        self._listen()
        group.save()
        self.state.open(
            host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), code=code_version(),
            rows=group.names, fingerprint=group.fingerprint,
            **({"taken_over": group.taken_over} if group.taken_over else {}),
        )  # fmt: skip

    def _listen(self) -> None:
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
                self._run_row(row, f"{place} of {len(self.group.rows)}")
            table = self.table(row.name)
            line = self.kind.line(table, table.rows[0], place, earlier)
            self.console.print(line, soft_wrap=not self.console.is_terminal)
        if self.group.test == "winner":
            self._test_winner()

    def _is_done(self, row: Row) -> bool:
        result = self.state.result(row.name)
        kept = all(ranks_path(self.group.folder, row.name, seed).exists() for seed in result.seeds)
        is_level_all = all(is_level(self.group, row, step) for step in ("search", "seeds"))
        retried = self.retry_failed and SweepState(self.group.sweep_folder(row.name, "seeds")).failed()
        return result.outcome == "done" and kept and is_level_all and not retried

    def _run_row(self, row: Row, place: str) -> None:
        """Search, train over seeds and test one row; how it ended goes to the event log."""
        status = model_class(row.model).status
        try:
            search = None if self.group.trials is None else plan_search(self.group, row)
            first = search or plan_seeds(self.group, row, self.group.config_of(row))
            data = self.backend.data or load_data(first)
        except InputError as error:
            self.state.end(row.name, "missing", str(error), status=status)
            return
        try:
            self._train_row(row, search, data, place)
        except RowFailed as error:
            self.state.end(row.name, "failed", str(error), status=status)

    def _train_row(self, row: Row, search: Plan | None, data: SweepData, place: str) -> None:
        facts: dict[str, Any] = {}
        config = self.group.config_of(row)
        if search is not None:
            records = self._sweep(row, search, data, "search", place, None)
            best = best_of(records)
            if best is None:
                raise RowFailed(_first_error(records, "trial"))
            config = config_of_trial(search, best)
            whole = build_config(search.config_class, {"model": row.model, **config}, where=best.name).to_dict()
            facts = {
                "search": evaluation.search_facts(records),
                "chosen": {key: whole[key] for key in search.varied_keys},
            }
        seeds = plan_seeds(self.group, row, config)
        test = partial(self._test_seeds, row, seeds, data) if self.group.test == "every row" else None
        trained = self._sweep(row, seeds, data, "seeds", place, test)
        if best_of(trained) is None:
            raise RowFailed(_first_error(trained, "seed"))
        if test:
            test(trained, _weights(seeds))
        failed = [record for record in trained if record.outcome == "failed"]
        reason = f"{len(failed)} of {_first_error(failed, 'seed', len(trained))}" if failed else ""
        self.state.end(row.name, "done", reason, notes=caveats(search or seeds, data), **facts)

    def _sweep(
        self, row: Row, plan: Plan, data: SweepData, step: str, place: str, test: TestOfSeeds | None
    ) -> list[TrialRecord]:
        """Run a sweep of the group to its end, unless it is completed and MLflow has all of it; returns its trials.

        Raises:
            Interrupted: it was asked to stop.
        """
        record, backend, state = plan.record, self.backend, SweepState(plan.record.folder)
        # The winner of a search stands once its seeds are trained.
        is_fixed = step == "search" and bool(SweepState(self.group.sweep_folder(row.name, "seeds")).records)
        plan.retry_failed = self.retry_failed and not is_fixed and bool(state.failed())
        if record.is_searched and not state.undelivered and not record.taken_over and not plan.retry_failed:
            return list(state.records.values())
        record.folder.mkdir(parents=True, exist_ok=True)
        assert self.tracking is not None, "the group is open"
        part = PartOfGroup(
            title=f"{self.group.name}   {row.name} on {record.scenario}   ({place}, {step})",
            tags=self.tracking.tags_of(step), test=test, on_stuck=self._leave_stuck,
        )  # fmt: skip
        with locked(record.folder, record.name), self._trial_console() as console:
            sweep, parallel = Sweep(plan, console, backend, part), 0
            try:
                if sweep.search.has_work():
                    with console.status("starting Ray"):
                        parallel = 1 if backend.train else self.ray.start(plan, data)
                self._listen()
                self.stop.check()
                sweep.open(data, parallel)
                self._listen()
                if parallel:
                    train = backend.train or (lambda sweep: sweep.train(parallel, self.stop))
                    train(sweep)
                result = sweep.finish(self.stop)
            except BaseException as error:
                sweep.leave(self.stop.reason or type(error).__name__)
                self.ray.stop()
                raise
        if result.undelivered:
            self.undelivered.append(f"{record.name}: {result.undelivered}")
        self.stop.check()
        if aside := [item for item in result.records if not item.ended]:
            raise RowFailed(f"{aside[0].name} of its {step} was set aside: {aside[0].error}")
        return result.records

    @contextmanager
    def _trial_console(self) -> Iterator[Console]:
        """Where the trials of a sweep are shown: live in a terminal, else in a file of the group's folder."""
        if self.console.is_terminal:
            yield self.console
            return
        with (self.group.folder / f"{self.group.command}.log").open("a") as file:
            yield Console(file=file, width=120, highlight=False, markup=False)

    def _test_winner(self) -> None:
        """Choose on validation, then test: once, whatever is trained later."""
        group = self.group
        if not group.winner:
            group.winner = self.table().leader
            group.save()
        if not group.winner:
            return
        row = group.row(group.winner)
        plan = plan_seeds(group, row, group.config_of(row))
        data = self.backend.data or load_data(plan)
        try:
            self._test_seeds(row, plan, data, list(evaluation.ended_seeds(plan.record.folder).values()), _weights(plan))
        except RowFailed as error:
            self.state.end(row.name, "failed", f"test: {error}")

    def _test_seeds(
        self, row: Row, plan: Plan, data: SweepData, records: list[TrialRecord], weights: dict[str, Path]
    ) -> dict[str, dict[str, float]]:
        """Test every ended seed once; what is in the event log already is taken from there.

        Returns:
            Name of a trial -> its test metrics.
        """
        result, found = self.state.result(row.name), {}
        seconds: defaultdict[int, float] = defaultdict(float)
        for event in SweepState(plan.record.folder).epochs():
            seconds[event["trial"]] += event["result"].get("seconds_train", 0.0)
        for record in records:
            if record.outcome != "completed":
                continue
            self.stop.check()
            seed = record.config["seed"]
            path = ranks_path(self.group.folder, row.name, seed)
            if seed not in result.seeds or not path.exists():
                tested = self._evaluate(record, weights, data)
                evaluation.save_ranks(path, tested.ranks)
                if seed not in result.seeds:
                    trained = round(seconds[record.number], 3)
                    of_seed = SeedResult(
                        metrics=tested.metrics, best_epoch=record.best_epoch, epochs_run=record.epoch, seconds=trained
                    )
                    facts = {key: getattr(tested, key) for key in ("parameters", "status", "facts")}
                    self.state.tested(row.name, seed, of_seed, **facts)
            found[record.name] = result.seeds[seed].metrics
        return found

    def _evaluate(self, record: TrialRecord, weights: dict[str, Path], data: SweepData) -> TestEvaluation:
        seed = record.config["seed"]
        if record.name not in weights:
            raise RowFailed(f"the weights of seed {seed} are gone")
        try:
            with self.console.status(f"scoring seed {seed} on the test split"):
                return (self.backend.rank or evaluation.evaluate_on_test)(weights[record.name], data)
        except (InputError, FloatingPointError) as error:
            raise RowFailed(str(error)) from error

    def _leave_stuck(self, reason: str) -> None:
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
        self.state.stop(reason or outcome)
        page = leaderboard.shortened(next(iter(files.values())))
        paths = [group.folder / name for name in (*files, f"{group.kind}.yaml")]
        with self.console.status("delivering to MLflow"):
            return tracking.close(outcome, table.summary(), paths, page)


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


def _weights(plan: Plan) -> dict[str, Path]:
    """Trial of an ended sweep -> folder with its weights."""
    return CheckpointRetention(plan.record.folder, SweepState(plan.record.folder), plan.record.keep).weights()


def _first_error(records: list[TrialRecord], noun: str, total: int | None = None) -> str:
    """`12 trials failed: ValueError: ...`."""
    error = next((record.error for record in records if record.error), "no trial had a value")
    return f"{text_format.plural(total or len(records), noun)} failed: {error}"
