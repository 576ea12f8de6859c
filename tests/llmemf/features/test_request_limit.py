"""How many requests begin at once, after refusals, answers and pauses."""

from __future__ import annotations

import asyncio

import pytest

from llmemf.features.request_limit import RequestFailed, RequestLimit, Retries, retry_after


async def most_at_once(limit: RequestLimit, requests: int = 20) -> int:
    """How many of many requests are in their places together."""
    now, most = 0, 0

    async def request():
        nonlocal now, most
        async with limit.place(asyncio.Event()):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    await asyncio.gather(*(request() for _ in range(requests)))
    return most


def test_refusals_take_places_away_and_answers_give_them_back():
    async def scene():
        limit = RequestLimit(8)
        assert await most_at_once(limit) == 8
        async with limit.place(asyncio.Event()), limit.place(asyncio.Event()), limit.place(asyncio.Event()):
            for _ in range(3):
                limit.refused()
        assert limit.places == 5 and await most_at_once(limit) == 5
        for _ in range(5 + 6):
            limit.answered()
        assert limit.places == 7 and await most_at_once(limit) == 7
        for _ in range(100):
            limit.answered()
        assert limit.places == 8 and await most_at_once(limit) == 8
        for _ in range(100):
            async with limit.place(asyncio.Event()):
                limit.refused()
        assert limit.places == 1 and await most_at_once(limit, 3) == 1, "one place stays"

    asyncio.run(scene())


def test_nobody_begins_during_a_pause_and_a_stop_ends_it():
    async def scene():
        limit, stop, begun = RequestLimit(2), asyncio.Event(), []
        limit.hold(600.0)
        limit.hold(1.0)
        assert 599 < limit.pause <= 600, "the longest pause counts"

        async def request():
            async with limit.place(stop):
                begun.append(1)

        tasks = [asyncio.create_task(request()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not begun
        stop.set()
        await asyncio.gather(*tasks)
        assert len(begun) == 3

    asyncio.run(scene())


def test_retry_after_that_cannot_be_read():
    assert retry_after({}) is retry_after({"retry-after": ""}) is retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-5"}) == 0.0
    assert retry_after({"retry-after-ms": "x", "retry-after": "2"}) == 2.0


def test_a_request_that_is_given_up_holds_up_no_other():
    """The server asks for hours; the request is not repeated, so nobody waits."""

    async def run():
        limit, stop = RequestLimit(2), asyncio.Event()
        retries = Retries(limit, 0.01, stop)

        async def refused():
            raise RequestFailed("limited", transient=True, limited=True, wait=9999.0)

        with pytest.raises(RequestFailed):
            await retries.run(refused, lambda failure: True)
        return limit.pause

    assert asyncio.run(run()) == 0.0
