"""Which metrics of a trial a sweep may see: the one filter, applied where a report enters the event log.

Search, scheduler, MLflow, leaderboard and report read the event log alone, so no test metric can reach any of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmemf.ranking_names import RANKINGS

PREFIXES = ("train/", *(f"val{ending}/" for ending, _ in RANKINGS.values()))
NAMES = (
    "objective",
    "seconds_train",
    "seconds_valid",
    "sequences_per_second",
    "cpu_percent",
    "memory_gb",
    "gpu_mem_gb",
)
PROGRESS = ("epoch", "best_epoch", "stopped_early")
"""What a report says of the trial itself: part of the event, no metric."""


def epoch_result(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a trial's report that enters the event log, in plain types.

    Training and validation metrics with finite values, and `PROGRESS`; nothing that Ray Tune added, never a test metric.
    """
    return {
        "epoch": int(report["epoch"]),
        "best_epoch": int(report["best_epoch"]),
        **{
            name: float(value)
            for name, value in report.items()
            if (name in NAMES or name.startswith(PREFIXES)) and math.isfinite(value)
        },
        "stopped_early": bool(report.get("stopped_early", False)),
    }


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a stored epoch."""
    return {name: value for name, value in result.items() if name not in PROGRESS}
