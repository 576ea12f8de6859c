"""Sweeps replayed over recorded learning curves: what would each way of searching have spent, and found?

`replay_sweep` is a sweep without training: the search (`sweeps.search.search`), the successive halving (`sweeps.search.asha`), the
choice of grid points (`sweeps.core.plan`) and the records (`sweeps.state.sweep_state`) are the project's own, called in the order in which
Ray Tune calls them; only the epochs come from the table. Workers are equally fast: every round each of them trains one
epoch.

Settings between grid points were not recorded. Each grid value stands for its part of the range (`cells`, the harder case: a
suggestion beside the best point is never better than it, and one in the same cell is a repetition that costs its epochs
again), or the surface is interpolated (`linear`).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from curves import Between, Curves

from sweeps.core.tuning import make_scheduler
from sweeps.search.grid_points import choose_points
from sweeps.search.search import PRIOR_TRIALS, Method, SweepSearch
from sweeps.state.event_log import EventLog
from sweeps.state.sweep_record import Observation, SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import best_of


@dataclass(frozen=True)
class Choices:
    """How a sweep searches; the names are those of `SweepSettings`.

    Attributes:
        trials: as many as the grid has points, where None.
        grid_points: of `optuna`, before its own suggestions; as the project chooses, where None.
        patience: epochs without a better objective after which a trial ends; 0 never ends it.
    """

    search: Method = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = 2
    reduction_factor: float = 3
    trials: int | None = None
    grid_points: int | None = None
    patience: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Course:
    """What a search did.

    Attributes:
        incumbents: after each epoch that was charged, the seed-mean final objective of the trial that led then.
        rounds: epochs one after the other; fewer than all where several workers train at once.
        trials: epochs of each trial.
        settings: of each trial.
    """

    incumbents: np.ndarray
    rounds: int
    trials: tuple[int, ...]
    settings: tuple[dict[str, Any], ...]

    @property
    def spent(self) -> int:
        return len(self.incumbents)

    def reached(self, goal: float) -> float:
        """Epochs charged until the incumbent fulfils the goal and does so from then on; infinite where its last does not."""
        missed = np.flatnonzero(self.incumbents < goal)
        first = 1 if not len(missed) else int(missed[-1]) + 2
        return float(first) if first <= self.spent else float("inf")


def draw_seeds(curves: Curves, order: int, *, mixed: bool) -> np.ndarray:
    """Which recorded seed each point has in one replay, (points,): one for all, as in a sweep, or drawn per point."""
    count = len(curves.seeds)
    if mixed:
        return np.random.default_rng([order, 1]).integers(count, size=len(curves.objective))
    return np.full(len(curves.objective), order % count)


def replay_sweep(
    curves: Curves,
    choices: Choices,
    order: int,
    seed_of: np.ndarray,
    between: Between = "cells",
    *,
    first: Sequence[dict[str, Any]] = (),
    observations: Sequence[Observation] = (),
) -> Course:
    """One sweep of the project.

    Args:
        order: the sweep's seed: of its grid order and its sampler.
        seed_of: see `draw_seeds`.
        first: points that are trained before anything else.
        observations: of an earlier sweep.
    """
    space, epochs = curves.space, curves.epochs
    record = SweepRecord(
        name="replay", requested="replay", scenario="replay", data_root="", storage="", tracking_uri="", seed=order,
        search=choices.search, scheduler=choices.scheduler, trials=choices.trials or space.size,
        grid_points=choices.grid_points, grace_period=choices.grace_period, reduction_factor=choices.reduction_factor,
        points=list(first),
    )  # fmt: skip
    points, trials = choose_points(record, space)
    with tempfile.TemporaryDirectory() as folder:
        state = SweepState(Path(folder))
    state.event_log = Unwritten(state.event_log.path, state.event_log.events)
    # As in `sweeps.core.sweep.Sweep`.
    startup = max(2, min(PRIOR_TRIALS, record.grid_points or PRIOR_TRIALS))
    search = SweepSearch(
        space,
        state,
        method=record.search,
        points=points,
        trials=trials,
        epochs=epochs,
        seed=order,
        startup=startup,
        observations=observations,
    )
    scheduler = make_scheduler(SimpleNamespace(record=record, epochs=epochs), state)
    scheduler.set_search_properties("objective", "max")
    incumbents: list[float] = []
    truths: dict[int, float] = {}
    running: dict[str, tuple[SimpleNamespace, np.ndarray]] = {}
    asked = rounds = 0
    while True:
        while len(running) < choices.workers:
            asked += 1
            config = search.suggest(f"id{asked}")
            if not isinstance(config, dict):
                break
            trial = SimpleNamespace(trial_id=f"id{asked}", config=config)
            mixture = curves.mixture(config, between)
            truths[config["trial"]] = curves.truth(mixture)
            scheduler.on_trial_add(None, trial)
            state.start(state.records[config["trial"]])
            running[trial.trial_id] = trial, curves.curve(mixture, seed_of)
        if not running:
            break
        rounds += 1
        for trial, curve in list(running.values()):
            own = state.records[trial.config["trial"]]
            result = epoch_result(curve, own.epoch + 1, choices.patience)
            stopped = scheduler.on_trial_result(None, trial, result) == "STOP"
            state.add(own, result, stopped=stopped)
            incumbents.append(truths[best_of(state.records.values()).number])
            if own.ended:
                scheduler.on_trial_complete(None, trial, result)
                search.on_trial_complete(trial.trial_id)
                search.tell(own)
                del running[trial.trial_id]
    records = state.records.values()
    settings = tuple(own.config for own in records)
    return Course(np.array(incumbents), rounds, tuple(own.epoch for own in records), settings)


def epoch_result(curve: np.ndarray, epoch: int, patience: int) -> dict[str, Any]:
    """What a trial reports after an epoch; the rule of patience is the Trainer's."""
    best_epoch = int(np.argmax(curve[:epoch])) + 1
    stopped_early = bool(patience) and epoch - best_epoch >= patience and epoch < len(curve)
    return {
        "epoch": epoch,
        "epochs": len(curve),
        "objective": float(curve[epoch - 1]),
        "best_epoch": best_epoch,
        "stopped_early": stopped_early,
    }


