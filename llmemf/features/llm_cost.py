"""Tokens and money: estimates before a run, a ledger that keeps a budget during it.

Tokens before a call are an approximation: 0.3 per ASCII character and 0.7 per other one (about what byte-pair
vocabularies of today give for English and for Chinese). What a call is reserved at is a bound instead: a byte-level
vocabulary never makes more tokens than the text has bytes, and the endpoint never writes more than `max_tokens`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from llmemf.features.prompts import SYSTEM

MESSAGE_TOKENS = 20
"""Tokens that the chat format adds around the two messages, at most."""

DEFAULT_PRICES = {
    "deepseek-reasoner": (0.56, 1.68),
    "deepseek-chat": (0.56, 1.68),
}
"""USD per million tokens in (cache miss) and out, from the provider's price list valid from PRICES_OF."""
PRICES_OF = "2025-09-05"

BATCH_FACTOR = 0.5
"""Batch interfaces bill half of the price."""

EXPECTED_ANSWER = 220
EXPECTED_REASONING = 600
"""Completion tokens that an estimate expects as long as the cache holds no answers to learn from."""


@dataclass(frozen=True)
class Prices:
    """USD per million tokens."""

    input: float
    output: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6

    def times(self, factor: float) -> Prices:
        return Prices(self.input * factor, self.output * factor)


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


def reasons(model: str) -> bool:
    """Whether a model's name says that it writes reasoning before it answers."""
    parts = model.lower().replace("_", "-").replace("/", "-").replace(":", "-").split("-")
    return any(part in ("reasoner", "r1", "o1", "o3", "o4", "qwq", "thinking", "think") for part in parts)


class Budget:
    """Money that is spent and that is reserved for calls under way; a call starts only if it fits.

    Args:
        prices: of a token, None where nobody knows (then there can be no budget).
        budget: USD that `spent` must never exceed, None for no limit.
        spent: USD of earlier runs.
    """

    def __init__(self, prices: Prices | None, budget: float | None = None, spent: float = 0.0) -> None:
        self.prices = prices or Prices(0.0, 0.0)
        self.budget = budget
        self.spent = spent
        self._reserved = 0.0
        self._calls = 0
        self._changed = asyncio.Event()

    def bound(self, question: str, max_tokens: int) -> float:
        """The most that one call can cost."""
        return self.prices.usd(most_tokens(question), max_tokens)

    def fits(self, bound: float) -> bool:
        return self.budget is None or self.spent + self._reserved + bound <= self.budget + 1e-12

    async def reserve(self, bound: float) -> bool:
        """Set the bound of a call aside; waits for calls under way to settle, False if it never fits."""
        while not self.fits(bound):
            if not self._calls:
                return False
            self._changed.clear()
            await self._changed.wait()
        self._reserved += bound
        self._calls += 1
        return True

    def settle(self, bound: float, usd: float) -> None:
        """Replace what was reserved by what the call really cost."""
        self._calls -= 1
        self._reserved = self._reserved - bound if self._calls else 0.0
        self.spent += usd
        self._changed.set()
