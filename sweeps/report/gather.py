"""What is known of a sweep, read from its folder: record, journal, results. Nothing is written, nothing is locked."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.report.parameters import Parameter, searched_parameters
from sweeps.report.spending import Spending, spend
from sweeps.search.rungs import rungs
from sweeps.search.space import Space, build_space
from sweeps.state.sweep_record import GROUPS, SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of, ranked


@dataclass
class TrialHistory:
    """One trial, epoch by epoch.

    Attributes:
        curve: what is monitored (higher is better) after epoch 1, 2, ...; not the best so far.
        epoch_seconds: mean time of training and validation per epoch; None before the first.
        stopped_early: whether its own patience ended it.
        cpu_seconds, gpu_seconds: what it held of each, in units of one CPU or GPU.
    """

    record: TrialRecord
    curve: list[float] = field(default_factory=list)
    epoch_seconds: float | None = None
    stopped_early: bool = False
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def counts(self) -> bool:
        """Whether it has a value that can be ranked."""
        return self.record.objective is not None and self.record.outcome != "failed"


@dataclass
class ReportData:
    """A sweep as its folder tells it.

    Attributes:
        trials: number -> story.
        state: running, interrupted, completed, failed, planned.
        state_note: what is to be said of it, "" where the state says all.
        openings: the journal's `opened` events: hosts, code versions, resources.
        space: the search space; None where the record's cannot be read any more.
        problem: why there is no space.
        parameters: settings that differ between trials, seeds left out.
        fixed: settings that all trials share, defaults included.
        seconds: wall time, interruptions left out.
        changed: time of the newest event (seconds since 1970), None for an empty journal.
    """

    record: SweepRecord
    trials: dict[int, TrialHistory]
    tests: list[dict[str, Any]]
    state: str
    state_note: str
    openings: list[dict[str, Any]]
    space: Space | None
    problem: str
    parameters: list[Parameter]
    fixed: dict[str, Any]
    seconds: float
    changed: float | None
    spending: Spending

    @property
    def records(self) -> list[TrialRecord]:
        return [story.record for story in self.trials.values()]

    @property
    def ranked(self) -> list[TrialHistory]:
        """Best first; failed ones and those without a value last."""
        return [self.trials[record.number] for record in ranked(self.records)]

    @property
    def valued(self) -> list[TrialHistory]:
        """Trials with a value that counts, best first."""
        return [story for story in self.ranked if story.counts]

    @property
    def best(self) -> TrialHistory | None:
        found = best_of(self.records)
        return self.trials[found.number] if found else None

    @property
    def test(self) -> dict[str, float]:
        """Test metrics of the best trial; empty where the sweep has not looked at them."""
        best = self.best
        known = [test["metrics"] for test in self.tests if best and test["trial"] == best.record.number]
        return known[-1] if known else {}

    @property
    def domains(self) -> list[str]:
        """As metrics name them, in their order."""
        names = [name for record in self.records for name in record.metrics]
        found = [part[1] for name in names if len(part := name.split("/")) == 3 and part[0] == "val"]
        return list(dict.fromkeys(found))

    @property
    def epochs(self) -> int:
        """Epochs of a trial at most."""
        return max((record.epochs for record in self.records), default=self.fixed.get("epochs", 0))

    @property
    def rungs(self) -> list[int]:
        record = self.record
        if record.scheduler == "none" or not self.epochs:
            return []
        return rungs(self.epochs, min(record.grace_period, self.epochs), record.reduction_factor)

    @property
    def planned(self) -> int:
        return max(self.record.trials, len(self.trials))

    @property
    def monitored(self) -> str:
        """The curve's name on an axis."""
        return "negative validation loss" if self.fixed.get("monitor") == "val_loss" else "validation MRR"

    def count(self, outcome: str) -> int:
        return sum(record.outcome == outcome for record in self.records)

    @property
    def group(self) -> str:
        """What this sweep is a part of: `comparison NAME`, `ablation NAME`, `rerun NAME`, or ""."""
        parts, storage = self.record.name.split("--"), Path(self.record.storage)
        for count in range(len(parts) - 1, 0, -1):
            owner = "--".join(parts[:count])
            for root in GROUPS:
                if (storage / root / owner).exists():
                    return f"{root.removesuffix('s')} {owner}"
        return ""


