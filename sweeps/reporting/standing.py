"""How sweeps stand, as plain values: for the list of sweeps, programs that read JSON, and whoever is told of an end."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sweeps.core.display import time_left
from sweeps.reporting.history import SweepHistory
from sweeps.state import leaderboard


def standing(history: SweepHistory) -> dict[str, Any]:
    """Name, state, counts of trials, the best trial and its test metrics, and where all of it lies."""
    record, best = history.record, history.best
    return {
        "name": record.name,
        "scenario": record.scenario,
        "model": record.model,
        "state": history.state,
        "note": history.state_note,
        "created": record.created,
        "seconds": round(history.seconds, 1),
        "seconds_left": seconds_left(history),
        "planned": history.planned,
        "trials": dict(Counter(trial.outcome for trial in history.records)),
        "best": best
        and {
            "trial": best.name,
            "objective": best.objective,
            "epoch": best.record.best_epoch,
            "settings": best.record.varied,
        },
        "test": history.test,
        "group": history.group,
        "folder": str(record.folder),
        "tracking_uri": record.tracking_uri,
    }


def seconds_left(history: SweepHistory) -> float | None:
    """Time until a running sweep ends; None of another one, and before a trial has ended."""
    if history.state != "running":
        return None
    opening = history.openings[-1] if history.openings else {}
    slots = re.match(r"\d+", opening.get("resources", ""))
    records = [*history.records, *(repeat.record for repeat in history.repeats)]
    left = time_left(records, history.planned, int(slots[0]) if slots else 1, opening.get("repeats", 0))
    return None if left is None else round(left, 1)


def with_trials(history: SweepHistory) -> dict[str, Any]:
    """How a sweep stands, with its leaderboard: a row of all settings and validation metrics per trial, best first."""
    return {**standing(history), "leaderboard": leaderboard.rows(history.records)}
