"""Between Ray Tune's hooks and what follows a sweep: state, search, tracking, display, and the weights that are kept."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ray import tune

from sweeps.core.failures import failure_kind, last_error, read_error, stop_reason
from sweeps.core.interrupt import StopRequest
from sweeps.state.trial_records import TrialRecord, trial_name

if TYPE_CHECKING:
    from sweeps.core.sweep import Sweep

log = logging.getLogger(__name__)


class SweepCallback(tune.Callback):
    """Writes what Tune tells of each trial into the state, then hands it to search, tracker and display.

    Args:
        sweep: the running sweep, which is open; full traces of failures go to `errors/` below its folder.
        stop: the request to stop, passed on to Tune from here, and made here when nothing can be written.
    """

    def __init__(self, sweep: Sweep, stop: StopRequest) -> None:
        assert sweep.tracking is not None, "the sweep is open"
        self.errors = sweep.folder / "errors"
        self.state, self.search, self.tracking = sweep.state, sweep.search, sweep.tracking
        self.display, self.retention, self.stop = sweep.display, sweep.retention, stop
        self._since: dict[int, float] = {}
        self._is_confirming = False

    def _record(self, trial: Any) -> TrialRecord:
        return self.state.records[trial.config["trial"]]

    def _clock(self, record: TrialRecord) -> None:
        """Add the time since the last call to a trial that holds a place."""
        now = time.monotonic()
        record.seconds += now - self._since.get(record.number, now)
        self._since[record.number] = now

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        if self.stop.forward():
            leave = "a second Ctrl-C" if self.stop.reason == "interrupted" else "Ctrl-C"
            self.display.say(f"{self.stop.reason}: saving the sweep, {leave} leaves at once")

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        for record in self.search.live.values():
            self._clock(record)
        self.display.trouble = self.tracking.writer.trouble
        self._show()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self.state.start(record)
        if record.repeats and not self._is_confirming:
            self._is_confirming = True
            self.display.tell("the search has ended: its best trials run again with new seeds")
        self.tracking.start_trial(record)
        self._show(record)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        record = self._record(trial)
        self._clock(record)
        event = self.state.add(record, result, stopped=bool(result.get("done")))
        if event:
            self.tracking.log_epoch(record, event["result"], event["time"])
        self._show()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        if not record.ended:
            # Tune says that it is done, and its last report says that it is not.
            self.state.fail(record, "error", f"the trial ended after epoch {record.epoch} of {record.epochs}")
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._record(trial)
        exception, trace = read_error(trial)
        kind, line = failure_kind(exception, trace), last_error(trace)
        self._keep_trace(record, trace)
        if kind == "disk":
            # Nothing more can be written; the trial counts as interrupted.
            self.stop.request(stop_reason(trace))
        elif kind == "error":
            self.state.fail(record, kind, line)
            self._end(record)
        elif kind == "stale":
            # Its process was refused before the trial began in it.
            log.warning("%s starts in another process: %s", record.name, line)
            self.search.again(record)
        elif self.state.lose(record, kind, line):
            self.search.again(record, kind)
            self.display.tell(f"{record.name} was lost after epoch {record.epoch} and runs again ({line})")
        else:
            # No failure of its settings, so the search hears nothing of it.
            self.tracking.end_trial(record)
            self.display.tell(f"{record.name} is set aside, --resume tries it again ({record.error})")
        self._since.pop(record.number, None)

    def _end(self, record: TrialRecord) -> None:
        self.search.tell(record)
        self.tracking.end_trial(record)
        self.retention.end(record)
        self._since.pop(record.number, None)
        self._show(record)

    def _keep_trace(self, record: TrialRecord, trace: str) -> None:
        try:
            self.errors.mkdir(parents=True, exist_ok=True)
            with (self.errors / f"{record.name}.txt").open("a") as file:
                file.write(trace + "\n")
        except OSError as error:
            log.warning("the trace of %s could not be written: %s", record.name, error)

    def _show(self, changed: TrialRecord | None = None) -> None:
        try:
            self.display.update(changed)
        except OSError as error:
            # A closed terminal or pipe must not end the sweep.
            log.warning("the display could not be written: %s", error)


def trial_dirname(trial: Any) -> str:
    """Short folder name of a trial: Tune's default spells out every setting."""
    return f"{trial_name(trial.config['trial'])}-{trial.trial_id}"
