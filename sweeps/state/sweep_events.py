"""What the event log of a sweep holds: one class per event. Logs of earlier versions fulfil them as well."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sweeps.state.event_log import Event


class EpochResult(BaseModel):
    """The metrics of an epoch, as `metrics.epoch_result` gives them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    epoch: int = Field(ge=1)
    objective: float
    best_epoch: int
    stopped_early: bool = False


class OfTrial(Event):
    """An event of one trial."""

    trial: int = Field(ge=1)


class Extended(Event):
    """More trials are to come."""

    trials: int
    before: dict[str, Any]


class Retried(Event):
    """Trials that failed run again."""

    trials: list[int]


class Proposed(OfTrial):
    """A new trial; `repeats` is the number of the trial that it trains again with another seed."""

    settings: dict[str, Any]
    choice: dict[str, Any]
    epochs: int
    params: dict[str, Any]
    repeats: int = Field(0, ge=0)


class EpochEnded(OfTrial):
    """A trial has reported an epoch, and perhaps ended with it."""

    result: EpochResult
    end: Literal["", "completed", "pruned"]
    seconds: float


class Ended(OfTrial):
    """A trial has ended before its time: it is lost, has failed or was set aside."""

    kind: str
    error: str
    seconds: float


class Tested(OfTrial):
    """A trial was evaluated on the test split."""

    metrics: dict[str, float]


class Stopped(Event):
    """A driver has ended in order."""

    reason: str
    undelivered: int = 0


EVENTS: dict[str, type[Event]] = {
    "opened": Event,
    "extended": Extended,
    "retried": Retried,
    "proposed": Proposed,
    "started": OfTrial,
    "epoch": EpochEnded,
    "lost": Ended,
    "failed": Ended,
    "tested": Tested,
    "stopped": Stopped,
}
"""What the event log of a sweep holds."""
BETWEEN_DRIVERS = ("opened", "extended", "retried", "stopped")
"""Events one of which is the last of a sweep that no driver runs."""
