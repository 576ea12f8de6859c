"""Prints what a sweep would do, trial by trial, and whether it fits; starts and writes nothing."""

from __future__ import annotations

import itertools
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from llmemf.config import read_yaml
from sweeps.cluster.check import BOOTSTRAP, most_at_once, read_node_types
from sweeps.cluster.resources import described, machine, trials_that_fit
from sweeps.core.console import facts_table
from sweeps.core.plan import Plan
from sweeps.core.summary import print_start
from sweeps.core.sweep_data import SweepData, check_device
from sweeps.costs.disk_need import DiskNeed, disk_need
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, trial_name

TRIALS_SHOWN = 40
"""Rows in a terminal."""


def print_dry_run(plan: Plan, data: SweepData | None, parallel: int, console: Console) -> None:
    """Print every trial that is known already, the dropped points, the later proposals, resources and disk.

    Args:
        data: None where it is made when the sweep starts; the need of disk is unknown then.
        parallel: trials at once.
        console: a terminal gets the first rows of a long table; a file or pipe gets all.

    Raises:
        InputError: a trial asks for a device that this machine lacks.
    """
    check_device(plan)
    state = plan.state()
    print_start(plan, data, parallel, console)
    _print_trials(plan, state, console)
    _print_dropped(plan, console)
    facts = facts_table()
    for label, text in [*describe_fit(plan, parallel), *describe_disk(plan, data, parallel)]:
        facts.add_row(label, text)
    facts.add_row("tracking", plan.record.tracking_uri)
    console.print(facts)
    console.print("\ndry run: nothing was started or written", style="dim")


def remaining(plan: Plan, state: SweepState) -> tuple[list[TrialRecord], list[dict[str, Any]], int]:
    """Unfinished trials, new grid points or spread ones, and the number of settings that are proposed later."""
    left = max(0, plan.trials - len(state.searched))
    points = plan.points[:left]
    points += _spread(plan, state, points)[: left - len(points)]
    return state.unfinished(), points, left - len(points)


def _spread(plan: Plan, state: SweepState, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that `--search auto` begins with, as far as they are to come."""
    from sweeps.search import modelled

    record, space = plan.record, plan.space
    if record.search != "auto" or not space.continuous:
        return []
    known = [*(trial.config for trial in state.searched), *points]
    wanted = modelled.spread_trials(plan.trials, len(record.observations)) - len(known)
    accepts = modelled.is_new(space, known, plan.check.problem)
    return list(itertools.islice(modelled.spread_points(space, record.seed, accepts), max(0, wanted)))


def _print_trials(plan: Plan, state: SweepState, console: Console) -> None:
    unfinished, points, later = remaining(plan, state)
    first = len(state.records) + 1
    rows = [(record.name, record.varied, f"continues after epoch {record.epoch}") for record in unfinished]
    rows += [(trial_name(first + index), point, "") for index, point in enumerate(points)]
    shown = rows[:TRIALS_SHOWN] if console.is_terminal else rows
    ended = len(state.records) - len(unfinished)
    if ended:
        console.print(f"{text_format.plural(ended, 'trial')} of {plan.trials:,} ended already", style="dim")
    if rows:
        keys = plan.varied_keys
        table = Table(box=None, padding=(0, 1), header_style="dim", show_edge=False)
        table.add_column("trial", no_wrap=True)
        for key in keys:
            table.add_column(key, justify="right", no_wrap=True)
        if unfinished:
            table.add_column("", style="dim")
        for name, values, note in shown:
            cells = [text_format.number(values[key]) if key in values else "later" for key in keys]
            table.add_row(name, *cells, *([note] if unfinished else []))
        console.print(table)
    if len(rows) > len(shown):
        left = len(rows) - len(shown)
        console.print(f"... and {left:,} more; add | less to the command to see all", style="dim")
    if later:
        proposers = {
            "random": "drawn at random",
            "auto": "proposed by a model from the results of the others",
        }
        who = proposers.get(plan.record.search, "proposed by Optuna from the results of the others")
        console.print(f"{trial_name(first + len(points))} to {trial_name(plan.trials)}: {later:,} more, {who}")
    if not rows and not later:
        console.print("no trial is left to run")
    console.print()


def _print_dropped(plan: Plan, console: Console) -> None:
    """Print how many combinations each constraint dropped, and how many points of the grid are left."""
    space = plan.space
    if not space.dropped:
        return
    for reason, count in space.dropped_by.items():
        console.print(f"dropped  {text_format.plural(count, 'combination')}: {reason}", style="dim", soft_wrap=True)
    console.print(f"grid     {space.size:,} of {space.full_size:,} points are left\n", style="dim")


def describe_fit(plan: Plan, parallel: int) -> list[tuple[str, str]]:
    """The resources that a trial asks for, and those that are there."""
    record = plan.record
    asks = [("one trial", described(record.cpus_per_trial, record.gpus_per_trial))]
    if record.ray_address:
        said = "" if record.concurrency else " (assumed: give --concurrency)"
        cluster = f"{record.ray_address}, which a dry run does not ask; {parallel} at once{said}"
        return [*asks, ("cluster", cluster), *_described_cluster(plan)]
    here = machine()
    runs = min(parallel, plan.trials)
    cpus = here["CPU"] - runs * record.cpus_per_trial
    gpus = max(0.0, here["GPU"] - runs * record.gpus_per_trial)
    limit = " (--concurrency)" if record.concurrency == parallel else ""
    there = f"{described(here['CPU'], here['GPU'])}: {text_format.plural(parallel, 'trial')} at once{limit}"
    return [*asks, ("machine", f"{there}, {described(cpus, gpus)} idle")]


def _described_cluster(plan: Plan) -> list[tuple[str, str]]:
    """Machines that the cluster of this head may start, where `ray up` left its description."""
    path = BOOTSTRAP.expanduser()
    if not path.exists():
        return []
    kinds, most_workers = read_node_types(read_yaml(path))
    rows = []
    for kind in kinds or []:
        each = trials_that_fit(plan.record, kind.resources)
        most = "any number" if kind.most is None else f"at most {kind.most}"
        rows.append(("may start", f"{most} of {kind}, {text_format.plural(each, 'trial')} each"))
    total = most_at_once(plan.record, kinds, most_workers) if kinds else None
    if total is not None:
        rows.append(("", f"{text_format.plural(total, 'trial')} at once when it has grown as far as it may"))
    return rows


def describe_disk(plan: Plan, data: SweepData | None, parallel: int) -> list[tuple[str, str | Text]]:
    """The size of the largest model, and the disk that the sweep needs at most."""
    if data is None:
        return [("disk", f"known once {plan.record.scenario} has been made; a few MB for the sample")]
    need = disk_need(plan, data.trial_data, parallel)
    return [("model", f"{need.model.weights:,} weights at most"), ("disk", disk_text(need, plan))]


def disk_text(need: DiskNeed, plan: Plan) -> Text:
    """The sum, its parts, what is free, and a warning where it does not fit."""
    parts = [
        f"{text_format.size(need.running)} checkpoints of running trials",
        f"{text_format.size(need.kept)} weights of the best {min(plan.record.keep, plan.trials)}",
        f"{text_format.size(need.artifacts)} MLflow artifacts" if need.artifacts else "",
        f"{text_format.size(need.records)} metrics and records",
    ]
    text = Text(f"at most {text_format.size(need.total)} ({', '.join(filter(None, parts))}); ")
    free = f"{text_format.size(need.free)} free in {need.where}"
    if need.fits:
        return text.append(free)
    mend = "free some, give another --storage, or lower --concurrency or --keep"
    return text.append(f"only {free}: {mend}", style="bold red")
