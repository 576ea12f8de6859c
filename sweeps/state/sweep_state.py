"""All trials of a sweep as records that follow from its event log, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps.state.event_log import EVENT_LOG, EventLog
from sweeps.state.metrics import epoch_result
from sweeps.state.sweep_events import BETWEEN_DRIVERS, EVENTS
from sweeps.state.sweep_record import RECORD, SweepRecord
from sweeps.state.trial_records import TrialRecord, trial_name

LOSSES = {"lost": 3, "memory": 2, "device": 5, "storage": 5}
"""Kind of a machine's fault (`sweeps.core.failures`) -> how often a trial may be lost by it without a new epoch before it is
set aside until the sweep is resumed. Where memory ran out the same trial will most likely run out of it again."""


class SweepState:
    """The records of a sweep and the event log that they follow from.

    Every change is written to the event log first and then applied by the same code that reads a stored one; a resumed
    sweep therefore knows exactly what the killed one knew.

    Args:
        folder: the sweep's folder.

    Raises:
        InputError: the event log is damaged; the message names the line.

    Attributes:
        records: number -> record.
        tests: every evaluation on the test split: `trial`, `metrics`.
        seconds: running time of the sweep so far, interruptions left out.
        undelivered: writes that the last driver could not deliver to MLflow.
        saved: called after every written event; tests kill the driver here.
    """

    def __init__(self, folder: Path) -> None:
        self.event_log = EventLog(folder / EVENT_LOG, EVENTS)
        self.records: dict[int, TrialRecord] = {}
        self.tests: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.undelivered = 0
        self.saved: Callable[[dict[str, Any]], None] = lambda event: None
        self._last: dict[str, Any] = {}
        self._taken_back: list[int] = []
        for number, event in self.event_log.lines():
            if problem := self._problem(event):
                raise self.event_log.damaged(number, problem)
            self._apply(event)
        for record in self.records.values():
            if record.outcome == "running":
                record.outcome = "pending"

    @classmethod
    def load(cls, record: SweepRecord) -> SweepState:
        """The state of a stored sweep, or the empty one of a new sweep.

        Raises:
            InputError: the event log is damaged, or it and `sweep.yaml` do not belong together.
        """
        state, is_stored = cls(record.folder), (record.folder / RECORD).exists()
        path, back = state.event_log.path, "bring the file back from a backup"
        if not is_stored and state.records:
            raise InputError(
                f"{record.folder / RECORD} is missing, {path} is not: bring it back, or give another --name"
            )
        if not is_stored or record.status == "planned":
            return state
        if state.is_new:
            what = "is empty" if path.exists() else "is missing"
            raise InputError(f"{path} {what}, but {RECORD} says that the sweep is {record.status}: {back}")
        last = state._last["event"]
        is_whole = last == "stopped" or (state.records and last in BETWEEN_DRIVERS)
        if record.is_searched and not is_whole:
            raise InputError(f"{path} lacks its end, since {RECORD} says that the sweep is {record.status}: {back}")
        return state

    @property
    def is_new(self) -> bool:
        return not self._last

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials of the search, repeats left out."""
        return [record for record in self.records.values() if not record.repeats]

    def unfinished(self) -> list[TrialRecord]:
        """Trials that have not ended, in their order; those that were set aside are tried again."""
        for record in self.records.values():
            if record.outcome == "interrupted":
                record.try_again()
        return [record for record in self.records.values() if not record.ended]

    def failed(self) -> list[TrialRecord]:
        """Trials that failed by their own fault, in their order."""
        return [record for record in self.records.values() if record.outcome == "failed"]

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

    def take_back_failed(self) -> None:
        """Trials that failed wait for their places again, under their numbers; `retry` says so in the event log."""
        for record in self.failed():
            record.try_again()
            self._taken_back.append(record.number)

    def retry(self) -> None:
        """Write down which failed trials run again."""
        if self._taken_back:
            self._write("retried", trials=self._taken_back)
            self._taken_back = []

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

    def repeat(self, record: TrialRecord, seed: int) -> TrialRecord:
        """Add a trial that trains the settings of another one again, with another seed."""
        self._write(
            "proposed", trial=len(self.records) + 1, settings={**record.varied, "seed": seed},
            choice={**record.config, "seed": seed}, epochs=record.epochs, params={}, repeats=record.number,
        )  # fmt: skip
        return self.records[len(self.records)]

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
        """A trial ended by a fault of the machine; False where that was too often and it is set aside."""
        self._write("lost", trial=record.number, kind=kind, error=error, seconds=round(record.seconds, 3))
        if record.losses < LOSSES[kind]:
            return True
        self.fail(record, kind, f"{error} ({record.losses} times without a new epoch)")
        return False

    def fail(self, record: TrialRecord, kind: str, error: str) -> None:
        """A trial ended for good by its own fault (`error`), or is set aside by the machine's (any other kind)."""
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

    def _problem(self, event: dict[str, Any]) -> str:
        """Why a stored event cannot follow the ones before it, "" if it can."""
        kind = event["event"]
        for number in [event["trial"]] if "trial" in event else event["trials"] if kind == "retried" else []:
            name, record = trial_name(number), self.records.get(number)
            if kind == "proposed":
                if number != len(self.records) + 1:
                    return f"{name} is proposed after {len(self.records)} trials"
                repeats = event.get("repeats", 0)
                is_known = not repeats or (repeats in self.records and not self.records[repeats].repeats)
                return "" if is_known else f"{name} repeats {trial_name(repeats)}, which is no trial of the search"
            if record is None:
                return f"{name} was never proposed"
            if kind == "tested":
                return "it is the line before once more" if event == self._last else ""
            if record.outcome in ("completed", "pruned"):
                return f"{name} was {record.outcome} before"
            if kind == "epoch" and event["result"]["epoch"] <= record.epoch:
                return f"epoch {event['result']['epoch']} of {name} after epoch {record.epoch}"
        return ""

    def _apply(self, event: dict[str, Any]) -> None:
        if self._last and event["event"] not in ("opened", "extended"):
            self.seconds += max(0, event["time"] - self._last["time"]) / 1000
        self._last = event
        if event["event"] == "proposed":
            self._add(event)
        record = self.records.get(event.get("trial", 0))
        match event:
            case {"event": "extended", "before": before}:
                self.fill(before)
            case {"event": "retried", "trials": numbers}:
                for number in numbers:
                    self.records[number].try_again()
            case {"event": "stopped"}:
                self.undelivered = event.get("undelivered", 0)
        if record is None:
            return
        record.updated = event["time"]
        record.seconds = event.get("seconds", record.seconds)
        match event:
            case {"event": "started"}:
                if record.error:
                    record.try_again()
                record.outcome = "running"
            case {"event": "epoch", "result": result, "end": end}:
                record.add(result, event["time"])
                record.outcome, record.losses = end or "running", 0
            case {"event": "lost"}:
                record.outcome, record.losses = "pending", record.losses + 1
            case {"event": "failed", "error": error, "kind": kind}:
                record.outcome = "failed" if kind == "error" else "interrupted"
                record.error, record.kind = error, kind
            case {"event": "tested", "metrics": metrics}:
                self.tests.append({"trial": record.number, "metrics": metrics})

    def _add(self, event: dict[str, Any]) -> None:
        """A new trial, in its place and beside the one that it repeats."""
        record = TrialRecord(
            event["trial"],
            varied=event["settings"],
            epochs=event["epochs"],
            config=event["choice"],
            optuna_params=event["params"],
            repeats=event.get("repeats", 0),
            created=event["time"],
        )
        self.records[record.number] = record
        if record.repeats:
            self.records[record.repeats].repeated_by.append(record)
