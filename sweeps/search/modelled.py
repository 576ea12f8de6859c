"""What `--search auto` proposes: a few spread points, then where a Gaussian process expects the largest gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sweeps.search.gaussian_process import Model, Seen
from sweeps.search.rungs import milestones
from sweeps.search.space import Space
from sweeps.state.sweep_record import Observation
from sweeps.state.trial_records import TrialRecord

CANDIDATES = 400
NEAR_THE_BEST = 40
"""Further candidates around each of the best few trials."""
BEST = 3
STEP = 0.12
"""Standard deviation of a step away from a good trial, of the range."""
FINER_STEPS = (0.1, 0.05, 0.02)
"""Of further candidates around the most promising ones, one round after the other."""
PROMISING, AROUND_EACH = 10, 20
EVERY = 3
"""Every so many trials go where the objective could be highest instead of where it is expected to gain."""
MOST_SEEN = 800
"""Observations that the model is fitted to at most: its time grows with their third power."""
SHORTEST, LONGEST = 4, 8


def spread_trials(trials: int, earlier: int) -> int:
    """Trials at spread points before a model says where to look; earlier results save them."""
    return max(0, min(LONGEST, max(SHORTEST, trials // 4)) - earlier)


def spread_points(space: Space, seed: int, accepts: Callable[[Mapping[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    """The accepted points of a scrambled Sobol sequence in its order, each once; none where hardly any is accepted."""
    from scipy.stats.qmc import Sobol

    seen: set[tuple] = set()
    for place in Sobol(space.places, rng=np.random.default_rng([seed, 4])).random_base2(10):
        point = space.at([float(part) for part in place])
        if (identity := space.trained_as(point)) not in seen and accepts(point):
            seen.add(identity)
            yield point


def is_new(
    space: Space, known: Iterable[Mapping[str, Any]], problem: Callable[[Mapping[str, Any]], str]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether settings may run: those that the model accepts and that none of the known ones is trained as."""
    trained = {space.trained_as(config) for config in known}
    return lambda config: space.trained_as(config) not in trained and not problem(config)


def propose(
    space: Space,
    records: Iterable[TrialRecord],
    observations: Iterable[Observation],
    *,
    epochs: int,
    seed: int,
    number: int,
    accepts: Callable[[Mapping[str, Any]], bool],
) -> dict[str, Any]:
    """Settings of the next trial: those with the largest expected gain of many candidates, {} where none may run.

    Every third trial goes to the candidate with the highest plausible objective. The gain alone stays at a corner that it knows, for
    the rest of a sweep, once a few trials have made a setting look as if it did nothing.

    Args:
        records: trials that have at least one epoch, running ones too; those without are taken for an average one of their place.
        accepts: whether settings may run.
    """
    rng = np.random.default_rng([seed, number, 5])
    curves = [(dict(seen.settings), seen.values) for seen in observations]
    waiting = []
    for record in records:
        if record.values and record.outcome != "failed":
            curves.append((record.config, dict(enumerate(record.values, start=1))))
        elif not record.values:
            waiting.append(record.config)
    seen = _seen(space, curves, epochs)
    model = Model(seen)
    if waiting:
        # The model believes its own mean there, so that the next trial goes elsewhere.
        points = np.array([space.coordinates(config) for config in waiting])
        believed = model.at_the_end(points)[0]
        curves += [(config, {epochs: float(value)}) for config, value in zip(waiting, believed)]
        model = Model(_seen(space, curves, epochs))

    def ranked(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        points = np.array([space.coordinates(config) for config in candidates])
        promise = model.plausible(points) if number % EVERY == 0 else model.gain(points)
        return [candidates[index] for index in np.argsort(-promise, kind="stable")]

    candidates = [space.at(place) for place in rng.random((CANDIDATES, space.places)).tolist()]
    ends = sorted(curves, key=lambda curve: -curve[1][max(curve[1])])[:BEST]
    for config, _ in ends:
        candidates += [_beside(space, config, rng, STEP) for _ in range(NEAR_THE_BEST)]
    coarse = finer = ranked(candidates)
    for step in FINER_STEPS:
        best = finer[:PROMISING]
        finer = ranked(best + [_beside(space, config, rng, step) for config in best for _ in range(AROUND_EACH)])
    # Where all of the finer ones were trained, as they may be in a small space, another of the first ones.
    return next((config for config in (*finer, *coarse) if accepts(config)), {})


def _seen(space: Space, curves: list[tuple[dict[str, Any], dict[int, float]]], epochs: int) -> Seen:
    """What the model is fitted to: the milestones of all trials; where they are too many, of the worse ones the last epoch alone, and
    not every one of these."""
    kept = [milestones(values) for _, values in curves]
    order = sorted(range(len(kept)), key=lambda trial: kept[trial][max(kept[trial])])
    excess = sum(map(len, kept)) - MOST_SEEN
    for smallest, worst_first in ((1, order), (0, order[::2] + order[1::2])):
        for trial in worst_first:
            if excess > 0 and len(kept[trial]) > smallest:
                last = max(kept[trial])
                excess -= len(kept[trial]) - smallest
                kept[trial] = {last: kept[trial][last]} if smallest else {}
    rows = [
        (space.coordinates(config), trial, math.log(epoch) / math.log(max(2, epochs)), value)
        for trial, ((config, _), values) in enumerate(zip(curves, kept))
        for epoch, value in values.items()
    ]
    points, trials, u, values = zip(*rows)
    return Seen(np.array(points), np.array(trials), np.array(u), np.array(values))


def _beside(space: Space, config: Mapping[str, Any], rng: np.random.Generator, step: float) -> dict[str, Any]:
    """Settings near others: about half of the blocks move, categories to any of their values."""
    settings: dict[str, Any] = {}
    for block in space.blocks:
        if rng.random() < 0.5 or block.kind == "fixed":
            settings |= {key: config[key] for key in block.keys}
        elif block.continuous:
            places = np.clip(np.array(block.coordinates(config)) + rng.normal(0, step, block.places), 0, 1)
            settings |= block.at(places.tolist())
        else:
            settings |= block.at([float(rng.random())])
    return settings
