"""What is to be asked for a scenario, and what it will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmemf.features.answers import USABLE
from llmemf.features.llm_cache import AnswerCache, answer_key
from llmemf.features.llm_cost import Prices, approximate_tokens, expected_answer, most_tokens
from llmemf.features.prompts import SYSTEM, Prompt, categories_of
from llmemf.scenarios.scenario import Scenario

LEARNED_FROM = 20
"""An estimate takes the mean length of the answers in the cache if there are so many."""


@dataclass(frozen=True)
class Question:
    """One question: the key of its answer, the model that is asked, the prompt it was made from, and its text."""

    key: str
    model: str
    prompt: Prompt
    text: str

    def record(self, status: str, **facts: Any) -> dict[str, Any]:
        """What happened to the question, as the cache keeps it."""
        return {"key": self.key, "model": self.model, "prompt": self.prompt.version, "status": status, **facts}


@dataclass(frozen=True)
class Plan:
    """The questions of a scenario; items of equal text and domain share one.

    Attributes:
        scenario, model: what is asked about, and whom.
        prompts: of X and Y.
        texts: title, description and categories of every item.
        keys: (num_items,) key of every item, "" for an item without any text.
        order: one item for each question, the most frequent of the training histories first.
    """

    scenario: Scenario
    model: str
    prompts: tuple[Prompt, Prompt]
    texts: Sequence[Any]
    keys: np.ndarray
    order: np.ndarray
    subject = "item"

    def question(self, item: int) -> Question:
        """What is asked about an item."""
        prompt = self.prompts[int(item >= self.scenario.num_x)]
        return Question(self.keys[item], self.model, prompt, prompt.fill(*self.texts[item]))

    def open_items(self, cache: AnswerCache, *, limit: int = 0, retry_failed: bool = False) -> list[int]:
        """Items whose questions have no answer, at most `limit` of them (0: all)."""
        items = [
            int(item)
            for item in self.order
            if not (entry := cache.entry(self.keys[item])).settled or (retry_failed and entry.status != USABLE)
        ]
        return items[:limit] if limit else items


def make_plan(scenario: Scenario, model: str, prompts: tuple[Prompt, Prompt]) -> Plan:
    """Key every item that has a title, a description or both."""
    table = scenario.items
    texts = list(zip(table.title.astype(str), table.description.astype(str), categories_of(table)))
    keys = np.full(scenario.num_items, "", dtype=object)
    for item, (title, description, _) in enumerate(texts):
        if title.strip() or description.strip():
            prompt = prompts[int(item >= scenario.num_x)]
            keys[item] = answer_key(prompt.version, model, prompt.fill(*texts[item]))
    frequency = np.bincount(scenario.train.items, minlength=scenario.num_items)
    return Plan(scenario, model, prompts, texts, keys, first_of_each(keys, np.argsort(-frequency, kind="stable")))


def first_of_each(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(num_questions,) the first place of every key in an order of places; "" is no key."""
    first: dict[str, int] = {}
    for place in order:
        first.setdefault(keys[place], place)
    first.pop("", None)
    return np.array(list(first.values()), dtype=np.int64)


@dataclass(frozen=True)
class Estimate:
    """What the open questions of a plan will take.

    Attributes:
        items, texts: items with text, and different ones among them.
        answered: questions that the cache answers already.
        questions: that will be asked.
        prompt_tokens, completion_tokens: expected, and at most (0: no limit).
        usd: the same (without second tries), None without prices or limit.
        completion_basis: where the expected length of an answer comes from.
    """

    items: int
    texts: int
    answered: int
    questions: int
    prompt_tokens: tuple[int, int]
    completion_tokens: tuple[int, int]
    usd: tuple[float | None, float | None]
    completion_basis: str


def estimate(plan: Plan, cache: AnswerCache, items: Sequence[int], prices: Prices | None, max_tokens: int) -> Estimate:
    """Count tokens and money of the questions about `items`; see `llm_cost` for how."""
    versions = dict.fromkeys((plan.model, prompt.version) for prompt in plan.prompts)
    counted = [cache.answers[version] for version in versions if version in cache.answers]
    known, known_tokens = sum(counts[0] for counts in counted), sum(counts[2] for counts in counted)
    if known >= LEARNED_FROM:
        each, basis = known_tokens / known, f"mean of {known} answers in the cache"
    else:
        each = expected_answer(plan.model)
        basis = f"assumed {each} per answer"
    if max_tokens:
        each = min(each, max_tokens)
    prompt_tokens = most_prompt_tokens = 0
    for item in items:
        text = plan.question(item).text
        prompt_tokens += approximate_tokens(SYSTEM + text)
        most_prompt_tokens += most_tokens(text)
    completion, most_completion = round(each * len(items)), max_tokens * len(items)
    usd = prices.usd(prompt_tokens, completion) if prices else None
    most_usd = prices.usd(most_prompt_tokens, most_completion) if prices and max_tokens else None
    return Estimate(
        items=int((plan.keys != "").sum()),
        texts=len(plan.order),
        answered=sum(cache.entry(plan.keys[item]).status == USABLE for item in plan.order),
        questions=len(items),
        prompt_tokens=(prompt_tokens, most_prompt_tokens),
        completion_tokens=(completion, most_completion),
        usd=(usd, most_usd),
        completion_basis=basis,
    )
