"""What share of its epochs a trial of a sweep runs under asynchronous successive halving (ASHA), in expectation."""

from __future__ import annotations

from collections.abc import Sequence


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
