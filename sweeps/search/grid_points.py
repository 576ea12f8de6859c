"""The grid points of a sweep: which of them a model accepts, and which the sweep runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from sweeps.search.block import with_points
from sweeps.search.space import Space
from sweeps.state.sweep_record import SweepRecord

CHECKED_POINTS = 2000
"""A block with more points than this is checked at evenly spread ones, a grid at its first ones in random order."""
BESIDE = 200
"""Beside so many grid points at most a value is checked that does not fit to the first."""


def choose_points(
    record: SweepRecord,
    space: Space,
    *,
    whole_grid: bool = False,
    known: Sequence[Mapping[str, Any]] = (),
    accepts: Callable[[Mapping[str, Any]], bool] = lambda point: True,
) -> tuple[list[dict[str, Any]], int]:
    """The points that are still to run, and the number of all trials: named points first, then grid points in seeded order.

    How many grid points come before Optuna's proposals is decided when the sweep starts (`record.grid_points`), so that an
    extension adds proposals.

    Args:
        whole_grid: whether all grid points are meant.
        known: configurations of the trials that the sweep already has.
        accepts: whether a point may run.
    """
    trained = {space.trained_as(config) for config in known}
    named = [point for point in record.points if space.trained_as(point) not in trained]
    record.trials = max(record.trials, len(record.points))
    refined = record.search != "grid" and space.continuous
    if not refined:
        wanted = space.size if whole_grid else record.trials - len(known) - len(named)
        points = named + space.fresh(record.seed, [*known, *named], wanted, accepts)
        return points, len(known) + len(points)
    if record.search in ("auto", "random") or (space.size == 1 and not known):
        record.grid_points = 0
    elif record.grid_points is None:
        half = (record.trials - len(record.points)) // 2
        record.grid_points = space.size if space.size <= half else max(1, half)
    record.grid_points = max(0, min(record.grid_points, record.trials - len(record.points), space.size))
    wanted = record.grid_points - (len(known) - (len(record.points) - len(named)))
    return named + space.fresh(record.seed, [*known, *named], wanted, accepts), record.trials


@dataclass(frozen=True)
class PointCheck:
    """Whether the model accepts a point of the space.

    Attributes:
        fixed: settings that all trials share.
        ranges: settings without grid values, at the low end of their range: a grid point leaves them open.
    """

    config_class: type[TrialConfig]
    fixed: Mapping[str, Any]
    ranges: Mapping[str, Any]

    def config(self, point: Mapping[str, Any]) -> TrialConfig:
        """The configuration at a point.

        Raises:
            InputError: the model refuses it.
        """
        return build_config(self.config_class, {**self.fixed, **self.ranges, **point}, where="space")

    def problem(self, point: Mapping[str, Any]) -> str:
        """Why the model refuses a point, "" if it accepts it."""
        try:
            self.config(point)
        except InputError as error:
            return str(error).removeprefix("space: ")
        return ""


def check_points(
    config_class: type[TrialConfig], fixed: dict[str, Any], space: Space
) -> tuple[Space, list[TrialConfig], PointCheck, list[str]]:
    """Check every grid value beside a point that the model accepts, and whole grid points.

    Returns:
        the space without values that the model refuses beside all others (alpha = 0 where ids are the only modality); one
        configuration per value; the check of a single point; and what to tell the user of combinations that are left out.

    Raises:
        InputError: the model accepts no point, or no value of a setting.
    """
    check = PointCheck(config_class, fixed, {block.keys[0]: block.low for block in space.blocks if not block.points})
    some = list(itertools.islice(space.shuffled(0), CHECKED_POINTS))
    middle = {
        key: value
        for block in space.grid_blocks
        for key, value in zip(block.keys, block.points[len(block.points) // 2])
    }
    refused = check.problem(middle)
    typical = middle if not refused else next((point for point in some if not check.problem(point)), None)
    if typical is None:
        raise InputError(f"settings: {refused}")
    configs = [check.config(typical)]
    blocks, dropped = [], dict(space.dropped_by)
    for block in space.blocks:
        bad: dict[tuple, str] = {}
        step = max(1, len(block.points) // CHECKED_POINTS)
        for values in block.points[::step]:
            own = dict(zip(block.keys, values))
            problem = check.problem({**typical, **own})
            # A value that does not fit to this point may fit to another one.
            beside = (
                typical if not problem else next((p for p in some[:BESIDE] if not check.problem({**p, **own})), None)
            )
            if beside is None:
                bad[values] = problem
            else:
                configs.append(check.config({**beside, **own}))
        if bad:
            reason = next(iter(bad.values()))
            if len(bad) == len(block.points):
                raise InputError(f"space: {reason}")
            dropped[reason] = len(bad)
            block = with_points(block, [point for point in block.points if point not in bad])
        blocks.append(block)
    kept, notices = Space(tuple(blocks), dropped), []
    # Grid points that the model refuses although it accepts each of their values elsewhere.
    points = list(itertools.islice(kept.shuffled(0), CHECKED_POINTS))
    if problems := [problem for point in points if (problem := check.problem(point))]:
        of = f"{len(points):,} grid points" + (" that were checked" if kept.size > len(points) else "")
        notices.append(f"{len(problems):,} of {of} are left out ({problems[0]})")
    return kept, configs, check, notices
