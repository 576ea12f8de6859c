"""How many requests one server gets at once, when it gets none, and how those that failed are repeated."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

LONGEST_BACKOFF = 60.0


class RequestFailed(Exception):
    """A request got nothing usable.

    Attributes:
        transient: a later try may succeed.
        limited: the server said "too many requests".
        billed: it may have been billed although nothing usable came back.
        wait: seconds that the server asks to wait, None if it does not say.
    """

    def __init__(
        self,
        reason: str,
        *,
        transient: bool = False,
        limited: bool = False,
        billed: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.transient, self.limited, self.billed, self.wait = transient, limited, billed, wait


Answer = TypeVar("Answer")


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


class Retries:
    """Repeats requests to one server: after a pause, or for all of them after the server's own pause.

    Args:
        limit: of the server.
        first_pause: the first pause after a failure takes up to so many seconds, every further one up to twice as many.
        stop: no request is repeated once it is set.
    """

    def __init__(self, limit: RequestLimit, first_pause: float, stop: asyncio.Event) -> None:
        self._limit, self._stop = limit, stop
        self._backoff = wait_random_exponential(multiplier=first_pause, max=LONGEST_BACKOFF)

    async def run(self, request: Callable[[], Awaitable[Answer]], is_last: Callable[[RequestFailed], bool]) -> Answer:
        """The answer to a request.

        Args:
            is_last: told of every transient failure; says whether the request is given up after it.

        Raises:
            RequestFailed: the last one.
        """
        return await AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RequestFailed) and error.transient),
            stop=lambda state: is_last(_failure_of(state)) or self._stop.is_set(),
            wait=self._wait,
            before_sleep=self._hold,
            sleep=lambda seconds: sleep(seconds, self._stop),
            reraise=True,
        )(request)

    def _wait(self, state: RetryCallState) -> float:
        failure = _failure_of(state)
        return 0.0 if failure.limited else max(failure.wait or 0.0, self._backoff(state))

    def _hold(self, state: RetryCallState) -> None:
        # Only where the request is repeated: after the last try the server's wish must not hold up all others.
        failure = _failure_of(state)
        if failure.limited:
            self._limit.hold(failure.wait or self._backoff(state))


def _failure_of(state: RetryCallState) -> RequestFailed:
    failure = state.outcome and state.outcome.exception()
    assert isinstance(failure, RequestFailed), "nothing else is repeated"
    return failure


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
