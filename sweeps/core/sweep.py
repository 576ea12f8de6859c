"""Run a planned sweep: Ray, MLflow, trials, leaderboard, and the one evaluation of the best trial on the test split."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf.errors import InputError
from sweeps.cluster.node_probe import versions
from sweeps.cluster.ray_session import ClusterWatch
from sweeps.cluster.resources import describe_machine
from sweeps.core.descriptions import describe_resources
from sweeps.core.display import Display
from sweeps.core.exits import ALL_FAILED, CLUSTER_LOST, COMPLETED, SOME_FAILED, Result, exit_stuck, stopped_code
from sweeps.core.interrupt import StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import code_version, connect_tracking, describe_run, make_references, write_results
from sweeps.core.summary import print_end
from sweeps.core.sweep_data import SweepData
from sweeps.core.tuning import run_trials
from sweeps.state.checkpoint_retention import CheckpointRetention, keep_best
from sweeps.state.confirmation import confirmed, sentence_of
from sweeps.state.sweep_record import TUNE, SweepRecord
from sweeps.state.trial_records import TrialRecord, best_of
from sweeps.tracking.runs import Tracking, of_best_epoch

ReportWriter = Callable[[SweepRecord, SweepData, Console, bool], str]
"""Writes the page of an ended sweep from its record, data and console, and whether MLflow answers; gives its path, "" for none."""


TestOfTrials = Callable[[list[TrialRecord], dict[str, Path]], dict[str, dict[str, float]]]
"""Trials and folders of their weights in, test metrics by name of a trial out."""


@dataclass
class TrialBackend:
    """What tests put in the place of the trial floor: all None in a real sweep.

    Attributes:
        data: instead of the prepared data.
        trainable: instead of `train_trial`, of the same signature.
        evaluate: instead of `evaluate_checkpoint`.
        client: makes the MLflow client.
        saved: called after each event of the log.
    """

    data: SweepData | None = None
    trainable: Callable[..., None] | None = None
    evaluate: Callable[..., dict[str, float]] | None = None
    client: Callable[[], Any] | None = None
    saved: Callable[[dict[str, Any]], None] | None = None


@dataclass
class PartOfGroup:
    """What is different in a sweep that is a part of a group: it tells nothing at its end, since the group does.

    Attributes:
        title: of the live table.
        tags: of the sweep's run, which hang it below the group's.
        test: in the place of the best trial's test; None where the sweep must not evaluate on the test split.
        on_stuck: ends the process where Ray does not answer, with the reason.
    """

    title: str
    tags: dict[str, str]
    test: TestOfTrials | None
    on_stuck: Callable[[str], None]


class Sweep:
    """A running sweep: what the plan names and what grows while it runs.

    Args:
        plan: what to run.
        console: where to show it.
        backend: see there.
        part: given where the sweep is a part of a group.
        report: writes its page when the search has ended.
    """

    def __init__(
        self,
        plan: Plan,
        console: Console,
        backend: TrialBackend,
        part: PartOfGroup | None = None,
        report: ReportWriter | None = None,
    ) -> None:
        from sweeps.search.search import PRIOR_TRIALS, SweepSearch

        self.plan, self.console, self.backend, self.part, self.report = plan, console, backend, part, report
        self.folder = plan.record.folder
        self.state = plan.state()
        self.state.saved = backend.saved or self.state.saved
        self.state.fill(plan.before)
        plan.record.varied_keys = list(plan.varied_keys)
        self.search = SweepSearch(
            plan.space,
            self.state,
            method=plan.record.search,
            points=plan.points,
            varied_keys=plan.varied_keys,
            problem=plan.check.problem,
            trials=plan.trials,
            epochs=plan.epochs,
            seed=plan.record.seed,
            startup=max(2, min(PRIOR_TRIALS, plan.record.grid_points or PRIOR_TRIALS)),
            observations=plan.record.observations,
            next_repeats=lambda: plan.next_repeats(self.state),
            repeats_to_come=lambda: plan.repeats_to_come(self.state),
        )
        self.tracking: Tracking | None = None
        self._leaving = threading.Lock()

    def open(self, data: SweepData, parallel: int) -> None:
        """Take the sweep over: into the event log, the record and MLflow.

        Raises:
            InputError: the tracking server or database cannot be reached; nothing was written then.
        """
        record = self.plan.record
        self.data = data
        tracking = connect_tracking(self.plan, data, self.console, self.backend.client)
        shutil.rmtree(self.folder / TUNE, ignore_errors=True)
        if self.plan.extended:
            self.state.extend(self.plan.trials, self.plan.before)
        self.state.open(
            host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), code=code_version(),
            trials=self.plan.trials, fingerprint=data.scenario.fingerprint, resources=describe_resources(self.plan, parallel),
            repeats=self.plan.most_repeats,
            cpus_per_trial=record.cpus_per_trial, gpus_per_trial=record.gpus_per_trial, machine=describe_machine(),
            versions=versions(), **({"taken_over": record.taken_over} if record.taken_over else {}),
        )  # fmt: skip
        self.state.retry()
        record.fingerprint, record.status = data.scenario.fingerprint, "running"
        record.save()
        self.retention = CheckpointRetention(self.folder, self.state, record.keep)
        title = (
            self.part.title if self.part else f"{record.name}   {record.model} on {record.scenario}, {record.search}"
        )
        self.display = Display(
            self.console,
            title=title,
            planned=self.plan.trials,
            slots=parallel,
            records=self.state.records,
            repeats=self.plan.most_repeats,
            earlier=self.state.seconds,
        )
        self.tracking = tracking
        tracking.open(self.state)
        if self.part:
            self.tracking.log_parent(tags=self.part.tags, step=0, time=0)

    def train(self, parallel: int, stop: StopRequest) -> None:
        """Run all trials that are left, until the last one ends or the sweep is asked to stop."""
        from sweeps.core.callback import SweepCallback

        callback = SweepCallback(self, stop)
        stop.on_stuck = lambda: self.leave_stuck(stop.reason)
        self.search.is_stopping = lambda: bool(stop.reason)
        try:
            stop.check()
            with self.display, ClusterWatch(lambda: self.leave_stuck(stop.reason or CLUSTER_LOST)):
                run_trials(self, callback, parallel)
        finally:
            stop.on_stuck = None
            shutil.rmtree(self.folder / TUNE, ignore_errors=True)

    def leave_stuck(self, reason: str) -> None:
        """End a sweep whose Ray no longer answers; called from threads beside the one that waits for Ray."""
        # Never given back: whoever comes second must not end the process before the first has closed the runs.
        self._leaving.acquire()
        self.leave(reason)
        if self.part:
            self.part.on_stuck(reason)
        exit_stuck(self.console, reason, self.plan.resume_command())

    def leave(self, reason: str) -> None:
        """Close what is open where the sweep cannot continue; `--resume` continues from the event log."""
        if self.tracking is None:
            return
        tracking, self.tracking = self.tracking, None
        self.close_trials(tracking)
        tracking.close("interrupted")
        self.finalize("interrupted", reason)

    def close_trials(self, tracking: Tracking) -> None:
        """Close the runs of all trials that have not ended."""
        for record in self.state.records.values():
            if not record.ended:
                record.outcome = "interrupted"
                tracking.end_trial(record)

    def finalize(self, outcome: str, reason: str, undelivered: int = 0) -> None:
        """Write how the sweep stands into its event log and its record."""
        self.state.stop(reason or outcome, undelivered)
        self.plan.record.status = outcome
        self.plan.record.save()

    def finish(self, stop: StopRequest) -> Result:
        """Write the results, evaluate the best trial on the test split if the search has ended, close the runs, and print it all."""
        tracking = self.tracking
        self.close_trials(tracking)
        records = list(self.state.records.values())
        best = best_of(records)
        failed, aside = self.state.failed(), [record for record in records if not record.ended]
        reason = stop.reason or "; ".join(f"{record.name} was set aside: {record.error}" for record in aside[:1])
        outcome = "interrupted" if reason else "failed" if not best else "incomplete" if failed else "completed"
        is_searched = outcome in ("completed", "incomplete")
        test: dict[str, float] = {}
        if is_searched:
            if self.part:
                test = self._test_trials(records).get(best.name, {})
            elif not self.plan.tested_by:
                test = self._test(best)
                with self.console.status("comparing with simple systems"):
                    make_references(self.plan, self.data)
        paths = write_results(self.plan, self.data, records, best, test, evaluations=len(self.state.tests))
        tags = {"mlflow.note.content": describe_run(self.plan, records, best, test)}
        summary = {"objective": best.objective, **best.metrics, **of_best_epoch(best)} if is_searched else {}
        if is_searched and (sure := confirmed(records)):
            tags["confirmation"] = sentence_of(sure)
            names = ("seeds", "mean", "sd", "chance")
            values = len(sure[0].values), sure[0].mean, sure[0].deviation, sure[0].best
            summary |= {f"confirmed/{name}": value for name, value in zip(names, values, strict=True)}
            tracking.log_confirmed(sure)
        if best and not self.part and not self.plan.tested_by:
            tags |= {"best_trial": best.name, "test_looks": str(len(self.state.tests))}
            summary |= test
        if is_searched and not self.part:
            kept = self.retention.weights()
            for name, folder in kept.items():
                tracking.log_weights(name, folder)
            if best and best.name in kept:
                tracking.log_model(best, kept[best.name])
        tracking.log_parent(
            metrics=summary, tags=tags, paths=paths, step=len(records), time=best.updated if best else 0
        )
        with self.console.status("delivering to MLflow"):
            undelivered = tracking.close(outcome)
        self.tracking = None
        self.finalize(outcome, reason, len(tracking.writer.lost))
        if not self.part:
            written = self.report if is_searched else None
            report = written(self.plan.record, self.data, self.console, not undelivered) if written else ""
            print_end(self, test, outcome, reason, undelivered, tracking.writer.page(), report)
        codes = {"completed": COMPLETED, "incomplete": SOME_FAILED, "failed": ALL_FAILED}
        return Result(codes.get(outcome, stopped_code(stop)), records, test, undelivered)

    def _test_trials(self, records: list[TrialRecord]) -> dict[str, dict[str, float]]:
        """Test metrics of the trials of a part of a group, also into their runs."""
        if self.part.test is None:
            return {}
        found = self.part.test(records, self.retention.weights())
        for record in records:
            if record.name in found:
                self.tracking.writer.write(
                    "metrics", record.name, values=found[record.name], step=record.best_epoch, time=record.updated
                )
        return found

    def _test(self, best: TrialRecord) -> dict[str, float]:
        """Test metrics of the chosen trial: computed once, and known from the event log afterwards.

        Raises:
            InputError: its weights are gone.
        """
        weights = self.retention.weights().get(best.name)
        known = [test["metrics"] for test in self.state.tests if test["trial"] == best.number]
        if weights is None:
            raise InputError(f"the weights of {best.name} are not in {self.folder / 'trials'}: bring them back")
        best_folder = keep_best(weights, self.folder)
        if known:
            return known[-1]
        evaluate = self.backend.evaluate
        if evaluate is None:
            from llmemf.checkpoint import evaluate_checkpoint as evaluate
        with self.console.status("scoring the best trial on the test split"):
            test = evaluate(best_folder, self.data.scenario, self.data.features, split="test")
        self.state.tested(best, test)
        return test
