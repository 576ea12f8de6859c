"""Run a group of sweeps: for every entry a search (where there is one), its configuration over seeds, and looks at the test
split.

An entry that fails or cannot run on this data is a row of the table like the others. Everything that was done is in the
journals of the group and of its sweeps, so that a driver that continues repeats nothing.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.models import model_class
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.ray_session import LogWatch
from sweeps.comparison.record import GroupRecord, plan_seeds
from sweeps.comparison.seeds import TestEvaluation, evaluate_on_test, load_ranks, ranks_path, save_ranks, search_facts
from sweeps.comparison.state import EntryResult, GroupState, SeedResult
from sweeps.comparison.step import GroupBackend, SharedRay, Step
from sweeps.comparison.tracking import GroupTracking
from sweeps.core.interrupt import StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import code_version
from sweeps.core.settings import SAMPLE
from sweeps.core.storage import locked
from sweeps.core.summary import caveats
from sweeps.core.sweep import CLUSTER_LOST, INTERRUPTED, NEEDS_USER
from sweeps.core.sweep_data import SweepData, load_data
from sweeps.state import leaderboard
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

LookAt = Callable[[list[TrialRecord], dict[str, Path]], dict[str, dict[str, float]]]


class EntryFailed(Exception):
    """An entry has no number to show; the others go on."""


class GroupRun:
    """A running comparison, ablation or rerun.

    Args:
        record: what to run.
        console: where to show it.
        stop: the request to stop.
        watch: the watch over the logs, which listens again after Ray and MLflow have started.
    """

    tests_every_entry = True
    """Whether the seeds of every entry are tested as soon as they are trained."""

    def __init__(
        self, record: Any, console: Console, stop: StopRequest, watch: LogWatch, backend: GroupBackend
    ) -> None:
        self.record, self.console, self.stop, self.watch = record, console, stop, watch
        self.backend = backend
        self.state = GroupState(record.folder, record.entry)
        self.ray = SharedRay()
        self.tracking: GroupTracking | None = None

    def plan_search(self, entry: str) -> Plan | None:
        """The search of an entry, None where its configuration is given.

        Raises:
            InputError: the entry cannot run, and why.
        """
        raise NotImplementedError

    def given(self, entry: str) -> dict[str, Any]:
        """The configuration of an entry that is not searched, without `model` and `seed`.

        Raises:
            InputError: the entry cannot run, and why.
        """
        raise NotImplementedError

    def finalize(self) -> None:
        """Fix in the record what follows from the data; called with the scenario at hand, before anything is shown."""

    def params(self) -> dict[str, Any]:
        """Parameters of the group's run."""
        raise NotImplementedError

    def summary(self) -> dict[str, float]:
        """Metrics of the group's run."""
        raise NotImplementedError

    def pages(self) -> dict[str, str]:
        """The tables of all that is known by now: name of a file -> its text; Markdown comes first."""
        raise NotImplementedError

    def show_start(self) -> None:
        raise NotImplementedError

    def show_entry(self, entry: str, place: int, *, earlier: bool) -> None:
        raise NotImplementedError

    def show_end(self, undelivered: str, page: str) -> None:
        raise NotImplementedError

    def conclude(self) -> None:
        """What is left to do when all entries are through."""

    def open(self) -> None:
        """Load the scenario, take the group over, and say what it is.

        Raises:
            InputError: data is missing or has changed, or the tracking server cannot be reached.
        """
        record = self.record
        with self.console.status(f"loading {record.scenario}"):
            self.scenario = self.backend.data.scenario if self.backend.data else load_scenario(record)
        if record.fingerprint not in ("", self.scenario.fingerprint):
            raise InputError(
                f"scenario {self.scenario.name!r} has changed since {record.kind} {record.name!r} was started (fingerprint "
                f"{self.scenario.fingerprint[:8]}, was {record.fingerprint[:8]}): bring the old data back, or start anew"
            )
        record.fingerprint, record.status = self.scenario.fingerprint, "running"
        self.finalize()
        self.show_start()
        with self.console.status("opening the tracking database"):
            tracking = GroupTracking(record, self.params(), self.backend.client)
            tracking.open()
        self.tracking = tracking
        self._listen()
        record.save()
        self.state.open(
            host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), code=code_version(),
            entries=record.entries, fingerprint=record.fingerprint,
        )  # fmt: skip

    def _listen(self) -> None:
        """Take signals and logs back: Ray and MLflow set their own handlers when they start."""
        self.stop.listen()
        self.watch.listen()

    def run(self) -> None:
        """All entries, one after the other, each told as it ends.

        Raises:
            Interrupted: it was asked to stop.
            InputError: something that concerns all entries: storage, tracking, resources.
        """
        for place, entry in enumerate(self.record.entries, start=1):
            self.stop.check()
            earlier = self._is_done(entry)
            if not earlier:
                self._entry(entry, f"{place} of {len(self.record.entries)}")
            self.show_entry(entry, place, earlier=earlier)
        self.conclude()

    def _is_done(self, entry: str) -> bool:
        result = self.state.result(entry)
        kept = all(ranks_path(self.record.folder, entry, seed).exists() for seed in result.seeds)
        return result.outcome == "done" and kept

    def _entry(self, entry: str, place: str) -> None:
        """Search, train over seeds and test one entry; how it ended goes to the journal."""
        status = model_class(self.record.model_of(entry)).status
        try:
            search = self.plan_search(entry)
            first = search or plan_seeds(self.record, entry, self.given(entry))
            data = self.backend.data or load_data(first)
        except InputError as error:
            self.state.end(entry, "missing", str(error), status=status)
            return
        try:
            self._trained(entry, search, data, place)
        except EntryFailed as error:
            self.state.end(entry, "failed", str(error), status=status)

    def _trained(self, entry: str, search: Plan | None, data: SweepData, place: str) -> None:
        facts: dict[str, Any] = {}
        if search is None:
            chosen = self.given(entry)
        else:
            records = self._step(entry, search, data, "search", place)
            best = best_of(records)
            if best is None:
                raise EntryFailed(_first_error(records, "trial"))
            values = {**search.fixed, **best.config}
            chosen = {key: value for key, value in values.items() if key not in ("model", "seed")}
            config = build_config(search.config_class, {"model": search.record.model, **chosen}, where=best.name)
            shown = {key: config.to_dict()[key] for key in search.varied_keys}
            facts = {"search": search_facts(records), "chosen": shown}
        seeds = plan_seeds(self.record, entry, chosen)

        def look(records: list[TrialRecord], weights: dict[str, Path]) -> dict[str, dict[str, float]]:
            return self.look(entry, seeds, data, records, weights)

        trained = self._step(entry, seeds, data, "seeds", place, look if self.tests_every_entry else None)
        if best_of(trained) is None:
            raise EntryFailed(_first_error(trained, "seed"))
        if self.tests_every_entry:
            look(trained, self.weights(seeds))
        failed = [record for record in trained if record.outcome == "failed"]
        reason = f"{len(failed)} of {_first_error(failed, 'seed', len(trained))}" if failed else ""
        self.state.end(entry, "done", reason, notes=caveats(search or seeds, data), **facts)

    @staticmethod
    def weights(plan: Plan) -> dict[str, Path]:
        """Trial of an ended step -> folder with its weights."""
        return CheckpointRetention(plan.record.folder, SweepState(plan.record.folder), plan.record.keep).weights()

    def _step(
        self,
        entry: str,
        plan: Plan,
        data: SweepData,
        step: str,
        place: str,
        look: LookAt | None = None,
    ) -> list[TrialRecord]:
        """Run a sweep of the group to its end, unless it is through; returns its trials.

        Raises:
            Interrupted: it was asked to stop.
        """
        record, backend = plan.record, self.backend
        if record.status == "completed":
            return list(SweepState(record.folder).records.values())
        record.folder.mkdir(parents=True, exist_ok=True)
        with locked(record.folder, record.name), self._trial_console() as console:
            sweep = Step(
                plan, console, backend, title=f"{self.record.name}   {entry} on {record.scenario}   ({place}, {step})",
                tags=self.tracking.tags_of(step), look=look, on_stuck=self._leave_stuck,
            )  # fmt: skip
            parallel = 0
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
        self.stop.check()
        return result.records

    @contextmanager
    def _trial_console(self) -> Iterator[Console]:
        """Where the trials of a step are shown: live in a terminal, else in a file of the group's folder."""
        if self.console.is_terminal:
            yield self.console
            return
        with (self.record.folder / f"{Path(self.record.command).stem}.log").open("a") as file:
            yield Console(file=file, width=120, highlight=False, markup=False)

    def look(
        self,
        entry: str,
        plan: Plan,
        data: SweepData,
        records: list[TrialRecord],
        weights: dict[str, Path],
    ) -> dict[str, dict[str, float]]:
        """Test every ended seed once; what is in the journal already is taken from there.

        Returns:
            Name of a trial -> its test metrics.
        """
        result = self.state.result(entry)
        seconds: dict[int, float] = {}
        for event in SweepState(plan.record.folder).epochs():
            seconds[event["trial"]] = seconds.get(event["trial"], 0.0) + event["result"].get("seconds_train", 0.0)
        found = {}
        for record in records:
            if record.outcome != "completed":
                continue
            self.stop.check()
            seed = record.config["seed"]
            path = ranks_path(self.record.folder, entry, seed)
            if seed not in result.seeds or not path.exists():
                look = self._ranked(record, weights, data)
                save_ranks(path, look.ranks)
                if seed not in result.seeds:
                    tested = SeedResult(
                        look.metrics, record.best_epoch, record.epoch, round(seconds.get(record.number, 0.0), 3)
                    )
                    self.state.tested(
                        entry, seed, tested, parameters=look.parameters, status=look.status, facts=look.facts
                    )
            found[record.name] = result.seeds[seed].metrics
        return found

    def _ranked(self, record: TrialRecord, weights: dict[str, Path], data: SweepData) -> TestEvaluation:
        if record.name not in weights:
            raise EntryFailed(f"the weights of seed {record.config['seed']} are gone")
        rank = self.backend.rank or evaluate_on_test
        try:
            with self.console.status(f"scoring seed {record.config['seed']} on the test split"):
                return rank(weights[record.name], data)
        except (InputError, FloatingPointError) as error:
            raise EntryFailed(str(error)) from error

    def _leave_stuck(self, reason: str) -> None:
        self.close("interrupted", reason)
        self.console.print(f"{reason}; Ray does not answer. What was saved continues with:")
        self.console.print(f"  {self.record.resume_command()}", style="cyan", soft_wrap=True)
        # Nothing of Ray in this process can be ended any more, and it would hold the exit up for minutes.
        os._exit(NEEDS_USER if reason == CLUSTER_LOST else INTERRUPTED)

    def ranks(self) -> dict[str, list[dict[str, Any]]]:
        """Entry that is done -> the ranks of each of its seeds that was tested."""
        found = {}
        for entry in self.record.entries:
            result = self.state.results.get(entry, EntryResult(entry))
            if result.outcome == "done" and result.seeds:
                paths = [ranks_path(self.record.folder, entry, seed) for seed in sorted(result.seeds)]
                found[entry] = [load_ranks(path) for path in paths]
        return found

    def results(self) -> list[EntryResult]:
        """What is known of each entry, in the order of the table."""
        return [self.state.results.get(entry, EntryResult(entry)) for entry in self.record.entries]

    def close(self, outcome: str, reason: str = "") -> str:
        """Write tables and journal, and close the run in MLflow; says what could not be delivered there."""
        if self.tracking is None:
            return ""
        tracking, self.tracking = self.tracking, None
        self.record.status = outcome
        pages = self.pages()
        for name, text in pages.items():
            write_text(self.record.folder / name, text)
        self.record.save()
        self.state.stop(reason or outcome)
        page = leaderboard.shortened(next(iter(pages.values())))
        paths = [self.record.folder / name for name in (*pages, self.record.file())]
        with self.console.status("delivering to MLflow"):
            return tracking.close(outcome, self.summary(), paths, page)


def load_scenario(record: GroupRecord) -> Scenario:
    """The scenario of a group; the sample is made first where it does not exist.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from llmemf.scenarios.scenario import find_scenario

    if record.scenario == SAMPLE:
        from llmemf.scenarios.sample import prepare_sample

        return prepare_sample(record.data_root)
    return find_scenario(record.scenario, record.data_root)


def _first_error(records: list[TrialRecord], noun: str, total: int | None = None) -> str:
    """`12 trials failed: ValueError: ...`."""
    error = next((record.error for record in records if record.error), "no trial had a value")
    return f"{text_format.plural(total or len(records), noun)} failed: {error}"
