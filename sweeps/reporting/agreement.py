"""Stored candidates against all items, over trials: do both rank the trials alike?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.reporting.history import SweepHistory


@dataclass(frozen=True)
class Agreement:
    """One domain.

    Attributes:
        points: number of the trial, MRR among the stored candidates, MRR among all items.
        correlation: Spearman's over the trials; None with fewer than three, or where one side is constant.
        is_identical: whether both are the same numbers.
    """

    domain: str
    points: list[tuple[int, float, float]]
    correlation: float | None
    is_identical: bool

    @property
    def sentence(self) -> str:
        if self.is_identical:
            return "Both are the same numbers: the stored candidates are all items of the domain."
        if self.correlation is None:
            return "Too few trials to compare their orders."
        return f"Spearman's rank correlation over {len(self.points)} trials: {self.correlation:.2f}."


def agreements(history: SweepHistory) -> list[Agreement]:
    """One per domain whose trials report both rankings; none for a single trial."""
    found = []
    for domain in history.domains:
        names = f"val/{domain}/mrr", f"val_full/{domain}/mrr"
        metrics = {trial.record.number: trial.record.metrics for trial in history.valued}
        points = [(n, known[names[0]], known[names[1]]) for n, known in metrics.items() if known.keys() >= {*names}]
        if points and len(metrics) > 1:
            is_identical = all(sampled == full for _, sampled, full in points)
            correlation = rank_correlation([p[1] for p in points], [p[2] for p in points])
            found.append(Agreement(domain, points, correlation, is_identical))
    return found


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's, None where one side is constant or there are fewer than three."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(first, second).statistic)
