"""How far a group is, as it follows from its event log: which row has which result."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from sweeps.state.event_log import EVENT_LOG, Event, EventLog

KEYS = ("row", "model", "trial")
"""Under which an event names its row: the first one today, the others in logs of a former version."""


class SeedResult(BaseModel, extra="forbid", strict=True, use_attribute_docstrings=True):
    """One seed of the chosen configuration."""

    metrics: dict[str, float]
    """Of the test split, as `llmemf.ranking.summarise` gives them."""
    best_epoch: int
    epochs_run: int
    seconds: float
    """Of training steps, without validation and start-up."""


class Tested(Event):
    """One seed of a row was evaluated on the test split."""

    seed: int
    result: SeedResult


class Ended(Event):
    """A row is finished."""

    outcome: Literal["done", "failed", "missing"]
    reason: str = ""


EVENTS: dict[str, type[Event]] = {"opened": Event, "tested": Tested, "ended": Ended, "stopped": Event}
"""What the event log of a group holds."""


@dataclass
class RowResult:
    """What is known of one row.

    Attributes:
        outcome: "" while it is under way, `done`, `failed` (every trial or seed), `missing` (it cannot run on this data).
        reason: why it failed or cannot run, or what is to be said of one that is done.
        status: how the system relates to its source.
        search: how its search went, see `evaluation.search_facts`.
        chosen: the searched settings of the chosen configuration.
        parameters: number of trainable scalars.
        facts: what the model says of itself.
        notes: what a reader of its numbers must know.
        seeds: seed -> result.
    """

    name: str
    outcome: str = ""
    reason: str = ""
    status: str = ""
    search: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seeds: dict[int, SeedResult] = field(default_factory=dict)

    @property
    def is_short(self) -> bool:
        """Whether it, or a seed of it, failed."""
        return self.outcome == "failed" or (self.outcome == "done" and bool(self.reason))

    def values(self, metric: str) -> dict[int, float]:
        """Seed -> a test metric, of every seed that has it, as fractions."""
        return {seed: found.metrics[metric] for seed, found in sorted(self.seeds.items()) if metric in found.metrics}

    def mean(self, name: str) -> float | None:
        """The mean over seeds of `seconds`, `best_epoch` or `epochs_run`, None without a seed."""
        return float(np.mean([getattr(seed, name) for seed in self.seeds.values()])) if self.seeds else None

    @property
    def metrics(self) -> list[str]:
        """Names of the test metrics of any seed, sorted."""
        return sorted(set().union(*(seed.metrics for seed in self.seeds.values())))


class GroupState:
    """The results of a group and the event log in its folder that they follow from.

    Raises:
        InputError: the event log is damaged.

    Attributes:
        results: name -> result.
        seconds: running time so far, interruptions left out.
    """

    def __init__(self, folder: Path) -> None:
        self.event_log = EventLog(folder / EVENT_LOG, EVENTS)
        self.results: dict[str, RowResult] = {}
        self.seconds = 0.0
        self._last_time: int | None = None
        for event in self.event_log.read():
            self._apply(event)

    @property
    def is_new(self) -> bool:
        return self._last_time is None

    def result(self, row: str) -> RowResult:
        return self.results.setdefault(row, RowResult(row))

    def write(self, event: str, **content: Any) -> None:
        """Log an event and apply it.

        Args:
            event: `opened` (a driver takes the group over), `tested` (a seed), `ended` (a row; what failed or was missing is
                tried again by a driver that continues) or `stopped`.
            content: fields of the event; those that `RowResult` has replace earlier ones there.
        """
        self._apply(self.event_log.append(event, **content))

    def _apply(self, event: dict[str, Any]) -> None:
        if self._last_time is not None and event["event"] != "opened":
            self.seconds += max(0, event["time"] - self._last_time) / 1000
        self._last_time = event["time"]
        row = next((event[key] for key in KEYS if key in event), None)
        if row is None:
            return
        result = self.result(row)
        if event["event"] == "tested":
            result.seeds[event["seed"]] = SeedResult(**event["result"])
        for key in ({item.name for item in fields(RowResult)} - {"name", "seeds"}) & event.keys():
            setattr(result, key, event[key])
