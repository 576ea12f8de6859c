"""Read what a sweep's folder holds: record, event log, results. Nothing is written, nothing is locked."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from typing import Any

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.io import is_alive
from llmemf.models import model_class
from sweeps.reporting.history import SweepHistory, TrialHistory
from sweeps.reporting.parameters import searched_parameters
from sweeps.search.space_entries import build_space
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState


def gather(record: SweepRecord, now: float | None = None) -> SweepHistory:
    """Read what a sweep's folder holds at this moment.

    Raises:
        InputError: the event log is damaged.
    """
    sweep = SweepState.load(record)
    events = sweep.event_log.read()
    state, note = _state(record, events, time.time() if now is None else now)
    started = {event["trial"] for event in events if event["event"] == "started"}
    trials = {number: TrialHistory(item) for number, item in sweep.records.items()}
    for number, trial in trials.items():
        if not trial.record.ended and not trial.record.error:
            open_state = "running" if state == "running" else "interrupted"
            trial.record.outcome = open_state if number in started else "pending"
    fixed = _fixed(record)
    _read_epochs(trials, events, fixed.get("monitor", "val_mrr"))
    _read_resources(trials, events, record)
    try:
        space = build_space(record.space, record.constraints)
    except InputError:
        space = None
    searched = {number: trial for number, trial in trials.items() if not trial.record.repeats}
    return SweepHistory(
        record=record,
        trials=searched,
        repeats=[trial for trial in trials.values() if trial.record.repeats],
        tests=sweep.tests,
        state=state,
        state_note=note,
        openings=[event for event in events if event["event"] == "opened"],
        parameters=searched_parameters([trial.record for trial in searched.values()], space),
        fixed=fixed,
        seconds=sweep.seconds,
    )


def _state(record: SweepRecord, events: list[dict[str, Any]], now: float) -> tuple[str, str]:
    """How the sweep stands: its record says that it runs until its driver ends in order."""
    openings = [event for event in events if event["event"] == "opened"]
    if record.status != "running" or not openings:
        return record.status, ""
    last, ago = openings[-1], text_format.duration(now - events[-1]["time"] / 1000)
    if last.get("host") != socket.gethostname():
        return "running", f"its driver is on {last.get('host', 'another machine')}; the newest event is {ago} old"
    if last.get("pid") and is_alive(last["pid"]):
        return "running", f"the newest event is {ago} old"
    return "interrupted", "its driver was killed; --resume continues it"


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
    """Curves and times of the epochs out of the event log."""
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    for event in (event for event in events if event["event"] == "epoch"):
        result, trial = event["result"], trials[event["trial"]]
        value = -result["val/loss"] if monitor == "val_loss" and "val/loss" in result else result.get("val/mrr")
        trial.curve.append(result["objective"] if value is None else value)
        if trial.record.first_loss and "train/loss" in result:
            trial.losses.append(result["train/loss"] / trial.record.first_loss)
        if took := result.get("seconds_train", 0.0) + result.get("seconds_valid", 0.0):
            seconds[event["trial"]].append(took)
    for number, values in seconds.items():
        trials[number].epoch_seconds = sum(values) / len(values)


def _read_resources(trials: dict[int, TrialHistory], events: list[dict[str, Any]], record: SweepRecord) -> None:
    """What trials held; each part of a trial counts by the resources of the driver that it ran under."""
    cpus, gpus = record.cpus_per_trial, record.gpus_per_trial
    known: dict[int, float] = {}
    for event in events:
        if event["event"] == "opened":
            cpus, gpus = event.get("cpus_per_trial", cpus), event.get("gpus_per_trial", gpus)
        if "seconds" not in event or "trial" not in event:
            continue
        trial, more = trials[event["trial"]], event["seconds"] - known.get(event["trial"], 0.0)
        known[event["trial"]] = event["seconds"]
        trial.cpus, trial.gpus = cpus, gpus
        trial.cpu_seconds += more * cpus
        trial.gpu_seconds += more * gpus