class Unwritten(EventLog):
    """An event log that is not written: thousands of replays need no disk."""

    def append(self, event: str, **content: Any) -> dict[str, Any]:
        return json.loads(json.dumps({"event": event, "time": int(time.time() * 1000), **content}))


def replay_grid(curves: Curves, order: int, seed_of: np.ndarray, *, patience: int = 0) -> Course:
    """The grid as nested loops over its settings, nested and run through in an order drawn for each replay."""
    rng = np.random.default_rng([order, 2])
    shape = [len(block.points) for block in curves.space.grid_blocks]
    nested = np.arange(len(curves.final)).reshape(shape)
    flips = [axis for axis in range(len(shape)) if rng.random() < 0.5]
    points = np.flip(nested, flips).transpose(rng.permutation(len(shape))).ravel()
    order_of = [int(point) for point in points]
    shown = [curves.curve([(point, 1.0)], seed_of) for point in order_of]
    steps = [(place, 1, curves.epochs) for place in range(len(shown))]
    return _in_turn([curves.space.point(point) for point in order_of], shown, curves.final[order_of], steps, patience)


def replay_top(curves: Curves, order: int, seed_of: np.ndarray, *, first: int, keep: int) -> Course:
    """Every point in random order for `first` epochs; then the best `keep` train to their end, the best of them first."""
    points = [int(point) for point in np.random.default_rng([order, 3]).permutation(len(curves.final))]
    shown = [curves.curve([(point, 1.0)], seed_of) for point in points]
    return _top([curves.space.point(point) for point in points], shown, curves.final[points], first, keep)


def replay_top_between(surrogate: Any, order: int, *, trials: int, first: int, keep: int) -> Course:
    """The same with points drawn at random from the whole space of a landscape."""
    places = np.random.default_rng([order, 3]).random((trials, surrogate.space.places))
    points = [surrogate.space.at(place) for place in places.tolist()]
    mixtures = [surrogate.mixture(point) for point in points]
    shown = [surrogate.curve(mixture, np.array([order])) for mixture in mixtures]
    return _top(points, shown, np.array([surrogate.truth(mixture) for mixture in mixtures]), first, keep)


def _top(
    settings: Sequence[dict[str, Any]], curves: Sequence[np.ndarray], truths: np.ndarray, first: int, keep: int
) -> Course:
    kept = np.argsort([-curve[first - 1] for curve in curves], kind="stable")[:keep]
    steps = [(place, 1, first) for place in range(len(curves))]
    steps += [(int(place), first + 1, len(curves[0])) for place in kept]
    return _in_turn(settings, curves, truths, steps, patience=0)


def _in_turn(
    settings: Sequence[dict[str, Any]],
    curves: Sequence[np.ndarray],
    truths: np.ndarray,
    steps: Sequence[tuple[int, int, int]],
    patience: int,
) -> Course:
    """Train points one after the other; each step is a point's place, its first and its last epoch."""
    best, truth, incumbents = -np.inf, np.nan, []
    trained: dict[int, int] = {}
    for place, first, last in steps:
        for epoch in range(first, last + 1):
            result = epoch_result(curves[place], epoch, patience)
            if result["objective"] > best:
                best, truth = result["objective"], float(truths[place])
            incumbents.append(truth)
            trained[place] = epoch
            if result["stopped_early"]:
                break
    return Course(
        np.array(incumbents), len(incumbents), tuple(trained.values()), tuple(settings[place] for place in trained)
    )
