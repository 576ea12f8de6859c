"""The process that trains a stack: an actor of Ray whose members are trials.

A trial asks for its next epoch and waits. An epoch begins when all members have asked, or when those that have did so long
enough ago: a trial that is about to end, to save or to start must not hold up the others, and every member is at an epoch of
its own. All methods run one at a time on one event loop, which an epoch occupies.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

SHARE_WAITED = 0.5
"""Share of the last epoch's time that members are waited for."""
LEAST_WAITED, MOST_WAITED = 0.2, 5.0
"""Seconds."""
SILENT_SECONDS = 120.0
"""A member that has not asked for so long, though its turn came, has lost its process."""


class StackHost:
    """Trains trials in lockstep, those of one shape as one stack.

    Args:
        data: the `TrialData` that all trials share.
        cpus: threads to compute with.
    """

    def __init__(self, data: Any, cpus: float) -> None:
        self._data, self._threads = data, max(1, int(cpus))
        self._members: dict[int, Any] = {}
        self._stacks: dict[str, Any] = {}
        self._waiting: dict[int, asyncio.Future] = {}
        self._heard: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._epoch_seconds = 0.0

    async def gain(self, configurations: list[dict[str, Any]]) -> float:
        """How many times as fast these trials are in a stack as one after the other, measured on a few steps."""
        from sweeps.stacking.gain import measure_gain

        return measure_gain(self._data, [self._configuration(values) for values in configurations], self._threads)

    async def join(self, number: int, settings: dict[str, Any]) -> None:
        """Take a trial in, at its beginning; one of the same number is replaced.

        Raises:
            InputError: the configuration does not fit the data.
        """
        from llmemf.training import Trainer

        self._drop(number)
        self._set_threads()
        self._members[number] = Trainer(self._configuration(settings), self._data)
        self._heard[number] = time.monotonic()

    async def load(self, number: int, folder: str) -> tuple[int, bool]:
        """Let a member continue from a checkpoint; its epoch, and whether it has stopped early.

        Raises:
            InputError: the checkpoint cannot be read, or is of another configuration or other data.
        """
        trainer = self._members[number]
        trainer.load(folder)
        return trainer.epoch, trainer.stopped

    async def save(self, number: int, folder: str) -> None:
        """Write a member's checkpoint."""
        trainer = self._members[number]
        stack = self._stack_of(trainer)
        (stack.save if stack else type(trainer).save)(trainer, folder)

    async def next_epoch(self, number: int) -> dict[str, Any]:
        """Metrics of a member's next epoch, as `Trainer.epochs` yields them.

        Raises:
            NonFiniteLoss: training diverged.
            KeyError: it is no member, or not any more.
        """
        if number not in self._members:
            raise KeyError(f"trial {number} is no member of this stack")
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._heard[number] = time.monotonic()
        self._consider()
        return await answer

    async def leave(self, number: int) -> None:
        """Let a trial go; it has ended, or runs elsewhere."""
        self._drop(number)
        self._consider()

    def _configuration(self, settings: dict[str, Any]) -> Any:
        from llmemf.config import build_config
        from llmemf.models import model_class

        return build_config(model_class(settings["model"]).config_class, {**settings, "device": "cpu"})

    def _set_threads(self) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def _drop(self, number: int) -> None:
        trainer = self._members.pop(number, None)
        self._heard.pop(number, None)
        if answer := self._waiting.pop(number, None):
            answer.cancel()
        if trainer is not None and (stack := self._stack_of(trainer)):
            stack.remove(trainer)

    def _stack_of(self, trainer: Any) -> Any:
        found = (stack for stack in self._stacks.values() if any(member is trainer for member in stack.members))
        return next(found, None)

    def _consider(self) -> None:
        """Begin an epoch now, or let it begin a little later."""
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if set(self._waiting) == set(self._members):
            loop.call_soon(self._run)
        elif self._timer is None:
            pause = min(MOST_WAITED, max(LEAST_WAITED, SHARE_WAITED * self._epoch_seconds))
            self._timer = loop.call_later(pause, self._run)

    def _run(self) -> None:
        """One epoch of every member that waits for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        self._set_threads()
        began = time.monotonic()
        for number in [n for n in self._members if n not in waiting and began - self._heard[n] > SILENT_SECONDS]:
            self._drop(number)
        by_shape: dict[str, list[int]] = {}
        for number in waiting:
            by_shape.setdefault(_shape(self._members[number].config), []).append(number)
        for shape, numbers in by_shape.items():
            try:
                found = self._run_stack(shape, [self._members[number] for number in numbers])
            except Exception as error:  # noqa: BLE001  every trial of this stack fails by it, the host goes on
                found = [error] * len(numbers)
            for number, result in zip(numbers, found):
                answer = waiting[number]
                if isinstance(result, Exception):
                    self._drop(number)
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
        # Those who wait for the others' epochs were not silent meanwhile.
        self._epoch_seconds = time.monotonic() - began
        self._heard = {number: time.monotonic() if number in waiting else at for number, at in self._heard.items()}

    def _run_stack(self, shape: str, trainers: list[Any]) -> list[Any]:
        from llmemf.stacked.trainer import StackedTrainer

        stack = self._stacks.setdefault(shape, StackedTrainer())
        for member in list(stack.members):
            if not any(member is trainer for trainer in trainers):
                stack.remove(member)
        for trainer in trainers:
            if not any(trainer is member for member in stack.members):
                stack.add(trainer)
        found = dict(zip(map(id, stack.members), stack.run_epoch()))
        return [found[id(trainer)] for trainer in trainers]


def _shape(config: Any) -> str:
    from llmemf.stacked.trainer import stack_key

    return stack_key(config)
