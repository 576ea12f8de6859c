"""What a comparison is: systems, one budget, one protocol; its record, and the sweeps that it is made of.

mlruns/comparisons/NAME/                comparison.yaml, journal.jsonl, ranks/, tables
mlruns/sweeps/NAME--MODEL/              the search of a system: an ordinary sweep over its own default space
mlruns/sweeps/NAME--MODEL--seeds/       the chosen configuration over seeds: a grid over `seed`
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from llmemf.config import TrialConfig, build_config, parse_assignment, read_yaml
from llmemf.errors import InputError, nearest
from llmemf.models import MODELS, model_class
from sweeps.cluster.resources import default_gpus
from sweeps.comparison.paper_numbers import in_table_order
from sweeps.plan import SAMPLE, Options, Plan, absolute_uri, build_plan, merged_space, plan_resume, this_command
from sweeps.settings import (
    RECORD,
    SETTLED,
    SweepRecord,
    SweepSettings,
    apply_assignments,
    as_values,
    checked_space,
    load_settings,
    scenario_files,
    space_keys,
    write_whole,
)

COMPARISON = "comparison.yaml"
DEFAULT_TRIALS = 20
DEFAULT_SEEDS = 5
COMMON = (
    "epochs",
    "patience",
    "monitor",
    "selection",
    "batch_size",
    "eval_batch_size",
    "valid_cases",
    "max_length",
    "ties",
    "precision",
    "device",
    "objective",
    "sampled_negatives",
)
"""Settings of a scenario's file that hold for every system that has them: how long, on what, and how it is measured. What
a system is (widths, weights, modalities) stays its own."""
RESOURCES = ("cpus_per_trial", "gpus_per_trial", "concurrency", "ray_address")
KEPT = ("trials_per_model", "seeds", "epochs", "seed", "tracking_uri")
"""Options that a stored comparison has once and for all."""


@dataclass
class CompareOptions:
    """The command line of a comparison; None means that the scenario file or a default decides."""

    scenario: str | None = None
    models: list[str] | None = None
    trials_per_model: int | None = None
    seeds: int | None = None
    epochs: int | None = None
    seed: int | None = None
    concurrency: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    name: str | None = None
    data_root: Path = Path("data")
    tracking_uri: str | None = None
    storage: Path = Path("mlruns")
    ray_address: str | None = None
    assignments: list[str] = field(default_factory=list)


class ComparisonRecord(BaseModel):
    """All that a comparison was started with: `comparison.yaml` in its folder."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    requested: str
    """The scenario that was asked for."""
    scenario: str
    """The scenario that is used: the same, or `sample`."""
    models: list[str]
    trials_per_model: int = Field(DEFAULT_TRIALS, ge=1)
    """Trials of each system's search at most; a smaller grid without ranges is run whole."""
    seeds: list[int]
    """Seeds of the chosen configuration; the search has another one."""
    search: Literal["optuna", "grid", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = 3
    reduction_factor: float = 3
    seed: int = 0
    """Seed of the searches and of their trials."""
    fixed: dict[str, Any] = {}
    """Settings that every system has where it knows them."""
    assignments: list[str] = []
    """`--set`, as it was typed."""
    data_root: str
    storage: str
    tracking_uri: str
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    concurrency: int | None = None
    ray_address: str | None = None
    fingerprint: str = ""
    created: str = ""
    status: Literal["planned", "running", "interrupted", "completed", "failed"] = "planned"

    @property
    def folder(self) -> Path:
        return Path(self.storage) / "comparisons" / self.name

    @property
    def is_fallback(self) -> bool:
        return self.scenario == SAMPLE and self.requested != SAMPLE

    def save(self) -> None:
        """Write `comparison.yaml`; it appears whole or not at all."""
        content = json.loads(self.model_dump_json())
        write_whole(self.folder / COMPARISON, yaml.safe_dump(content, sort_keys=False, default_flow_style=None))

    @classmethod
    def load(cls, folder: Path) -> ComparisonRecord:
        """Read the record of a comparison.

        Raises:
            InputError: there is none, or it was damaged.
        """
        return build_config(cls, read_yaml(folder / COMPARISON), where=str(folder / COMPARISON))

    def sweep_name(self, model: str, step: str = "search") -> str:
        return f"{self.name}--{model}" + ("--seeds" if step == "seeds" else "")

    def sweep_folder(self, model: str, step: str = "search") -> Path:
        return Path(self.storage) / "sweeps" / self.sweep_name(model, step)

    def resume_command(self) -> str:
        """The command line that continues this comparison, as it can be typed here."""
        python, grid = this_command()
        words = [python, str(Path(grid).with_name("compare.py")), "--resume", "--name", self.name]
        if Path(self.storage) != Path("mlruns").resolve():
            words += ["--storage", self.storage]
        return shlex.join(words)


def plan_comparison(options: CompareOptions, *, now: datetime.datetime | None = None) -> ComparisonRecord:
    """Plan a new comparison.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.scenario is None:
        raise InputError(f"--scenario is missing; shipped ones: {', '.join(scenario_files())}")
    data_root, storage = options.data_root.resolve(), options.storage.resolve()
    used, values = _scenario_settings(options.scenario, data_root)
    stamp = now or datetime.datetime.now()
    name = options.name or f"{used}-{stamp:%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name {name!r}: letters, digits, '.', '_' and '-' only, starting with a letter or digit")
    fixed = {key: value for key, value in values.get("fixed", {}).items() if key in COMMON}
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
        created=stamp.isoformat(timespec="microseconds"),
        **{key: values[key] for key in ("search", "scheduler", "grace_period", "reduction_factor") if key in values},
    )
    if (record.folder / COMPARISON).exists():
        raise InputError(
            f"a comparison named {name!r} exists in {storage}: give --resume to continue it, or another --name"
        )
    taken = [model for model in record.models if record.sweep_folder(model).exists()]
    if taken:
        raise InputError(f"a sweep named {record.sweep_name(taken[0])!r} exists in {storage}: give another --name")
    check_assignments(record)
    return record


def plan_resume_comparison(options: CompareOptions) -> ComparisonRecord:
    """Plan the continuation of a stored comparison; resources may be others, and systems may be added.

    Raises:
        InputError: there is no such comparison, or an option would change it.
    """
    changed = [f"--{key.replace('_', '-')}" for key in KEPT if getattr(options, key) is not None]
    changed += ["--set"] if options.assignments else []
    if changed:
        raise InputError(f"--resume continues a comparison as it was started: leave out {', '.join(changed)}")
    record = ComparisonRecord.load(find_comparison(options.storage.resolve(), options.name, options.scenario))
    record.storage = str(options.storage.resolve())
    for key in RESOURCES:
        if getattr(options, key) is not None:
            setattr(record, key, getattr(options, key))
    if options.models is not None:
        record.models = in_table_order(list(dict.fromkeys([*record.models, *checked_models(options.models)])))
    check_assignments(record)
    return record


def plan_continue_comparison(options: CompareOptions) -> ComparisonRecord:
    """Plan the named comparison: a new one, or the continuation where it exists."""
    if options.name is None:
        raise InputError("--continue needs --name: the comparison that is started, or continued where it exists")
    if not (options.storage.resolve() / "comparisons" / options.name / COMPARISON).exists():
        return plan_comparison(options)
    kept = {key: getattr(options, key) for key in (*RESOURCES, "storage", "name")}
    return plan_resume_comparison(CompareOptions(**kept))


def find_comparison(storage: Path, name: str | None, scenario: str | None) -> Path:
    """Folder of the comparison that goes on: the named one, or the newest (of a scenario).

    Raises:
        InputError: there is none; existing ones are offered.
    """
    root = storage / "comparisons"
    existing = sorted(path.parent.name for path in root.glob(f"*/{COMPARISON}"))
    if name is not None:
        if name in existing:
            return root / name
        hint = nearest(name, existing) if existing else f"none is stored in {root}"
        raise InputError(f"--resume: there is no comparison {name!r}: {hint}")
    records = [ComparisonRecord.load(root / known) for known in existing]
    matching = [record for record in records if scenario is None or scenario in (record.requested, record.scenario)]
    if not matching:
        wanted = "no comparison" if scenario is None else f"no comparison of scenario {scenario!r}"
        found = f"stored ones: {', '.join(existing)}" if existing else "none is stored there"
        raise InputError(f"--resume: {wanted} in {root}; {found}")
    return root / max(matching, key=lambda record: record.created).name


def checked_models(models: list[str] | None) -> list[str]:
    """The systems to compare in the order of the table: the named ones, or all.

    Raises:
        InputError: there is no such system; the nearest name is offered.
    """
    for name in models or []:
        if name not in MODELS:
            raise InputError(f"--models: unknown system {name!r}: {nearest(name, MODELS)}")
    return in_table_order(list(dict.fromkeys(models or MODELS)))


def _scenario_settings(requested: str, data_root: Path) -> tuple[str, dict[str, Any]]:
    """The scenario that is used, and its file's settings."""
    files = scenario_files()
    prepared = sorted(path.parent.name for path in data_root.glob("*/manifest.json"))
    if requested not in (SAMPLE, *prepared, *files):
        known = sorted({*files, *prepared})
        raise InputError(
            f"unknown scenario {requested!r}: {nearest(requested, known)}; see `llmemf data import --help`"
        )
    used = requested if requested in (SAMPLE, *prepared) else SAMPLE
    return used, load_settings(files[used]) if used in files else {}


def check_assignments(record: ComparisonRecord) -> None:
    """Check every `--set`: KEY=VALUE is for all systems that have the setting, MODEL.KEY=VALUE for one.

    Raises:
        InputError: no system has it, a value is invalid, or it would make the systems incomparable.
    """
    for text in record.assignments:
        model, key = _addressed(text)
        if model is not None and model not in record.models:
            raise InputError(f"--set {text}: {model!r} is not compared: {nearest(model, record.models)}")
        if model is not None and key in COMMON:
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
            if key in (*SETTLED, *COMMON):
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
        return _stored_plan(record, model, "search")
    settings, overrides = _settings_of(record, model)
    settings.space = merged_space(settings.space, overrides)
    for key in space_keys(settings.space):
        settings.fixed.pop(key, None)
    return build_plan(_sweep_record(record, settings, "search"))


def plan_seeds(record: ComparisonRecord, model: str, chosen: dict[str, Any]) -> Plan:
    """The chosen configuration over seeds, none of them stopped by a scheduler; a closed form has no use for several.

    Args:
        chosen: its settings, without `model` and `seed`.
    """
    if (record.sweep_folder(model, "seeds") / RECORD).exists():
        return _stored_plan(record, model, "seeds")
    seeds = record.seeds[:1] if model_class(model).closed_form else record.seeds
    settings = SweepSettings(
        model=model, search="grid", trials=len(seeds), scheduler="none", seed=record.seed, fixed=chosen,
        space={"seed": seeds},
    )  # fmt: skip
    return build_plan(_sweep_record(record, settings, "seeds", keep=len(seeds)), whole_grid=True)


def _sweep_record(record: ComparisonRecord, settings: SweepSettings, step: str, keep: int = 1) -> SweepRecord:
    shared = ("requested", "scenario", "data_root", "storage", "tracking_uri", *RESOURCES)
    return SweepRecord(
        **settings.model_dump(),
        **{key: getattr(record, key) for key in shared},
        name=record.sweep_name(settings.model, step),
        keep=keep,
        created=datetime.datetime.now().isoformat(timespec="microseconds"),
    )


def _stored_plan(record: ComparisonRecord, model: str, step: str) -> Plan:
    resources = {key: getattr(record, key) for key in RESOURCES}
    return plan_resume(Options(name=record.sweep_name(model, step), storage=Path(record.storage), **resources))
