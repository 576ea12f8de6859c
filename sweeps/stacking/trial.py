"""A trial whose training happens in a stack's process: what Tune runs is light and only asks for the next epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sweeps.trial import NodeUnfit, run_epochs


class Places:
    """Which stack each trial belongs to; an actor of its own, since stacks answer between two epochs only."""

    def __init__(self, stacks: int) -> None:
        self._trials: list[set[int]] = [set() for _ in range(stacks)]

    def take(self, number: int) -> int:
        """The stack with the fewest members, for this trial from now on."""
        self.give(number)
        index = min(range(len(self._trials)), key=lambda index: len(self._trials[index]))
        self._trials[index].add(number)
        return index

    def give(self, number: int) -> None:
        for trials in self._trials:
            trials.discard(number)


@dataclass(frozen=True)
class Hosts:
    """Handles of the actors: one `StackHost` per stack, and the `Places`."""

    stacks: list[Any]
    places: Any


class RemoteTrainer:
    """Stands for a `Trainer` that lives in a stack.

    Args:
        host: the stack's actor.
        number: of the trial.
        settings: of the trial, checked before the sweep started.
    """

    def __init__(self, host: Any, number: int, settings: dict[str, Any]) -> None:
        self._host, self._number, self._epochs = host, number, settings["epochs"]
        self._epoch, self._stopped = 0, False
        _answer(host.join.remote(number, settings))

    def load(self, folder: Any) -> None:
        self._epoch, self._stopped = _answer(self._host.load.remote(self._number, str(folder)))

    def save(self, folder: Any) -> None:
        _answer(self._host.save.remote(self._number, str(folder)))

    def epochs(self) -> Iterator[dict[str, Any]]:
        while self._epoch < self._epochs and not self._stopped:
            metrics = _answer(self._host.next_epoch.remote(self._number))
            self._epoch, self._stopped = metrics["epoch"], metrics["stopped_early"]
            yield metrics


def stacked_trial(
    config: dict[str, Any], data: None, folder: str, checkpoint_epochs: Collection[int] = (), *, hosts: Hosts
) -> Iterator[dict[str, Any]]:
    """Train one model in a stack, continuing from the trial's last checkpoint; see `sweeps.trial.train_trial`.

    Args:
        data: none; the stacks have it.
        hosts: of the sweep.

    Raises:
        NodeUnfit: the stack's process has ended; the trial runs again.
    """
    number = config["trial"]
    settings = {key: value for key, value in config.items() if key != "trial"}
    host = hosts.stacks[_answer(hosts.places.take.remote(number))]
    try:
        yield from run_epochs(lambda: RemoteTrainer(host, number, settings), config, folder, checkpoint_epochs)
    finally:
        hosts.places.give.remote(number)
        host.leave.remote(number)


def _answer(reference: Any) -> Any:
    """What an actor answers; its exception as it was raised there.

    Raises:
        NodeUnfit: the actor has ended, or the trial is no member of its stack any more.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(reference)
    except RayActorError:
        raise NodeUnfit("the process of the trial's stack has ended") from None
    except RayTaskError as error:
        if isinstance(error.cause, KeyError):
            raise NodeUnfit("the trial is no member of its stack any more") from None
        raise error.cause from None
