"""What a rerun is: the best trials of a sweep, and the seeds that each is trained with again."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from llmemf.errors import InputError
from sweeps.comparison.record import DEFAULT_SEEDS, RESOURCES, GroupRecord, check_new, resume_group
from sweeps.core.plan import Options, plan_resume
from sweeps.core.settings import space_keys
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TOP = 3
IMMUTABLE_OPTIONS = ("top", "seeds", "tracking_uri", "data_root")
"""Options that a stored rerun has once and for all."""


@dataclass
class RerunOptions:
    """The command line of a rerun; None means that the sweep or a default decides."""

    sweep: str | None = None
    top: int | None = None
    seeds: int | None = None
    concurrency: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    name: str | None = None
    data_root: Path | None = None
    tracking_uri: str | None = None
    storage: Path = Path("mlruns")
    ray_address: str | None = None
    fresh_workers: bool | None = None
    scenario: str | None = None
    assignments: list[str] = field(default_factory=list)


class RerunRecord(GroupRecord):
    """All that a rerun was started with, and the one trial that it tested: `rerun.yaml` in its folder."""

    kind = "rerun"
    command = "rerun"
    entry = "trial"

    sweep: str
    model: str
    trials: list[str]
    """The sweep's best trials, the best first."""
    asked: int = DEFAULT_TOP
    """How many were asked for."""
    configurations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Trial -> its settings, without `model` and `seed`."""
    shown: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Trial -> those of them that the sweep searched."""
    objectives: dict[str, float] = Field(default_factory=dict)
    """Trial -> its objective in the sweep, with the sweep's seed."""
    earlier_looks: int = 0
    """How often the sweep had looked at the test split before."""
    winner: str = ""
    """The trial that validation chose: the only one that is tested."""

    @property
    def entries(self) -> list[str]:
        return self.trials

    def model_of(self, entry: str) -> str:
        return self.model


def plan_rerun(options: RerunOptions, *, now: datetime.datetime | None = None) -> RerunRecord:
    """Plan a new rerun of a completed sweep: the named one, or the newest.

    Raises:
        InputError: any mistake in options, in one sentence.
    """
    storage = options.storage.resolve()
    folder = find_sweep(storage, "rerun", name=options.sweep, scenario=None)
    sweep = SweepRecord.load(folder)
    if sweep.status != "completed":
        raise InputError(
            f"sweep {sweep.name!r} is not completed ({sweep.status}): continue it with sweeps/grid.py --resume --name "
            f"{sweep.name}"
        )
    if "seed" in space_keys(sweep.space):
        raise InputError(f"sweep {sweep.name!r} is one configuration over seeds already: name a sweep that searched")
    plan, state = plan_resume(Options(name=sweep.name, storage=storage)), SweepState(folder)
    top = DEFAULT_TOP if options.top is None else options.top
    best = [record for record in ranked(state.records.values()) if record.outcome in ("completed", "pruned")][:top]
    chosen = {
        record.name: {k: v for k, v in {**plan.fixed, **record.config}.items() if k not in ("model", "seed")}
        for record in best
    }
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    resources = {key: getattr(options, key) for key in RESOURCES if getattr(options, key) is not None}
    stamp = now or datetime.datetime.now()
    record = RerunRecord(
        name=options.name or f"{sweep.name}-rerun",
        requested=sweep.requested,
        scenario=sweep.scenario,
        sweep=sweep.name,
        model=sweep.model,
        trials=list(chosen),
        asked=top,
        configurations=chosen,
        shown={record.name: record.varied for record in best},
        objectives={record.name: record.objective for record in best},
        earlier_looks=len(state.tests),
        seed=sweep.seed,
        # Other seeds than the sweep's own: its luck must not count.
        seeds=list(range(sweep.seed + 1, sweep.seed + 1 + count)),
        fingerprint=sweep.fingerprint,
        data_root=sweep.data_root if options.data_root is None else str(options.data_root.resolve()),
        storage=str(storage),
        tracking_uri=sweep.tracking_uri
        if options.tracking_uri is None
        else absolute_uri(options.tracking_uri, storage),
        created=stamp.isoformat(timespec="microseconds"),
        **{key: getattr(sweep, key) for key in RESOURCES} | resources,
    )
    check_new(record)
    return record


def plan_resume_rerun(options: RerunOptions) -> RerunRecord:
    """Plan the continuation of a stored rerun: the named one, that of the named sweep, or the newest.

    Raises:
        InputError: there is no such rerun, or an option would change it.
    """
    if options.sweep is not None and options.name is None:
        options.name = f"{options.sweep}-rerun"
    return resume_group(RerunRecord, options, IMMUTABLE_OPTIONS)
