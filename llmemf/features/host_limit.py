"""How many requests one server gets at once, and when it gets none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from llmemf.features.image_content import NoImage


class HostLimit:
    """A semaphore for one server that shrinks when the server refuses requests, and grows again with its answers.

    Every refused request takes one place away, down to one place. So the number settles at what the server accepts;
    as many answers as there are places give one place back. All requests wait for the end of a pause.

    Args:
        most: requests at once.
    """

    def __init__(self, most: int) -> None:
        self._most = self.places = most
        self._semaphore = asyncio.Semaphore(most)
        self._answers = 0
        self._pause_end = 0.0

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long."""
        self._pause_end = max(self._pause_end, time.monotonic() + seconds)

    @asynccontextmanager
    async def place(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Wait for a place and for the end of a pause, or for `stop`; a `NoImage` in the block counts as an answer."""
        await self._semaphore.acquire()
        released = 1
        try:
            while (left := self._pause_end - time.monotonic()) > 0 and not stop.is_set():
                await sleep(left, stop)
            yield
            self._answers += 1
            if self._answers >= self.places < self._most:
                self.places, self._answers, released = self.places + 1, 0, 2
        except NoImage as error:
            if error.refused and self.places > 1:
                self.places, self._answers, released = self.places - 1, 0, 0
            raise
        finally:
            for _ in range(released):
                self._semaphore.release()


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep until the time is over or `stop` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
