"""Ctrl-C, SIGTERM and a closed terminal during a sweep: asked once it saves and ends, asked twice it leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 20.0
"""A sweep that was asked to stop and does not get to it (Ray itself was killed by the same signal) is ended after so long:
schedulers send SIGKILL about 30 seconds after SIGTERM."""


class Interrupted(Exception):
    """The user asked to stop before the trials had started."""


class StopRequest:
    """Notes that the sweep should stop, and passes it on to Tune.

    Tune ends and saves a sweep on SIGUSR1. Sent before Tune listens, that signal would kill the process; so the request
    is only noted here and passed on from within Tune's loop (`forward`).

    Args:
        time_budget: seconds after which the sweep should stop, None for no limit; counted from `__enter__`.

    Attributes:
        reason: why to stop, "" while nobody asked.
        planned: whether the time budget is the reason.
        on_stuck: what to do where the sweep does not end in time after a signal.
    """

    def __init__(self, time_budget: float | None = None) -> None:
        self.reason = ""
        self.planned = False
        self.on_stuck: Callable[[], None] | None = None
        self._timers: list[threading.Timer] = []
        self._time_budget = time_budget
        self._forwarded = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in (*ASKED, signal.SIGUSR1)}
        self.listen()
        if self._time_budget is not None:
            self._later(self._time_budget, self._budget_spent)
        return self

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _budget_spent(self) -> None:
        self.planned = not self.reason
        self.request("the time budget is spent")

    def listen(self) -> None:
        """Take over the signals that ask to stop; Ray sets its own handler of SIGTERM when it starts."""
        for number in ASKED:
            # Under nohup a hang-up is ignored, and stays so. Ctrl-C is heard even where a script in the background was
            # started with it ignored: whoever sends it then means this sweep.
            if number != signal.SIGHUP or self._previous[number] != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def __exit__(self, *exception: object) -> None:
        for timer in self._timers:
            timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason = "interrupted"
        self._later(GRACE_SECONDS, lambda: self.on_stuck and self.on_stuck())

    def request(self, reason: str) -> None:
        """Stop for another reason than the user's."""
        self.reason = self.reason or reason

    def forward(self) -> bool:
        """Called from within Tune's loop: end it, if that was asked for; True the one time that it does."""
        if not self.reason or self._forwarded:
            return False
        self._forwarded = True
        os.kill(os.getpid(), signal.SIGUSR1)
        return True

    def check(self) -> None:
        """Called between the steps before the trials start.

        Raises:
            Interrupted: the user asked to stop.
        """
        if self.reason:
            raise Interrupted(self.reason)
