"""What a sweep spent, trial by trial, and what stopping trials early saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.state.sweep_record import SweepRecord

if TYPE_CHECKING:
    from sweeps.report.gather import TrialHistory

OUTCOMES = ("completed", "pruned", "failed", "interrupted", "running", "pending")


@dataclass
class Share:
    """What the trials of one outcome took together; seconds are those of one CPU or GPU."""

    trials: int = 0
    epochs: int = 0
    place_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0


@dataclass
class Spending:
    """Time of a whole sweep.

    Attributes:
        by_outcome: outcome -> share, those that occur.
        saved_epochs: epochs that pruned trials did not train.
        saved_cpu_seconds, saved_gpu_seconds: an estimate: those epochs at each trial's own time per epoch.
        full_epochs: epochs that a pruned trial would have had: the mean of the completed trials, which may end by
            their own patience; the maximum where none completed.
    """

    by_outcome: dict[str, Share] = field(default_factory=dict)
    saved_epochs: float = 0.0
    saved_cpu_seconds: float = 0.0
    saved_gpu_seconds: float = 0.0
    full_epochs: float = 0.0

    @property
    def total(self) -> Share:
        shares = list(self.by_outcome.values())
        return Share(
            sum(share.trials for share in shares),
            sum(share.epochs for share in shares),
            sum(share.place_seconds for share in shares),
            sum(share.cpu_seconds for share in shares),
            sum(share.gpu_seconds for share in shares),
        )

    @property
    def uses_gpus(self) -> bool:
        return self.total.gpu_seconds > 0


def spend(trials: dict[int, TrialHistory], events: list[dict[str, Any]], record: SweepRecord) -> Spending:
    """Add up what trials held; each part of a trial counts by the resources of the driver that it ran under."""
    cpus, gpus = record.cpus_per_trial, record.gpus_per_trial
    rates: dict[int, tuple[float, float]] = {}
    known: dict[int, float] = {}
    for event in events:
        if event["event"] == "opened":
            cpus, gpus = event.get("cpus_per_trial", cpus), event.get("gpus_per_trial", gpus)
        if "seconds" not in event or "trial" not in event:
            continue
        number = event["trial"]
        more = event["seconds"] - known.get(number, 0.0)
        known[number], rates[number] = event["seconds"], (cpus, gpus)
        trials[number].cpu_seconds += more * cpus
        trials[number].gpu_seconds += more * gpus
    result = Spending()
    for outcome in OUTCOMES:
        chosen = [story for story in trials.values() if story.record.outcome == outcome]
        if chosen:
            result.by_outcome[outcome] = Share(
                len(chosen),
                sum(story.record.epoch for story in chosen),
                sum(story.record.seconds for story in chosen),
                sum(story.cpu_seconds for story in chosen),
                sum(story.gpu_seconds for story in chosen),
            )
    completed = [story.record.epoch for story in trials.values() if story.record.outcome == "completed"]
    longest = max((story.record.epochs for story in trials.values()), default=0)
    result.full_epochs = sum(completed) / len(completed) if completed else float(longest)
    for number, story in trials.items():
        if story.record.outcome != "pruned" or story.epoch_seconds is None:
            continue
        left = max(0.0, result.full_epochs - story.record.epoch)
        cpus, gpus = rates.get(number, (record.cpus_per_trial, record.gpus_per_trial))
        result.saved_epochs += left
        result.saved_cpu_seconds += left * story.epoch_seconds * cpus
        result.saved_gpu_seconds += left * story.epoch_seconds * gpus
    return result
