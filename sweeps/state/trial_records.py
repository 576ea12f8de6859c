"""What the driver knows of each trial: the one source for the live table, the tracker and the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

OUTCOMES = ("completed", "pruned", "interrupted", "failed")
ENDED = ("completed", "pruned", "failed")


@dataclass
class TrialRecord:
    """One trial as seen from the driver.

    Attributes:
        number: 1, 2, ... in the order in which trials were proposed.
        varied: its values of the settings that vary between trials: what tables show of it.
        config: its value of every setting of the search space.
        optuna_params: Optuna's own parameters behind the config.
        outcome: pending, running, or one of `OUTCOMES`.
        objective: best value so far of what is monitored; higher is better.
        values: objective after epoch 1, 2, ...
        metrics: validation metrics of the best epoch.
        latest: all metrics of the last epoch.
        first_loss: training loss of its first epoch.
        seconds: time that the trial held its place, start-up and interrupted parts included.
        error: one line, where it failed or was set aside.
        kind: why: `error` (its own: it failed), or one of the machine's (`sweeps.core.failures`: it was set aside, and a
            resumed sweep tries it again).
        losses: how often it was lost since its last new epoch.
        repeats: number of the trial whose settings it trains again with another seed; 0 for a trial of the search.
        repeated_by: the trials that repeat this one.
        created, updated: times of its first and its newest event (milliseconds since 1970).
        best_time: when its best epoch was reported.
    """

    number: int
    varied: dict[str, Any]
    epochs: int
    config: dict[str, Any] = field(default_factory=dict)
    optuna_params: dict[str, Any] = field(default_factory=dict)
    outcome: str = "pending"
    epoch: int = 0
    objective: float | None = None
    values: list[float] = field(default_factory=list)
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    first_loss: float = 0.0
    seconds: float = 0.0
    error: str = ""
    kind: str = ""
    losses: int = 0
    repeats: int = 0
    repeated_by: list[TrialRecord] = field(default_factory=list)
    created: int = 0
    updated: int = 0
    best_time: int = 0

    @property
    def name(self) -> str:
        return trial_name(self.number)

    @property
    def ended(self) -> bool:
        return self.outcome in ENDED

    def try_again(self) -> None:
        """It waits for its place again; why it ended is forgotten, what it has reported is not."""
        self.outcome, self.error, self.kind, self.losses = "pending", "", "", 0

    def add(self, result: dict[str, Any], time: int) -> None:
        """Take in the metrics of the next epoch, and when they were reported."""
        self.epoch, self.objective, self.best_epoch = result["epoch"], result["objective"], result["best_epoch"]
        self.values.append(result["objective"])
        self.latest = {name: value for name, value in result.items() if "/" in name}
        if self.epoch == 1:
            self.first_loss = result.get("train/loss", 0.0)
        if self.best_epoch == self.epoch:
            self.metrics = {name: value for name, value in self.latest.items() if name.startswith("val")}
            self.best_time = time


def trial_name(number: int) -> str:
    """`t07`: how a trial is called everywhere."""
    return f"t{number:02d}"


def seed_values(records: Iterable[TrialRecord]) -> dict[int, list[float]]:
    """Number of a confirmed trial -> its objective and those of its repeats.

    A seed counts once all its repeats have ended, so that no trial is judged by fewer seeds because it was slower. A trial
    of which a repeat failed is not confirmed.
    """
    repeated = [record for record in records if record.repeated_by]
    open_seeds = {again.config["seed"] for record in repeated for again in record.repeated_by if not again.ended}
    found = {}
    for record in repeated:
        closed = [again for again in record.repeated_by if again.config["seed"] not in open_seeds]
        values = [again.objective for again in (record, *closed) if again.objective is not None]
        if len(values) > 1 and all(again.outcome == "completed" for again in closed):
            found[record.number] = values
    return found


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials of the search, best first: confirmed ones by their mean over seeds, then others by their objective.

    Failed trials and those without a value come last, in their order.
    """
    searched = [record for record in records if not record.repeats]
    confirmed = seed_values(searched)

    def place(record: TrialRecord) -> tuple:
        if record.objective is None or record.outcome == "failed":
            return (2, 0.0, record.number)
        if values := confirmed.get(record.number):
            return (0, -fmean(values), record.number)
        return (1, -record.objective, record.number)

    return sorted(searched, key=place)


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The first of `ranked`; None where no trial has a value or all have failed."""
    valued = [record for record in records if record.objective is not None and record.outcome != "failed"]
    return next(iter(ranked(valued)), None)
