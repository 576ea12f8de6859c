"""A process that runs trials, one after the other, as an actor of Ray Tune.

Starting a process costs seconds (Python, Ray, torch), starting a trial in a running one a fraction of a second. A process gets
another trial only after one that ended in order, and only where `sweeps.core.process_state` can restore its first state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from typing import Any

import torch
from ray import tune
from ray.tune.result import DONE, RESULT_DUPLICATE

from sweeps.core.process_state import ProcessState, give_back_gpu_memory
from sweeps.core.trial import is_last


class StaleWorker(RuntimeError):
    """The state before the first trial cannot be restored; the trial runs in another process."""


class TrialWorker(tune.Trainable):
    """One process of a sweep; `tune.with_parameters` gives it what all trials share.

    Trials run on the process's main thread, one epoch per `step`, and between two steps nothing runs.
    """

    def setup(
        self,
        config: dict[str, Any],
        run_trial: Callable[..., Generator[dict[str, Any], None, None]] | None = None,
        data: Any = None,
        folder: str = "",
        checkpoint_epochs: Collection[int] = (),
    ) -> None:
        self._shared = {"data": data, "folder": folder, "checkpoint_epochs": checkpoint_epochs}
        self._run_trial = run_trial
        self._reports: Generator[dict[str, Any], None, None] | None = None
        self._state: ProcessState | None = None
        self._problem = ""

    def step(self) -> dict[str, Any]:
        """One epoch; the first one of a trial also makes the process ready.

        Raises:
            StaleWorker: it cannot be made ready.
            Exception: whatever the trial raises. Tune ends a process in which that happens.
        """
        if self._reports is None:
            self._make_ready()
            assert self._run_trial is not None, "all trials share it"
            self._reports = self._run_trial(self.config, **self._shared)
        report = next(self._reports, None)
        if report is None:
            # What Tune expects of a trial that ended without saying so in its last report.
            return {RESULT_DUPLICATE: True, DONE: True}
        done = is_last(report)
        if done:
            # Not when the next trial comes, which may be late or never: others may need the memory.
            self._end_trial()
            give_back_gpu_memory()
        return {**report, DONE: done}

    def _make_ready(self) -> None:
        if self._state is None:
            resources = self.trial_resources.required_resources if self.trial_resources else {}
            torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
            self._state = ProcessState()
            return
        try:
            problem = self._problem or self._state.restore()
        except Exception as error:  # noqa: BLE001  no trial fails for what an earlier one did
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise StaleWorker(problem)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process gets another trial. Anything that could go wrong is left to that trial's first step."""
        self._end_trial()
        return True

    def cleanup(self) -> None:
        self._end_trial()

    def _end_trial(self) -> None:
        """Leave a trial where it stands: the scheduler may have stopped it between two epochs."""
        reports, self._reports = self._reports, None
        try:
            if reports is not None:
                reports.close()
        except Exception as error:  # noqa: BLE001  the trial is over; only this process is in doubt
            self._problem = f"{type(error).__name__} when a trial was left: {error}"
