"""Whether two systems differ by more than chance: paired tests over the cases of the test split.

The value of a case is its gain (reciprocal rank, discounted gain) averaged over the seeds, so that the mean over cases is
the number in the table. A paired two-sided t-test asks whether the means of two systems differ, which is what the table
compares; with hundreds of cases the mean of their differences is normal enough. Wilcoxon's signed ranks would ask whether
the typical difference is zero: most cases are missed by both systems, and the many small differences far down the ranking
would outweigh the few at its top that make the metric. Cases stand for further users; how much training varies is shown by the
spread over seeds. The interval of a difference has both: its bootstrap draws cases and seeds anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

LEVEL = 0.95
BEST = "best"
"""The reference of rows that are each tested against the best other one."""


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


@dataclass(frozen=True)
class Test:
    """A system against the best other one.

    Attributes:
        against: the other system.
        difference: of the means, positive where this system is better.
        p: two-sided, of the paired t-test; NaN with fewer than two cases.
        adjusted: the same after Holm's correction for all tests of the domain and metric.
        interval: 95 % of the difference for other users and other seeds, None where it was not computed.
    """

    # Pytest would otherwise take the name for a test class.
    __test__ = False

    against: str
    difference: float
    p: float
    adjusted: float
    interval: tuple[float, float] | None = None


def gains(ranks: np.ndarray, metric: str) -> np.ndarray:
    """What each case adds to the mean: 1 / rank, or 1 / log2(rank + 1) up to the cut.

    Args:
        ranks: (cases,) from 1.
        metric: `mrr`, `ndcg_5`, `ndcg_10`.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if metric == "mrr":
        return 1 / ranks
    name, _, cut = metric.partition("_")
    assert name == "ndcg", metric
    return (ranks <= int(cut)) / np.log2(ranks + 1)


def mean_over_seeds(ranks: Sequence[np.ndarray], metric: str) -> np.ndarray:
    """(cases,) gain of each case, averaged over the seeds' ranks of the same cases."""
    return np.mean([gains(of_seed, metric) for of_seed in ranks], axis=0)


def intervals(
    gains_by_row: Mapping[str, np.ndarray], tests: Mapping[str, Test], draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % interval of each tested row's difference: a bootstrap that draws the test cases, and each system's seeds, anew.

    Two systems of a difference meet the same cases in each draw. What the search of a configuration varies is not in it.

    Args:
        gains_by_row: row -> (seeds, cases) gains, the same cases in the same order.
        tests: row -> whom it was tested against.
        draws: bootstrap samples; the random numbers are the same in every call.
    """
    if not tests:
        return {}
    rng = np.random.default_rng(0)
    count = next(iter(gains_by_row.values())).shape[1]
    cases_DC = np.empty((draws, count))
    for drawn_C in cases_DC:
        drawn_C[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    means = {}
    for name, gains_SC in gains_by_row.items():
        seeds = len(gains_SC)
        drawn_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
        means[name] = (drawn_DS * (cases_DC @ gains_SC.T)).sum(1) / gains_SC.size
    found = {}
    for name, test in tests.items():
        low, high = np.quantile(means[name] - means[test.against], [0.025, 0.975])
        found[name] = float(low), float(high)
    return found


def paired_p(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p of the paired t-test over cases; 1 where the two are the same everywhere."""
    if len(first) < 2:
        return math.nan
    if np.array_equal(first, second):
        return 1.0
    from scipy.stats import ttest_rel

    return float(ttest_rel(first, second).pvalue)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: the i-th smallest of m times m - i + 1, never below the one before it, at most 1.

    NaN stays NaN and does not count.
    """
    known = sorted((key for key, p in values.items() if not math.isnan(p)), key=lambda key: values[key])
    adjusted = [min(1.0, (len(known) - index) * values[key]) for index, key in enumerate(known)]
    return {
        **dict.fromkeys(values, math.nan),
        **dict(zip(known, np.maximum.accumulate(adjusted).tolist(), strict=True)),
    }


def tests_against(reference: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Test]:
    """Paired tests of rows against one of them, with Holm's correction.

    Args:
        pairs: row -> its values and those of the reference, of the same cases or seeds in the same order.
    """
    p_values = {name: paired_p(*pair) for name, pair in pairs.items()}
    adjusted = holm(p_values)
    return {
        name: Test(reference, float(own.mean() - other.mean()), p_values[name], adjusted[name])
        for name, (own, other) in pairs.items()
    }


def paired_tests(values: Mapping[str, np.ndarray], reference: str = BEST) -> dict[str, Test]:
    """Every row against one that was named beforehand, or against the best other one.

    Against the best, the leader meets the second and all others the leader. The leader's test is then that of the second, so
    that m rows make m - 1 tests for Holm's correction either way.

    Args:
        values: row -> (cases,) values, the same cases in the same order; higher is better.
        reference: one of them, which has no test, or `best`.
    """
    ranked = sorted(values, key=lambda name: -values[name].mean())
    base = ranked[0] if reference == BEST else reference
    tests = tests_against(base, {name: (own, values[base]) for name, own in values.items() if name != base})
    if reference == BEST and tests:
        second = ranked[1]
        ahead = float(values[base].mean() - values[second].mean())
        tests[base] = replace(tests[second], against=second, difference=ahead)
    return tests
