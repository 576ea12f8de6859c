"""A Gaussian process over settings and epochs: what every epoch of every trial, stopped ones too, says of a point's last epoch.

The objective of trial i at settings x after epoch e is a common curve, plus what the settings do, plus what chance does to the whole
trial (one seed), plus a rest. With u = log e / log E between 0 (first epoch) and 1 (last):

    k = COMMON (1 + u u') + amplitude Matern52(x, x') r(u, u') + chance [i = i'] r(u, u') + REST [i = i', e = e']

r falls with |u - u'|: an early epoch tells less of the last one than a late one does. A length per coordinate and the ratio of
chance to amplitude are chosen by the likelihood with a prior, out of a few values each, so that the fit is quick and the same
everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtr

Array = NDArray[np.float64]
LENGTHS = (0.35, 0.8, 2.0, 6.0)
CHANCES = (0.05, 0.2, 0.6, 1.5)
"""Variance that chance gives a trial, as a multiple of what the settings give it."""
COMMON, REST = 4.0, 0.01
FORGETTING = 0.8
"""Distance in u over which the correlation of two epochs falls to 0.6."""
PASSES = 2
PLAUSIBLE = 2.5
"""Standard deviations above the mean that are still plausible."""


@dataclass(frozen=True)
class Seen:
    """Observations, one per trial and epoch.

    Attributes:
        points: coordinates between 0 and 1, (observations, coordinates).
        trials: which trial each belongs to.
        u: log epoch / log last epoch.
        values: objective.
    """

    points: Array
    trials: NDArray[np.int64]
    u: Array
    values: Array


class Model:
    """Posterior of the objective after the last epoch.

    Args:
        seen: at least two observations.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.mean, self.spread = float(seen.values.mean()), float(seen.values.std()) or 1.0
        self._targets = (seen.values - self.mean) / self.spread
        self._points, self._place = np.unique(seen.points, axis=0, return_inverse=True)
        self._apart = (self._points[:, None, :] - self._points[None, :, :]) ** 2
        self._epochs = _recalled(seen.u[:, None], seen.u[None, :])
        self._same = (seen.trials[:, None] == seen.trials[None, :]).astype(float)
        self._common = COMMON * (1 + np.outer(seen.u, seen.u))
        self.lengths, self.chance = self._fit()
        self._factor = cho_factor(self._covariance(self.lengths, self.chance), lower=True)
        self._weights = cho_solve(self._factor, self._targets)

    def _covariance(self, lengths: Array, chance: float) -> Array:
        of_settings = _matern(self._apart @ (1 / lengths**2))[np.ix_(self._place, self._place)]
        return self._common + (of_settings + chance * self._same) * self._epochs + REST * np.eye(len(self.seen.u))

    def _score(self, lengths: Array, chance: float) -> float:
        """Log likelihood with a prior that keeps lengths near 1."""
        factor = cho_factor(self._covariance(lengths, chance), lower=True, check_finite=False)
        fit = float(self._targets @ cho_solve(factor, self._targets))
        likelihood = -0.5 * fit - float(np.log(np.diag(factor[0])).sum())
        return likelihood - 0.5 * float((np.log(lengths) ** 2).sum()) / 1.5 - 0.5 * math.log(chance / 0.3) ** 2 / 2

    def _fit(self) -> tuple[Array, float]:
        """One coordinate after the other, each at its best value."""
        lengths, chance = np.full(self.seen.points.shape[1], LENGTHS[1]), CHANCES[1]
        best = self._score(lengths, chance)
        for _ in range(PASSES):
            before = best
            for value in CHANCES:
                if (score := self._score(lengths, value)) > best:
                    best, chance = score, value
            for place in range(len(lengths)):
                for value in LENGTHS:
                    trial = lengths.copy()
                    trial[place] = value
                    if (score := self._score(trial, chance)) > best:
                        best, lengths = score, trial
            if best == before:
                break
        return lengths, chance

    def at_the_end(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation after the last epoch at points, (points,) each, without a trial's own chance."""
        apart = ((points[:, None, :] - self.seen.points[None, :, :]) ** 2) @ (1 / self.lengths**2)
        recalled = _recalled(np.ones((1, 1)), self.seen.u[None, :])
        cross = COMMON * (1 + self.seen.u)[None, :] + _matern(apart) * recalled
        mean = cross @ self._weights
        inner = solve_triangular(self._factor[0], cross.T, lower=True)
        variance = np.maximum(2 * COMMON + 1 - (inner**2).sum(axis=0), 1e-9)
        return self.mean + self.spread * mean, self.spread * np.sqrt(variance)

    def gain(self, points: Array) -> Array:
        """Expected improvement over the best point seen, by the model and not by its luckiest trial, (points,)."""
        best = float(self.at_the_end(self._points)[0].max())
        mean, deviation = self.at_the_end(points)
        z = (mean - best) / deviation
        return deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))

    def plausible(self, points: Array) -> Array:
        """What the objective after the last epoch could be, by the model, if it is as good as chance allows, (points,)."""
        mean, deviation = self.at_the_end(points)
        return mean + PLAUSIBLE * deviation


def _matern(squared: Array) -> Array:
    distance = np.sqrt(5 * squared)
    return (1 + distance + distance**2 / 3) * np.exp(-distance)


def _recalled(first: Array, second: Array) -> Array:
    return np.exp(-0.5 * ((first - second) / FORGETTING) ** 2)
