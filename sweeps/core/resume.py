"""Plan the continuation of a stored sweep, as it was started or with further trials."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.config import parse_assignment
from llmemf.errors import InputError
from sweeps.core.earlier import add_points, read_points
from sweeps.core.options import IMMUTABLE_OPTIONS, Options, flag
from sweeps.core.plan import Plan, build_plan, plan_sweep
from sweeps.core.settings import IMMUTABLE_SETTINGS, RESOURCES, apply_assignments, merged_space, space_keys
from sweeps.state.home import Stored, is_copy, is_elsewhere, new_identity
from sweeps.state.sweep_record import RECORD, SweepRecord, find_sweep, group_of
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.addresses import absolute_uri


def plan_resume(options: Options) -> Plan:
    """Plan the continuation of a stored sweep: everything but resources comes from its record.

    Raises:
        InputError: there is no such sweep, or an option would change it.
    """
    if options.assignments:
        raise InputError("--resume continues a sweep as it was started: leave out --set, or give --extend")
    record, notices = _stored_record(options, "--resume")
    known = [item.config for item in SweepState.load(record).searched]
    plan = build_plan(record, known=known)
    if options.points is not None:
        named = read_points(options.points, plan.space, plan.check)
        added = add_points(record, named, plan.space, known)
        notices.append(f"--points: {added} of {text_format.plural(len(named), 'point')} added, the others were there")
        record.trials += added
        plan, extended = build_plan(record, known=known), bool(added)
        plan.extended = extended
    plan.retry_failed = options.retry_failed
    return _resumed(plan, notices)


def plan_extend(options: Options, more: int) -> Plan:
    """Plan further trials of a stored sweep, in its own space or, with `--set`, in another one.

    All that was learned counts: the study of the extended sweep holds the earlier trials, successive halving its rungs.
    Trials that were interrupted are finished first.

    Args:
        more: number of further trials.

    Raises:
        InputError: there is no such sweep, an option would make its trials incomparable, or no grid point is left.
    """
    record, notices = _stored_record(options, "--extend")
    earlier = [item.config for item in SweepState.load(record).searched]
    if not earlier:
        raise InputError(f"--extend: sweep {record.name!r} has no trial yet: continue it with --resume")
    before = build_plan(record, known=earlier)
    assigned = {parse_assignment(text)[0] for text in options.assignments}
    if immutable := sorted(assigned & set(IMMUTABLE_SETTINGS)):
        raise InputError(f"--extend: {immutable[0]} must be the same in all trials of a sweep: start a new one")
    settings = record.settings
    overrides = apply_assignments(settings, options.assignments)
    # What was fixed and is given now belongs to the space: earlier trials have another value of it.
    overrides |= {key: [settings.fixed.pop(key)] for key in sorted(assigned & set(settings.fixed))}
    record.fixed, record.space = settings.fixed, merged_space(settings.space, overrides)
    record.trials = max(record.trials, len(earlier)) + more
    new = [key for key in space_keys(record.space) if key not in space_keys(settings.space)]
    shared = {key: before.configs[0].to_dict()[key] for key in new}
    plan = build_plan(record, known=[{**shared, **choice} for choice in earlier])
    plan.extended, plan.before = True, shared
    if plan.trials <= len(earlier):
        raise InputError(f"--extend {more}: no grid point is left; widen the grid with --set KEY=VALUE,VALUE")
    return _resumed(plan, notices)


def _resumed(plan: Plan, notices: list[str]) -> Plan:
    """A plan that continues a stored sweep; one of a group is not tested: the group tests what its policy says, once."""
    plan.resumed, plan.notices = True, notices + plan.notices
    plan.tested_by = group_of(Path(plan.record.storage), plan.record.name)
    if plan.tested_by:
        plan.notices.append(
            f"it belongs to a group, which alone tests it: continue that one ({plan.tested_by}) afterwards"
        )
    return plan


def plan_continue(options: Options) -> Plan:
    """Plan the named sweep: a new one, or the continuation where it exists; what a scheduler runs again and again."""
    if options.name is None:
        raise InputError("--continue needs --name: the sweep that is started, or continued where it exists")
    folder = options.storage.resolve() / "sweeps" / options.name
    if not (folder / RECORD).exists():
        return plan_sweep(options)
    # The scheduler's line has the options of a new sweep, too.
    first: dict[str, Any] = {**dict.fromkeys(IMMUTABLE_OPTIONS), "scenario": None, "like": None, "assignments": []}
    plan = plan_resume(dataclasses.replace(options, **first))
    if changed := _changed(options, SweepRecord.load(folder)):
        plan.notices.append(f"{', '.join(changed)} without effect: the sweep was started with something else")
    return plan


def _changed(options: Options, record: SweepRecord) -> list[str]:
    """Options of a command line that the stored sweep was not started with."""
    settings = record.settings
    overrides = apply_assignments(settings, options.assignments, options.epochs)
    settings.space = merged_space(settings.space, overrides)
    stored = {key: getattr(record, key) for key in IMMUTABLE_OPTIONS if key != "epochs"}
    if record.search == "grid":
        stored["trials"] = options.trials  # A small grid has fewer than were asked for.
    changed = [key for key, value in stored.items() if getattr(options, key) not in (None, value)]
    if options.scenario not in (None, record.requested, record.scenario):
        changed.append("scenario")
    flags = [*map(flag, changed)]
    same = settings.model_dump_json(include={"fixed", "space"}) == record.model_dump_json(include={"fixed", "space"})
    return flags if same else [*flags, "--epochs or --set"]


def _stored_record(options: Options, command: str) -> tuple[SweepRecord, list[str]]:
    """The record of the sweep that is meant, with the resources and places of this command line, and what to say of it."""
    changed = [flag(key) for key in IMMUTABLE_OPTIONS if getattr(options, key) is not None]
    if changed:
        raise InputError(f"{command} continues a sweep as it was started: leave out {', '.join(changed)}")
    record = find_sweep(options.storage, command, name=options.name, scenario=options.scenario)
    for key in (*RESOURCES, "keep", "confirm"):
        if getattr(options, key) is not None:
            setattr(record, key, getattr(options, key))
    said = take_over(record, command, options.tracking_uri, options.data_root, named=options.name is not None)
    return record, [said] if said else []


def take_over(record: Stored, flag: str, tracking_uri: str | None, data_root: Path | None, *, named: bool) -> str:
    """Make a record that of the place where it lies now; it is stored when the sweep or group opens.

    What was moved keeps its runs in MLflow. What was copied gets an identity of its own, and so runs of its own.

    Args:
        flag: the option that asked for it.
        tracking_uri, data_root: new ones, where they are given.
        named: whether the user named it; what lies elsewhere is taken over by its name alone.

    Returns:
        what has changed, in one line; "" where nothing has.

    Raises:
        InputError: it lies elsewhere than before and was not named.
    """
    said = []
    if is_elsewhere(record):
        if not named:
            raise InputError(
                f"{flag}: {record.folder} was copied or moved from {record.home}: give --name {record.name} to continue it "
                "here"
            )
        record.taken_over = {"folder": record.home}
        record.moved_from = list(dict.fromkeys([*record.moved_from, record.home]))
        if is_copy(record):
            record.taken_over["identity"] = record.identity
            record.identity = new_identity()
            said.append(f"a copy of {record.home}, continued as one of its own with runs of its own in MLflow")
        else:
            said.append(f"moved from {record.home}")
    given = {
        "tracking_uri": tracking_uri and absolute_uri(tracking_uri, Path(record.storage)),
        "data_root": data_root and str(data_root.resolve()),
    }
    for field, value in given.items():
        if value and value != getattr(record, field):
            record.taken_over[field] = getattr(record, field)
            setattr(record, field, value)
    if record.taken_over:
        said += [f"MLflow at {record.tracking_uri}", f"data in {record.data_root}"]
    return "; ".join(said)
