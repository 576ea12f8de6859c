"""Comparisons: each system with one budget of search over its own default space, its choice over seeds, one table.

The rows are systems. Each is tuned, trained over seeds and tested, against the best other system or one named beforehand.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from llmemf.config import parse_assignment
from llmemf.errors import InputError, nearest
from llmemf.models import MODELS, model_class
from sweeps.core import settings
from sweeps.core.settings import IMMUTABLE_SETTINGS, SHARED_SETTINGS, space_keys
from sweeps.groups.group import BEST, Group, Row
from sweeps.groups.new_group import GroupOptions, new_group, of_scenario
from sweeps.groups.paper_numbers import in_table_order, shown_name
from sweeps.groups.row_sweeps import first_plans
from sweeps.state.sweep_record import SweepSettings

DEFAULT_TRIALS = 20


def plan(options: GroupOptions, now: datetime.datetime) -> Group:
    """A new comparison.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence, or no system can run.
    """
    values, shared = of_scenario(options)
    shared["search"] = SweepSettings.model_fields["search"].default
    shared |= {key: values[key] for key in ("search", "scheduler", "grace_period", "reduction_factor") if key in values}
    names, reference = options.models or list(MODELS), options.reference or BEST
    trials = options.trials_per_model or DEFAULT_TRIALS
    group = new_group(options, now, kind="comparison", rows=[], reference=reference, trials=trials, **shared)
    add_systems(group, names)
    if reference not in (BEST, *group.names):
        raise InputError(f"--reference: {reference!r} is not compared: {nearest(reference, group.names)}")
    return group


def add_systems(group: Group, models: list[str]) -> None:
    """Add systems to those of a comparison, in the order of the table, and check that one of them can run.

    Raises:
        InputError: an unknown name, a wrong `--set`, or none can run.
    """
    for name in models:
        if name not in MODELS:
            raise InputError(f"--models: unknown system {name!r}: {nearest(name, MODELS)}")
    names = dict.fromkeys([*group.names, *models])
    group.rows = [Row(name=name, model=name) for name in in_table_order(list(names))]
    fill_rows(group)
    plans = first_plans(group, with_data=False)
    problems = [plan for plan in plans.values() if isinstance(plan, InputError)]
    if len(problems) == len(plans):
        raise problems[0]


def fill_rows(group: Group) -> None:
    """Check every `--set` (KEY=VALUE is for all systems that have the setting, MODEL.KEY=VALUE for one) and fill the rows.

    Raises:
        InputError: no system has it, a value is invalid, or it would make the systems incomparable.
    """
    for text in group.assignments:
        model, key = _addressed(text)
        if model is not None and model not in group.names:
            raise InputError(f"--set {text}: {model!r} is not compared: {nearest(model, group.names)}")
        if model is not None and key in SHARED_SETTINGS:
            raise InputError(
                f"--set {text}: {key} must be the same in all systems: write --set {text.partition('.')[2]}"
            )
        fields = [model_class(name).config_class.model_fields for name in ([model] if model else group.names)]
        if not any(key in own for own in fields):
            raise InputError(f"--set {text}: unknown key {key!r}: {nearest(key, sorted(set().union(*fields)))}")
        if key == "seed":
            raise InputError(f"--set {text}: give --seed for the searches, --seeds for the chosen configurations")
    group.rows = [_filled(group, name) for name in group.names]


def _addressed(text: str) -> tuple[str | None, str]:
    """The system that a `--set` is for, None for all, and its key."""
    key, _ = parse_assignment(text)
    model, dot, own = key.partition(".")
    return (model, own) if dot else (None, key)


def _filled(group: Group, model: str) -> Row:
    """The row of a system: what its search fixes, and its space."""
    model_type = model_class(model)
    config_class, known = model_type.config_class, model_type.config_class.model_fields
    shared = {key: value for key, value in group.fixed.items() if key in known}
    fixed = settings.checked_settings(config_class, shared, f"{group.scenario}: fixed")
    space = settings.checked_space(config_class, dict(model_type.search_space), where=model)
    own_settings, own = SweepSettings(model=model, fixed=fixed, space=space), []
    for text in group.assignments:
        addressed, key = _addressed(text)
        if addressed in (None, model) and key in known:
            own.append(text.partition(".")[2] if addressed else text)
    given = settings.apply_assignments(own_settings, own)
    notices = settings.drop_absent_modalities(own_settings, given, Path(group.data_root) / group.scenario)
    group.notices += [text for note in notices if (text := f"{shown_name(model)}: {note}") not in group.notices]
    for key in given:
        if key in (*IMMUTABLE_SETTINGS, *SHARED_SETTINGS):
            raise InputError(f"--set {key}: one value is expected: it must be the same in all systems")
    space = settings.merged_space(own_settings.space, given)
    fixed = {key: value for key, value in own_settings.fixed.items() if key not in space_keys(space)}
    return Row(name=model, title=shown_name(model), model=model, overrides=fixed, space=space)
