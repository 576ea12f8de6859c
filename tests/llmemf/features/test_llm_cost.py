"""A budget is never exceeded, whatever calls cost and in whatever order they end."""

from __future__ import annotations

import asyncio
import random

import pytest

from llmemf.features.llm_cost import Budget, Prices, approximate_tokens, default_prices, expected_answer, most_tokens
from llmemf.features.prompts import SYSTEM


@pytest.mark.parametrize("seed", range(20))
def test_many_calls_at_once_never_exceed_a_budget(seed):
    rng = random.Random(seed)
    limit = rng.uniform(0, 30)
    budget = Budget(Prices(1, 1), limit, spent=rng.uniform(0, limit))
    refused = []

    async def call():
        bound = rng.uniform(0.1, 3)
        if not await budget.reserve(bound):
            refused.append(budget.spent + bound)
            return
        await asyncio.sleep(0)
        budget.settle(bound, rng.uniform(0, bound))
        assert budget.spent <= limit + 1e-9

    async def calls():
        await asyncio.gather(*(call() for _ in range(40)))

    asyncio.run(calls())
    assert budget.calls == 0 and all(total > limit for total in refused), "refused only where it would not fit"


def test_a_call_waits_until_one_under_way_has_turned_out_cheap():
    budget = Budget(Prices(1, 1), 10.0)

    async def scene():
        assert await budget.reserve(8.0)
        waiting = asyncio.create_task(budget.reserve(8.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.settle(8.0, 1.0)
        assert await waiting
        budget.settle(8.0, 8.0)
        assert not await budget.reserve(2.0)

    asyncio.run(scene())
    assert budget.spent == 9.0


def test_prices_and_tokens():
    assert default_prices("deepseek-chat").usd(1e6, 2e6) == pytest.approx(0.56 + 2 * 1.68)
    assert default_prices("m") is None
    assert approximate_tokens("a" * 10) == 3 and approximate_tokens("\u4e2d" * 10) == 7
    assert most_tokens("\u4e2d") == 3 + len(SYSTEM) + 20
    assert expected_answer("m") == 220 and expected_answer("org/DeepSeek-R1") == 820
