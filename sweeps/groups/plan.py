"""Plan groups: what all kinds have in common, from the command line to the sweeps that a group is made of."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.config import TrialConfig, parse_assignment
from llmemf.errors import InputError, nearest
from llmemf.scenarios.names import check_name
from sweeps.core.options import Options, flag
from sweeps.core.plan import Plan
from sweeps.core.resume import plan_resume, take_over
from sweeps.core.settings import (
    RESOURCES,
    SHARED_SETTINGS,
    checked_settings,
    load_settings,
    scenario_files,
    used_scenario,
)
from sweeps.groups.group import Group, Row, root_of
from sweeps.state.sweep_record import SweepRecord, find_sweep, readable
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

DEFAULT_SEEDS = 5
IMMUTABLE_OPTIONS = (
    "models", "model", "reference", "trials_per_model", "rows", "vary", "tune", "from_sweep", "top", "seeds", "epochs",
    "seed", "assignments",
)  # fmt: skip
"""Options that a stored group has once and for all."""


@dataclass
class GroupOptions(Options):
    """The command line of a group; None means that a file, a sweep or a default decides.

    Each kind reads the options that it has: `models`, `reference` and `trials_per_model` (comparison), `rows` and `tune`
    (ablation), `sweep` and `top` (rerun), `model` and `vary` (study), `from_sweep` (ablation, study).
    """

    models: list[str] | None = None
    reference: str | None = None
    trials_per_model: int | None = None
    rows: list[str] | None = None
    tune: int | None = None
    from_sweep: str | None = None
    sweep: str | None = None
    top: int | None = None
    vary: list[str] | None = None
    seeds: int | None = None


def plan_group(
    kind: str,
    new: Callable[[GroupOptions, datetime.datetime], Group],
    options: GroupOptions,
    *,
    resume: bool = False,
    start_or_continue: bool = False,
) -> Group:
    """The group that a command line means: a new one, or a stored one that is continued.

    Args:
        new: plans a new group of this kind.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if resume and start_or_continue:
        raise InputError("--resume and --continue exclude each other: give one of them")
    if start_or_continue:
        if options.name is None:
            raise InputError(f"--continue needs --name: the {kind} that is started, or continued where it exists")
        resume = (root_of(kind, options.storage.resolve()) / options.name / f"{kind}.yaml").exists()
        if resume:
            places = ("storage", "name", "tracking_uri", "data_root")
            group = resume_group(kind, GroupOptions(**{key: getattr(options, key) for key in (*RESOURCES, *places)}))
            group.notices += _without_effect(options, group)
            return group
    if resume:
        return resume_group(kind, options)
    group = new(options, datetime.datetime.now())
    check_new(group)
    return group


def _without_effect(options: GroupOptions, group: Group) -> list[str]:
    """A sentence on the options of a command line that a stored group was not started with."""
    stored = {
        "trials_per_model": group.trials, "tune": group.trials, "seeds": len(group.seeds), "seed": group.seed,
        "epochs": group.fixed.get("epochs"), "assignments": group.assignments,
    }  # fmt: skip
    changed = [key for key, value in stored.items() if getattr(options, key) not in (None, [], value)]
    changed += [key for key in ("models", "rows") if not set(getattr(options, key) or []) <= set(group.names)]
    if not changed:
        return []
    return [f"{', '.join(map(flag, changed))} without effect: the {group.kind} was started with something else"]


def new_group(
    kind: str,
    options: GroupOptions,
    now: datetime.datetime,
    *,
    scenario: str,
    rows: list[Row],
    seed: int,
    **fields: Any,
) -> Group:
    """A group of the command line: where it goes, on which resources, and its seeds.

    The seeds are others than that of the search, whose luck must not count.

    Args:
        fields: further ones, or other values than those of the command line.
    """
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    name = options.name or f"{scenario}-{now:%Y%m%d-%H%M%S}"
    given = {**options.places(now), "name": name, "assignments": options.assignments}
    seeds = list(range(seed + 1, seed + 1 + count))
    return Group(kind=kind, scenario=scenario, rows=rows, seed=seed, seeds=seeds, **given | fields)


def check_new(group: Group) -> None:
    """Check that a group may start under its name.

    Raises:
        InputError: the name is no good, or taken.
    """
    check_name(group.name, "--name")
    if (group.folder / f"{group.kind}.yaml").exists():
        raise InputError(
            f"{_a(group.kind)} named {group.name!r} exists in {group.storage}: give --resume to continue it, or another "
            "--name"
        )
    steps = [(name, step) for name in group.names for step in ("search", "seeds")]
    taken = [group.sweep_name(*step) for step in steps if group.sweep_folder(*step).exists()]
    if taken:
        raise InputError(f"a sweep named {taken[0]!r} exists in {group.storage}: give another --name")


