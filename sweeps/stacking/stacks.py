"""The stacks of a sweep: when stacking is possible, whether it is worth it here, and the processes that do it."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.settings import SweepRecord

WORTH = 1.1
"""Trials are stacked where they are so many times as fast as singly."""


@dataclass(frozen=True)
class Stacks:
    """Running stacks.

    Attributes:
        run_trial: what Tune runs as a trial.
        parallel: how many trials run at once.
        cpus_per_trial: what a trial asks for; the processes of the stacks ask for nothing.
        data: what the trials train on, in Ray's store as long as this is held: a stack that comes back needs it.
    """

    run_trial: Callable[..., Any]
    parallel: int
    cpus_per_trial: float
    data: Any


def check_stack(record: SweepRecord, configs: Sequence[TrialConfig]) -> None:
    """Refuse `--stack` where it cannot work.

    Raises:
        InputError: it cannot, with the reason.
    """
    if record.stack == 1:
        return
    from llmemf.stacked.trainer import stack_problem

    if record.ray_address:
        raise InputError("--stack works on this machine alone: leave out --ray-address or --stack")
    if record.gpus_per_trial:
        raise InputError("--stack trains on CPUs: give --gpus-per-trial 0, or leave out --stack")
    for config in configs:
        if problem := stack_problem(config):
            raise InputError(f"--stack: {problem}")


def open_stacks(record: SweepRecord, configs: Sequence[TrialConfig], data: Any, console: Console) -> Stacks | None:
    """Start the processes of the stacks; None where trials of this sweep are as fast singly, which is said.

    Args:
        record: of the sweep.
        configs: one per distinct choice.
        data: the `TrialData` that all trials share.
    """
    import ray

    from sweeps.cluster.resources import machine, trials_that_fit
    from sweeps.stacking.host import StackHost
    from sweeps.stacking.trial import Hosts, Places, stacked_trial

    size = record.stack
    most = trials_that_fit(record, machine()) * size
    parallel = min(most, record.concurrency or most)
    # Whoever starts them owns them: they end with the sweep. A killed one comes back empty.
    host = ray.remote(StackHost).options(num_cpus=0, max_restarts=-1)
    shared = ray.put(data)
    stacks = [host.remote(shared, record.cpus_per_trial)]
    chosen = alike(configs, size)
    with console.status("measuring what stacking gives"):
        gain = ray.get(stacks[0].gain.remote(chosen))
    if gain < WORTH:
        console.print(
            f"stacks of {len(chosen)} trials are {gain:.2f} times as fast as single ones here: trials run singly"
        )
        ray.kill(stacks[0])
        return None
    console.print(
        f"stacks of {len(chosen)} trials are {gain:.2f} times as fast as single ones here: trials are stacked"
    )
    stacks += [host.remote(shared, record.cpus_per_trial) for _ in range(-(-parallel // size) - 1)]
    places = ray.remote(Places).options(num_cpus=0).remote(len(stacks))
    run_trial = functools.partial(stacked_trial, hosts=Hosts(stacks, places))
    return Stacks(run_trial, parallel, record.cpus_per_trial / size, shared)


def alike(configs: Sequence[TrialConfig], size: int) -> list[dict[str, Any]]:
    """Settings of so many trials of the shape that most have; one is taken again where there are too few."""
    from llmemf.stacked.trainer import stack_key

    by_shape: dict[str, list[TrialConfig]] = defaultdict(list)
    for config in configs:
        by_shape[stack_key(config)].append(config)
    most = max(by_shape.values(), key=len)
    return [most[index % len(most)].to_dict() for index in range(size)]
