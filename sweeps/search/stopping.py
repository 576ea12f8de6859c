"""Did stopping help? What successive halving saved, whether the winner was in danger, and which stopped trials may have been better.

All of it follows from the trials' curves alone. Of a stopped trial the curve ends, and its value (best so far) can only rise from
there; what it would have reached is told from what the trials gained after the same epoch that were trained to their end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from llmemf import text_format
from sweeps.search.rungs import rungs
from sweeps.state.trial_records import TrialRecord, best_of

FACTORS = (2, 3, 4)
LEAST = 3
"""From fewer finished trials nothing is said of what a stopped one would have gained."""


@dataclass(frozen=True)
class Place:
    """The winner at a rung: its rank among the trials that reached this epoch, and how many were stopped before it."""

    epoch: int
    rank: int
    trials: int
    stopped_before: int


@dataclass(frozen=True)
class Stopped:
    """What a stopped trial would have reached.

    Attributes:
        expected: its value at its end.
        chance: that it would have ended above the winner.
        finished: from so many trials' gains.
    """

    record: TrialRecord
    expected: float
    chance: float
    finished: int


@dataclass(frozen=True)
class Stopping:
    """What stopping did to a sweep.

    Attributes:
        trials: of the search.
        spent, saved: epochs of the search, and those that stopped trials did not train.
        places: of the winner at the sweep's rungs, as far as it was trained.
        fates: grace period and reduction factor -> epoch after which the winner would have been stopped, 0 where never, None where
            the curves do not tell.
        stopped: those of whose end something can be said, the most promising first.
        unknown: stopped trials after whose last epoch fewer than `LEAST` trials went to their end.
    """

    winner: TrialRecord
    trials: int
    spent: int
    saved: float
    places: list[Place]
    fates: dict[tuple[int, int], int | None]
    stopped: list[Stopped]
    unknown: list[TrialRecord]

    @property
    def sentence(self) -> str:
        """Epochs saved, and what they may have cost."""
        cut, whole = len(self.stopped) + len(self.unknown), self.spent + self.saved
        said = (
            f"ASHA stopped {cut} of {text_format.plural(self.trials, 'trial')} and saved {self.saved:,.0f} of {whole:,.0f} "
            f"epochs ({text_format.percent(self.saved / whole)})"
        )
        if not self.stopped:
            return f"{said}; too few trials went to their end to say whether a stopped one was better."
        first = self.stopped[0]
        chance = text_format.chance(first.chance)
        rest = f", nothing is known of {len(self.unknown)}" if self.unknown else ""
        return f"{said}; {first.record.name} had the best chance to pass {self.winner.name}: {chance}{rest}."


def stopping(records: Iterable[TrialRecord], milestones: Sequence[int], factor: float) -> Stopping | None:
    """Look back at a search; None where no trial was stopped.

    Args:
        milestones: epochs after which the sweep stopped trials.
        factor: its reduction factor.
    """
    searched = [record for record in records if not record.repeats and record.values]
    cut, winner = [record for record in searched if record.outcome == "pruned"], best_of(searched)
    if not cut or winner is None or not milestones:
        return None
    full = full_epochs(searched)
    epochs, grace = max(record.epochs for record in searched), milestones[0]
    found = {record.number: _end_of(record, searched, winner) for record in cut}
    graces = sorted({grace_period for grace_period in (1, 2, 3, grace, 2 * grace) if grace_period < epochs})
    factors = sorted({*FACTORS, *([int(factor)] if factor == int(factor) else [])})
    return Stopping(
        winner=winner,
        trials=len(searched),
        spent=sum(record.epoch for record in searched),
        saved=sum(max(0.0, full - record.epoch) for record in cut),
        places=[_place(winner, searched, epoch) for epoch in milestones if epoch <= winner.epoch],
        fates={(g, f): _fate(winner, searched, rungs(epochs, g, f), f) for g in graces for f in factors},
        stopped=sorted((end for end in found.values() if end), key=lambda end: (-end.chance, end.record.number)),
        unknown=[record for record in cut if found[record.number] is None],
    )


def full_epochs(records: Iterable[TrialRecord]) -> float:
    """Epochs of a trial that nobody stops: the mean of the completed ones, which may end by their own patience; else the maximum."""
    records = list(records)
    completed = [record.epoch for record in records if record.outcome == "completed"]
    return fmean(completed) if completed else float(max((record.epochs for record in records), default=0))


def _place(winner: TrialRecord, records: Sequence[TrialRecord], epoch: int) -> Place:
    there = [record.values[epoch - 1] for record in records if record.epoch >= epoch]
    rank = 1 + sum(value > winner.values[epoch - 1] for value in there)
    before = sum(record.outcome == "pruned" and record.epoch < epoch for record in records)
    return Place(epoch, rank, len(there), before)


def _fate(winner: TrialRecord, records: Sequence[TrialRecord], milestones: Sequence[int], factor: float) -> int | None:
    """Epoch after which other rungs would have stopped the winner, if all trials reached each of them together.

    A stopped trial whose curve ends before a rung is taken once as it stood, once with the largest gain that any trial made over
    the same epochs; where that makes a difference, the curves do not tell.
    """
    ends = {_stopped_after(winner, records, milestones, factor, rising=rising) for rising in (False, True)}
    return ends.pop() if len(ends) == 1 else None


def _stopped_after(
    winner: TrialRecord, records: Sequence[TrialRecord], milestones: Sequence[int], factor: float, *, rising: bool
) -> int:
    left = list(records)
    for epoch in milestones:
        # Its own patience or an error ends a trial whatever halving does.
        left = [record for record in left if record.epoch >= epoch or record.outcome == "pruned"]
        if winner not in left:
            return 0
        values = [_value_at(record, epoch, records, rising=rising) for record in left]
        kept = math.ceil(len(left) / factor)
        left = [record for record, own in zip(left, values) if sum(value > own for value in values) < kept]
        if winner not in left:
            return epoch
    return 0


def _value_at(record: TrialRecord, epoch: int, records: Sequence[TrialRecord], *, rising: bool) -> float:
    if record.epoch >= epoch:
        return record.values[epoch - 1]
    gains = [other.values[epoch - 1] - other.values[record.epoch - 1] for other in records if other.epoch >= epoch]
    return record.values[-1] + (max(gains, default=math.inf) if rising else 0.0)


def _end_of(record: TrialRecord, records: Sequence[TrialRecord], winner: TrialRecord) -> Stopped | None:
    """Where a stopped trial would have ended: its value and a gain like those of the finished ones (a t distribution)."""
    from scipy.special import stdtr

    gains = [
        other.values[-1] - other.values[record.epoch - 1]
        for other in records
        if other.outcome == "completed" and other.epoch > record.epoch
    ]
    if len(gains) < LEAST:
        return None
    expected, error = record.values[-1] + fmean(gains), stdev(gains) * math.sqrt(1 + 1 / len(gains))
    ahead = expected - winner.values[-1]
    chance = float(stdtr(len(gains) - 1, ahead / error)) if error else float(ahead > 0)
    return Stopped(record, expected, chance, len(gains))
