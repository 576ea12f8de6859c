"""What a sweep is, in a few lines: points, how far each came, and how each ended. Hypothesis holds the driver against it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trial:
    """One trial as a user would describe it.

    Attributes:
        epoch: how many epochs are known for good.
        outcome: pending, running, completed, pruned or failed.
        losses: how often it was lost since its last new epoch.
    """

    epoch: int = 0
    outcome: str = "pending"
    losses: int = 0

    @property
    def ended(self) -> bool:
        return self.outcome in ("completed", "pruned", "failed")


@dataclass
class SweepModel:
    """All trials; the rules of `test_sweep_stories.py` change it as they change the driver."""

    planned: int
    epochs: int
    trials: dict[int, Trial] = field(default_factory=dict)

    def start(self, number: int) -> None:
        self.trials.setdefault(number, Trial()).outcome = "running"

    def report(self, number: int, *, pruned: bool) -> None:
        trial = self.trials[number]
        trial.epoch, trial.losses = trial.epoch + 1, 0
        trial.outcome = "completed" if trial.epoch == self.epochs else "pruned" if pruned else "running"

    def fail(self, number: int) -> None:
        self.trials[number].outcome = "failed"

    def lose(self, number: int) -> None:
        self.trials[number].losses += 1
        self.trials[number].outcome = "pending"

    def retry_failed(self) -> None:
        """What failed waits again, with the epochs that it had."""
        for trial in self.trials.values():
            if trial.outcome == "failed":
                trial.outcome, trial.losses = "pending", 0

    def resume(self) -> None:
        """A new driver: what ran waits again."""
        for trial in self.trials.values():
            if trial.outcome == "running":
                trial.outcome = "pending"

    def waiting(self) -> int:
        """How many trials can still be handed out."""
        new = self.planned - len(self.trials)
        return new + sum(trial.outcome == "pending" for trial in self.trials.values())
