"""The configuration of every row, given or searched, and which rows cannot run."""

from __future__ import annotations

from typing import Any

from llmemf import text_format
from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.ablations.plan import MODEL, AblationRecord
from sweeps.ablations.rows import STANDARD, TABLE4, Row, effective_config, other_rows, table4_rows
from sweeps.comparison.record import stored_plan, sweep_record
from sweeps.core.plan import Plan, build_plan
from sweeps.core.settings import merged_space, space_keys
from sweeps.state.sweep_record import RECORD, SweepRecord, SweepSettings


def settled_rows(record: AblationRecord) -> dict[str, Row]:
    """All rows by name, in the order of the table, with the reasons of those that cannot run.

    A row that would be another one under a second name cannot run: its numbers would look like a finding.

    Raises:
        InputError: not even the first row can run.
    """
    assert record.encoders is not None, "the scenario's features are looked at first"
    made: dict[str, Row] = {}
    known: dict[str, Row] = {}
    for row in table4_rows(record.encoders):
        made[row.name] = _judged(record, row, known)
    able = [row for row in made.values() if not row.problem]
    if not able:
        raise InputError(next(iter(made.values())).problem)
    full = able[-1]
    for row in other_rows(full, record.encoders, record.own):
        made[row.name] = _judged(record, row, known)
    return {name: made[name] for name in (*STANDARD, *record.own)}


def full_row(rows: dict[str, Row]) -> str:
    """The richest row of table 4 that can run."""
    return [name for name in TABLE4 if not rows[name].problem][-1]


def _judged(record: AblationRecord, row: Row, known: dict[str, Row]) -> Row:
    """The row, with the reason if it cannot run; `known` collects what acts in the rows so far."""
    if row.problem:
        return row
    try:
        config, searched = _typical(record, row)
    except InputError as error:
        return row.without(str(error))
    if row.group == "table4" and not config.learn_weights:
        silent = [modality for modality, weight in config.weights().items() if not weight]
        if silent:
            key = {"id": "alpha", "image": "beta"}.get(silent[0], "alpha")
            return row.without(
                f"{silent[0]} has weight 0 with alpha = {config.alpha:g}, beta = {config.beta:g}: give --set {key}=..., or "
                "--tune N"
            )
    same = f"{sorted(effective_config(config).items())} {searched}"
    if same in known:
        return row.without(
            f"the same model as {known[same].title!r}: {text_format.settings(row.shown)} changes nothing here"
        )
    known[same] = row
    return row


def _typical(record: AblationRecord, row: Row) -> tuple[TrialConfig, list[str]]:
    """A configuration of the row, and what its search varies."""
    if record.tune is None:
        values = {"model": MODEL, "seed": record.seed, **configuration(record, row)}
        return build_config(model_class(MODEL).config_class, values, where=row.name), []
    plan = build_plan(_search_record(record, row))
    return plan.configs[0], list(plan.space.varied_keys)


def configuration(record: AblationRecord, row: Row) -> dict[str, Any]:
    """The settings of a row that is not searched, without `model` and `seed`."""
    return {**record.fixed, **_own_settings(record, row)}


def _own_settings(record: AblationRecord, row: Row) -> dict[str, Any]:
    settings = dict(row.settings)
    # Two separate models train both domains already.
    if row.name == "in_domain" and record.fixed.get("loss_roles") == "per_target":
        del settings["loss_roles"]
    return settings


def _search_record(record: AblationRecord, row: Row) -> SweepRecord:
    """The search of a row: the shared space without what the row fixes."""
    searched = space_keys(record.space)
    fixed, overrides = dict(record.fixed), {}
    for key, value in _own_settings(record, row).items():
        if key in searched:
            overrides[key] = value
        else:
            fixed[key] = value
    settings = SweepSettings(
        model=MODEL,
        trials=record.tune,
        fixed=fixed,
        space=merged_space(record.space, overrides),
        constraints=record.constraints,
        **{key: getattr(record, key) for key in ("search", "scheduler", "grace_period", "reduction_factor", "seed")},
    )
    return sweep_record(record, settings, row.name)


def plan_row_search(record: AblationRecord, row: Row) -> Plan:
    """The search of a row: a new sweep, or the stored one.

    Raises:
        InputError: the row cannot run.
    """
    if row.problem:
        raise InputError(row.problem)
    if (record.sweep_folder(row.name) / RECORD).exists():
        return stored_plan(record, row.name, "search")
    return build_plan(_search_record(record, row))
