"""What the driver knows of each trial: the one source for the live table, the tracker and the leaderboard."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OUTCOMES = ("completed", "pruned", "interrupted", "failed")


@dataclass
class TrialRecord:
    """One trial as seen from the driver.

    Attributes:
        number: 1, 2, ... in the order in which trials were created.
        settings: what varies between trials.
        outcome: pending, running, or one of `OUTCOMES`.
        objective: best value so far of what is monitored; higher is better.
        metrics: validation metrics of the best epoch.
        latest: all metrics of the last epoch.
        seconds: time that the trial held its place, start-up and interrupted parts included.
        error: one line, where it failed.
        checkpoint: folder of the last checkpoint.
    """

    trial_id: str
    number: int
    settings: dict[str, Any]
    epochs: int
    outcome: str = "pending"
    epoch: int = 0
    objective: float | None = None
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    checkpoint: str = ""

    @property
    def name(self) -> str:
        return f"t{self.number:02d}"

    def add(self, result: dict[str, Any]) -> None:
        """Take in the metrics of one epoch."""
        self.epoch, self.objective, self.best_epoch = result["epoch"], result["objective"], result["best_epoch"]
        self.latest = {name: value for name, value in result.items() if "/" in name and not name.startswith("config/")}
        if self.best_epoch == self.epoch:
            self.metrics = {name: value for name, value in self.latest.items() if name.startswith("val")}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ranked(records: list[TrialRecord]) -> list[TrialRecord]:
    """Best first; then failed trials and those without a value, in their order."""

    def place(record: TrialRecord) -> tuple:
        if record.objective is None or record.outcome == "failed":
            return (1, 0.0, record.number)
        return (0, -record.objective, record.number)

    return sorted(records, key=place)


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """The leading trial of those that hold: completed or pruned while anything runs, with a value."""
    valued = [record for record in ranked(records) if record.objective is not None and record.outcome != "failed"]
    return valued[0] if valued else None
