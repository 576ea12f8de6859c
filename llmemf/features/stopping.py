"""End a run of many calls in order: at Ctrl-C or SIGTERM, at the end of a budget, at an error that concerns all calls."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

REPORT_SECONDS = 1.0
"""A run reports its progress so often, also while nothing happens."""


class Stop:
    """Why a run should end; the first reason stays, and so does the first error.

    Attributes:
        event: set as soon as there is a reason.
        reason: "" | "interrupted" | "budget" | "endpoint" | "error".
        message: one sentence for the user.
        error: the exception to raise in the end, None if there is none.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.reason = ""
        self.message = ""
        self.error: Exception | None = None

    def request(self, reason: str, message: str = "", error: Exception | None = None) -> None:
        if not self.reason:
            self.reason, self.message = reason, message
        self.error = self.error or error
        self.event.set()

    def __bool__(self) -> bool:
        return self.event.is_set()


@contextmanager
def _listening(stop: Stop, on_first: Callable[[], None]) -> Iterator[None]:
    """Inside the block, the first Ctrl-C or SIGTERM requests a stop, the second one cancels the current task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked = False

    def hear() -> None:
        nonlocal asked
        if asked:
            assert task is not None, "a coroutine runs in a task"
            task.cancel()
            return
        asked = True
        stop.request("interrupted")
        on_first()

    heard = []
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, hear)
        except (RuntimeError, ValueError, NotImplementedError):
            # Only the main thread can handle signals; in another thread the caller uses `stop` itself.
            continue
        heard.append(number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def workers(
    stop: Stop, report: Callable[[], None], on_first: Callable[[], None]
) -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that work side by side until all have ended, at a second Ctrl-C at once.

    Args:
        stop: requested by the first Ctrl-C or SIGTERM.
        report: called every `REPORT_SECONDS`.
        on_first: called at the first signal, to tell the user what happens now.
    """
    with _listening(stop, on_first):
        ticker = asyncio.create_task(_tick(report))
        try:
            async with asyncio.TaskGroup() as group:
                yield group
        except asyncio.CancelledError:
            # The second Ctrl-C.
            if stop.reason != "interrupted":
                raise
        finally:
            ticker.cancel()


async def _tick(report: Callable[[], None]) -> None:
    while True:
        report()
        await asyncio.sleep(REPORT_SECONDS)
