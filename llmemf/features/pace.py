"""How fast to call: a limit that gives way to "too many requests", pauses that the server asks for, backoff."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import time
from collections.abc import Mapping

BASE_SECONDS = 0.5
LONGEST_BACKOFF = 60.0


class Pace:
    """A limit of calls at once that starts at one, opens with the first success and halves when the server complains.

    After a complaint every `limit` successes raise it by one again. All calls wait out a pause that the server asks
    for, not only the one that was refused.

    Args:
        most: calls at once.
        base: seconds of the first backoff.
    """

    def __init__(self, most: int, base: float = BASE_SECONDS) -> None:
        self.most = most
        self.limit = 1
        self.under_way = 0
        self._base = base
        self._proven = False
        self._successes = 0
        self._lowered = 0.0
        self._resume = 0.0
        self._changed = asyncio.Event()

    @property
    def pause(self) -> float:
        """Seconds that everybody has to wait from now on."""
        return max(0.0, self._resume - time.monotonic())

    async def enter(self, stop: asyncio.Event) -> float | None:
        """Wait for a place; the moment (monotonic) at which it was given, None if `stop` came first."""
        while not stop.is_set():
            if self.pause:
                await sleep(self.pause, stop)
            elif self.under_way < self.limit:
                self.under_way += 1
                return time.monotonic()
            else:
                self._changed.clear()
                await first(self._changed.wait(), stop.wait())
        return None

    def leave(self) -> None:
        self.under_way -= 1
        self._changed.set()

    def succeeded(self) -> None:
        if not self._proven:
            self._proven, self.limit = True, self.most
        self._successes += 1
        if self._successes >= self.limit and self.limit < self.most:
            self.limit, self._successes = self.limit + 1, 0
        self._changed.set()

    def refused(self, retry_after: float | None, tries: int, began: float) -> None:
        """The server said 429 to a call that began then: halve the limit and hold everybody back.

        A burst of refusals halves it once: a call that began under the old limit says nothing about the new one.
        """
        now = time.monotonic()
        if began >= self._lowered:
            self.limit, self._successes, self._lowered = max(1, self.limit // 2), 0, now
        wait = retry_after + random.uniform(0, 0.1) if retry_after else self.backoff(tries)
        self._resume = max(self._resume, now + wait)

    def backoff(self, tries: int) -> float:
        """Seconds before try number `tries` + 1: doubling, with jitter between half and all of it."""
        return min(LONGEST_BACKOFF, self._base * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (seconds or a date) or of retry-after-ms; None if absent or unreadable."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep, but not beyond `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def first(*waits) -> None:
    """Wait until one of several coroutines is done, and drop the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
