"""Epochs that count: the rungs of successive halving and the epochs that it leaves, and those of a curve that a model looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeps.state.sweep_record import SweepRecord


def rungs(epochs: int, grace_period: int, reduction_factor: float) -> list[int]:
    """Epochs at which successive halving decides: grace, grace * factor, ... below the last epoch."""
    milestones, milestone = [], float(grace_period)
    while milestone < epochs:
        milestones.append(math.ceil(milestone))
        milestone *= reduction_factor
    return milestones


def rungs_of(record: SweepRecord, epochs: int) -> list[int]:
    """The rungs of a sweep whose trials have so many epochs at most; none without a scheduler, or before an epoch."""
    if record.scheduler == "none" or not epochs:
        return []
    return rungs(epochs, min(record.grace_period, epochs), record.reduction_factor)


def milestones(values: Mapping[int, float]) -> dict[int, float]:
    """A curve at epochs 1, 2, 3, 4, 6, 8, 12, ... and its last one: the model needs no more of it."""
    last = max(values)
    return {epoch: value for epoch, value in values.items() if epoch == last or is_milestone(epoch)}


def is_milestone(epoch: int) -> bool:
    """Whether a model looks at this epoch of a curve: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    while epoch % 2 == 0 and epoch > 3:
        epoch //= 2
    return epoch in (1, 2, 3)


def expected_epochs(trials: int, epochs: int, rungs: Sequence[int], reduction_factor: float) -> float:
    """Epochs of a mean trial, if at each rung every trial is equally likely to have any rank among those before it.

    The ranks at two rungs are taken to be independent of each other.

    Args:
        epochs: of a trial that is never stopped.
        rungs: epochs at which halving decides, ascending; none stops no trial.
    """
    left, total, before = float(trials), 0.0, 0
    for rung in rungs:
        total += left * (rung - before)
        left, before = _survivors(left, reduction_factor), rung
    return (total + left * (epochs - before)) / trials


def _survivors(trials: float, reduction_factor: float) -> float:
    """How many of so many trials pass a rung; a fraction of a trial counts as that share of the next one."""
    whole = int(trials)
    passed = sum(_chance(earlier, reduction_factor) for earlier in range(whole))
    return passed + (trials - whole) * _chance(whole, reduction_factor)


def _chance(earlier: int, reduction_factor: float) -> float:
    """Chance that a trial passes a rung where so many have been before it.

    It passes at or above the linearly interpolated quantile 1 - 1/reduction_factor of the earlier values; a random value
    lies above the j-th smallest of k others with chance (k + 1 - j) / (k + 1).
    """
    if not earlier:
        return 1.0
    place = (earlier - 1) * (1 - 1 / reduction_factor)
    return (earlier - place) / (earlier + 1)
