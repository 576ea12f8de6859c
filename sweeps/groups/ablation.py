"""Ablations: LLM-EMF with one thing taken away or changed per row, against the full model (the paper's table 4 and more).

The configuration is that of a sweep's best trial (fixed), or every row searches its own with one budget (tuned).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError, nearest
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.settings import ScenarioFile, checked_settings, scenario_files, used_scenario
from sweeps.groups.ablation_rows import MODEL, STANDARD, ablation_rows, full_row
from sweeps.groups.encoders import Encoders, find_encoders
from sweeps.groups.group import Group, Row
from sweeps.groups.new_group import GroupOptions, named_sweep, new_group, of_best_trial
from sweeps.state.sweep_record import SweepRecord, newest_sweeps


def plan(options: GroupOptions, now: datetime.datetime) -> Group:
    """A new ablation; without `tune` and `from_sweep` at the best configuration of the newest completed sweep.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.tune is not None and options.from_sweep is not None:
        raise InputError("--tune and --from exclude each other: every row is searched, or all are fixed")
    if options.from_sweep is None:
        used_scenario(options.scenario, options.root)
    source = _tuned(options, now) if options.tune is not None else _fixed(options)
    used, files = source["scenario"], scenario_files(options.root)
    values = read_yaml(files[used]) if used in files else {}
    own = build_config(ScenarioFile, values, where=f"{used}.yaml").ablations
    own = {name: checked_settings(LLMEMFConfig, row, f"{used}: ablations: {name}") for name, row in own.items()}
    if taken := sorted(set(own) & set(STANDARD)):
        raise InputError(f"{used}: ablations: {taken[0]!r} is a row that every scenario has: take another name")
    known = [*STANDARD, *own]
    for name in options.rows or []:
        if name not in known:
            raise InputError(f"--rows: unknown row {name!r}: {nearest(name, known)} (--dry-run lists all)")
    rows = [Row(name=name, model=MODEL) for name in known if options.rows is None or name in options.rows]
    return new_group(options, now, kind="ablation", rows=rows, trials=options.tune, facts={"own": own}, **source)


def _tuned(options: GroupOptions, now: datetime.datetime) -> dict[str, Any]:
    """Fields of the group where every row is searched: what a sweep of the scenario would search."""
    same = {key: getattr(options, key) for key in ("scenario", "epochs", "seed", "storage", "assignments")}
    sweep = plan_sweep(Options(**same, trials=options.tune, data_root=options.root, warm_start="none"), now=now)
    record = sweep.record
    if record.model != MODEL:
        raise InputError(f"{record.scenario}: an ablation is of {MODEL}, this file is for {record.model}")
    keys = ("requested", "scenario", "space", "constraints", "search", "scheduler", "grace_period", "reduction_factor")
    shared = {key: getattr(record, key) for key in (*keys, "seed")}
    return {**shared, "fixed": {**record.fixed, "epochs": sweep.epochs}}


def _fixed(options: GroupOptions) -> dict[str, Any]:
    """Fields of the group where all rows have the configuration of a sweep's best trial."""
    storage = options.storage.resolve()
    if options.from_sweep is not None:
        record = named_sweep(options.from_sweep, storage, options.scenario)
    else:
        record = _newest_sweep(options, storage)
    if record.model != MODEL:
        raise InputError(f"--from {record.name}: an ablation is of {MODEL}, that sweep is of {record.model}")
    return of_best_trial(record, options)


def _newest_sweep(options: GroupOptions, storage: Path) -> SweepRecord:
    """The newest completed sweep of the scenario that stands alone."""
    used = used_scenario(options.scenario, options.root)
    records = newest_sweeps(storage)
    found = [r for r in records if (r.scenario, r.model, r.is_searched) == (used, MODEL, True)]
    if not found:
        sweep = command_line("sweep", "--scenario", options.scenario, storage=storage)
        raise InputError(
            f"no completed sweep of {used} by {MODEL} in {storage}: give --tune N to search every row, or run `{sweep}`"
        )
    return found[0]


def fill_rows(group: Group, scenario: Scenario) -> None:
    """Fix which features stand for what and which row is the full model; it is always among the rows.

    Features that come later make a new ablation.

    Raises:
        InputError: not even the first row can run.
    """
    if group.facts.get("encoders") is None:
        wanted = {kind: group.fixed.get(f"{kind}_encoder", "auto") for kind in ("text", "image")}
        group.facts["encoders"] = find_encoders(scenario, **wanted).model_dump()
    rows = ablation_rows(group, Encoders(**group.facts["encoders"]))
    group.reference = full_row(rows)
    group.rows = [row for name, row in rows.items() if name in (*group.names, group.reference)]
