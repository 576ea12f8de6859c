"""Curves of any settings, out of recorded ones at random points: what a search between grid values would have seen.

One Gaussian process per epoch over the seed-means (sklearn's, lengths by its likelihood) stands for the truth; what a seed does is
drawn from the recorded differences of whole curves to their seed-mean. `held_out` says how far to believe it.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from curves import OTHER_COLUMNS
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from sweeps.search.block import LOG_RATIO
from sweeps.search.space import Space
from sweeps.search.space_entries import build_space

SEARCHED = 4000
"""Random points among which the best true value is looked for, beside steps from the best of them."""


@dataclass
class Surrogate:
    """A landscape over the whole space, with the interface of `Curves` that replays use.

    Attributes:
        space: the recorded ranges as lists of three values (shares: steps of 0.1), between which a search may go.
        final: true values at the recorded points, to count what a whole recording costs.
        goal_value: the best true value found.
        best_point: its settings.
        held_out: Spearman's correlation of left-out seed-means with their prediction.
    """

    space: Space
    epochs: int
    final: np.ndarray
    goal_value: float
    held_out: float
    noise: float
    _processes: list[GaussianProcessRegressor]
    _residuals: np.ndarray
    best_point: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Surrogate:
        keys = [key for key in table if key not in OTHER_COLUMNS]
        entries: dict[str, Any] = {}
        for key in keys:
            low, high = float(table[key].min()), float(table[key].max())
            middle = (low * high) ** 0.5 if low > 0 and high / low >= LOG_RATIO else (low + high) / 2
            entries[key] = [low, float(f"{middle:.4g}"), high]
        if {"alpha", "beta"} <= set(keys):
            del entries["alpha"], entries["beta"]
            entries["alpha, beta"] = {"simplex": 0.1}
        space = build_space(entries)
        epochs = int(table["epoch"].max())
        whole = table.pivot_table(index=keys, columns=["seed", "epoch"], values="objective").dropna()
        settings = [dict(zip(keys, values)) for values in whole.index]
        curves = whole.to_numpy().reshape(len(whole), -1, epochs)
        means = curves.mean(axis=1)
        places = np.array([space.coordinates(point) for point in settings])
        processes = [_fit(places, column) for column in means.T]
        residuals = (curves - means[:, None, :]) * np.sqrt(curves.shape[1] / (curves.shape[1] - 1))
        left_out = []
        for index in range(len(places)):
            rest = np.arange(len(places)) != index
            fixed = GaussianProcessRegressor(processes[-1].kernel_, optimizer=None, normalize_y=True)
            left_out.append(fixed.fit(places[rest], means[rest, -1]).predict(places[[index]])[0])
        found = cls(
            space, epochs, means[:, -1], float("nan"), float(spearmanr(left_out, means[:, -1])[0]),
            float(residuals[:, :, -1].std() / means[:, -1].max()), processes, residuals.reshape(-1, epochs),
        )  # fmt: skip
        best = found._best(places)
        found.goal_value = float(processes[-1].predict([best])[0])
        found.best_point = space.at([float(part) for part in best])
        return found

    def _best(self, places: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(0)
        tried = np.vstack([places, rng.random((SEARCHED, places.shape[1]))])
        for step in (0.2, 0.1, 0.05, 0.02):
            values = self._processes[-1].predict(tried)
            best = tried[np.argsort(-values)[:20]]
            tried = np.vstack(
                [best, np.clip(np.repeat(best, 50, axis=0) + rng.normal(0, step, (1000, best.shape[1])), 0, 1)]
            )
        return tried[self._processes[-1].predict(tried).argmax()]

    def mixture(self, choice: dict[str, Any], between: str = "") -> np.ndarray:
        """The true curve at settings, (epochs,)."""
        place = np.array([self.space.coordinates(choice)])
        return np.maximum.accumulate([process.predict(place)[0] for process in self._processes])

    def truth(self, mixture: np.ndarray) -> float:
        return float(mixture[-1])

    def curve(self, mixture: np.ndarray, seed_of: np.ndarray) -> np.ndarray:
        """A curve as one seed gives it; the same settings in the same replay give the same one."""
        key = hashlib.sha256(mixture.tobytes() + seed_of.tobytes()).digest()
        row = np.random.default_rng(list(key)).integers(len(self._residuals))
        return np.maximum.accumulate(mixture + self._residuals[row])


def _fit(places: np.ndarray, values: np.ndarray) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (0.1, 100.0)) * RBF(np.ones(places.shape[1]), (0.15, 20.0)) + WhiteKernel(
        0.1, (1e-3, 1.0)
    )
    with warnings.catch_warnings():
        # A setting without effect has a length at its bound, and some curves hardly any noise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, normalize_y=True).fit(places, values)
