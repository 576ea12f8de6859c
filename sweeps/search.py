"""The search: grid points first, then Optuna's suggestions; every trial's end is told as what it was.

Tune's own `OptunaSearch` tells a trial that a scheduler stopped as complete, and leaves one with a NaN running for ever;
here stopped trials are told PRUNED with their last value, failures FAIL, and a study ends without a running trial.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps.space import Space

Method = Literal["optuna", "grid", "random"]

optuna.logging.set_verbosity(optuna.logging.ERROR)


class SweepSearch(Searcher):
    """Suggests the settings of each trial to Ray Tune.

    Args:
        space: the search space.
        method: `grid` runs the given points and ends; `optuna` runs them, then refines with TPE; `random` draws.
        points: grid points in the order in which they run; equal ones run once.
        seed: of the sampler. With several trials at once the suggestions also depend on the order in which trials end.
        startup: random suggestions before TPE starts to model (finished grid points count).
    """

    def __init__(
        self, space: Space, *, method: Method, points: Sequence[dict[str, Any]] = (), seed: int = 0, startup: int = 10
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self.space, self.method = space, method
        self.queue = _unique(points)
        if method == "optuna":
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
            )
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        self.study = optuna.create_study(sampler=sampler, direction="maximize")
        self.trials: dict[str, optuna.Trial] = {}
        self.last: dict[str, tuple[int, float]] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Settings of the next trial, or FINISHED where nothing is left to try."""
        if self.queue:
            point = self.queue.pop(0)
            self.study.enqueue_trial(self.space.to_internal(point))
        elif self.method == "grid" or not self.space.continuous:
            return Searcher.FINISHED
        else:
            point = {}
        trial = self.study.ask(self.space.distributions())
        # The point itself wins over the way back from Optuna's parameters: 0.3 arrives as 0.3.
        settings = {**self.space.from_internal(trial.params), **point}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("trial_id", trial_id)
        self.trials[trial_id] = trial
        return settings

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended: COMPLETE, PRUNED (stopped by the scheduler) or FAIL."""
        trial = self.trials.pop(trial_id, None)
        if trial is None:
            logging.getLogger(__name__).warning("trial %s ended but is not in the study", trial_id)
            return
        if result and not error:
            self._report(trial_id, result, trial)
        _, value = self.last.pop(trial_id, (0, math.nan))
        if error or not result or not math.isfinite(value):
            self.study.tell(trial, state=TrialState.FAIL)
        elif was_stopped(result):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)

    def _report(self, trial_id: str, result: dict[str, Any], trial: optuna.Trial | None = None) -> None:
        """Store an intermediate value; epochs that a resumed trial repeats are left out."""
        trial = trial or self.trials.get(trial_id)
        epoch, value = result.get("epoch"), result.get("objective")
        if trial is None or epoch is None or value is None or not math.isfinite(value):
            return
        if epoch > self.last.get(trial_id, (0, 0.0))[0]:
            trial.report(value, epoch)
            self.last[trial_id] = (epoch, value)

    def close(self) -> None:
        """Tell FAIL for whatever is still open: the sweep has ended and nothing of it runs any more."""
        for trial in self.trials.values():
            self.study.tell(trial, state=TrialState.FAIL)
        self.trials.clear()

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("queue", "study", "trials", "last")}

    def set_state(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps(self.get_state()))

    def restore(self, checkpoint_path: str) -> None:
        self.set_state(pickle.loads(Path(checkpoint_path).read_bytes()))


def was_stopped(result: dict[str, Any]) -> bool:
    """Whether a scheduler ended the trial: it had epochs left and did not stop by itself."""
    return result["epoch"] < result["epochs"] and not result.get("stopped_early")


def _unique(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[tuple, dict[str, Any]] = {}
    for point in points:
        seen.setdefault(tuple(sorted(point.items(), key=lambda item: item[0])), point)
    return list(seen.values())
