"""From options to a plan: which data, which trials, which resources, where things go. Starts nothing."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.config import TrialConfig, build_config, parse_assignment
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.scenarios.names import check_name
from sweeps.cluster.resources import default_gpus
from sweeps.core.earlier import add_points, read_points, warm_start
from sweeps.core.settings import (
    FILE_OPTIONS,
    IMMUTABLE_SETTINGS,
    RESOURCES,
    SAMPLE,
    apply_assignments,
    checked_settings,
    checked_space,
    drop_absent_modalities,
    find_settings,
    merged_space,
    space_keys,
)
from sweeps.core.takeover import take_over
from sweeps.search.grid_points import PointCheck, check_points, choose_points
from sweeps.search.rungs import rungs
from sweeps.search.space import Space, build_space
from sweeps.state.confirmation import next_repeats
from sweeps.state.sweep_record import RECORD, SweepRecord, SweepSettings, find_sweep, group_of
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord
from sweeps.tracking.addresses import absolute_uri

IMMUTABLE_OPTIONS = (
    "model",
    "search",
    "trials",
    "grid_points",
    "epochs",
    "scheduler",
    "grace_period",
    "reduction_factor",
    "seed",
    "warm_start",
)
"""Options that a stored sweep has once and for all."""
FLAGS = {"from_sweep": "--from", "assignments": "--set"}
"""Options whose flag is not their own name."""


@dataclass
class Options:
    """The command line of a sweep; None means that the scenario file decides."""

    scenario: str | None = None
    model: str | None = None
    search: str | None = None
    trials: int | None = None
    grid_points: int | None = None
    epochs: int | None = None
    scheduler: str | None = None
    grace_period: int | None = None
    reduction_factor: float | None = None
    concurrency: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    confirm: float | None = None
    seed: int | None = None
    warm_start: str | None = None
    points: Path | None = None
    like: str | None = None
    name: str | None = None
    data_root: Path | None = None
    tracking_uri: str | None = None
    storage: Path = Path("mlruns")
    ray_address: str | None = None
    keep: int | None = None
    fresh_workers: bool | None = None
    retry_failed: bool = False
    assignments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Paths may be given as texts, with `~`."""
        for key in ("points", "data_root", "storage"):
            if getattr(self, key) is not None:
                path = Path(getattr(self, key))
                with suppress(RuntimeError):  # the home of a user who does not exist: a folder may be called so
                    path = path.expanduser()
                setattr(self, key, path)

    @property
    def root(self) -> Path:
        """The folder of the prepared scenarios, absolute."""
        return (self.data_root or Path("data")).resolve()

    def places(self, now: datetime.datetime) -> dict[str, Any]:
        """Fields of a new record: what was asked for, where it goes, on which resources, and when it was planned."""
        storage = self.storage.resolve()
        return {
            "requested": self.scenario,
            "data_root": str(self.root),
            "storage": str(storage),
            "tracking_uri": absolute_uri(self.tracking_uri, storage),
            "cpus_per_trial": 1 if self.cpus_per_trial is None else self.cpus_per_trial,
            "gpus_per_trial": default_gpus() if self.gpus_per_trial is None else self.gpus_per_trial,
            "concurrency": self.concurrency,
            "ray_address": self.ray_address,
            "fresh_workers": bool(self.fresh_workers),
            "created": now.isoformat(timespec="microseconds"),
        }


def flag(key: str) -> str:
    """An option as it is typed."""
    return FLAGS.get(key, f"--{key.replace('_', '-')}")


