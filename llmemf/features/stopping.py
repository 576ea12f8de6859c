"""End a run of many calls in order: at Ctrl-C or SIGTERM, at the end of a budget, at an error that concerns all calls."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

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


@asynccontextmanager
async def workers(
    stop: Stop, report: Callable[[], None], on_first: Callable[[], None]
) -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that work side by side until all have ended, at a second Ctrl-C or SIGTERM at once.

    Args:
        stop: requested by the first signal.
        report: called every `REPORT_SECONDS`.
        on_first: called at the first signal, to tell the user what happens now.

    Raises:
        Exception: the first error that stopped the run, when all have ended.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    signals = 0

    def hear() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            task.cancel()
        else:
            stop.request("interrupted")
            on_first()

    for number in (signal.SIGINT, signal.SIGTERM):
        # Only the main thread can handle signals; in another thread the caller uses `stop` itself.
        with suppress(RuntimeError, ValueError, NotImplementedError):
            loop.add_signal_handler(number, hear)
    ticker = asyncio.create_task(_tick(report))
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except asyncio.CancelledError:
        if signals < 2:
            raise
    finally:
        ticker.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if stop.error:
        raise stop.error


async def _tick(report: Callable[[], None]) -> None:
    while True:
        report()
        await asyncio.sleep(REPORT_SECONDS)
