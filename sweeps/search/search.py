"""The search: unfinished trials, grid points, Optuna's suggestions, then the best again with new seeds.

The study is made anew from the sweep's records whenever a driver starts, so it never disagrees with them, and a space that
was widened since is the space of all its trials. Each suggestion follows from the seed, the trial's number and the trials
before it; nothing of a sampler has to be stored.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from llmemf.errors import InputError
from sweeps.search import modelled
from sweeps.search.space import Space
from sweeps.state.sweep_record import Observation
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord

Method = Literal["auto", "optuna", "grid", "random"]
STATES = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
RETRY_SECONDS = {"device": 5.0, "storage": 5.0, "memory": 5.0}
"""Kind of a machine's fault -> how long a trial waits before it is tried again; three times as long after each further one.
What took the GPU or the disk away may have gone by then. A trial whose node is gone starts at once on another."""
SUGGESTIONS = 1000
"""So often Optuna is asked at most for one trial that the model accepts."""
PRIOR_TRIALS = 10
"""Trials before TPE models what it has seen; fewer where a sweep begins with fewer grid points."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


class SweepSearch(Searcher):
    """Hands trials to Ray Tune: first those that a killed or stopped driver left, then new ones.

    Args:
        space: the search space.
        state: the sweep's records; every new trial is written there before Tune hears of it.
        method: `grid` runs the given points and ends; `optuna` runs them, then refines with TPE; `auto` runs them, then spread
            points, then what a Gaussian process over settings and epochs proposes (`modelled`); `random` draws.
        points: grid points that have not been run, in their order.
        trials: number of all trials.
        epochs: of a new trial.
        varied_keys: settings that vary between trials; by default those of the space.
        problem: why the model refuses a configuration, "" if it accepts it.
        seed: of the sampler. With several trials at once the suggestions also depend on the order in which trials end.
        startup: random suggestions before TPE starts to model (finished grid points and earlier results count).
        observations: results of earlier sweeps, which the search learns from as from its own.
        next_repeats: the trials to repeat now, each with its new seed; asked whenever no new trial is left.
        repeats_to_come: how many trials the next round of repeats may have.

    Attributes:
        study: Optuna's study of all trials whose settings lie inside the space.
        live: Tune's id -> trial that Tune has.
        is_stopping: whether the sweep was asked to stop; then no trial is waited for.
    """

    def __init__(
        self,
        space: Space,
        state: SweepState,
        *,
        method: Method,
        trials: int,
        epochs: int,
        points: Iterable[dict[str, Any]] = (),
        varied_keys: Iterable[str] | None = None,
        problem: Callable[[Mapping[str, Any]], str] = lambda config: "",
        seed: int = 0,
        startup: int = PRIOR_TRIALS,
        observations: Iterable[Observation] = (),
        next_repeats: Callable[[], list[tuple[TrialRecord, int]]] = list,
        repeats_to_come: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self.space, self.state, self.method = space, state, method
        self.trials, self.epochs, self.seed, self.startup = trials, epochs, seed, startup
        self.waiting = deque(state.unfinished())
        self.points = deque(points)
        self.problem, self.next_repeats, self.repeats_to_come = problem, next_repeats, repeats_to_come
        self.varied_keys = space.varied_keys if varied_keys is None else tuple(varied_keys)
        self.live: dict[str, TrialRecord] = {}
        self.is_stopping: Callable[[], bool] = lambda: False
        self._due: dict[int, float] = {}
        self._asked: dict[int, optuna.Trial] = {}
        self.study = optuna.create_study(direction="maximize")
        self._outside: set[int] = set()
        self.observations = tuple(observations)
        for seen in self.observations:
            self._learn(seen)
        for record in state.searched:
            self._remember(record)

    @property
    def outside(self) -> int:
        """Number of stored trials that lie outside of the space."""
        return len(self._outside)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Tune reads FINISHED too
        """Settings of the next trial, None while all that is left is running or waits, FINISHED where nothing is left."""
        record = self._next_waiting() or self._propose()
        if record is None:  # of the next round of repeats the first; the others wait
            self.waiting.extend(self.state.repeat(record, seed) for record, seed in self.next_repeats())
            record = self._next_waiting()
        if record is None:
            waits = self.waiting and not self.is_stopping()
            return None if self.live or waits else Searcher.FINISHED
        self.live[trial_id] = record
        return {"trial": record.number, **record.config}

    def has_work(self) -> bool:
        """Whether any trial is left to run."""
        return bool(self.waiting or self._has_new or self.next_repeats())

    def awaited(self) -> int:
        """How many trials may come that cannot be handed out before others have ended."""
        if self.is_stopping() or self._has_new:
            return 0
        return len(self.waiting) + self.repeats_to_come()

    @property
    def _has_new(self) -> bool:
        return len(self.state.searched) < self.trials and bool(self.points or self._refines)

    @property
    def _refines(self) -> bool:
        return self.method != "grid" and self.space.continuous

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.live.pop(trial_id, None)

    def _next_waiting(self) -> TrialRecord | None:
        now = time.monotonic()
        found = next((record for record in self.waiting if self._due.get(record.number, now) <= now), None)
        if found:
            self.waiting.remove(found)
        return found

    def again(self, record: TrialRecord, kind: str = "lost") -> None:
        """Run a lost trial again, from its last checkpoint, after a pause that depends on the kind of fault."""
        pause = RETRY_SECONDS.get(kind, 0.0) * 3 ** max(0, record.losses - 1)
        self._due[record.number] = time.monotonic() + pause
        self.waiting.append(record)

    def tell(self, record: TrialRecord) -> None:
        """Tell Optuna how a trial ended: COMPLETE, PRUNED (stopped by the scheduler) or FAIL; nothing where it has not."""
        trial = self._asked.pop(record.number, None) if record.ended else None
        if trial is None:
            return
        for epoch, value in enumerate(record.values, start=1):
            trial.report(value, epoch)
        state = STATES[record.outcome]
        self.study.tell(trial, record.objective if state == TrialState.COMPLETE else None, state)

    def _propose(self) -> TrialRecord | None:
        number = len(self.state.records) + 1
        if len(self.state.searched) >= self.trials:
            return None
        point: dict[str, Any] = {}
        if self.points:
            point = self.points.popleft()
            self.study.enqueue_trial(self.space.to_internal(point))
        elif not self._refines:
            return None
        elif self.method == "auto" and (point := self._modelled(number)):
            self.study.enqueue_trial(self.space.to_internal(point))
        self.study.sampler = self._sampler(number)
        trial, config = self._ask(point)
        record = self.state.propose(config, self.varied_keys, self.epochs, trial.params)
        self._asked[number] = trial
        self._label(trial, record)
        return record

    def _modelled(self, number: int) -> dict[str, Any]:
        """The next spread point, or the one with the largest expected gain; {} where Optuna has to be asked."""
        records = [record for record in self.state.searched if record.number not in self._outside]
        accepts = modelled.is_new(self.space, (record.config for record in records), self.problem)
        valued = [record for record in records if record.values and record.outcome != "failed"]
        spread = modelled.spread_trials(self.trials, len(self.observations))
        if len(records) < spread or len(valued) + len(self.observations) < 2:
            return next(modelled.spread_points(self.space, self.seed, accepts), {})
        return modelled.propose(
            self.space, records, self.observations, epochs=self.epochs, seed=self.seed, number=number, accepts=accepts
        )

    def _ask(self, point: Mapping[str, Any]) -> tuple[optuna.Trial, dict[str, Any]]:
        """Optuna's next trial and its configuration, which the model accepts.

        Raises:
            InputError: the model refuses whatever is suggested.
        """
        problem = ""
        trained = {self.space.trained_as(record.config) for record in self.state.searched}
        for _ in range(SUGGESTIONS):
            trial = self.study.ask(self.space.distributions())
            # The point itself wins over the way back from Optuna's parameters: 0.3 arrives as 0.3.
            config = {**self.space.from_internal(trial.params), **point}
            problem = self.problem(config)
            if not problem and not point and self.space.trained_as(config) in trained:
                problem = "it was trained before"
            if not problem:
                return trial, config
            # No sampler learns from it.
            self.study.tell(trial, state=TrialState.FAIL)
        raise InputError(f"none of {SUGGESTIONS} suggestions is valid ({problem}): narrow the space with --set")

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.method == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, constant_liar=True
        )

    def _remember(self, record: TrialRecord) -> None:
        """Put a stored trial into the study, as it stands."""
        distributions = self.space.distributions()
        params = self._params(record, distributions)
        if params is None:
            self._outside.add(record.number)
            return
        self.study.enqueue_trial(params)
        trial = self.study.ask(distributions)
        self._asked[record.number] = trial
        self._label(trial, record)
        if record.ended:
            self.tell(record)

    def _learn(self, seen: Observation) -> None:
        """Put a trial of an earlier sweep into the study: pruned where it ended before this sweep's last epoch."""
        last = max(seen.values)
        state = TrialState.COMPLETE if last >= self.epochs else TrialState.PRUNED
        self.study.add_trial(
            create_trial(
                params=self.space.to_internal(seen.settings),
                distributions=self.space.distributions(),
                value=seen.values[last] if state == TrialState.COMPLETE else None,
                intermediate_values=seen.values,
                state=state,
            )
        )

    def _params(self, record: TrialRecord, distributions: dict[str, Any]) -> dict[str, Any] | None:
        """Optuna's parameters of a stored trial in this space, None where it lies outside."""
        candidates = [record.optuna_params]
        with contextlib.suppress(KeyError):
            candidates.append(self.space.to_internal(record.config))
        for params in candidates:
            with contextlib.suppress(ValueError):  # Optuna refuses what lies outside
                create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
                return params
        return None

    def _label(self, trial: optuna.Trial, record: TrialRecord) -> None:
        trial.set_user_attr("trial", record.name)
        trial.set_user_attr("varied", record.varied)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the event log holds all that the search follows from."""
