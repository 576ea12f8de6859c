"""Ray Tune's loop without Ray: trials run in this process, one epoch at a time, in an order that a seed draws.

It calls search, scheduler and callbacks as `ray.tune.execution.tune_controller` does, and ends on SIGUSR1 as `tune.run` does.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

MOST_STEPS = 300


class Stuck(BaseException):
    """A sweep made no progress; nothing in the product may catch it."""


class LostWorker(Exception):
    """The process of a trial is gone; a driver learns of it as Ray says it."""


class FakeTune:
    """Stands for `ray.tune` while one sweep runs.

    Args:
        seed: draws which trial reports next.
        disturb: called before each epoch with the number of the trial and of its next step; what it raises ends the trial.
        after_step: called after every step, as the writer's thread would run meanwhile.
    """

    def __init__(
        self,
        seed: int = 0,
        disturb: Callable[[int], None] = lambda trial: None,
        after_step: Callable[[Any], None] = lambda callback: None,
    ) -> None:
        self.draw, self.disturb, self.after_step = random.Random(seed), disturb, after_step
        self.shared: dict[str, Any] = {}
        self.asked = False
        self.errors: Path | None = None

    def with_parameters(self, worker: Any, **shared: Any) -> Any:
        self.shared = shared
        return worker

    def run(
        self,
        worker: Any,
        *,
        config: dict[str, Any],
        search_alg: Any,
        scheduler: Any,
        callbacks: list[Any],
        max_concurrent_trials: int,
        **_: Any,
    ) -> None:
        (callback,) = callbacks
        scheduler = scheduler or FIFOScheduler()
        scheduler.set_search_properties("objective", "max")
        signal.signal(signal.SIGUSR1, lambda number, frame: setattr(self, "asked", True))
        run_trial, live, started, finished = self.shared.pop("run_trial"), [], 0, False
        for step in range(MOST_STEPS):
            callback.on_step_begin(step, live)
            if self.asked:
                return
            while not finished and len(live) < max_concurrent_trials:
                identity = f"{os.getpid():05d}_{started:05d}"
                suggested = search_alg.suggest(identity)
                finished = suggested == Searcher.FINISHED
                if finished or suggested is None:
                    break
                started += 1
                trial = SimpleNamespace(trial_id=identity, config={**config, **suggested}, status="RUNNING")
                trial.error_file = trial.pickled_error_file = None
                scheduler.on_trial_add(None, trial)
                trial.reports = run_trial(trial.config, **self.shared)
                callback.on_trial_start(step, live, trial)
                live.append(trial)
            if not live:
                if finished:
                    return
                raise Stuck("nothing runs and the search does not end")
            trial = self.draw.choice(live)
            if self._step(step, callback, search_alg, scheduler, trial, live):
                live.remove(trial)
                # Tune asks the search again whenever a place is free.
                finished = False
            callback.on_step_end(step, live)
            self.after_step(callback)
        raise Stuck(f"{MOST_STEPS} steps did not end the sweep")

    def _step(self, step: int, callback: Any, search: Any, scheduler: Any, trial: Any, live: list[Any]) -> bool:
        """One epoch of a trial; whether the trial has ended."""
        try:
            self.disturb(trial.config["trial"])
            report = next(trial.reports, None)
        except Exception as error:  # noqa: BLE001  whatever a trial raises ends the trial
            self._write_error(trial, error)
            scheduler.on_trial_error(None, trial)
            search.on_trial_complete(trial.trial_id, error=True)
            callback.on_trial_error(step, live, trial)
            return True
        if report is not None:
            done = report["epoch"] >= report["epochs"] or report["stopped_early"]
            result = {**report, "done": done, "trial_id": trial.trial_id}
            if not done and scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                result["done"] = True
            if not result["done"]:
                search.on_trial_result(trial.trial_id, result)
            callback.on_trial_result(step, live, trial, result)
            if not result["done"]:
                return False
        trial.reports.close()
        scheduler.on_trial_complete(None, trial, report or {})
        search.on_trial_complete(trial.trial_id, report)
        callback.on_trial_complete(step, live, trial)
        return True

    def _write_error(self, trial: Any, error: Exception) -> None:
        """What Tune leaves of a failed trial: a trace and a pickled exception, here beside the sweep's storage."""
        import pickle
        import traceback

        from ray.exceptions import ActorDiedError, RayTaskError

        assert self.errors is not None
        if isinstance(error, LostWorker):
            text, known = "The actor died unexpectedly before finishing this task.\n", ActorDiedError()
        else:
            text = "".join(traceback.format_exception(error))
            known = RayTaskError("train", text, error)
        trial.error_file = str(self.errors / f"{trial.trial_id}.txt")
        Path(trial.error_file).write_text(f"Failure # 1 (occurred now)\n{text}")
        trial.pickled_error_file = str(self.errors / f"{trial.trial_id}.pkl")
        try:
            Path(trial.pickled_error_file).write_bytes(pickle.dumps(known))
        except Exception:  # noqa: BLE001  read_error then knows the trace alone
            trial.pickled_error_file = None
