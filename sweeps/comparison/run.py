"""Run a comparison: for every system a search, the chosen configuration over seeds, one look at the test split per seed.

A system that fails or cannot run on this data is a row of the table like the others. Everything that was done is in the
journals of the comparison and of its sweeps, so that a driver that continues repeats nothing.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.scenarios.scenario import Scenario
from sweeps import leaderboard, wording
from sweeps.cluster.ray_session import LogWatch, quiet
from sweeps.comparison import table_formats, tables
from sweeps.comparison import view as comparison_view
from sweeps.comparison.ledger import ComparisonLedger, SeedResult, SystemResult
from sweeps.comparison.plan import ComparisonRecord, plan_search, plan_seeds
from sweeps.comparison.seeds import Look, load_ranks, look_at_test, ranks_path, save_ranks, search_facts
from sweeps.comparison.step import ComparisonStandIns, SharedRay, Step
from sweeps.comparison.tracking import ComparisonTracking
from sweeps.interrupt import Interrupted, StopRequest
from sweeps.ledger import Ledger
from sweeps.plan import SAMPLE, Plan
from sweeps.records import TrialRecord, best_of
from sweeps.report_text import caveats
from sweeps.retention import Retention
from sweeps.settings import write_whole
from sweeps.sweep import (
    ALL_FAILED,
    CLUSTER_LOST,
    COMPLETED,
    INTERRUPTED,
    NEEDS_USER,
    TIME_SPENT,
    check_reachable,
    code_version,
    locked,
)
from sweeps.sweep_data import SweepData, load_data

LOG = "compare.log"


class SystemFailed(Exception):
    """A system has no number to show; the others go on."""


class ComparisonRun:
    """A running comparison.

    Args:
        record: what to run.
        console: where to show it.
        stop: the request to stop.
        watch: the watch over the logs, which listens again after Ray and MLflow have started.
    """

    def __init__(
        self,
        record: ComparisonRecord,
        console: Console,
        stop: StopRequest,
        watch: LogWatch,
        stand_ins: ComparisonStandIns,
    ) -> None:
        self.record, self.console, self.stop, self.watch = record, console, stop, watch
        self.stand_ins = stand_ins
        self.ledger = ComparisonLedger(record.folder)
        self.ray = SharedRay()
        self.tracking: ComparisonTracking | None = None

    def open(self) -> None:
        """Load the scenario, take the comparison over, and say what it is.

        Raises:
            InputError: data is missing or has changed, or the tracking server cannot be reached.
        """
        record = self.record
        with self.console.status(f"loading {record.scenario}"):
            self.scenario = self.stand_ins.data.scenario if self.stand_ins.data else load_scenario(record)
        if record.fingerprint not in ("", self.scenario.fingerprint):
            raise InputError(
                f"scenario {self.scenario.name!r} has changed since comparison {record.name!r} was started (fingerprint "
                f"{self.scenario.fingerprint[:8]}, was {record.fingerprint[:8]}): bring the old data back, or start anew"
            )
        record.fingerprint, record.status = self.scenario.fingerprint, "running"
        comparison_view.print_start(record, self.scenario, self.ledger, self.console)
        with self.console.status("opening the tracking database"):
            tracking = ComparisonTracking(record, self.stand_ins.client)
            tracking.open()
        self.tracking = tracking
        self._listen()
        record.save()
        self.ledger.open(
            host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), code=code_version(),
            models=record.models, fingerprint=record.fingerprint,
        )  # fmt: skip

    def _listen(self) -> None:
        """Take signals and logs back: Ray and MLflow set their own handlers when they start."""
        self.stop.listen()
        self.watch.listen()

    def run(self) -> None:
        """All systems, one after the other, each told as it ends.

        Raises:
            Interrupted: it was asked to stop.
            InputError: something that concerns all systems: storage, tracking, resources.
        """
        for place, model in enumerate(self.record.models, start=1):
            self.stop.check()
            earlier = self._is_done(model)
            if not earlier:
                self._system(model, f"{place} of {len(self.record.models)}")
            comparison_view.print_system(
                self.ledger.system(model), self.scenario, place, self.record, self.console, earlier=earlier
            )

    def _is_done(self, model: str) -> bool:
        result = self.ledger.system(model)
        kept = all(ranks_path(self.record.folder, model, seed).exists() for seed in result.seeds)
        return result.outcome == "done" and kept

    def _system(self, model: str, place: str) -> None:
        """Search, train over seeds and test one system; how it ended goes to the journal."""
        try:
            plan = plan_search(self.record, model)
            data = self.stand_ins.data or load_data(plan)
        except InputError as error:
            self.ledger.end(model, "missing", str(error), status=model_class(model).status)
            return
        try:
            self._trained(model, plan, data, place)
        except SystemFailed as error:
            self.ledger.end(model, "failed", str(error), status=model_class(model).status)

    def _trained(self, model: str, plan: Plan, data: SweepData, place: str) -> None:
        records = self._step(plan, data, f"{place}, search")
        best = best_of(records)
        search = search_facts(records)
        if best is None:
            raise SystemFailed(_first_error(records, "trial"))
        chosen = {key: value for key, value in {**plan.fixed, **best.choice}.items() if key not in ("model", "seed")}
        config = build_config(plan.config_class, {"model": model, **chosen}, where=best.name)
        seeds = plan_seeds(self.record, model, chosen)

        def look(records: list[TrialRecord], weights: dict[str, Path]) -> dict[str, dict[str, float]]:
            return self._look(model, seeds, data, records, weights)

        trained = self._step(seeds, data, f"{place}, seeds", look)
        if best_of(trained) is None:
            raise SystemFailed(_first_error(trained, "seed"))
        folder = seeds.record.folder
        look(trained, Retention(folder, Ledger(folder), seeds.record.keep).weights())
        failed = [record for record in trained if record.outcome == "failed"]
        reason = f"{len(failed)} of {_first_error(failed, 'seed', len(trained))}" if failed else ""
        self.ledger.end(
            model, "done", reason, search=search,
            chosen={key: config.to_dict()[key] for key in plan.shown}, notes=caveats(plan, data),
        )  # fmt: skip

    def _step(
        self,
        plan: Plan,
        data: SweepData,
        place: str,
        look: Callable[[list[TrialRecord], dict[str, Path]], dict[str, dict[str, float]]] | None = None,
    ) -> list[TrialRecord]:
        """Run a sweep of the comparison to its end, unless it is through; returns its trials.

        Raises:
            Interrupted: it was asked to stop.
        """
        record, stand_ins = plan.record, self.stand_ins
        if record.status == "completed":
            return list(Ledger(record.folder).records.values())
        step = "seeds" if look else "search"
        record.folder.mkdir(parents=True, exist_ok=True)
        with locked(record.folder, record.name), self._trial_console() as console:
            sweep = Step(
                plan, console, stand_ins, title=f"{self.record.name}   {record.model} on {record.scenario}   ({place})",
                tags=self.tracking.tags_of(step), look=look, on_stuck=self._leave_stuck,
            )  # fmt: skip
            parallel = 0
            try:
                if sweep.search.has_work():
                    with console.status("starting Ray"):
                        parallel = 1 if stand_ins.train else self.ray.start(plan, data)
                self._listen()
                self.stop.check()
                sweep.open(data, parallel)
                self._listen()
                if parallel:
                    train = stand_ins.train or (lambda sweep: sweep.train(parallel, self.stop))
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
        """Where the trials of a step are shown: live in a terminal, else in a file of the comparison's folder."""
        if self.console.is_terminal:
            yield self.console
            return
        with (self.record.folder / LOG).open("a") as file:
            yield Console(file=file, width=120, highlight=False)

    def _look(
        self,
        model: str,
        plan: Plan,
        data: SweepData,
        records: list[TrialRecord],
        weights: dict[str, Path],
    ) -> dict[str, dict[str, float]]:
        """Test every ended seed once; what is in the journal already is taken from there.

        Returns:
            Name of a trial -> its test metrics.
        """
        result = self.ledger.system(model)
        seconds: dict[int, float] = {}
        for event in Ledger(plan.record.folder).epochs():
            seconds[event["trial"]] = seconds.get(event["trial"], 0.0) + event["result"].get("seconds_train", 0.0)
        found = {}
        for record in records:
            if record.outcome != "completed":
                continue
            self.stop.check()
            seed = record.choice["seed"]
            path = ranks_path(self.record.folder, model, seed)
            if seed not in result.seeds or not path.exists():
                look = self._ranked(record, weights, data)
                save_ranks(path, look.ranks)
                if seed not in result.seeds:
                    tested = SeedResult(
                        look.metrics, record.best_epoch, record.epoch, round(seconds.get(record.number, 0.0), 3)
                    )
                    self.ledger.tested(
                        model, seed, tested, parameters=look.parameters, status=look.status, facts=look.facts
                    )
            found[record.name] = result.seeds[seed].metrics
        return found

    def _ranked(self, record: TrialRecord, weights: dict[str, Path], data: SweepData) -> Look:
        if record.name not in weights:
            raise SystemFailed(f"the weights of seed {record.choice['seed']} are gone")
        rank = self.stand_ins.rank or look_at_test
        try:
            with self.console.status(f"scoring seed {record.choice['seed']} on the test split"):
                return rank(weights[record.name], data)
        except (InputError, FloatingPointError) as error:
            raise SystemFailed(str(error)) from error

    def _leave_stuck(self, reason: str) -> None:
        self.close("interrupted", reason)
        self.console.print(f"{reason}; Ray does not answer. What was saved continues with:")
        self.console.print(f"  {self.record.resume_command()}", style="cyan", soft_wrap=True)
        # Nothing of Ray in this process can be ended any more, and it would hold the exit up for minutes.
        os._exit(NEEDS_USER if reason == CLUSTER_LOST else INTERRUPTED)

    def table(self) -> tables.ComparisonTable:
        """The table of all that is known by now."""
        results = [self.ledger.systems.get(model, SystemResult(model)) for model in self.record.models]
        ranks = {}
        for result in results:
            paths = [ranks_path(self.record.folder, result.model, seed) for seed in sorted(result.seeds)]
            if result.outcome == "done":
                ranks[result.model] = [load_ranks(path) for path in paths]
        return tables.build_table(self.record, self.scenario, results, ranks)

    def close(self, outcome: str, reason: str = "") -> str:
        """Write tables and journal, and close the run in MLflow; says what could not be delivered there."""
        if self.tracking is None:
            return ""
        tracking, self.tracking = self.tracking, None
        table = self.table()
        texts = {
            "comparison.md": table_formats.as_markdown(table),
            "comparison.csv": table_formats.as_csv(table),
            "comparison.tex": table_formats.as_latex(table),
        }
        for name, text in texts.items():
            write_whole(self.record.folder / name, text)
        self.record.status = outcome
        self.record.save()
        self.ledger.stop(reason or outcome)
        page = leaderboard.shortened(texts["comparison.md"])
        paths = [self.record.folder / name for name in (*texts, "comparison.yaml")]
        with self.console.status("delivering to MLflow"):
            return tracking.close(outcome, self.ledger, paths, page)


