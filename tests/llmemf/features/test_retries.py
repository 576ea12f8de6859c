"""When requests that failed are repeated, and when nobody begins."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmemf.features.retries import RequestFailed, Retries, retry_after


def refused_once(wait: float):
    """A request that the server refuses with a pause the first time, and the moments of its tries."""
    begun: list[float] = []

    async def request():
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise RequestFailed("limited", transient=True, limited=True, wait=wait)
        return "answer"

    return request, begun


def test_a_refused_request_is_repeated_after_the_pause_and_nobody_begins_during_it():
    async def scene():
        retries = Retries(asyncio.Event(), 0.01)
        request, begun = refused_once(0.2)
        first = asyncio.create_task(retries.run(request, lambda failure: False))
        await asyncio.sleep(0.02)
        assert 0.1 < retries.pause <= 0.2

        async def other():
            return time.monotonic()

        assert await retries.run(other, lambda failure: False) - begun[0] >= 0.2
        assert await first == "answer" and begun[1] - begun[0] >= 0.2

    asyncio.run(scene())


def test_a_stop_ends_a_pause_and_lets_nothing_be_repeated():
    async def scene():
        stop = asyncio.Event()
        retries = Retries(stop, 0.01)
        request, begun = refused_once(600.0)
        task = asyncio.create_task(retries.run(request, lambda failure: False))
        await asyncio.sleep(0.01)
        assert 599 < retries.pause <= 600 and len(begun) == 1
        stop.set()
        assert await task == "answer"

        async def failing():
            raise RequestFailed("broken", transient=True)

        with pytest.raises(RequestFailed, match="broken"):
            await retries.run(failing, lambda failure: False)

    asyncio.run(scene())


def test_retry_after_that_cannot_be_read():
    assert retry_after({}) is retry_after({"retry-after": ""}) is retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-5"}) == 0.0
    assert retry_after({"retry-after-ms": "x", "retry-after": "2"}) == 2.0


def test_a_request_that_is_given_up_holds_up_no_other():
    """The server asks for hours; the request is not repeated, so nobody waits."""

    async def run():
        retries = Retries(asyncio.Event(), 0.01)

        async def refused():
            raise RequestFailed("limited", transient=True, limited=True, wait=9999.0)

        with pytest.raises(RequestFailed):
            await retries.run(refused, lambda failure: True)
        return retries.pause

    assert asyncio.run(run()) == 0.0
