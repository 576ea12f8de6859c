"""What an ablation is: its rows, the configuration that they share, and the sweeps that it is made of.

The configuration is that of a sweep's best trial (fixed), or every row searches its own with one budget (tuned).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llmemf.config import TrialConfig, parse_assignment, unknown_keys
from llmemf.errors import InputError, nearest
from llmemf.models import model_class
from sweeps.ablations.encoders import Encoders
from sweeps.ablations.rows import STANDARD
from sweeps.cluster.resources import default_gpus
from sweeps.comparison.record import (
    DEFAULT_SEEDS,
    RESOURCES,
    GroupOptions,
    GroupRecord,
    check_new,
    resume_group,
    used_scenario,
)
from sweeps.core.plan import Options, plan_resume, plan_sweep
from sweeps.core.settings import as_values, load_ablations, scenario_files
from sweeps.state.sweep_record import RECORD, SweepRecord, is_of_group
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import best_of
from sweeps.tracking.addresses import absolute_uri

MODEL = "llm_emf"
IMMUTABLE_OPTIONS = ("rows", "tune", "from_sweep", "seeds", "epochs", "seed", "tracking_uri")
"""Options that a stored ablation has once and for all."""


@dataclass
class AblationOptions(GroupOptions):
    """The command line of an ablation; None means that the scenario file or a default decides."""

    rows: list[str] | None = None
    tune: int | None = None
    from_sweep: str | None = None


class AblationRecord(GroupRecord):
    """All that an ablation was started with: `ablation.yaml` in its folder."""

    kind = "ablation"
    command = "ablation"
    entry = "row"

    rows: list[str]
    tune: int | None = None
    """Trials of every row's search; None where the configuration is given."""
    origin: str = ""
    """Where the given configuration comes from: a sweep and its best trial."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings that all rows share."""
    space: dict[str, Any] = Field(default_factory=dict)
    """What every row searches, without what it fixes itself."""
    constraints: list[str] = Field(default_factory=list)
    search: Literal["optuna", "grid", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = 3
    reduction_factor: float = 3
    own: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The scenario's own rows: name -> settings that differ from the full model."""
    encoders: Encoders | None = None
    """Settled when the ablation starts: features that come later make a new ablation."""
    full: str = ""
    """The row that is the full model."""
    assignments: list[str] = Field(default_factory=list)
    """`--set`, as it was typed."""

    @property
    def entries(self) -> list[str]:
        return self.rows

    def model_of(self, entry: str) -> str:
        return MODEL

    @property
    def how(self) -> str:
        """How the rows come to their configurations, in a few words."""
        if self.tune:
            return f"every row searched with {self.tune} trials at most"
        return f"every row fixed at the configuration of {self.origin}"


def plan_ablation(options: AblationOptions, *, now: datetime.datetime | None = None) -> AblationRecord:
    """Plan a new ablation.

    Without `tune` and `from_sweep` the rows are fixed at the best configuration of the scenario's newest completed sweep.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.tune is not None and options.from_sweep is not None:
        raise InputError("--tune and --from exclude each other: every row is searched, or all are fixed")
    storage, data_root = options.storage.resolve(), options.data_root.resolve()
    if options.scenario is None and options.from_sweep is None:
        raise InputError(f"--scenario is missing; shipped ones: {', '.join(scenario_files())}")
    stamp = now or datetime.datetime.now()
    source = _tuned(options, stamp) if options.tune is not None else _fixed(options, storage, data_root)
    used = source["scenario"]
    files = scenario_files()
    own = load_ablations(files[used]) if used in files else {}
    config_class = model_class(MODEL).config_class
    own = {name: _checked(config_class, values, f"{used}: ablations: {name}") for name, values in own.items()}
    taken = sorted(set(own) & set(STANDARD))
    if taken:
        raise InputError(f"{used}: ablations: {taken[0]!r} is a row that every scenario has: take another name")
    known = [*STANDARD, *own]
    for name in options.rows or []:
        if name not in known:
            raise InputError(f"--rows: unknown row {name!r}: {nearest(name, known)}; --dry-run lists all")
    first = source.pop("first_seed")
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    record = AblationRecord(
        **source,
        name=options.name or f"{used}-{stamp:%Y%m%d-%H%M%S}",
        rows=[name for name in known if options.rows is None or name in options.rows],
        own=own,
        seed=first,
        seeds=list(range(first + 1, first + 1 + count)),
        tune=options.tune,
        assignments=options.assignments,
        data_root=str(data_root),
        storage=str(storage),
        tracking_uri=absolute_uri(options.tracking_uri, storage),
        cpus_per_trial=1 if options.cpus_per_trial is None else options.cpus_per_trial,
        gpus_per_trial=default_gpus() if options.gpus_per_trial is None else options.gpus_per_trial,
        concurrency=options.concurrency,
        ray_address=options.ray_address,
        fresh_workers=bool(options.fresh_workers),
        created=stamp.isoformat(timespec="microseconds"),
    )
    check_new(record)
    return record


def plan_resume_ablation(options: AblationOptions) -> AblationRecord:
    """Plan the continuation of a stored ablation; resources may be others.

    Raises:
        InputError: there is no such ablation, or an option would change it.
    """
    return resume_group(AblationRecord, options, IMMUTABLE_OPTIONS)


def plan_continue_ablation(options: AblationOptions) -> AblationRecord:
    """Plan the named ablation: a new one, or the continuation where it exists."""
    if options.name is None:
        raise InputError("--continue needs --name: the ablation that is started, or continued where it exists")
    if not (AblationRecord.root(options.storage.resolve()) / options.name / AblationRecord.file()).exists():
        return plan_ablation(options)
    kept = {key: getattr(options, key) for key in (*RESOURCES, "storage", "name")}
    return plan_resume_ablation(AblationOptions(**kept))


def _tuned(options: AblationOptions, now: datetime.datetime) -> dict[str, Any]:
    """Fields of the record where every row is searched: what `sweeps/grid.py` would search."""
    plan = plan_sweep(
        Options(
            scenario=options.scenario,
            trials=options.tune,
            epochs=options.epochs,
            seed=options.seed,
            data_root=options.data_root,
            storage=options.storage,
            assignments=options.assignments,
        ),
        now=now,
    )
    record = plan.record
    if record.model != MODEL:
        raise InputError(f"{record.scenario}: an ablation is of {MODEL}, this file is for {record.model}")
    keys = ("requested", "scenario", "fixed", "space", "constraints", "search", "scheduler", "grace_period")
    found = {key: getattr(record, key) for key in (*keys, "reduction_factor")}
    found["fixed"] = {**found["fixed"], "epochs": plan.epochs}
    return {**found, "first_seed": record.seed}


def _fixed(options: AblationOptions, storage: Path, data_root: Path) -> dict[str, Any]:
    """Fields of the record where all rows have the configuration of a sweep's best trial."""
    record = _origin(options, storage, data_root)
    if record.model != MODEL:
        raise InputError(f"--from {record.name}: an ablation is of {MODEL}, that sweep is of {record.model}")
    named = options.from_sweep is not None and options.scenario is not None
    if named and options.scenario not in (record.requested, record.scenario):
        raise InputError(f"--from {record.name}: that sweep is of {record.scenario}, not of {options.scenario}")
    plan = plan_resume(Options(name=record.name, storage=storage))
    best = best_of(SweepState(record.folder).records.values())
    if best is None:
        raise InputError(f"--from {record.name}: no trial of it has a value")
    fixed = {key: value for key, value in {**plan.fixed, **best.config}.items() if key not in ("model", "seed")}
    given = dict(parse_assignment(text) for text in options.assignments)
    if options.epochs is not None:
        given["epochs"] = options.epochs
    if "seed" in given:
        raise InputError("--set seed: give --seed; the seeds after it are trained")
    fixed |= _checked(plan.config_class, given, "--set")
    return {
        "requested": options.scenario or record.requested,
        "scenario": record.scenario,
        "fixed": fixed,
        "origin": f"sweep {record.name} ({best.name})",
        "first_seed": record.seed if options.seed is None else options.seed,
    }


def _origin(options: AblationOptions, storage: Path, data_root: Path) -> SweepRecord:
    """The sweep that gives the configuration: the named one, or the newest completed one of the scenario."""
    stored = {path.parent.name: path.parent for path in (storage / "sweeps").glob(f"*/{RECORD}")}
    if options.from_sweep is not None:
        if options.from_sweep not in stored:
            hint = nearest(options.from_sweep, stored) if stored else f"none is stored in {storage / 'sweeps'}"
            raise InputError(f"--from: there is no sweep {options.from_sweep!r}: {hint}")
        found = [SweepRecord.load(stored[options.from_sweep])]
        if found[0].status != "completed":
            raise InputError(
                f"--from {options.from_sweep}: that sweep is not completed ({found[0].status}): continue it with "
                f"sweeps/grid.py --resume --name {options.from_sweep}"
            )
    else:
        used = used_scenario(options.scenario, data_root)
        records = [SweepRecord.load(folder) for name, folder in stored.items() if not is_of_group(storage, name)]
        found = [r for r in records if (r.scenario, r.model, r.status) == (used, MODEL, "completed")]
        if not found:
            raise InputError(
                f"no completed sweep of {used} in {storage}: give --tune N to search every row, or run sweeps/grid.py "
                f"--scenario {options.scenario} first"
            )
    record = max(found, key=lambda record: record.created)
    record.storage = str(storage)
    return record


def _checked(config_class: type[TrialConfig], values: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings in their own types, one value each."""
    problems = unknown_keys(values, config_class.model_fields, where)
    if problems:
        raise InputError(problems[0])
    found = {}
    for key, value in values.items():
        checked = as_values(config_class, key, value, where=where)
        if len(checked) > 1:
            raise InputError(f"{where}: {key}: one value is expected (rows are searched with --tune N)")
        found[key] = checked[0]
    return found
