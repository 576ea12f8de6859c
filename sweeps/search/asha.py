"""Ray Tune's schedulers as a sweep needs them.

Asynchronous successive halving knows what the trials of an earlier driver reached. With it and without it, processes that have no
trial live on while the next trials wait for the last ones of a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from sweeps.cluster.ray_private import asha_rungs, keep_idle_workers
from sweeps.state.trial_records import TrialRecord, trial_name


class KeepsWorkers(FIFOScheduler):
    """Keeps idle processes for trials that are to come: to start another one takes seconds.

    Attributes:
        awaited: how many trials will come, once others have ended.
    """

    awaited: Callable[[], int] = staticmethod(lambda: 0)
    _kept = 0

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if tune_controller.get_trials() and (more := self.awaited() - self._kept):
            keep_idle_workers(tune_controller, more)
            self._kept += more
        return super().choose_trial_to_run(tune_controller)


class ResumableASHA(KeepsWorkers, ASHAScheduler):
    """Ray's ASHA with its rungs filled from the sweep's records.

    Ray forgets the rungs between drivers, and would let the first trials after a resume pass for free. A trial that was
    lost and runs again gets another id from Tune; its place on each rung moves along, so that it never competes with
    itself. A repeat of a trial runs to its end and has no place on any rung.

    Args:
        records: trials so far.
        is_repeat: whether the trial of this number repeats another one.
        options: of `ASHAScheduler`; its time is the epoch.
    """

    def __init__(
        self,
        records: Iterable[TrialRecord],
        is_repeat: Callable[[int], bool] = lambda number: False,
        **options: Any,
    ) -> None:
        super().__init__(time_attr="epoch", brackets=1, **options)
        self._ids: dict[str, str] = {}
        self._is_repeat = is_repeat
        earlier = [record for record in records if not record.repeats]
        for milestone, recorded in self.rungs:
            epoch = math.ceil(milestone)
            recorded.update({record.name: record.values[epoch - 1] for record in earlier if record.epoch >= epoch})

    @property
    def rungs(self) -> list[tuple[float, dict[str, float]]]:
        """Milestone (epochs) and recorded objective per trial, the highest rung first."""
        return asha_rungs(self)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        name = trial_name(trial.config["trial"])
        before, self._ids[name] = self._ids.get(name, name), trial.trial_id
        for _, recorded in self.rungs:
            if before in recorded:
                recorded[trial.trial_id] = recorded.pop(before)
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        if self._is_repeat(trial.config["trial"]):
            return self.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        if not self._is_repeat(trial.config["trial"]):
            super().on_trial_complete(tune_controller, trial, result)