def run_comparison(
    record: ComparisonRecord,
    console: Console,
    *,
    time_budget: float | None = None,
    stand_ins: ComparisonStandIns | None = None,
) -> int:
    """Run or continue a comparison to its end.

    Args:
        record: what to run.
        console: where to show it.
        time_budget: seconds after which it stops in order; `--resume` continues it.
        stand_ins: for tests.

    Returns:
        The exit code: 0 completed, 1 no system has a result, 2 it had to stop, 3 its time budget was spent, 130
        interrupted by the user.

    Raises:
        InputError: something the user can mend: data, storage, tracking, resources, a full disk.
    """
    check_reachable(record)
    make_folder(record)
    with StopRequest(time_budget) as stop, locked(record.folder, record.name), quiet(record) as watch:
        watch.stop = stop.request
        run = ComparisonRun(record, console, stop, watch, stand_ins or ComparisonStandIns())
        try:
            run.open()
            run.run()
            done = any(result.outcome == "done" for result in run.ledger.systems.values())
            outcome, page = "completed" if done else "failed", run.tracking.page()
            undelivered = run.close(outcome)
            comparison_view.print_end(run.table(), record, run.ledger, undelivered, page, console)
            return COMPLETED if done else ALL_FAILED
        except (Interrupted, KeyboardInterrupt):
            reason = stop.reason or "interrupted"
            run.close("interrupted", reason)
            console.print(f"stopped ({reason}); what was saved continues with:")
            console.print(f"  {record.resume_command()}", style="cyan", soft_wrap=True)
            return TIME_SPENT if stop.planned else INTERRUPTED if reason == "interrupted" else NEEDS_USER
        except BaseException as error:
            with suppress(OSError):
                run.close("interrupted", type(error).__name__)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise InputError(
                    f"no space left for {record.folder}: free some, then continue with: {record.resume_command()}"
                ) from error
            raise
        finally:
            run.ray.stop()


def load_scenario(record: ComparisonRecord) -> Scenario:
    """The scenario of a comparison; the sample is made first where it does not exist.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from llmemf.scenarios.scenario import find_scenario

    if record.scenario == SAMPLE:
        from llmemf.scenarios.sample import prepare_sample

        return prepare_sample(record.data_root)
    return find_scenario(record.scenario, record.data_root)


def make_folder(record: ComparisonRecord) -> None:
    """Create the comparison's folder.

    Raises:
        InputError: that is not possible.
    """
    try:
        record.folder.mkdir(parents=True, exist_ok=True)
        write_whole(record.folder / ".write-test", "x")
        (record.folder / ".write-test").unlink()
    except OSError as error:
        raise InputError(
            f"{record.folder} cannot be written ({error.strerror}): free some space or rights, or give another --storage"
        ) from None


def _first_error(records: list[TrialRecord], noun: str, total: int | None = None) -> str:
    """`12 trials failed: ValueError: ...`."""
    error = next((record.error for record in records if record.error), "no trial had a value")
    return f"{wording.plural(total or len(records), noun)} failed: {error}"