@dataclass
class Plan:
    """A sweep that is ready to run.

    Attributes:
        record: what it was started with.
        config_class: the model's configuration.
        fixed: settings that all trials share, as given to the model.
        space: the search space.
        points: grid points that have not been run, in their order.
        trials: number of trials.
        configs: one valid configuration per distinct choice; what data is needed follows from them.
        check: whether the model accepts a point of the space.
        notices: sentences that the user should read.
        resumed: whether it continues a stored sweep.
        extended: whether it also has more trials than that one was planned with.
        before: settings that all earlier trials of an extended sweep shared and that are different or searched now.
        tested_by: the kind of the group that the sweep is a part of, "" where it stands alone: only the group tests it.
        retry_failed: whether trials that failed run again.
    """

    record: SweepRecord
    config_class: type[TrialConfig]
    fixed: dict[str, Any]
    space: Space
    points: list[dict[str, Any]]
    trials: int
    configs: list[TrialConfig]
    check: PointCheck
    notices: list[str] = field(default_factory=list)
    resumed: bool = False
    extended: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    tested_by: str = ""
    retry_failed: bool = False

    @property
    def epochs(self) -> int:
        return self.fixed["epochs"]

    @property
    def varied_keys(self) -> tuple[str, ...]:
        """Settings that differ between trials, those of an extended sweep's earlier ones included."""
        return tuple(dict.fromkeys([*self.record.varied_keys, *self.space.varied_keys, *self.before]))

    @property
    def is_fallback(self) -> bool:
        return self.record.scenario == SAMPLE and self.record.requested != SAMPLE

    @property
    def rungs(self) -> list[int]:
        record = self.record
        if record.scheduler == "none":
            return []
        return rungs(self.epochs, min(record.grace_period, self.epochs), record.reduction_factor)

    @property
    def most_repeats(self) -> int:
        """How many trials of full length the confirmation pays for; 0 where there is none.

        A group trains its own seeds, and a closed form has the same result with every seed.
        """
        record = self.record
        if self.tested_by or "seed" in self.varied_keys or model_class(record.model).closed_form or record.keep < 2:
            return 0
        count = int(record.confirm * self.trials + 1e-9)
        return count if count > 1 else 0

    @property
    def candidates(self) -> int:
        """How many of the best trials are confirmed; each of them must have its weights."""
        return min(self.record.keep, max(2, self.most_repeats // 2)) if self.most_repeats else 0

    def next_repeats(self, state: SweepState) -> list[tuple[TrialRecord, int]]:
        """The trials to repeat now, each with its new seed, see `sweeps.state.confirmation`."""
        epochs = int(self.record.confirm * self.trials * self.epochs + 1e-9)
        return next_repeats(state.records.values(), candidates=self.candidates, epochs=epochs, seed=self.record.seed)

    @property
    def needs(self) -> set[str]:
        """Kinds of features that some trial needs."""
        model = model_class(self.record.model)
        return set().union(*(model.needs(config) for config in self.configs))

    @property
    def objectives(self) -> list[str]:
        """Training objectives among the trials (full, sampled)."""
        return sorted({str(config.objective) for config in self.configs if hasattr(config, "objective")})

    @property
    def shared(self) -> dict[str, Any]:
        """Settings that all trials share: the fixed ones, and those whose grid has a single value."""
        single = [block for block in self.space.blocks if block.kind == "fixed"]
        return {**self.fixed, **{key: value for block in single for key, value in zip(block.keys, block.points[0])}}

    def state(self) -> SweepState:
        """How far the sweep is, as a driver of this plan finds it.

        Raises:
            InputError: the event log is damaged, or it and `sweep.yaml` do not belong together.
        """
        found = SweepState.load(self.record)
        if self.retry_failed:
            found.take_back_failed()
        return found

    def resume_command(self, *more: str) -> str:
        """The command line that continues this sweep, as it can be typed here, with further options."""
        return command_line("sweep", "--resume", "--name", self.record.name, *more, storage=self.record.storage)


def plan_sweep(options: Options, *, now: datetime.datetime | None = None) -> Plan:
    """Plan a new sweep.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.like is not None:
        options, like = _like(options)
    if re.match(r"[a-z][a-z0-9]+:/", str(options.storage)):
        raise InputError(f"--storage {options.storage}: a folder is expected (on a cluster one that every node sees)")
    values, used, notices = find_settings(options.scenario, options.root, options.model)
    if options.like is not None:
        values, notices = like, [f"settings of sweep {options.like}"]
    for key in ("model", *FILE_OPTIONS):
        if getattr(options, key) is not None:
            values[key] = getattr(options, key)
    whole_grid = values.get("search") == "grid" and options.trials is None
    settings = build_config(SweepSettings, values, where=str(options.scenario))
    config_class = model_class(settings.model).config_class
    settings.space = checked_space(config_class, settings.space, where=used)
    several = "several values; put them into space"
    settings.fixed = checked_settings(config_class, settings.fixed, f"{used}: fixed", several)
    overrides = apply_assignments(settings, options.assignments, options.epochs)
    notices += drop_absent_modalities(settings, overrides, options.root / used)
    settings.space = merged_space(settings.space, overrides)
    stamp = now or datetime.datetime.now()
    name = options.name or f"{used}-{stamp:%Y%m%d-%H%M%S}"
    check_name(name, "--name")
    record = SweepRecord(
        **settings.model_dump(),
        name=name,
        scenario=used,
        **options.places(stamp),
        **({} if options.keep is None else {"keep": options.keep}),
    )
    if (record.folder / RECORD).exists():
        raise InputError(
            f"a sweep named {name!r} exists in {record.storage}: give --resume to continue it, or another --name"
        )
    plan = build_plan(record, whole_grid=whole_grid)
    if options.points is not None:
        add_points(record, read_points(options.points, plan.space, plan.check), plan.space, ())
    learned = warm_start(record, options.warm_start, plan.space, plan.check)
    if record.points:
        record.grid_points, record.trials = settings.grid_points, settings.trials
        plan = build_plan(record, whole_grid=whole_grid)
    plan.notices = learned + notices + plan.notices
    return plan


def _like(options: Options) -> tuple[Options, dict[str, Any]]:
    """The options of a sweep like a stored one, and that one's settings; what the command line gives wins.

    Raises:
        InputError: there is no such sweep, or it is of another model.
    """
    earlier = SweepRecord.load(find_sweep(options.storage.resolve(), "--like", name=options.like, scenario=None))
    if options.model not in (None, earlier.model):
        raise InputError(f"--like {options.like}: it is of {earlier.model}: leave out --model, or --like")
    same = [key for key in (*RESOURCES, "keep") if getattr(options, key) is None]
    inherited: dict[str, Any] = {key: getattr(earlier, key) for key in same}
    inherited["model"] = earlier.model
    inherited["scenario"] = options.scenario or earlier.requested
    inherited["data_root"] = options.data_root or Path(earlier.data_root)
    return dataclasses.replace(options, **inherited), earlier.model_dump(include=set(SweepSettings.model_fields))


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
    settings = SweepSettings(**record.model_dump(include=set(SweepSettings.model_fields)))
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
    settings = SweepSettings(**record.model_dump(include=set(SweepSettings.model_fields)))
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
    record = SweepRecord.load(
        find_sweep(options.storage.resolve(), command, name=options.name, scenario=options.scenario)
    )
    for key in (*RESOURCES, "keep", "confirm"):
        if getattr(options, key) is not None:
            setattr(record, key, getattr(options, key))
    said = take_over(record, command, options.tracking_uri, options.data_root, named=options.name is not None)
    return record, [said] if said else []


def build_plan(record: SweepRecord, *, whole_grid: bool = False, known: Sequence[Mapping[str, Any]] = ()) -> Plan:
    """Work out the trials of a sweep and check every setting before anything starts.

    Args:
        whole_grid: whether all grid points are meant.
        known: configurations of the trials that the sweep already has.
    """
    config_class = model_class(record.model).config_class
    space = build_space(record.space, record.constraints)
    fixed = {"model": record.model, "seed": record.seed, **record.fixed}
    for key in [key for block in space.blocks for key in block.keys]:
        fixed.pop(key, None)
    immutable = [key for key in IMMUTABLE_SETTINGS if key in space.varied_keys]
    if immutable:
        raise InputError(f"{immutable[0]} must be the same in all trials; give one value")
    fixed.setdefault("epochs", config_class.model_fields["epochs"].default)
    space, configs, check, notices = check_points(config_class, fixed, space)
    points, trials = choose_points(
        record, space, whole_grid=whole_grid, known=known, accepts=lambda point: not check.problem(point)
    )
    record.trials = trials
    if record.search == "grid" and space.ranges:
        raise InputError(f"--search grid: {space.ranges[0]} is a range; give it a list of values")
    return Plan(record, config_class, fixed, space, points, trials, configs, check, notices)