def find_record(storage: Path, name: str | None, data_root: Path | None = None) -> SweepRecord:
    """The record of a sweep, the newest without a name, with the places of today.

    Raises:
        InputError: there is none, or it is damaged.
    """
    record = SweepRecord.load(find_sweep(storage.resolve(), "report", name=name, scenario=None))
    # The folder may have been moved together with all that lies in it.
    moved = Path(record.storage) != storage.resolve()
    record.storage = str(storage.resolve())
    local = record.tracking_uri.removeprefix("sqlite:///")
    if moved and local != record.tracking_uri and not Path(local).exists():
        record.tracking_uri = f"sqlite:///{Path(record.storage) / Path(local).name}"
    if data_root is not None:
        record.data_root = str(data_root.resolve())
    return record


def gather(record: SweepRecord, now: float | None = None) -> ReportData:
    """Read what a sweep's folder holds at this moment.

    Raises:
        InputError: the journal is damaged.
    """
    state = SweepState(record.folder)
    events = state.event_log.read()
    openings = [event for event in events if event["event"] == "opened"]
    status, note = _state(record, openings, events, time.time() if now is None else now)
    trials = {number: TrialHistory(item) for number, item in state.records.items()}
    for story in trials.values():
        if not story.record.ended:
            begun = any(event["event"] == "started" and event["trial"] == story.record.number for event in events)
            story.record.outcome = "running" if status == "running" and begun else "interrupted" if begun else "pending"
    fixed = _fixed(record)
    _read_epochs(trials, events, fixed.get("monitor", "val_mrr"))
    spending = spend(trials, events, record)
    space, problem = None, ""
    try:
        space = build_space(record.space, record.constraints)
    except InputError as error:
        problem = str(error)
    return ReportData(
        record=record,
        trials=trials,
        tests=state.tests,
        state=status,
        state_note=note,
        openings=openings,
        space=space,
        problem=problem,
        parameters=searched_parameters([story.record for story in trials.values()], space),
        fixed=fixed,
        seconds=state.seconds,
        changed=events[-1]["time"] / 1000 if events else None,
        spending=spending,
    )


def _state(
    record: SweepRecord, openings: list[dict[str, Any]], events: list[dict[str, Any]], now: float
) -> tuple[str, str]:
    """How the sweep stands: its record says that it runs until its driver ends in order."""
    if record.status != "running" or not openings:
        return record.status, ""
    last, ago = openings[-1], text_format.duration(now - events[-1]["time"] / 1000)
    if last.get("host") != socket.gethostname():
        return "running", f"its driver is on {last.get('host', 'another machine')}; the newest event is {ago} old"
    if _is_alive(last.get("pid")):
        return "running", f"the newest event is {ago} old"
    return "interrupted", "its driver ended without a word; --resume continues it"


def _is_alive(pid: int | None) -> bool:
    try:
        os.kill(int(pid or 0) or -1, 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return bool(pid)


def _fixed(record: SweepRecord) -> dict[str, Any]:
    """Settings that all trials share with the model's defaults around them; the record's alone where the model is gone."""
    given = {"model": record.model, "seed": record.seed, **record.fixed}
    try:
        config_class = model_class(record.model).config_class
        defaults = {name: info.default for name, info in config_class.model_fields.items()}
        build_config(config_class, given)
    except InputError:
        defaults = {}
    return {**{key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}, **given}


def _read_epochs(trials: dict[int, TrialHistory], events: list[dict[str, Any]], monitor: str) -> None:
    """Curves and times of the epochs out of the journal."""
    seconds: dict[int, list[float]] = {}
    for event in events:
        if event["event"] != "epoch":
            continue
        result, story = event["result"], trials[event["trial"]]
        value = -result["val/loss"] if monitor == "val_loss" and "val/loss" in result else result.get("val/mrr")
        story.curve.append(result["objective"] if value is None else value)
        story.stopped_early = bool(result.get("stopped_early"))
        took = result.get("seconds_train", 0.0) + result.get("seconds_valid", 0.0)
        if took:
            seconds.setdefault(event["trial"], []).append(took)
    for number, values in seconds.items():
        trials[number].epoch_seconds = sum(values) / len(values)
