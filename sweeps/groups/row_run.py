"""One row of a running group: its search, where it has one, its configuration over seeds, and their test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.text_format import plural
from sweeps.core.descriptions import caveats
from sweeps.core.plan import Plan
from sweeps.core.storage import locked
from sweeps.core.sweep import PartOfGroup, Sweep, TestOfTrials
from sweeps.core.sweep_data import SweepData, load_data
from sweeps.groups import evaluation
from sweeps.groups.evaluation import ranks_path
from sweeps.groups.group import Group, Row
from sweeps.groups.new_group import config_of_trial
from sweeps.groups.results import SeedResult
from sweeps.groups.row_sweeps import is_level, plan_first, plan_seeds
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

if TYPE_CHECKING:
    from sweeps.groups.run import GroupRun


class RowFailed(Exception):
    """A row has no number to show; the other rows are run all the same."""


def is_done(run: GroupRun, row: Row) -> bool:
    """Whether an earlier driver finished a row, and nothing of it is missing on the disk or in MLflow."""
    group, result = run.group, run.state.result(row.name)
    kept = all(ranks_path(group.folder, row.name, seed).exists() for seed in result.seeds)
    is_level_all = all(is_level(group, row, step) for step in ("search", "seeds"))
    retried = run.retry_failed and SweepState(group.sweep_folder(row.name, "seeds")).failed()
    return result.outcome == "done" and kept and is_level_all and not retried


def run_row(run: GroupRun, row: Row, place: str) -> None:
    """Search, train over seeds and test one row; how it ended goes to the event log."""
    facts: dict[str, Any] = {"status": model_class(row.model).status}
    try:
        first = plan_first(run.group, row)
        data = run.backend.data or load_data(first)
    except InputError as error:
        run.state.write("ended", row=row.name, outcome="missing", reason=str(error), **facts)
        return
    try:
        facts = _train_row(run, row, first if run.group.trials else None, data, place)
    except RowFailed as error:
        run.state.write("ended", row=row.name, outcome="failed", reason=str(error), **facts)
    else:
        run.state.write("ended", row=row.name, outcome="done", **facts)


def _train_row(run: GroupRun, row: Row, search: Plan | None, data: SweepData, place: str) -> dict[str, Any]:
    """Fields of the event that ends the row."""
    facts: dict[str, Any] = {}
    config = run.group.config_of(row)
    if search is not None:
        records = _sweep(run, row, search, data, "search", place, None)
        best = best_of(records)
        if best is None:
            raise RowFailed(_first_error(records, "trial"))
        config = config_of_trial(search, best)
        whole = build_config(search.config_class, {"model": row.model, **config}, where=best.name).to_dict()
        chosen = {key: whole[key] for key in search.varied_keys}
        facts = {"search": evaluation.search_facts(records), "chosen": chosen}
    seeds = plan_seeds(run.group, row, config)
    test = partial(_test_seeds, run, row, seeds, data) if run.group.test == "every row" else None
    trained = _sweep(run, row, seeds, data, "seeds", place, test)
    if best_of(trained) is None:
        raise RowFailed(_first_error(trained, "seed"))
    if test:
        test(trained, _weights(seeds))
    failed = [record for record in trained if record.outcome == "failed"]
    reason = f"{len(failed)} of {_first_error(failed, 'seed', len(trained))}" if failed else ""
    return {"reason": reason, "notes": caveats(search or seeds, data), **facts}


def _sweep(
    run: GroupRun, row: Row, plan: Plan, data: SweepData, step: str, place: str, test: TestOfTrials | None
) -> list[TrialRecord]:
    """Run a sweep of the group to its end, unless it is completed and MLflow has all of it; returns its trials.

    Raises:
        Interrupted: it was asked to stop.
    """
    record, backend, state = plan.record, run.backend, SweepState(plan.record.folder)
    # The winner of a search stands once its seeds are trained.
    is_fixed = step == "search" and bool(SweepState(run.group.sweep_folder(row.name, "seeds")).records)
    plan.retry_failed = run.retry_failed and not is_fixed and bool(state.failed())
    if record.is_searched and not state.undelivered and not record.taken_over and not plan.retry_failed:
        return list(state.records.values())
    record.folder.mkdir(parents=True, exist_ok=True)
    assert run.tracking is not None, "the group is open"
    title = f"{run.group.name}   {row.name} on {record.scenario}   ({place}, {step})"
    part = PartOfGroup(title=title, tags=run.tracking.tags_of(step), test=test, on_stuck=run.leave_stuck)
    with locked(record.folder, record.name), _trial_console(run) as console:
        sweep, parallel = Sweep(plan, console, backend, part), 0
        try:
            if sweep.search.has_work():
                with console.status("starting Ray"):
                    parallel = 1 if backend.train else run.ray.start(plan, data)
            run.listen()
            run.stop.check()
            sweep.open(data, parallel)
            run.listen()
            if parallel:
                train = backend.train or (lambda sweep: sweep.train(parallel, run.stop))
                train(sweep)
            result = sweep.finish(run.stop)
        except BaseException as error:
            sweep.leave(run.stop.reason or type(error).__name__)
            run.ray.stop()
            raise
    if result.undelivered:
        run.undelivered.append(f"{record.name}: {result.undelivered}")
    run.stop.check()
    if aside := [item for item in result.records if not item.ended]:
        raise RowFailed(f"{aside[0].name} of its {step} was set aside: {aside[0].error}")
    return result.records


def log_file(group: Group) -> Path:
    """Where the trials of a group are shown, if the output is no terminal."""
    return group.folder / f"{group.command}.log"


@contextmanager
def _trial_console(run: GroupRun) -> Iterator[Console]:
    """Where the trials of a sweep are shown: live in a terminal, else in a file of the group's folder."""
    if run.console.is_terminal:
        yield run.console
        return
    with log_file(run.group).open("a") as file:
        yield Console(file=file, width=120, highlight=False, markup=False)


