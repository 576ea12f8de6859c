"""All trials of a sweep as records that follow from its event log, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps.state.event_log import EVENT_LOG, EventLog
from sweeps.state.metrics import epoch_result
from sweeps.state.trial_records import TrialRecord, trial_name

LOSSES = 3
"""A trial that was lost so often without a new epoch has failed."""
MEMORY_LOSSES = 2
"""Fewer where memory ran out: the same trial will most likely run out of it again."""


class SweepState:
    """The records of a sweep and the event log that they follow from.

    Every change is written to the event log first and then applied by the same code that reads a stored one; a resumed
    sweep therefore knows exactly what the killed one knew.

    Args:
        folder: the sweep's folder.

    Raises:
        InputError: the event log is damaged.

    Attributes:
        records: number -> record.
        tests: every evaluation on the test split: `trial`, `metrics`.
        seconds: running time of the sweep so far, interruptions left out.
        undelivered: writes that the last driver could not deliver to MLflow.
        saved: called after every written event; tests kill the driver here.
    """

    def __init__(self, folder: Path) -> None:
        self.event_log = EventLog(folder / EVENT_LOG)
        self.records: dict[int, TrialRecord] = {}
        self.tests: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.undelivered = 0
        self.saved: Callable[[dict[str, Any]], None] = lambda event: None
        self._last_time: int | None = None
        for event in self.event_log.read():
            self._apply(event)
        for record in self.records.values():
            if record.outcome == "running":
                record.outcome = "pending"

    @property
    def is_new(self) -> bool:
        return self._last_time is None

    def unfinished(self) -> list[TrialRecord]:
        """Trials that have not ended, in their order; those that failed for want of a node, memory or disk are tried again."""
        for record in self.records.values():
            if record.is_retried:
                record.try_again()
        return [record for record in self.records.values() if not record.ended]

    def open(self, **facts: Any) -> None:
        """A driver takes the sweep over."""
        self._write("opened", **facts)

    def extend(self, trials: int, before: dict[str, Any]) -> None:
        """More trials are to come.

        Args:
            trials: their number in all.
            before: settings that were the same in all trials so far and differ from now on.
        """
        self._write("extended", trials=trials, before=before)

    def fill(self, before: dict[str, Any]) -> None:
        """Give all trials so far the settings that they shared without naming them."""
        for record in self.records.values():
            record.varied = {**record.varied, **before}
            record.config = {**before, **record.config}

    def propose(
        self, config: dict[str, Any], varied_keys: Iterable[str], epochs: int, optuna_params: dict[str, Any]
    ) -> TrialRecord:
        """Add a new trial.

        Args:
            config: its value of every setting of the search space.
            varied_keys: those of them that vary between trials.
            epochs: at most.
            optuna_params: Optuna's own parameters behind the config.
        """
        number = len(self.records) + 1
        varied = {key: config[key] for key in varied_keys}
        self._write("proposed", trial=number, settings=varied, choice=config, epochs=epochs, params=optuna_params)
        return self.records[number]

    def start(self, record: TrialRecord) -> None:
        """A trial has a place and begins, or begins again."""
        self._write("started", trial=record.number)

    def add(self, record: TrialRecord, result: dict[str, Any], *, stopped: bool) -> dict[str, Any] | None:
        """The metrics of an epoch; None for one that a trial repeats after it was interrupted.

        Args:
            result: what the trial reported; `metrics.epoch_result` says what of it is stored.
            stopped: whether the scheduler ended the trial with it.
        """
        result = epoch_result(result)
        if result["epoch"] <= record.epoch:
            return None
        last = result["epoch"] >= record.epochs or result["stopped_early"]
        end = "completed" if last else "pruned" if stopped else ""
        return self._write("epoch", trial=record.number, result=result, end=end, seconds=round(record.seconds, 3))

    def lose(self, record: TrialRecord, kind: str, error: str) -> bool:
        """A trial ended through no fault of its settings; False where it has failed too often to be tried again."""
        self._write("lost", trial=record.number, kind=kind, error=error, seconds=round(record.seconds, 3))
        if record.losses < (MEMORY_LOSSES if kind == "memory" else LOSSES):
            return True
        again = f" ({record.losses} times without a new epoch)"
        self.fail(record, kind, error + again)
        return False

    def fail(self, record: TrialRecord, kind: str, error: str) -> None:
        self._write("failed", trial=record.number, kind=kind, error=error, seconds=round(record.seconds, 3))

    def tested(self, record: TrialRecord, metrics: dict[str, float]) -> None:
        """Store an evaluation on the test split."""
        self._write("tested", trial=record.number, metrics=metrics)

    def stop(self, reason: str, undelivered: int = 0) -> None:
        """The driver ends in order."""
        self._write("stopped", reason=reason, undelivered=undelivered)

    def epochs(self) -> Iterator[dict[str, Any]]:
        """All stored epoch events."""
        return (event for event in self.event_log.read() if event["event"] == "epoch")

    def _write(self, event: str, **content: Any) -> dict[str, Any]:
        entry = self.event_log.append(event, **content)
        self._apply(entry)
        self.saved(entry)
        return entry

    def _apply(self, event: dict[str, Any]) -> None:
        if self._last_time is not None and event["event"] not in ("opened", "extended"):
            self.seconds += max(0, event["time"] - self._last_time) / 1000
        self._last_time = event["time"]
        if "trial" in event and event["event"] != "proposed" and event["trial"] not in self.records:
            name = trial_name(event["trial"])
            raise InputError(f"{self.event_log.path} lacks the beginning of {name}: bring the file back from a backup")
        apply = getattr(self, f"_apply_{event['event']}", None)
        if apply:
            apply(event)
        if "trial" in event:
            self.records[event["trial"]].updated = event["time"]

    def _apply_extended(self, event: dict[str, Any]) -> None:
        self.fill(event["before"])

    def _apply_proposed(self, event: dict[str, Any]) -> None:
        number = event["trial"]
        self.records[number] = TrialRecord(
            number,
            varied=event["settings"],
            epochs=event["epochs"],
            config=event["choice"],
            optuna_params=event["params"],
            created=event["time"],
        )

    def _apply_started(self, event: dict[str, Any]) -> None:
        record = self.records[event["trial"]]
        if record.outcome == "failed":
            record.try_again()
        record.outcome = "running"

    def _apply_epoch(self, event: dict[str, Any]) -> None:
        record = self.records[event["trial"]]
        record.add(event["result"])
        record.outcome, record.seconds, record.losses = event["end"] or "running", event["seconds"], 0

    def _apply_lost(self, event: dict[str, Any]) -> None:
        record = self.records[event["trial"]]
        record.outcome, record.seconds, record.losses = "pending", event["seconds"], record.losses + 1

    def _apply_failed(self, event: dict[str, Any]) -> None:
        record = self.records[event["trial"]]
        record.outcome, record.seconds = "failed", event["seconds"]
        record.error, record.kind = event["error"], event["kind"]

    def _apply_stopped(self, event: dict[str, Any]) -> None:
        self.undelivered = event.get("undelivered", 0)

    def _apply_tested(self, event: dict[str, Any]) -> None:
        self.tests.append({"trial": event["trial"], "metrics": event["metrics"]})
