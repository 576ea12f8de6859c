"""From the command line to a group that is ready to run: a new one of some kind, or a stored one that is continued."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llmemf.errors import InputError, nearest
from llmemf.scenarios.names import check_name
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import flag
from sweeps.core.resume import take_over
from sweeps.core.settings import RESOURCES
from sweeps.groups import ablation, comparison, rerun, study
from sweeps.groups.group import Group, root_of
from sweeps.groups.new_group import GroupOptions
from sweeps.state.sweep_record import newest, readable, storage_folder

NEW: dict[str, Callable[[GroupOptions, datetime.datetime], Group]] = {
    "comparison": comparison.plan,
    "ablation": ablation.plan,
    "rerun": rerun.plan,
    "study": study.plan,
}
"""Kind -> what plans a new group of it."""
IMMUTABLE_OPTIONS = (
    "models", "model", "reference", "trials_per_model", "rows", "vary", "tune", "from_sweep", "top", "seeds", "epochs",
    "seed", "assignments",
)  # fmt: skip
"""Options that a stored group has once and for all."""


def plan_group(kind: str, options: GroupOptions, *, resume: bool = False, start_or_continue: bool = False) -> Group:
    """The group that a command line means: a new one, or a stored one that is continued.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if resume and start_or_continue:
        raise InputError("--resume and --continue exclude each other: give one of them")
    if start_or_continue:
        if options.name is None:
            raise InputError(f"--continue needs --name: the {kind} that is started, or continued where it exists")
        if (root_of(kind, options.storage.resolve()) / options.name / f"{kind}.yaml").exists():
            places = ("storage", "name", "tracking_uri", "data_root")
            group = resume_group(kind, GroupOptions(**{key: getattr(options, key) for key in (*RESOURCES, *places)}))
            group.notices += _without_effect(options, group)
            return group
    if resume:
        return resume_group(kind, options)
    group = NEW[kind](options, datetime.datetime.now())
    check_new(group)
    return group


def fit_to_data(group: Group, scenario: Scenario) -> None:
    """Fix in a group what follows from the data, before anything is shown.

    Raises:
        InputError: no row can run.
    """
    if group.kind == "comparison":
        comparison.fill_rows(group)
    elif group.kind == "ablation":
        ablation.fill_rows(group, scenario)


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


def check_new(group: Group) -> None:
    """Check that a group may start under its name.

    Raises:
        InputError: the name is no good, or taken.
    """
    check_name(group.name, "--name")
    if group.file.exists():
        raise InputError(
            f"{_a(group.kind)} named {group.name!r} exists in {group.storage}: give --resume to continue it, or another "
            "--name"
        )
    steps = [(name, step) for name in group.names for step in ("search", "seeds")]
    taken = [group.sweep_name(*step) for step in steps if group.sweep_folder(*step).exists()]
    if taken:
        raise InputError(f"a sweep named {taken[0]!r} exists in {group.storage}: give another --name")


def find_group(
    kind: str, storage: Path, name: str | None, scenario: str | None = None, *, asked: str = "--resume"
) -> Group:
    """The stored group that is meant: the named one, or the newest (of a scenario).

    Args:
        asked: the option or function that asks for it.

    Raises:
        InputError: there is none; existing ones are offered.
    """
    root = root_of(kind, storage_folder(storage))
    existing = sorted(path.parent.name for path in root.glob(f"*/{kind}.yaml"))
    if name is not None and name not in existing:
        hint = nearest(name, existing) if existing else f"none is stored in {root}"
        raise InputError(f"{asked}: there is no {kind} {name!r}: {hint}")
    load = partial(Group.load, kind)
    groups = [load(root / name)] if name else readable([root / known for known in existing], load)
    found = newest(groups, scenario)
    if found is None:
        wanted = f"no {kind}" if scenario is None else f"no {kind} of scenario {scenario!r}"
        known = f"stored ones: {', '.join(existing)}" if existing else "none is stored there"
        raise InputError(f"{asked}: {wanted} in {root}; {known}")
    return found


def resume_group(kind: str, options: GroupOptions) -> Group:
    """The stored group that a command line continues, with the resources of that line; a comparison with further systems.

    Raises:
        InputError: there is none, or an option would change it.
    """
    fixed = [key for key in IMMUTABLE_OPTIONS if (kind, key) != ("comparison", "models")]
    changed = [key for key in fixed if getattr(options, key) not in (None, [])]
    if changed:
        raise InputError(f"--resume continues {_a(kind)} as it was started: leave out {', '.join(map(flag, changed))}")
    name = options.name or (options.sweep and f"{options.sweep}-rerun")
    group = find_group(kind, options.storage, name, options.scenario)
    for key in RESOURCES:
        if getattr(options, key) is not None:
            setattr(group, key, getattr(options, key))
    places = options.tracking_uri, options.data_root
    said = take_over(group, "--resume", *places, named=name is not None)
    group.notices += [said] if said else []
    if kind == "comparison":
        comparison.add_systems(group, options.models or [])
    return group


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
