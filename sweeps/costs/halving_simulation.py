"""How long a sweep takes: trials on their slots, and asynchronous halving on curves drawn at random.

Every trial has a quality, a standard normal number, and shows at each rung that quality with normal noise of half its
spread: between neighbouring rungs the ranks of trials correlate with about 0.8. How many trials halving stops depends on
nothing but ranks, so no scale of the objective comes in.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISE = 0.5
EVENTS = 200_000
"""Rung visits simulated in all, over all repetitions."""
REPETITIONS = 200


@dataclass(frozen=True)
class Simulated:
    """Means over the repetitions.

    Attributes:
        epochs: of one trial.
        busy: seconds that trials hold their places, added up.
        wall: seconds until the last trial has ended.
    """

    epochs: float
    busy: float
    wall: float


def cutoff(values: Sequence[float], reduction_factor: float) -> float:
    """The objective that a trial must reach at a rung: the quantile of the sorted values so far, linearly interpolated."""
    place = (len(values) - 1) * (1 - 1 / reduction_factor)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def simulate(
    epoch_seconds: Sequence[float],
    *,
    start_seconds: float,
    slots: int,
    epochs: int,
    rungs: Sequence[int] = (),
    reduction_factor: float = 3,
    seed: int = 0,
) -> Simulated:
    """Run all trials on their slots in simulated time.

    Args:
        epoch_seconds: of every trial, in the order in which they start.
        start_seconds: from a free slot to a trial's first step.
        slots: trials at once.
        epochs: of a trial that is not stopped.
        rungs: epochs at which halving decides; none stops no trial.
    """
    count = len(epoch_seconds)
    rng = np.random.default_rng(seed)
    repetitions = max(1, min(REPETITIONS, EVENTS // (count * (len(rungs) + 1)))) if rungs else 1
    totals = np.zeros(3)
    for _ in range(repetitions):
        quality = rng.standard_normal(count)
        shown = quality[:, None] + NOISE * rng.standard_normal((count, len(rungs)))
        totals += _one(epoch_seconds, shown, start_seconds, slots, epochs, list(rungs), reduction_factor)
    return Simulated(*(float(total) for total in totals / repetitions))


def _one(
    epoch_seconds: Sequence[float],
    shown: np.ndarray,
    start_seconds: float,
    slots: int,
    epochs: int,
    rungs: list[int],
    reduction_factor: float,
) -> tuple[float, float, float]:
    """Mean epochs, busy seconds and wall seconds of one repetition; `shown` is (trials, rungs)."""
    waiting = iter(range(len(epoch_seconds)))
    recorded: list[list[float]] = [[] for _ in rungs]
    stops = [*rungs, epochs]
    # Time, trial, and how many rungs it has passed; the time is that of its next rung or of its end.
    events: list[tuple[float, int, int]] = []
    done_epochs = busy = wall = 0.0

    def start(now: float) -> None:
        trial = next(waiting, None)
        if trial is not None:
            heapq.heappush(events, (now + start_seconds + stops[0] * epoch_seconds[trial], trial, 0))

    for _ in range(slots):
        start(0.0)
    while events:
        now, trial, passed = heapq.heappop(events)
        ends = passed == len(rungs)
        if not ends:
            value, others = shown[trial, passed], recorded[passed]
            ends = bool(others) and value < cutoff(others, reduction_factor)
            bisect.insort(others, value)
        if ends:
            done_epochs += stops[passed]
            busy += start_seconds + stops[passed] * epoch_seconds[trial]
            wall = now
            start(now)
        else:
            ahead = stops[passed + 1] - stops[passed]
            heapq.heappush(events, (now + ahead * epoch_seconds[trial], trial, passed + 1))
    return done_epochs / len(epoch_seconds), busy, wall
