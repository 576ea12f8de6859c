"""Tokens and money: estimates before a run, and a budget that the run never exceeds.

Before a call, tokens are approximated: 0.3 per ASCII character and 0.7 per other one (about what byte-pair
vocabularies of today give for English and for Chinese). A budget needs a bound instead: a byte-level vocabulary never
makes more tokens than the text has bytes, and the endpoint never writes more than `max_tokens`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from llmemf.features.prompts import SYSTEM

MESSAGE_TOKENS = 20
"""The chat format adds at most so many tokens around the two messages."""

DEFAULT_PRICES = {
    "deepseek-reasoner": (0.56, 1.68),
    "deepseek-chat": (0.56, 1.68),
}
"""USD per million tokens in (cache miss) and out, from the provider's price list valid from PRICES_OF."""
PRICES_OF = "2025-09-05"

EXPECTED_ANSWER = 220
EXPECTED_REASONING = 600
"""Completion tokens that an estimate expects as long as the cache holds too few answers to learn from."""


@dataclass(frozen=True)
class Prices:
    """USD per million tokens."""

    input: float
    output: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def default_prices(model: str) -> Prices | None:
    """The known prices of a model, None if there are none."""
    known = DEFAULT_PRICES.get(model)
    return Prices(*known) if known else None


def approximate_tokens(text: str) -> int:
    """About how many tokens a text has; see the module's docstring."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return math.ceil(0.3 * ascii_characters + 0.7 * (len(text) - ascii_characters))


def most_tokens(text: str) -> int:
    """A bound on the prompt tokens of a question, system message included."""
    return len(text.encode("utf-8", "replace")) + len(SYSTEM.encode()) + MESSAGE_TOKENS


def expected_answer(model: str) -> int:
    """Completion tokens of an answer, guessed from the model's name: some models write reasoning before they answer."""
    parts = model.lower().replace("_", "-").replace("/", "-").replace(":", "-").split("-")
    reasons = any(part in ("reasoner", "r1", "o1", "o3", "o4", "qwq", "thinking", "think") for part in parts)
    return EXPECTED_ANSWER + EXPECTED_REASONING * reasons


class Budget:
    """Money spent, and money reserved for calls under way; a call starts only if its bound still fits.

    Args:
        prices: of a token; None where nobody knows (then there can be no limit).
        limit: USD that `spent` must never exceed, None for no limit.
        spent: USD of earlier runs.

    Attributes:
        calls: under way.
    """

    def __init__(self, prices: Prices | None, limit: float | None = None, spent: float = 0.0) -> None:
        self.prices = prices or Prices(0.0, 0.0)
        self.limit = limit
        self.spent = spent
        self._reserved = 0.0
        self.calls = 0
        self._settled = asyncio.Event()

    def bound(self, question: str, max_tokens: int) -> float:
        """The most that one call can cost, USD."""
        return self.prices.usd(most_tokens(question), max_tokens)

    async def reserve(self, bound: float) -> bool:
        """Set the bound of a call aside; waits for calls under way to settle, False if the bound never fits."""
        while self.limit is not None and self.spent + self._reserved + bound > self.limit + 1e-12:
            if not self.calls:
                return False
            self._settled.clear()
            await self._settled.wait()
        self._reserved += bound
        self.calls += 1
        return True

    def settle(self, bound: float, usd: float) -> None:
        """Replace what was reserved for a call by what it really cost."""
        self.calls -= 1
        self._reserved = self._reserved - bound if self.calls else 0.0
        self.spent += usd
        self._settled.set()
