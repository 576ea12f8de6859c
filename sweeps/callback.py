"""Between Ray Tune's hooks and what follows a sweep: records, tracking, display, and the rungs of successive halving."""

from __future__ import annotations

import errno
import logging
import re
import time
from pathlib import Path
from typing import Any

from ray import tune

from sweeps.display import Display
from sweeps.interrupt import StopRequest
from sweeps.records import TrialRecord
from sweeps.search import was_stopped
from sweeps.tracking import Tracking

log = logging.getLogger(__name__)


class SweepCallback(tune.Callback):
    """Keeps a record of each trial, and hands it to the tracker and the display.

    What it stores with Tune's state brings an interrupted sweep back whole: records, MLflow run ids, and the rungs of
    the scheduler, which Tune itself forgets.

    Args:
        varied: settings that are shown for each trial.
        errors: folder for the full traces of failed trials.
        scheduler: the ASHA scheduler, or None.
        stop: the request to stop, passed on to Tune from here, and made here when the disk is full.
    """

    def __init__(
        self,
        *,
        varied: tuple[str, ...],
        errors: Path,
        tracking: Tracking,
        display: Display,
        stop: StopRequest,
        scheduler: Any = None,
    ) -> None:
        self.varied, self.errors, self.scheduler, self.stop = varied, errors, scheduler, stop
        self.tracking, self.display = tracking, display
        self.records: dict[str, TrialRecord] = {}
        self._since: dict[str, float] = {}

    def _record(self, trial: Any) -> TrialRecord:
        if trial.trial_id not in self.records:
            chosen = {key: trial.config[key] for key in self.varied if key in trial.config}
            number = trial_number(trial)
            self.records[trial.trial_id] = TrialRecord(trial.trial_id, number, chosen, trial.config["epochs"])
        return self.records[trial.trial_id]

    def _clock(self, record: TrialRecord) -> None:
        """Add the time since the last call to a trial that holds a place."""
        now = time.monotonic()
        record.seconds += now - self._since.setdefault(record.trial_id, now)
        self._since[record.trial_id] = now

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        if self.stop.forward():
            self.display.say(f"{self.stop.reason}: saving the sweep, a second Ctrl-C leaves at once")

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self.tracking.retry()
        for trial in trials:
            record = self._record(trial)
            if record.outcome in ("pending", "running"):
                self._clock(record)
        self._show()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        record.outcome = "running"
        self.tracking.start_trial(record, trial.config)
        self._show(record)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        record = self._record(trial)
        record.add(result)
        self.tracking.log_epoch(record, result)
        self._show()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        if not record.epoch:
            record.outcome, record.error = "failed", "the trial ended without a result"
        else:
            record.outcome = "pruned" if was_stopped(trial.last_result) else "completed"
        record.checkpoint = trial.checkpoint.path if trial.checkpoint else ""
        self.tracking.end_trial(record)
        self._show(record)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        record.outcome = "failed"
        record.error, trace = describe_error(trial)
        record.checkpoint = trial.checkpoint.path if trial.checkpoint else ""
        path = self.errors / f"{record.name}.txt"
        try:
            self.errors.mkdir(parents=True, exist_ok=True)
            path.write_text(trace)
        except OSError as error:
            log.warning("the trace of %s could not be written: %s", record.name, error)
        self.tracking.end_trial(record)
        self._show(record)
        if is_disk_full(trace):
            self.stop.request("the disk is full")

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Close what is still open: those trials were interrupted and continue with `--resume`."""
        for trial in trials:
            record = self._record(trial)
            if record.outcome in ("pending", "running"):
                record.checkpoint = trial.checkpoint.path if trial.checkpoint else ""
        self.interrupt()
        self._show()

    def interrupt(self) -> None:
        """Close the runs of all trials that have not ended."""
        for record in self.records.values():
            if record.outcome in ("pending", "running"):
                record.outcome = "interrupted"
                self.tracking.end_trial(record)

    def _show(self, changed: TrialRecord | None = None) -> None:
        try:
            self.display.update(list(self.records.values()), changed, time.time())
        except OSError as error:
            # A closed terminal or pipe must not end the sweep.
            log.warning("the display could not be written: %s", error)

    def get_state(self) -> dict[str, Any]:
        return {
            "records": [record.to_dict() for record in self.records.values()],
            "tracking": self.tracking.get_state(),
            "rungs": rung_state(self.scheduler),
            "seconds": self.display.elapsed(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.records = {record["trial_id"]: TrialRecord(**record) for record in state["records"]}
        for record in self.records.values():
            record.outcome = "pending" if record.outcome in ("running", "interrupted") else record.outcome
        self.tracking.set_state(state["tracking"])
        restore_rungs(self.scheduler, state["rungs"])
        self.display.already(state["seconds"])


def rung_state(scheduler: Any) -> list | None:
    """Milestones and recorded values of every bracket of an ASHA scheduler (Ray keeps them in private attributes)."""
    if scheduler is None:
        return None
    return [[(milestone, dict(recorded)) for milestone, recorded in bracket._rungs] for bracket in scheduler._brackets]


def restore_rungs(scheduler: Any, state: list | None) -> None:
    """Put rungs back into a fresh scheduler with the same brackets."""
    if scheduler is None or state is None:
        return
    for bracket, rungs in zip(scheduler._brackets, state, strict=True):
        bracket._rungs = [(milestone, dict(recorded)) for milestone, recorded in rungs]


def trial_number(trial: Any) -> int:
    """1, 2, ... in order of creation; Tune's tag begins with it, and it survives a resume."""
    return int(trial.experiment_tag.partition("_")[0])


def trial_dirname(trial: Any) -> str:
    """Short folder name of a trial: Tune's default spells out every setting."""
    return f"t{trial_number(trial):02d}-{trial.trial_id}"


def describe_error(trial: Any) -> tuple[str, str]:
    """One line and the full trace of a trial's failure."""
    try:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", Path(trial.error_file).read_text())
    except (OSError, TypeError):
        return "no trace was kept", ""
    return last_error(trace), trace


def last_error(trace: str) -> str:
    """The exception's name and message out of a printed trace."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    for line in reversed(lines):
        name, colon, message = line.partition(": ")
        if colon and name.replace(".", "").replace("_", "").isalnum() and name.split(".")[-1][:1].isupper():
            return f"{name.split('.')[-1]}: {message}"[:300]
    return (lines[1] if len(lines) > 1 else "unknown error")[:300]


def is_disk_full(trace: str) -> bool:
    return f"[Errno {errno.ENOSPC}]" in trace or "No space left on device" in trace
