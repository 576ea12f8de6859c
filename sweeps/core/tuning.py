"""Ray Tune as a sweep uses it: it starts trials and stops laggards; what is tried next, the sweep's own search says."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmemf.errors import StorageError, storage_fault
from sweeps.core.plan import Plan
from sweeps.state.sweep_record import TUNE
from sweeps.state.sweep_state import SweepState

if TYPE_CHECKING:
    from sweeps.core.sweep import Sweep


def run_trials(sweep: Sweep, callback: Any, parallel: int) -> None:
    """Hand the trials to Ray Tune, which knows nothing of earlier drivers: the search hands out unfinished trials first."""
    from ray import tune

    from sweeps.core.callback import trial_dirname
    from sweeps.core.trial import train_trial
    from sweeps.core.worker import TrialWorker

    record = sweep.plan.record
    worker = tune.with_parameters(
        TrialWorker,
        run_trial=sweep.backend.trainable or train_trial,
        data=sweep.data.trial_data,
        folder=str(sweep.folder),
        checkpoint_epochs=sweep.plan.rungs,
    )
    try:
        tune.run(
            worker,
            name=TUNE,
            storage_path=str(sweep.folder),
            config=sweep.plan.fixed,
            metric="objective",
            mode="max",
            # The search says when nothing is left; a trial that was lost counts for Tune as one more.
            num_samples=-1,
            search_alg=sweep.search,
            scheduler=make_scheduler(sweep.plan, sweep.state, sweep.search.awaited),
            max_concurrent_trials=parallel,
            resources_per_trial={
                "cpu": record.cpus_per_trial,
                "gpu": record.gpus_per_trial,
            },
            reuse_actors=not record.fresh_workers,
            callbacks=[callback],
            trial_dirname_creator=trial_dirname,
            raise_on_failed_trial=False,
            verbose=0,
        )
    except Exception as error:
        # Tune wraps what a callback raises, also where the event log could not be written.
        if (number := storage_fault(traceback.format_exc())) is not None:
            raise StorageError.of(sweep.folder, OSError(number, os.strerror(number))) from error
        raise


def make_scheduler(plan: Plan, state: SweepState, awaited: Callable[[], int] = lambda: 0) -> Any:
    """ASHA over the epochs of a trial, or a scheduler that stops none; `awaited` is as in `KeepsWorkers`."""
    from sweeps.search.asha import KeepsWorkers, ResumableASHA

    scheduler = KeepsWorkers()
    if plan.record.scheduler != "none":
        scheduler = ResumableASHA(
            state.records.values(),
            is_repeat=lambda number: bool(state.records[number].repeats),
            max_t=plan.epochs,
            grace_period=min(plan.record.grace_period, plan.epochs),
            reduction_factor=plan.record.reduction_factor,
        )
    scheduler.awaited = awaited
    return scheduler
