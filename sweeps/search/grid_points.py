"""The grid points of a sweep: which of them a model accepts, and which the sweep runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from sweeps.search.space import Space, without_points
from sweeps.state.sweep_record import SweepRecord

CHECKED_POINTS = 2000
"""A block with more points than this is checked at evenly spread ones."""


def choose_points(
    record: SweepRecord, space: Space, *, whole_grid: bool = False, known: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[dict[str, Any]], int]:
    """The grid points that are still to run, in seeded random order, and the number of all trials.

    How many grid points come before Optuna's proposals is decided when the sweep starts (`record.grid_points`), so that an
    extension adds proposals.
    """
    refined = record.search != "grid" and space.continuous
    if not refined:
        wanted = space.size if whole_grid else record.trials
        points = space.fresh(record.seed, known, wanted - len(known))
        return points, len(known) + len(points)
    if record.search == "random" or (space.size == 1 and not known):
        record.grid_points = 0
    elif record.grid_points is None:
        record.grid_points = space.size if space.size <= record.trials // 2 else max(1, record.trials // 2)
    record.grid_points = min(record.grid_points, record.trials, space.size)
    return space.fresh(record.seed, known, record.grid_points - len(known)), record.trials


def check_points(
    config_class: type[TrialConfig], fixed: dict[str, Any], space: Space
) -> tuple[Space, list[TrialConfig], list[str]]:
    """Build the configuration of every grid value once, beside typical values of the other settings.

    Each value is valid by itself; one that the model refuses beside the others (alpha = 0 where ids are the only
    modality) is dropped and counted.
    """
    typical: dict[str, Any] = {}
    for block in space.blocks:
        values = block.points[len(block.points) // 2] if block.points else (block.low,)
        typical.update(zip(block.keys, values))
    configs = [build_config(config_class, {**fixed, **typical}, where="settings")]
    blocks, notices, dropped = [], [], dict(space.dropped_by)
    for block in space.blocks:
        bad: dict[tuple, str] = {}
        step = max(1, len(block.points) // CHECKED_POINTS)
        for point in block.points[::step]:
            values = {**fixed, **typical, **dict(zip(block.keys, point))}
            try:
                configs.append(build_config(config_class, values, where="space"))
            except InputError as error:
                bad[point] = str(error)
        if bad:
            if len(bad) == len(block.points):
                raise InputError(next(iter(bad.values())))
            reason = next(iter(bad.values())).removeprefix("space: ")
            dropped[reason] = len(bad)
            block = without_points(block, set(bad))
        blocks.append(block)
    return Space(tuple(blocks), dropped), configs, notices
