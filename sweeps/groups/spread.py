"""How far a mean over seeds can be trusted: Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and 95 % interval of the mean over seeds; of one seed the latter two are None.

    The interval is mean -+ t sd / sqrt(n) with t of n - 1 degrees of freedom: for values that scatter normally between
    seeds it holds the mean over all seeds 95 times of 100.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        numbers = np.asarray(values, dtype=np.float64)
        mean, count = float(numbers.mean()), len(numbers)
        if count < 2:
            return cls(mean, None, None, None, count)
        from scipy.stats import t

        deviation = float(numbers.std(ddof=1))
        half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
        return cls(mean, deviation, mean - half, mean + half, count)

    def overlaps(self, other: Spread) -> bool:
        """Whether the two intervals have a value in common; unknown ones do."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high
