"""What `--search auto` proposes: a few spread points, then where a Gaussian process expects the largest gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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
PASSED_ON = 60
"""So many of the most promising candidates are asked whether they may run."""
SHORTEST, LONGEST = 4, 8


def spread_trials(trials: int, earlier: int) -> int:
    """Trials at spread points before a model says where to look; earlier results save them."""
    return max(0, min(LONGEST, max(SHORTEST, trials // 4)) - earlier)


def spread_point(space: Space, seed: int, accepts: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The first accepted point of a scrambled Sobol sequence; {} where hardly any is."""
    from scipy.stats.qmc import Sobol

    drawn = Sobol(space.places, rng=np.random.default_rng([seed, 4])).random_base2(10)
    return next((point for place in drawn if accepts(point := space.at([float(part) for part in place]))), {})


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
    candidates = [space.at(place) for place in rng.random((CANDIDATES, space.places)).tolist()]
    ends = sorted(curves, key=lambda curve: -curve[1][max(curve[1])])[:BEST]
    for config, _ in ends:
        candidates += [_beside(space, config, rng) for _ in range(NEAR_THE_BEST)]
    gains = model.gain(np.array([space.coordinates(config) for config in candidates]))
    for index in np.argsort(-gains, kind="stable")[:PASSED_ON]:
        if accepts(candidates[index]):
            return candidates[index]
    return {}


def _seen(space: Space, curves: list[tuple[dict[str, Any], dict[int, float]]], epochs: int) -> Seen:
    rows = [
        (space.coordinates(config), trial, math.log(epoch) / math.log(max(2, epochs)), value)
        for trial, (config, values) in enumerate(curves)
        for epoch, value in milestones(values).items()
    ]
    points, trials, u, values = zip(*rows)
    return Seen(np.array(points), np.array(trials), np.array(u), np.array(values))


def _beside(space: Space, config: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Settings near others: about half of the blocks move, categories to any of their values."""
    settings: dict[str, Any] = {}
    for block in space.blocks:
        if rng.random() < 0.5 or block.kind == "fixed":
            settings |= {key: config[key] for key in block.keys}
        elif block.continuous:
            places = np.clip(np.array(block.coordinates(config)) + rng.normal(0, STEP, block.places), 0, 1)
            settings |= block.at(places.tolist())
        else:
            settings |= block.at([float(rng.random())])
    return settings
