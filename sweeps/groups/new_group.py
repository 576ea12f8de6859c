"""New groups: what the kinds have in common, from the command line to the configuration that the rows share."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.config import TrialConfig, parse_assignment
from llmemf.errors import InputError
from sweeps.core.options import Options
from sweeps.core.plan import Plan
from sweeps.core.resume import plan_resume
from sweeps.core.settings import SHARED_SETTINGS, checked_settings, load_settings, scenario_files, used_scenario
from sweeps.groups.group import Group
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

DEFAULT_SEEDS = 5


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


def new_group(options: GroupOptions, now: datetime.datetime, *, seed: int, **fields: Any) -> Group:
    """A group of the command line: where it goes, on which resources, and its seeds.

    The seeds are others than that of the search, whose luck must not count.

    Args:
        fields: further ones, or other values than those of the command line.
    """
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    name = options.name or f"{fields['scenario']}-{now:%Y%m%d-%H%M%S}"
    given = {**options.places(now), "name": name, "assignments": options.assignments}
    return Group(seed=seed, seeds=list(range(seed + 1, seed + 1 + count)), **given | fields)


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
    record = find_sweep(storage, "--from", name=name)
    check_completed(record, f"--from {name}: ")
    if scenario is not None and scenario not in (record.requested, record.scenario):
        raise InputError(f"--from {name}: that sweep is of {record.scenario}, not of {scenario}")
    return record


def check_completed(record: SweepRecord, where: str = "") -> None:
    """Refuse a sweep that has not run to its end, with the command that continues it.

    Raises:
        InputError: it has not.
    """
    if not record.is_searched:
        resume = command_line("sweep", "--resume", "--name", record.name, storage=record.storage)
        raise InputError(f"{where}sweep {record.name!r} is not completed ({record.status}): continue it with {resume}")


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