def evaluate_winner(run: GroupRun) -> None:
    """Choose on validation, then test: once, whatever is trained later."""
    group = run.group
    if not group.winner:
        group.winner = run.table().leader
        group.save()
    if not group.winner:
        return
    row = group.row(group.winner)
    plan = plan_seeds(group, row, group.config_of(row))
    data = run.backend.data or load_data(plan)
    try:
        _test_seeds(run, row, plan, data, list(evaluation.ended_seeds(plan.record.folder).values()), _weights(plan))
    except RowFailed as error:
        run.state.write("ended", row=row.name, outcome="failed", reason=f"test: {error}")


def _test_seeds(
    run: GroupRun, row: Row, plan: Plan, data: SweepData, records: list[TrialRecord], weights: dict[str, Path]
) -> dict[str, dict[str, float]]:
    """Test every ended seed once; what is in the event log already is taken from there.

    Returns:
        Name of a trial -> its test metrics.
    """
    result, found = run.state.result(row.name), {}
    seconds: defaultdict[int, float] = defaultdict(float)
    for event in SweepState(plan.record.folder).epochs():
        seconds[event["trial"]] += event["result"].get("seconds_train", 0.0)
    for record in records:
        if record.outcome != "completed":
            continue
        run.stop.check()
        seed = record.config["seed"]
        path = ranks_path(run.group.folder, row.name, seed)
        if seed not in result.seeds or not path.exists():
            if record.name not in weights:
                raise RowFailed(f"the weights of seed {seed} are gone")
            try:
                with run.console.status(f"scoring seed {seed} on the test split"):
                    tested = (run.backend.rank or evaluation.evaluate_on_test)(weights[record.name], data)
            except (InputError, FloatingPointError) as error:
                raise RowFailed(str(error)) from error
            evaluation.save_ranks(path, tested.ranks)
            if seed not in result.seeds:
                of_seed = SeedResult(
                    metrics=tested.metrics, best_epoch=record.best_epoch, epochs_run=record.epoch,
                    seconds=round(seconds[record.number], 3),
                )  # fmt: skip
                facts = {key: getattr(tested, key) for key in ("parameters", "status", "facts")}
                run.state.write("tested", row=row.name, seed=seed, result=of_seed.model_dump(), **facts)
        found[record.name] = result.seeds[seed].metrics
    return found


def _weights(plan: Plan) -> dict[str, Path]:
    """Trial of an ended sweep -> folder with its weights."""
    return CheckpointRetention(plan.record.folder, SweepState(plan.record.folder), plan.record.keep).weights()


def _first_error(records: list[TrialRecord], noun: str, total: int | None = None) -> str:
    """`12 trials failed: ValueError: ...`."""
    error = next((record.error for record in records if record.error), "no trial had a value")
    return f"{plural(total or len(records), noun)} failed: {error}"
