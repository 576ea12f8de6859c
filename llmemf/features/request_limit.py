"""How many requests one server gets at once, and when it gets none."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress


class RequestLimit:
    """A semaphore that shrinks when the server refuses requests, and grows again with its answers.

    Every refused request takes one place away, down to one place. So the number settles at what the server accepts;
    as many answers as there are places give one place back. All requests wait for the end of a pause.

    Args:
        most: requests at once.
    """

    def __init__(self, most: int) -> None:
        self._most = self.places = most
        self._semaphore = asyncio.Semaphore(most)
        self._taken_away = 0
        self._answers = 0
        self._pause_end = 0.0

    @property
    def pause(self) -> float:
        """Seconds that no request may begin from now on."""
        return max(0.0, self._pause_end - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Let no request begin for so long."""
        self._pause_end = max(self._pause_end, time.monotonic() + seconds)

    @asynccontextmanager
    async def place(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Wait for a place and then for the end of a pause, or for `stop`."""
        await self._semaphore.acquire()
        try:
            while self.pause and not stop.is_set():
                await sleep(self.pause, stop)
            yield
        finally:
            if self._taken_away:
                self._taken_away -= 1
            else:
                self._semaphore.release()

    def refused(self) -> None:
        """The server refused a request in its place."""
        self._answers = 0
        if self.places > 1:
            self.places -= 1
            self._taken_away += 1

    def answered(self) -> None:
        """The server answered a request in its place."""
        self._answers += 1
        if self._answers >= self.places < self._most:
            self.places, self._answers = self.places + 1, 0
            if self._taken_away:
                self._taken_away -= 1
            else:
                self._semaphore.release()


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep until the time is over or `stop` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of `retry-after-ms` or `Retry-After` (seconds or a date); None where they are absent or unreadable."""
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after", "").strip()
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
