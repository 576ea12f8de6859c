"""From options to a plan: which data, which trials, which resources, where things go. Starts nothing."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.scenarios.names import check_name
from sweeps.core.earlier import add_points, read_points, warm_start
from sweeps.core.options import Options, flag
from sweeps.core.settings import (
    FILE_OPTIONS,
    IMMUTABLE_SETTINGS,
    RESOURCES,
    apply_assignments,
    checked,
    checked_settings,
    checked_space,
    drop_absent_modalities,
    find_settings,
    merged_space,
)
from sweeps.search.grid_points import PointCheck, check_points, choose_points
from sweeps.search.rungs import rungs_of
from sweeps.search.space import Space
from sweeps.search.space_entries import build_space
from sweeps.state.confirmation import epochs_of_repeats, next_repeats
from sweeps.state.sweep_record import RECORD, SweepRecord, SweepSettings, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord


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
    def rungs(self) -> list[int]:
        return rungs_of(self.record, self.epochs)

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

    @property
    def _repeat_epochs(self) -> int:
        return int(self.record.confirm * self.trials * self.epochs + 1e-9)

    def next_repeats(self, state: SweepState) -> list[tuple[TrialRecord, int]]:
        """The trials to repeat now, each with its new seed, see `sweeps.state.confirmation`."""
        return next_repeats(
            state.records.values(), candidates=self.candidates, epochs=self._repeat_epochs, seed=self.record.seed
        )

    def repeats_to_come(self, state: SweepState) -> int:
        """How many trials the next round of the confirmation may have; 0 where nothing is left to pay for it."""
        left = self._repeat_epochs - epochs_of_repeats(state.records.values())
        return min(self.candidates, max(0, left) // self.epochs)

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
            values[key] = checked(SweepSettings, key, getattr(options, key), where=flag(key))
    if values.get("grid_points"):  # only Optuna's search begins with them
        values.setdefault("search", "optuna")
    whole_grid = values.get("search") == "grid" and options.trials is None
    settings = build_config(SweepSettings, values, where=str(options.scenario))
    config_class = model_class(settings.model).config_class
    settings.space = checked_space(config_class, settings.space, where=f"{used}.yaml")
    several = "several values; put them into space"
    settings.fixed = checked_settings(config_class, settings.fixed, f"{used}.yaml: fixed", several)
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
    earlier = find_sweep(options.storage, "--like", name=options.like)
    if options.model not in (None, earlier.model):
        raise InputError(f"--like {options.like}: it is of {earlier.model}: leave out --model, or --like")
    same = [key for key in (*RESOURCES, "keep") if getattr(options, key) is None]
    inherited: dict[str, Any] = {key: getattr(earlier, key) for key in same}
    inherited["model"] = earlier.model
    inherited["scenario"] = options.scenario or earlier.requested
    inherited["data_root"] = options.data_root or Path(earlier.data_root)
    return dataclasses.replace(options, **inherited), earlier.settings.model_dump()


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
