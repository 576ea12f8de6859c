"""What replayed searches reached, in figures: epochs to the goal, failures, and how far early epochs foretell the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from curves import Curves
from replay import Course
from scipy.stats import rankdata

RESAMPLES = 2000


@dataclass(frozen=True)
class Landscape:
    """What the table itself says.

    Attributes:
        best: the point with the highest seed-mean final objective.
        goal: the share of it that a search has to reach.
        good: how many points fulfil that.
        noise: standard deviation over seeds of the best point's final objective.
        luckiest: per seed, the seed-mean of the point that leads with that seed alone; below the goal, even the whole grid
            picks wrongly.
    """

    best: int
    value: float
    goal: float
    good: int
    noise: float
    luckiest: tuple[float, ...]


def landscape(curves: Curves, share: float) -> Landscape:
    """Args:
    share: of the best seed-mean, for example 0.99.
    """
    best = int(curves.final.argmax())
    goal = share * float(curves.final[best])
    ends = curves.objective[:, :, -1]
    noise = float(ends[best].std(ddof=1)) if len(curves.seeds) > 1 else float("nan")
    leaders = tuple(float(curves.final[index]) for index in ends.argmax(axis=0))
    return Landscape(best, float(curves.final[best]), goal, int((curves.final >= goal).sum()), noise, leaders)


def correlations(curves: Curves) -> np.ndarray:
    """Spearman's correlation of one seed's objective after each epoch with the final seed-mean, (seeds, epochs)."""
    final = rankdata(curves.final)
    return np.array(
        [
            [np.corrcoef(rankdata(curves.objective[:, seed, epoch]), final)[0, 1] for epoch in range(curves.epochs)]
            for seed in range(len(curves.seeds))
        ]
    )


@dataclass(frozen=True)
class Outcome:
    """Many replays of one way to search.

    Attributes:
        reached: per replay, epochs to the goal; infinite where it was missed.
        spent: per replay, all epochs.
        rounds: per replay, epochs one after the other.
        cost: per replay, epochs to the goal; where it was missed, all epochs and those of the whole grid after them.
    """

    reached: np.ndarray
    spent: np.ndarray
    rounds: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(cls, courses: Sequence[Course], goal: float, grid_epochs: int) -> Outcome:
        reached = np.array([course.reached(goal) for course in courses])
        spent = np.array([course.spent for course in courses])
        rounds = np.array([course.rounds for course in courses])
        return cls(reached, spent, rounds, np.where(np.isfinite(reached), reached, spent + grid_epochs))

    @property
    def failures(self) -> float:
        """Share of replays whose last incumbent misses the goal."""
        return float(np.isinf(self.reached).mean())

    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the epochs to the goal, failures counted as never."""
        first, median, third = np.quantile(self.reached, [0.25, 0.5, 0.75], method="inverted_cdf")
        return float(first), float(median), float(third)


def mean_difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired differences first - second with its 95 % bootstrap interval (percentiles)."""
    difference = first - second
    draws = np.random.default_rng(seed).integers(len(difference), size=(RESAMPLES, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)
