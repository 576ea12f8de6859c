"""The sweeps that a row of a group is made of: its search, where it has one, and its configuration over seeds."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.core.options import Options
from sweeps.core.plan import Plan, build_plan
from sweeps.core.resume import plan_resume
from sweeps.core.settings import RESOURCES
from sweeps.core.sweep_data import load_data
from sweeps.groups.group import Group, Row
from sweeps.state.home import is_elsewhere
from sweeps.state.sweep_record import RECORD, SweepRecord, SweepSettings
from sweeps.state.sweep_state import SweepState


def plan_first(group: Group, row: Row) -> Plan:
    """The first sweep of a row: its search, or its configuration over seeds.

    Raises:
        InputError: the row cannot run.
    """
    return plan_search(group, row) if group.trials else plan_seeds(group, row, group.config_of(row))


def plan_search(group: Group, row: Row) -> Plan:
    """The search of a row: a new sweep, or the stored one.

    Raises:
        InputError: the row cannot run.
    """
    return _stored_plan(group, row, "search") or plan_new_search(group, row)


def plan_new_search(group: Group, row: Row) -> Plan:
    """The search of a row, whether one is stored or not."""
    same = ("trials", "constraints", "search", "scheduler", "grace_period", "reduction_factor", "seed")
    shared = {key: getattr(group, key) for key in same}
    # Each row's configuration runs over the group's own seeds.
    settings = SweepSettings(model=row.model, fixed=group.config_of(row), space=row.space, confirm=0, **shared)
    return build_plan(_sweep_record(group, settings, row, "search", keep=1))


def plan_seeds(group: Group, row: Row, config: dict[str, Any]) -> Plan:
    """A configuration over all seeds, none of them stopped by a scheduler; a closed form has use for one only.

    Args:
        config: its settings, without `model` and `seed`.

    Raises:
        InputError: the row cannot run.
    """
    if stored := _stored_plan(group, row, "seeds"):
        return stored
    seeds = group.seeds[:1] if model_class(row.model).closed_form else group.seeds
    settings = SweepSettings(
        model=row.model, search="grid", trials=len(seeds), scheduler="none", seed=group.seed, fixed=config,
        space={"seed": seeds}, confirm=0,
    )  # fmt: skip
    return build_plan(_sweep_record(group, settings, row, "seeds", keep=len(seeds)), whole_grid=True)


def _sweep_record(group: Group, settings: SweepSettings, row: Row, step: str, keep: int) -> SweepRecord:
    shared = ("requested", "scenario", "data_root", "storage", "tracking_uri", *RESOURCES)
    return SweepRecord(
        **settings.model_dump(),
        **{key: getattr(group, key) for key in shared},
        name=group.sweep_name(row.name, step),
        keep=keep,
        created=datetime.datetime.now().isoformat(timespec="microseconds"),
    )


def _stored_plan(group: Group, row: Row, step: str) -> Plan | None:
    """The stored sweep of a row that can run, with the resources of this command line."""
    if row.problem:
        raise InputError(row.problem)
    if not (group.sweep_folder(row.name, step) / RECORD).exists():
        return None
    resources = {key: getattr(group, key) for key in (*RESOURCES, "tracking_uri")}
    name, storage, root = group.sweep_name(row.name, step), Path(group.storage), Path(group.data_root)
    return plan_resume(Options(name=name, storage=storage, data_root=root, **resources))


def first_plans(group: Group, *, with_data: bool) -> dict[str, Plan | InputError]:
    """Row -> the plan of its first sweep, or why it cannot run, as far as this is known without data."""
    found: dict[str, Plan | InputError] = {}
    missing: dict[str, InputError | None] = {}
    for row in group.rows:
        try:
            plan = found[row.name] = plan_first(group, row)
        except InputError as error:
            found[row.name] = error
            continue
        config = plan.configs[0].to_dict()
        needed = str([(kind, config.get(f"{kind}_encoder")) for kind in sorted(plan.needs)])
        if with_data and needed not in missing:
            try:
                load_data(plan)
                missing[needed] = None
            except InputError as error:
                missing[needed] = error
        found[row.name] = missing.get(needed) or plan
    return found


def is_level(group: Group, row: Row, step: str) -> bool:
    """Whether a stored sweep of a row lies and tracks where its group does, and MLflow has all of it."""
    folder = group.sweep_folder(row.name, step)
    if not (folder / RECORD).exists():
        return True
    record = SweepRecord.load(folder)
    same = record.tracking_uri == group.tracking_uri and not is_elsewhere(record)
    return same and not SweepState(folder).undelivered
