"""How sure the first place is: what the lead of the best trial is worth beside the noise of its measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweeps.reporting.breakdown import Ranked, Ranks
from sweeps.reporting.history import SweepHistory
from sweeps.state.confirmation import Confirmed, confirmed, deviation, sentence_of

CLEAR = 2.0
"""A lead of so many standard errors is more than noise."""


@dataclass(frozen=True)
class Certainty:
    """What is known of the noise.

    Attributes:
        how: `seeds` (the best trials were repeated), `cases` (paired over validation cases), `epochs` (from the ups and downs
            of learning curves), or "".
        runner_up: the second trial, "" where there is none.
        lead: difference of the objectives of the two.
        error: standard error of that difference.
        own_error: standard error of the best objective over validation cases; None where ranks are not known.
        level: how many trials, the best included, are no farther from the best than the noise.
        confirmation: what repeats say, "" where there are none.
    """

    how: str = ""
    runner_up: str = ""
    lead: float = 0.0
    error: float = math.nan
    own_error: float | None = None
    level: int = 1
    confirmation: str = ""

    @property
    def is_clear(self) -> bool:
        if self.confirmation:
            return self.level == 1
        return self.lead > CLEAR * self.error

    @property
    def sentence(self) -> str:
        if self.confirmation:
            return self.confirmation
        if not self.how:
            return "How sure this is cannot be told from this sweep: one seed, and no measure of noise."
        lead, error = f"{self.lead:.4f}", f"{self.error:.4f}"
        over = "paired over validation cases" if self.how == "cases" else "from the ups and downs between epochs"
        verdict = "a lead beyond this noise" if self.is_clear else "within the noise"
        return f"Ahead of {self.runner_up} by {lead} (standard error {error}, {over}): {verdict}. One seed."


def certainty(history: SweepHistory, ranked: Ranked | None) -> Certainty:
    """Compare the lead of the best trial with the noise that is known."""
    trials = history.valued
    if not trials:
        return Certainty()
    best = trials[0]
    ranks = list(ranked.ranks.items()) if ranked else []
    by_cases = bool(ranks) and not history.monitors_loss and ranks[0][0] == best.name
    cases, seen = (len(ranks[0][1]["case"]) if by_cases else 0), int(history.fixed.get("valid_cases") or 0)
    # The objective was measured on a sample of the cases that are ranked here.
    scale = math.sqrt(cases / seen) if 0 < seen < cases else 1.0
    own = scale * objective_error(ranks[0][1]) if by_cases else None
    if over_seeds := confirmed(history.records):
        return _by_seeds(over_seeds, own)
    if len(trials) < 2:
        return Certainty(own_error=own)
    second = trials[1]
    lead = best.objective - second.objective
    if by_cases and len(ranks) > 1 and ranks[1][0] == second.name:
        how, error = "cases", scale * paired_error(ranks[0][1], ranks[1][1])
    else:
        noise = epoch_noise([trial.curve for trial in trials])
        if noise is None:
            return Certainty(runner_up=second.name, lead=lead, own_error=own)
        how, error = "epochs", math.sqrt(2) * noise
    level = sum(best.objective - trial.objective <= CLEAR * error for trial in trials)
    return Certainty(how, second.name, lead, error, own, level)


def _by_seeds(found: list[Confirmed], own: float | None) -> Certainty:
    """What the repeats say of the winner and the second."""
    said, level = sentence_of(found), sum(not item.is_behind for item in found)
    if len(found) < 2:
        return Certainty("seeds", own_error=own, confirmation=said)
    first, second = found[:2]
    spread = deviation([item.values for item in found])
    error = spread * math.sqrt(1 / len(first.values) + 1 / len(second.values))
    return Certainty("seeds", second.name, first.mean - second.mean, error, own, level, said)


def objective_error(ranks: Ranks) -> float:
    """Standard error of the mean MRR of both domains over the cases."""
    return _error({domain: 1 / ranks["sampled"][ranks["domain"] == domain] for domain in np.unique(ranks["domain"])})


def paired_error(first: Ranks, second: Ranks) -> float:
    """Standard error of the difference of two trials' mean MRR of both domains, over the same cases in the same order."""
    difference = 1 / first["sampled"] - 1 / second["sampled"]
    return _error({domain: difference[first["domain"] == domain] for domain in np.unique(first["domain"])})


def _error(values: dict[int, np.ndarray]) -> float:
    """Of the mean over domains of the mean over cases."""
    if any(len(part) < 2 for part in values.values()):
        return math.nan
    return math.sqrt(sum(part.var(ddof=1) / len(part) for part in values.values())) / len(values)


def epoch_noise(curves: list[list[float]]) -> float | None:
    """Standard deviation of one measurement around a smooth curve, from second differences; None with fewer than five.

    A second difference of independent noise has six times its variance; the median keeps rising starts of curves out.
    """
    found = [abs(d) for curve in curves for d in np.diff(curve[1:], n=2)] if curves else []
    if len(found) < 5:
        return None
    return float(1.4826 * np.median(found) / math.sqrt(6)) or None
