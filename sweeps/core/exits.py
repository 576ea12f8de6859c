"""How a sweep or group ends: its exit code and result, and the end of a process whose Ray no longer answers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rich.console import Console

from sweeps.core.console import print_resume
from sweeps.core.interrupt import StopRequest
from sweeps.state.trial_records import TrialRecord

COMPLETED, ALL_FAILED, NEEDS_USER, TIME_SPENT, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130
CLUSTER_LOST = "the cluster was lost"


@dataclass
class Result:
    """How a sweep ended.

    Attributes:
        exit_code: 0 completed, 1 every trial failed, 2 it had to stop, 3 its time budget was spent, 4 the search has ended
            but trials failed, 130 interrupted by the user; 2, 3 and 130 leave a sweep that `--resume` continues.
        test: test metrics of the best trial; empty unless the search has ended.
        undelivered: what MLflow did not get, in one line; "" if it has all.
    """

    exit_code: int
    records: list[TrialRecord]
    test: dict[str, float]
    undelivered: str = ""


def stopped_code(stop: StopRequest) -> int:
    """The exit code where it was stopped before its end."""
    return TIME_SPENT if stop.planned else INTERRUPTED if stop.reason == "interrupted" else NEEDS_USER


def exit_stuck(console: Console, reason: str, resume_command: str) -> None:
    """End a process whose Ray no longer answers."""
    print_resume(console, f"{reason}; Ray did not answer in time. What was saved continues with:", resume_command)
    # Nothing of Ray in this process can be ended any more, and it would hold the exit up for minutes.
    os._exit(NEEDS_USER if reason == CLUSTER_LOST else INTERRUPTED)
