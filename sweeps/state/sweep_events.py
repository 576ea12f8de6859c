"""What the event log of a sweep holds: what each event must have. Logs of earlier versions fulfil it as well."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

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


def _event(base: type[Event], **fields: Any) -> type[Event]:
    """A kind of event: name of a field -> its type, or its type and its default."""
    made: dict[str, Any] = {name: kind if isinstance(kind, tuple) else (kind, ...) for name, kind in fields.items()}
    return create_model(base.__name__, __base__=base, **made)


Settings = dict[str, Any]
ENDED = _event(OfTrial, kind=str, error=str, seconds=float)
EVENTS: dict[str, type[Event]] = {
    # A driver takes the sweep over.
    "opened": Event,
    # More trials are to come; `before`: what all earlier ones shared and later ones need not.
    "extended": _event(Event, trials=int, before=Settings),
    # Trials that failed run again.
    "retried": _event(Event, trials=list[int]),
    # A new trial; `repeats` is the number of the trial that it trains again with another seed.
    "proposed": _event(
        OfTrial, settings=Settings, choice=Settings, epochs=int, params=Settings, repeats=(int, Field(0, ge=0))
    ),
    "started": OfTrial,
    # A trial has reported an epoch, and perhaps ended with it.
    "epoch": _event(OfTrial, result=EpochResult, end=Literal["", "completed", "pruned"], seconds=float),
    # A trial has ended before its time: it is lost, has failed or was set aside.
    "lost": ENDED,
    "failed": ENDED,
    # A trial was evaluated on the test split.
    "tested": _event(OfTrial, metrics=dict[str, float]),
    # A driver has ended in order; so many writes to MLflow were given up.
    "stopped": _event(Event, reason=str, undelivered=(int, 0)),
}
BETWEEN_DRIVERS = ("opened", "extended", "retried", "stopped")
"""Events one of which is the last of a sweep that no driver runs."""
