"""Requests to one server: those that failed are repeated, and none begins during a pause that the server asks for."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

LONGEST_BACKOFF = 60.0
Answer = TypeVar("Answer")


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


class Retries:
    """Makes requests to one server again and again until they succeed.

    Args:
        stop: once it is set, nothing waits and no request is repeated.
        first_pause: the first pause after a failure takes up to so many seconds, every further one up to twice as many.
    """

    def __init__(self, stop: asyncio.Event, first_pause: float) -> None:
        self._stop, self._pause_end = stop, 0.0
        self._backoff = wait_random_exponential(multiplier=first_pause, max=LONGEST_BACKOFF)

    @property
    def pause(self) -> float:
        """Seconds that no request may begin from now on."""
        return max(0.0, self._pause_end - time.monotonic())

    async def run(self, request: Callable[[], Awaitable[Answer]], is_last: Callable[[RequestFailed], bool]) -> Answer:
        """The answer to a request.

        Args:
            is_last: told of every transient failure; says whether the request is given up after it.

        Raises:
            RequestFailed: the last one.
        """

        async def after_pause() -> Answer:
            while self.pause and not self._stop.is_set():
                await self._sleep(self.pause)
            return await request()

        return await AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RequestFailed) and error.transient),
            stop=lambda state: is_last(_failure_of(state)) or self._stop.is_set(),
            wait=self._wait,
            before_sleep=self._hold,
            sleep=self._sleep,
            reraise=True,
        )(after_pause)

    def _wait(self, state: RetryCallState) -> float:
        failure = _failure_of(state)
        return 0.0 if failure.limited else max(failure.wait or 0.0, self._backoff(state))

    def _hold(self, state: RetryCallState) -> None:
        # Only where the request is repeated: after the last try the server's wish must not hold up all others.
        failure = _failure_of(state)
        if failure.limited:
            self._pause_end = max(self._pause_end, time.monotonic() + (failure.wait or self._backoff(state)))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


def _failure_of(state: RetryCallState) -> RequestFailed:
    failure = state.outcome and state.outcome.exception()
    assert isinstance(failure, RequestFailed), "nothing else is repeated"
    return failure


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
