"""What is to be asked for a scenario, and what it will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmemf.features.llm_cache import AnswerCache, answer_key
from llmemf.features.llm_cost import (
    EXPECTED_ANSWER,
    EXPECTED_REASONING,
    Prices,
    approximate_tokens,
    most_tokens,
    reasons,
)
from llmemf.features.prompts import SYSTEM, Prompt, item_text
from llmemf.scenarios.scenario import Scenario

LEARNED_FROM = 20
"""Answers in the cache from which an estimate takes its mean length."""


@dataclass(frozen=True)
class Plan:
    """The questions of a scenario; items of equal text and domain share one.

    Attributes:
        scenario, model: what is asked about, and whom.
        prompts: of X and Y.
        texts: title, description and categories of every item.
        keys: (num_items,) key of every item, "" for an item without any text.
        order: item that stands for each question, the most frequent of the training histories first.
    """

    scenario: Scenario
    model: str
    prompts: tuple[Prompt, Prompt]
    texts: list[tuple[str, str, str]]
    keys: np.ndarray
    order: np.ndarray
    subject = "items"

    def prompt(self, item: int) -> Prompt:
        return self.prompts[int(item >= self.scenario.num_x)]

    def question(self, item: int) -> str:
        """The text that is sent about an item."""
        return self.prompt(item).fill(*self.texts[item])

    def open_items(self, cache: AnswerCache, *, limit: int = 0, retry_failed: bool = False) -> list[int]:
        """Items that stand for the questions without an answer, at most `limit` of them (0: all)."""
        items = [
            int(item)
            for item in self.order
            if not (entry := cache.entry(self.keys[item])).settled or (retry_failed and entry.status != "ok")
        ]
        return items[:limit] if limit else items


def make_plan(scenario: Scenario, model: str, prompts: tuple[Prompt, Prompt]) -> Plan:
    """Key every item that has a title, a description or both."""
    table = scenario.items
    categories = table["categories"].map(item_text) if "categories" in table.columns else [""] * len(table)
    texts = list(zip(table.title.astype(str), table.description.astype(str), categories))
    keys = np.full(scenario.num_items, "", dtype=object)
    for item, (title, description, _) in enumerate(texts):
        if title.strip() or description.strip():
            prompt = prompts[int(item >= scenario.num_x)]
            keys[item] = answer_key(prompt.version, model, prompt.fill(*texts[item]))
    frequency = np.bincount(scenario.train.items, minlength=scenario.num_items)
    by_frequency = np.argsort(-frequency, kind="stable")
    seen: set[str] = {""}
    order = []
    for item in by_frequency:
        if keys[item] not in seen:
            seen.add(keys[item])
            order.append(item)
    return Plan(scenario, model, prompts, texts, keys, np.array(order, dtype=np.int64))


@dataclass(frozen=True)
class Estimate:
    """What the open questions of a plan will take.

    Attributes:
        items, texts: items with text, and different ones among them.
        answered: questions that the cache answers already.
        questions: that will be asked.
        prompt_tokens, completion_tokens: expected.
        completion_basis: where the expected length of an answer comes from.
        most_prompt_tokens, most_completion_tokens: bounds.
        usd, most_usd: expected and at most (without second tries), None without prices.
    """

    items: int
    texts: int
    answered: int
    questions: int
    prompt_tokens: int
    completion_tokens: int
    completion_basis: str
    most_prompt_tokens: int
    most_completion_tokens: int
    usd: float | None
    most_usd: float | None


def estimate(plan: Plan, cache: AnswerCache, items: Sequence[int], prices: Prices | None, max_tokens: int) -> Estimate:
    """Count tokens and money of the questions that stand for `items`; see `llm_cost` for how."""
    versions = {(plan.model, prompt.version) for prompt in plan.prompts}
    counted = [counts for pair, counts in cache.answers.items() if pair in versions]
    known, known_tokens = sum(counts[0] for counts in counted), sum(counts[2] for counts in counted)
    if known >= LEARNED_FROM:
        each, basis = known_tokens / known, f"mean of {known} answers in the cache"
    else:
        each = EXPECTED_ANSWER + (EXPECTED_REASONING if reasons(plan.model) else 0)
        basis = f"assumed {each} per answer"
    if max_tokens:
        each = min(each, max_tokens)
    questions = [plan.question(item) for item in items]
    prompt_tokens = sum(approximate_tokens(SYSTEM + question) for question in questions)
    most_prompt = sum(most_tokens(question) for question in questions)
    completion, most_completion = round(each * len(questions)), max_tokens * len(questions)
    return Estimate(
        items=int((plan.keys != "").sum()),
        texts=len(plan.order),
        answered=sum(1 for item in plan.order if cache.entry(plan.keys[item]).status == "ok"),
        questions=len(questions),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion,
        completion_basis=basis,
        most_prompt_tokens=most_prompt,
        most_completion_tokens=most_completion,
        usd=prices.usd(prompt_tokens, completion) if prices else None,
        most_usd=prices.usd(most_prompt, most_completion) if prices and max_tokens else None,
    )
