"""What a sweep spent, trial by trial, and what stopping trials early saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.reporting.history import TrialHistory
from sweeps.search.stopping import full_epochs

OUTCOMES = ("completed", "pruned", "failed", "interrupted", "running", "pending")


@dataclass(frozen=True)
class Share:
    """What some trials took together; seconds are those of one CPU or GPU."""

    trials: int
    epochs: int
    place_seconds: float
    cpu_seconds: float
    gpu_seconds: float

    @classmethod
    def of(cls, trials: Sequence[TrialHistory]) -> Share:
        records = [trial.record for trial in trials]
        seconds = (
            sum(record.seconds for record in records),
            sum(t.cpu_seconds for t in trials),
            sum(t.gpu_seconds for t in trials),
        )
        return cls(len(trials), sum(record.epoch for record in records), *seconds)


@dataclass(frozen=True)
class Spending:
    """Time of a whole sweep.

    Attributes:
        by_outcome: outcome -> share, those that occur.
        saved_epochs: epochs that pruned trials did not train.
        saved_cpu_seconds, saved_gpu_seconds: an estimate: those epochs at each trial's own time per epoch.
        full_epochs: epochs that a pruned trial would have had: the mean of the completed trials, which may end by
            their own patience; the maximum where none completed.
    """

    by_outcome: dict[str, Share]
    total: Share
    saved_epochs: float
    saved_cpu_seconds: float
    saved_gpu_seconds: float
    full_epochs: float

    @property
    def uses_gpus(self) -> bool:
        return self.total.gpu_seconds > 0

    @property
    def unit(self) -> str:
        """What counts: GPUs where they were used, else CPUs."""
        return "GPU" if self.uses_gpus else "CPU"

    @property
    def saved(self) -> float:
        """Seconds of the unit that pruning saved, an estimate."""
        return self.saved_gpu_seconds if self.uses_gpus else self.saved_cpu_seconds

    @property
    def spent(self) -> float:
        return self.seconds(self.total)

    def seconds(self, share: Share) -> float:
        """Seconds of the unit."""
        return share.gpu_seconds if self.uses_gpus else share.cpu_seconds


def spend(trials: Sequence[TrialHistory]) -> Spending:
    """Add up what trials held, and estimate what those that were pruned did not."""
    by_outcome = {name: [trial for trial in trials if trial.record.outcome == name] for name in OUTCOMES}
    full = full_epochs(trial.record for trial in trials if not trial.record.repeats)
    timed = [trial for trial in by_outcome["pruned"] if trial.epoch_seconds is not None]
    left = [max(0.0, full - trial.record.epoch) for trial in timed]
    seconds = [epochs * (trial.epoch_seconds or 0.0) for epochs, trial in zip(left, timed)]
    return Spending(
        by_outcome={name: Share.of(chosen) for name, chosen in by_outcome.items() if chosen},
        total=Share.of(trials),
        saved_epochs=sum(left),
        saved_cpu_seconds=sum(trial.cpus * part for trial, part in zip(timed, seconds)),
        saved_gpu_seconds=sum(trial.gpus * part for trial, part in zip(timed, seconds)),
        full_epochs=full,
    )


def hours(seconds: float, longest: float = 0.0) -> str:
    """With two significant digits: `4.1 min`, `0.12 h`, `3.4 h`, `120 h`, `-` for nothing.

    Args:
        longest: of the numbers that stand beside it, which are all in its unit.
    """
    if seconds == 0:
        return "-"
    unit, size = ("min", 60) if max(seconds, longest) < 360 else ("h", 3600)
    found = seconds / size
    return f"{found:.2g} {unit}" if found < 99.5 else f"{found:,.0f} {unit}"
