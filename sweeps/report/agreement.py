"""Stored candidates against all items, over trials: do both rank the trials alike?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.report.advice import rank_correlation

if TYPE_CHECKING:
    from sweeps.report.gather import ReportData


@dataclass(frozen=True)
class Agreement:
    """One domain.

    Attributes:
        points: number of the trial, MRR among the stored candidates, MRR among all items.
        correlation: Spearman's over the trials; None with fewer than three, or where one side is constant.
        identical: whether both are the same numbers.
    """

    domain: str
    points: list[tuple[int, float, float]]
    correlation: float | None
    identical: bool

    @property
    def sentence(self) -> str:
        if self.identical:
            return "Both are the same numbers: the stored candidates are all items of the domain."
        if self.correlation is None:
            return "Too few trials to compare their orders."
        return f"Spearman's rank correlation over {len(self.points)} trials: {self.correlation:.2f}."


def agreements(findings: ReportData) -> list[Agreement]:
    """One per domain whose trials report both rankings."""
    found = []
    for domain in findings.domains:
        names = f"val/{domain}/mrr", f"val_full/{domain}/mrr"
        points = [
            (story.record.number, story.record.metrics[names[0]], story.record.metrics[names[1]])
            for story in findings.valued
            if all(name in story.record.metrics for name in names)
        ]
        if points:
            identical = all(sampled == full for _, sampled, full in points)
            correlation = rank_correlation([p[1] for p in points], [p[2] for p in points])
            found.append(Agreement(domain, points, correlation, identical))
    return found