def find_group(kind: str, storage: Path, name: str | None, scenario: str | None = None) -> Group:
    """The stored group that is to be continued: the named one, or the newest (of a scenario).

    Raises:
        InputError: there is none; existing ones are offered.
    """
    root = root_of(kind, storage)
    existing = sorted(path.parent.name for path in root.glob(f"*/{kind}.yaml"))
    if name is not None and name not in existing:
        hint = nearest(name, existing) if existing else f"none is stored in {root}"
        raise InputError(f"--resume: there is no {kind} {name!r}: {hint}")
    load = partial(Group.load, kind)
    groups = [load(root / name)] if name else readable([root / known for known in existing], load)
    matching = [group for group in groups if scenario is None or scenario in (group.requested, group.scenario)]
    if not matching:
        wanted = f"no {kind}" if scenario is None else f"no {kind} of scenario {scenario!r}"
        found = f"stored ones: {', '.join(existing)}" if existing else "none is stored there"
        raise InputError(f"--resume: {wanted} in {root}; {found}")
    return max(matching, key=lambda group: group.created)


def resume_group(kind: str, options: GroupOptions) -> Group:
    """The stored group that a command line continues, with the resources of that line.

    Raises:
        InputError: there is none, or an option would change it.
    """
    # Systems can be added to a comparison.
    fixed = [key for key in IMMUTABLE_OPTIONS if (kind, key) != ("comparison", "models")]
    changed = [key for key in fixed if getattr(options, key) not in (None, [])]
    if changed:
        raise InputError(f"--resume continues {_a(kind)} as it was started: leave out {', '.join(map(flag, changed))}")
    name = options.name or (options.sweep and f"{options.sweep}-rerun")
    group = find_group(kind, options.storage.resolve(), name, options.scenario)
    for key in RESOURCES:
        if getattr(options, key) is not None:
            setattr(group, key, getattr(options, key))
    places = options.tracking_uri, options.data_root
    said = take_over(group, "--resume", *places, named=name is not None)
    group.notices += [said] if said else []
    return group


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def of_scenario(options: GroupOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a scenario's file says of its sweeps, and fields of a group whose rows share what holds for every system.

    Raises:
        InputError: there is no such scenario, or its file is wrong.
    """
    used, files = used_scenario(options.scenario, options.root), scenario_files(options.root)
    values = load_settings(files[used]) if used in files else {}
    fixed = {key: value for key, value in values.get("fixed", {}).items() if key in SHARED_SETTINGS}
    if options.epochs is not None:
        fixed["epochs"] = options.epochs
    fixed.setdefault("epochs", TrialConfig.model_fields["epochs"].default)
    seed = values.get("seed", 0) if options.seed is None else options.seed
    return values, {"scenario": used, "fixed": fixed, "seed": seed}


def named_sweep(name: str, storage: Path, scenario: str | None) -> SweepRecord:
    """The completed sweep that `--from` names.

    Raises:
        InputError: there is none, it is not completed, or it is of another scenario.
    """
    record = SweepRecord.load(find_sweep(storage, "--from", name=name, scenario=None))
    if not record.is_searched:
        raise InputError(f"--from {name}: {not_completed(record)}")
    if scenario is not None and scenario not in (record.requested, record.scenario):
        raise InputError(f"--from {name}: that sweep is of {record.scenario}, not of {scenario}")
    return record


def not_completed(record: SweepRecord) -> str:
    """The message for a sweep that has not run to its end, with the command that continues it."""
    resume = command_line("sweep", "--resume", "--name", record.name, storage=record.storage)
    return f"sweep {record.name!r} is not completed ({record.status}): continue it with {resume}"


def config_of_trial(plan: Plan, record: TrialRecord) -> dict[str, Any]:
    """All settings of a trial of a sweep, without `model` and `seed`."""
    return {key: value for key, value in {**plan.fixed, **record.config}.items() if key not in ("model", "seed")}


def of_best_trial(record: SweepRecord, options: GroupOptions) -> dict[str, Any]:
    """Fields of a group whose rows share the settings of a sweep's best trial, with `--set` and `--epochs` over them.

    Raises:
        InputError: no trial has a value, or a setting is invalid.
    """
    plan = plan_resume(Options(name=record.name, storage=Path(record.storage)))
    best = best_of(SweepState.load(record).records.values())
    if best is None:
        raise InputError(f"--from {record.name}: no trial of it has a value")
    return {
        "requested": options.scenario or record.requested,
        "scenario": record.scenario,
        "fixed": {**config_of_trial(plan, best), **assigned(plan.config_class, options)},
        "origin": f"sweep {record.name} ({best.name})",
        "seed": record.seed if options.seed is None else options.seed,
    }


def assigned(config_class: type[TrialConfig], options: GroupOptions) -> dict[str, Any]:
    """The settings of `--set` and `--epochs`, one value each.

    Raises:
        InputError: a setting is unknown, invalid, or the seed.
    """
    given = dict(parse_assignment(text) for text in options.assignments)
    if options.epochs is not None:
        given["epochs"] = options.epochs
    if "seed" in given:
        raise InputError("--set seed: give --seed; the seeds after it are trained")
    return checked_settings(config_class, given, "--set")
