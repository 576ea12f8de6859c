"""What a comparison is: systems, one budget, one protocol.

The search of a system is an ordinary sweep over its own default space, see `sweeps.comparison.record`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from llmemf.config import TrialConfig, parse_assignment
from llmemf.errors import InputError, nearest
from llmemf.models import MODELS, model_class
from sweeps.cluster.resources import default_gpus
from sweeps.comparison.paper_numbers import in_table_order
from sweeps.comparison.record import (
    DEFAULT_SEEDS,
    RESOURCES,
    GroupOptions,
    GroupRecord,
    check_new,
    resume_group,
    stored_plan,
    sweep_record,
    used_scenario,
)
from sweeps.core.plan import Plan, build_plan
from sweeps.core.settings import (
    IMMUTABLE_SETTINGS,
    SHARED_SETTINGS,
    apply_assignments,
    as_values,
    checked_space,
    load_settings,
    merged_space,
    scenario_files,
    space_keys,
)
from sweeps.state.sweep_record import RECORD, SweepSettings
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TRIALS = 20
IMMUTABLE_OPTIONS = ("trials_per_model", "seeds", "epochs", "seed", "tracking_uri")
"""Options that a stored comparison has once and for all."""


@dataclass
class CompareOptions(GroupOptions):
    """The command line of a comparison; None means that the scenario file or a default decides."""

    models: list[str] | None = None
    trials_per_model: int | None = None


class ComparisonRecord(GroupRecord):
    """All that a comparison was started with: `comparison.yaml` in its folder."""

    kind = "comparison"
    command = "compare"
    entry = "model"

    models: list[str]
    trials_per_model: int = Field(DEFAULT_TRIALS, ge=1)
    """Trials of each system's search at most; a smaller grid without ranges is run whole."""
    search: Literal["optuna", "grid", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = 3
    reduction_factor: float = 3
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings that every system has where it knows them."""
    assignments: list[str] = Field(default_factory=list)
    """`--set`, as it was typed."""

    @property
    def entries(self) -> list[str]:
        return self.models

    def model_of(self, entry: str) -> str:
        return entry


def plan_comparison(options: CompareOptions, *, now: datetime.datetime | None = None) -> ComparisonRecord:
    """Plan a new comparison.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.scenario is None:
        raise InputError(f"--scenario is missing; shipped ones: {', '.join(scenario_files())}")
    data_root, storage = options.data_root.resolve(), options.storage.resolve()
    used, files = used_scenario(options.scenario, data_root), scenario_files()
    values = load_settings(files[used]) if used in files else {}
    stamp = now or datetime.datetime.now()
    name = options.name or f"{used}-{stamp:%Y%m%d-%H%M%S}"
    fixed = {key: value for key, value in values.get("fixed", {}).items() if key in SHARED_SETTINGS}
    if options.epochs is not None:
        fixed["epochs"] = options.epochs
    fixed.setdefault("epochs", TrialConfig.model_fields["epochs"].default)
    seed = values.get("seed", 0) if options.seed is None else options.seed
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    record = ComparisonRecord(
        name=name,
        requested=options.scenario,
        scenario=used,
        models=checked_models(options.models),
        trials_per_model=options.trials_per_model or DEFAULT_TRIALS,
        seeds=list(range(seed + 1, seed + 1 + count)),
        seed=seed,
        fixed=fixed,
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
        **{key: values[key] for key in ("search", "scheduler", "grace_period", "reduction_factor") if key in values},
    )
    check_new(record)
    check_assignments(record)
    return record


def plan_resume_comparison(options: CompareOptions) -> ComparisonRecord:
    """Plan the continuation of a stored comparison; resources may be others, and systems may be added.

    Raises:
        InputError: there is no such comparison, or an option would change it.
    """
    record = resume_group(ComparisonRecord, options, IMMUTABLE_OPTIONS)
    if options.models is not None:
        record.models = in_table_order(list(dict.fromkeys([*record.models, *checked_models(options.models)])))
    check_assignments(record)
    return record


def plan_continue_comparison(options: CompareOptions) -> ComparisonRecord:
    """Plan the named comparison: a new one, or the continuation where it exists."""
    if options.name is None:
        raise InputError("--continue needs --name: the comparison that is started, or continued where it exists")
    if not (ComparisonRecord.root(options.storage.resolve()) / options.name / ComparisonRecord.file()).exists():
        return plan_comparison(options)
    kept = {key: getattr(options, key) for key in (*RESOURCES, "storage", "name")}
    return plan_resume_comparison(CompareOptions(**kept))


def checked_models(models: list[str] | None) -> list[str]:
    """The systems to compare in the order of the table: the named ones, or all.

    Raises:
        InputError: there is no such system; the nearest name is offered.
    """
    for name in models or []:
        if name not in MODELS:
            raise InputError(f"--models: unknown system {name!r}: {nearest(name, MODELS)}")
    return in_table_order(list(dict.fromkeys(models or MODELS)))


def check_assignments(record: ComparisonRecord) -> None:
    """Check every `--set`: KEY=VALUE is for all systems that have the setting, MODEL.KEY=VALUE for one.

    Raises:
        InputError: no system has it, a value is invalid, or it would make the systems incomparable.
    """
    for text in record.assignments:
        model, key = _addressed(text)
        if model is not None and model not in record.models:
            raise InputError(f"--set {text}: {model!r} is not compared: {nearest(model, record.models)}")
        if model is not None and key in SHARED_SETTINGS:
            raise InputError(
                f"--set {text}: {key} must be the same in all systems: write --set {text.partition('.')[2]}"
            )
        fields = {name: model_class(name).config_class.model_fields for name in ([model] if model else record.models)}
        if not any(key in own for own in fields.values()):
            known = sorted(set().union(*fields.values()))
            raise InputError(f"--set {text}: unknown key {key!r}: {nearest(key, known)}")
        if key == "seed":
            raise InputError(f"--set {text}: give --seed for the searches, --seeds for the chosen configurations")
    for model in record.models:
        for key in _settings_of(record, model)[1]:
            if key in (*IMMUTABLE_SETTINGS, *SHARED_SETTINGS):
                raise InputError(f"--set {key}: one value is expected: it must be the same in all systems")


def _addressed(text: str) -> tuple[str | None, str]:
    """The system that a `--set` is for, None for all, and its key."""
    key, _ = parse_assignment(text)
    model, dot, own = key.partition(".")
    return (model, own) if dot else (None, key)


def _settings_of(record: ComparisonRecord, model: str) -> tuple[SweepSettings, dict[str, Any]]:
    """The search of one system, and what `--set` says of its space."""
    model_type = model_class(model)
    config_class = model_type.config_class
    fixed = {}
    for key, value in record.fixed.items():
        if key in config_class.model_fields:
            fixed[key] = as_values(config_class, key, value, where=f"{record.scenario}: fixed")[0]
    settings = SweepSettings(
        model=model,
        trials=record.trials_per_model,
        fixed=fixed,
        space=checked_space(config_class, dict(model_type.default_space()), where=model),
        **{key: getattr(record, key) for key in ("search", "scheduler", "grace_period", "reduction_factor", "seed")},
    )
    own = []
    for text in record.assignments:
        addressed, key = _addressed(text)
        if addressed in (None, model) and key in config_class.model_fields:
            own.append(text.partition(".")[2] if addressed else text)
    return settings, apply_assignments(settings, own)


def plan_search(record: ComparisonRecord, model: str) -> Plan:
    """The search of one system: a new sweep over its default space, or the stored one.

    Raises:
        InputError: the settings do not fit the system.
    """
    if (record.sweep_folder(model) / RECORD).exists():
        return stored_plan(record, model, "search")
    settings, overrides = _settings_of(record, model)
    settings.space = merged_space(settings.space, overrides)
    for key in space_keys(settings.space):
        settings.fixed.pop(key, None)
    return build_plan(sweep_record(record, settings, model))
