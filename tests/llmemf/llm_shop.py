"""A scenario that consists of titles, and one run over it against the fake endpoint."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from fake_openai import KEY, FakeOpenAI

from llmemf.features.enrich import Enrichment, Progress
from llmemf.features.llm_cache import AnswerCache
from llmemf.features.llm_cost import Budget, Prices
from llmemf.features.llm_endpoint import Endpoint
from llmemf.features.llm_plan import Plan, make_plan
from llmemf.features.prompts import prompts_for
from llmemf.features.stopping import Stop
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

PRICES = Prices(10.0, 100.0)
"""USD per million; the fake's usual answer (100 and 50 tokens) costs 0.006."""
ANSWER_USD = 0.006
TITLES = [f"Title number {number}" for number in range(24)]


def write_shop(root: Path, titles: list[str], *, num_x: int | None = None, domains=("film", "book")) -> Scenario:
    """Write the scenario `shop` with these titles and little else."""
    num_x = num_x or len(titles) // 2
    items = pd.DataFrame({"external_id": [f"i{number}" for number in range(len(titles))], "title": titles})
    items["description"] = items["image"] = ""
    split = Sequences.from_rows([0], [[0, num_x, num_x + 1]])
    scenario = Scenario(
        name="shop",
        domains=domains,
        num_x=num_x,
        items=items,
        user_ids=np.array(["u"]),
        train=split,
        valid=split,
        test=split,
        candidates={part: np.array([[num_x]], np.int32) for part in ("valid", "test")},
    )
    return Scenario.load(scenario.save(root))


def plan_of(scenario: Scenario) -> Plan:
    return make_plan(scenario, "m", prompts_for(scenario.domains))


def bounds(scenario: Scenario, max_tokens: int = 200) -> dict[str, float]:
    """The most that a call of a run costs, USD, by the key of its question."""
    plan = plan_of(scenario)
    return {plan.keys[item]: Budget(PRICES).bound(plan.question(item).text, max_tokens) for item in plan.order}


@dataclasses.dataclass
class Outcome:
    """What a run left: why it stopped, its last progress, the status of every item, and the lines for the user."""

    stop: Stop
    progress: Progress
    statuses: list[str]
    messages: list[str]
    usd: float


def run(
    scenario: Scenario,
    fake: FakeOpenAI,
    *,
    budget: float | None = None,
    concurrency: int = 8,
    retry_failed: bool = False,
    limit: int = 0,
    stop_when=lambda run, progress: None,
    **endpoint,
) -> Outcome:
    """One run; `stop_when(run, progress)` is called with every progress."""
    endpoint = Endpoint(base_url=fake.url, model="m", key=KEY, **{"max_tokens": 200, "timeout": 5.0, **endpoint})
    plan = plan_of(scenario)
    seen, messages = [], []
    with AnswerCache.open(scenario.folder) as cache:
        enrichment = Enrichment(
            plan,
            cache,
            endpoint,
            Budget(PRICES, budget, cache.usd),
            plan.open_items(cache, limit=limit, retry_failed=retry_failed),
            concurrency=concurrency,
            retry_failed=retry_failed,
            on_message=messages.append,
            backoff=0.003,
        )

        def on_progress(progress: Progress) -> None:
            seen.append(dataclasses.replace(progress))
            stop_when(enrichment, progress)

        enrichment.on_progress = on_progress
        stop = asyncio.run(enrichment.run())
        return Outcome(stop, seen[-1], [cache.entry(key).status for key in plan.keys], messages, cache.usd)


def records(scenario: Scenario) -> list[dict]:
    """The lines of the cache that are whole."""
    path = scenario.folder / "llm_cache.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []
