"""Which trials of a search run again with new seeds, and how sure their order is.

One seed cannot tell trials that differ by less than its noise, and the best of many is mostly a lucky one. So the best few
race: in each round all that are left run once more with the same new seed, and those that are clearly behind drop out. Which
trials run next follows from the records alone, so that a driver that continues comes to the same.

How sure an order is follows from the usual model of values over seeds: normal around each trial's mean, with one standard
deviation, which is pooled over all repeated trials (n - 1 degrees of freedom for each). With no other knowledge of the means,
each then has a t distribution around the mean of its values. From it come the chance that a trial is above the leader (below
5 %: clearly behind) and the chance that it is the best of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from llmemf import text_format
from sweeps.state.trial_records import TrialRecord, ranked, seed_values

BEHIND = 0.05
"""A trial that is above the leader with a smaller chance is clearly behind."""
SEED_OFFSET = 1000
"""The first new seed comes so far after the sweep's own: groups train with the seeds right after it."""
DRAWS = 20_000


@dataclass(frozen=True)
class Confirmed:
    """A trial over seeds.

    Attributes:
        values: its objective and those of its repeats.
        deviation: sample standard deviation of them.
        best: chance that no other confirmed trial is better.
        above: chance that it is better than the winner; a half for the winner itself.
    """

    record: TrialRecord
    values: list[float]
    deviation: float
    best: float
    above: float

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def is_behind(self) -> bool:
        """Whether it can be told from the winner."""
        return self.above < BEHIND


def confirmed(records: Iterable[TrialRecord]) -> list[Confirmed]:
    """The trials that were repeated, the winner first; empty where none was."""
    found = seed_values(records := list(records))
    order = [record for record in ranked(records) if record.number in found]
    values = [found[record.number] for record in order]
    chances = zip(chances_of_best(values), chances_above(values, 0), strict=True) if values else ()
    return [
        Confirmed(record, own, deviation([own]), best, above)
        for record, own, (best, above) in zip(order, values, chances, strict=True)
    ]


def sentence_of(found: Sequence[Confirmed]) -> str:
    """How sure the winner is and which others cannot be told from it; "" where nothing was confirmed."""
    if not found:
        return ""
    first, *others = found
    seeds = text_format.plural(len(first.values), "seed")
    said = f"{first.name} has a mean of {first.mean:.4f} over {seeds} (standard deviation {first.deviation:.4f})"
    if not others:
        return f"{said}; no other trial was repeated without failing."
    close = [item.name for item in others if not item.is_behind]
    rest = f"it cannot be told from {', '.join(close)}" if close else "all others are clearly behind"
    return (
        f"{said}: the best of {len(found)} repeated trials with a chance of {text_format.chance(first.best)}; {rest}."
    )


def next_repeats(
    records: Iterable[TrialRecord], *, candidates: int, epochs: int, seed: int
) -> list[tuple[TrialRecord, int]]:
    """Trials to repeat now, each with its new seed; empty while a round runs, before the search has ended and after the race.

    Args:
        records: all trials of the sweep.
        candidates: how many of the best trials race.
        epochs: of all repeats together, at most; no round begins that could run over it.
        seed: the sweep's own.
    """
    records = list(records)
    searched = [record for record in records if not record.repeats]
    if candidates < 2 or not all(record.ended for record in searched):
        return []
    completed = [record for record in searched if record.outcome == "completed" and record.objective is not None]
    completed.sort(key=lambda record: (-(record.objective or 0.0), record.number))
    racing = [record for place, record in enumerate(completed) if place < candidates or record.repeated_by]
    repeats = [record for record in records if record.repeats]
    spent, seeds, candidates_now = 0, set[int](), list(racing)
    left = max(0, epochs - epochs_of_repeats(repeats))
    while len(racing) > 1:
        racing = racing[: max(0, epochs - spent) // racing[0].epochs]
        if len(racing) < 2:
            break
        new_seed = (seed + SEED_OFFSET + len(seeds) + 1) % 2**32
        done = {again.repeats: again for again in repeats if again.config["seed"] == new_seed}
        missing = [record for record in racing if record.number not in done]
        if missing:
            return [(record, new_seed) for record in missing[: left // racing[0].epochs]]
        if not all(again.ended for again in done.values()):
            return []
        spent += sum(again.epoch for again in done.values())
        seeds.add(new_seed)
        racing = _left_in_race(racing, candidates_now, seeds)
    return []


def epochs_of_repeats(records: Iterable[TrialRecord]) -> int:
    """Epochs that all repeats have trained, or will have."""
    return sum(again.epoch if again.ended else again.epochs for again in records if again.repeats)


def _left_in_race(racing: Sequence[TrialRecord], repeated: Sequence[TrialRecord], seeds: set[int]) -> list[TrialRecord]:
    """Trials that are not clearly behind by these seeds and have not failed with one, the best first.

    Args:
        repeated: all that entered the race; the deviation is pooled over them.
    """
    values = {}
    for record in repeated:
        own = [again for again in record.repeated_by if again.config["seed"] in seeds]
        if all(again.outcome == "completed" for again in own):
            values[record.number] = [item.objective for item in (record, *own) if item.objective is not None]
    left = sorted((record for record in racing if record.number in values), key=lambda r: -fmean(values[r.number]))
    if not left:
        return []
    chances = dict(zip(values, chances_above(list(values.values()), list(values).index(left[0].number)), strict=True))
    return [record for record in left if chances[record.number] >= BEHIND]


def deviation(values: Sequence[Sequence[float]]) -> float:
    """Standard deviation around the mean of each part, pooled over the parts; one of them has several values."""
    squares = sum((value - fmean(part)) ** 2 for part in values for value in part)
    return math.sqrt(squares / degrees(values))


def degrees(values: Sequence[Sequence[float]]) -> int:
    """Degrees of freedom of the pooled deviation."""
    return sum(len(part) - 1 for part in values)


def chances_above(values: Sequence[Sequence[float]], place: int) -> list[float]:
    """The chance of each part that its mean is above that of the one at `place`, which itself gets a half."""
    from scipy.special import stdtr

    spread, freedom, leader = deviation(values), degrees(values), values[place]
    chances = []
    for part in values:
        ahead = fmean(part) - fmean(leader)
        error = spread * math.sqrt(1 / len(part) + 1 / len(leader))
        if part is leader or ahead == 0:
            chances.append(0.5)
        elif error == 0:
            chances.append(float(ahead > 0))
        else:
            chances.append(float(stdtr(freedom, ahead / error)))
    return chances


def chances_of_best(values: Sequence[Sequence[float]]) -> list[float]:
    """The chance of each part that its mean is the highest, by draws that are the same every time."""
    import numpy as np

    generator, freedom = np.random.default_rng(0), degrees(values)
    spread = deviation(values) * np.sqrt(freedom / generator.chisquare(freedom, size=(DRAWS, 1)))
    counts = np.sqrt([len(part) for part in values])
    means = (
        np.array([fmean(part) for part in values]) + spread * generator.standard_normal((DRAWS, len(values))) / counts
    )
    return [float(share) for share in np.bincount(means.argmax(axis=1), minlength=len(values)) / DRAWS]
