"""Calls to a language model: each at its place, within the budget, repeated after failures, and recorded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llmemf.features.answers import judge
from llmemf.features.llm_cache import AnswerCache
from llmemf.features.llm_cost import Budget, approximate_tokens
from llmemf.features.llm_endpoint import Endpoint, Filtered, Reply, Transient
from llmemf.features.llm_plan import Question
from llmemf.features.prompts import SYSTEM
from llmemf.features.request_limit import RequestFailed, RequestLimit, Retries
from llmemf.features.stopping import Stop

if TYPE_CHECKING:
    import openai

LIMITS = {"failed": 6, "billed": 3, "limited": 30}
"""A question is given up for this run after so many calls that failed, that failed but may have been billed, or that
met "too many requests"."""
LONGEST_WAIT = 900.0
"""If the endpoint asks to wait longer (a daily quota), the run ends."""


class Stopped(Exception):
    """The run stops before a call."""


@dataclass
class Progress:
    """Where a run stands; one object that changes.

    Attributes:
        total: questions of this run; done, ok, bad, failed, rejected: of these.
        calls: calls made; retried: calls that failed.
        prompt_tokens, completion_tokens, usd: of this run.
        under_way: calls made right now.
        pause: seconds that the endpoint asks to wait from now on.
    """

    total: int
    done: int = 0
    ok: int = 0
    bad: int = 0
    failed: int = 0
    rejected: int = 0
    calls: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    under_way: int = 0
    pause: float = 0.0


@dataclass
class Caller:
    """Asks one endpoint and keeps what came back.

    Attributes:
        client, endpoint: whom to ask.
        cache, budget: where answers are kept, what they may cost.
        concurrency: calls at once, at most.
        stop: when it is set, no call begins.
        progress: its calls, tokens and money are counted here.
        on_message: called with a line for the user.
        backoff: the first pause after a failure takes up to so many seconds, every further one up to twice as many.
    """

    client: openai.AsyncOpenAI
    endpoint: Endpoint
    cache: AnswerCache
    budget: Budget
    concurrency: int
    stop: Stop
    progress: Progress
    on_message: Callable[[str], None]
    backoff: float

    def __post_init__(self) -> None:
        self.limit = RequestLimit(self.concurrency)
        self._retries = Retries(self.limit, self.backoff, self.stop.event)
        self._warned = False

    async def answer(self, question: Question, text: str) -> str:
        """Ask with a text until there is an answer; returns the verdict on it.

        Raises:
            Stopped: the run stopped before a call.
            Transient: the last failure, after as many as `LIMITS` allows, or after the run was stopped.
            Rejected: the endpoint does not take the question.
            InputError: the endpoint is unusable, or the cache cannot be written.
        """
        failures: Counter[str] = Counter()

        def is_last(failure: RequestFailed) -> bool:
            kind = "limited" if failure.limited else "billed" if failure.billed else "failed"
            failures[kind] += 1
            self.progress.retried += 1
            if failure.wait and failure.wait > LONGEST_WAIT:
                hours = f"{failure.wait / 3600:.1f} h"
                self.stop.request("endpoint", f"{self.endpoint.host} asks to wait {hours} before the next call")
            return failures[kind] >= LIMITS[kind]

        return await self._retries.run(partial(self._call, question, text), is_last)

    async def _call(self, question: Question, text: str) -> str:
        """One call, when there is a place and money for it; raises what `answer` raises."""
        bound, usd = self.budget.bound(text, self.endpoint.max_tokens), 0.0
        async with self.limit.place(self.stop.event):
            if not await self.budget.reserve(bound):
                self.stop.request("budget")
                raise Stopped
            try:
                if self.stop:
                    raise Stopped
                self.progress.calls += 1
                reply = await self.endpoint.ask(self.client, text)
                record = self._record(question, text, reply, bound)
                usd = record["usd"]
                self.cache.add([record])
                self.limit.answered()
                return record["status"]
            except Filtered:
                self.cache.add([question.record("filtered")])
                return "filtered"
            except Transient as failure:
                if failure.limited:
                    self.limit.refused()
                if failure.billed:
                    usd = bound
                    self.cache.add([question.record(f"failed: {failure}", usd=bound, uncertain=True)])
                raise
            except asyncio.CancelledError:
                usd = bound
                self.cache.add([question.record("failed: interrupted", usd=bound, uncertain=True)])
                raise
            finally:
                self.progress.usd += usd
                self.budget.settle(bound, usd)

    def _record(self, question: Question, text: str, reply: Reply, bound: float) -> dict:
        """A reply as the cache keeps it; where the endpoint did not count its tokens, it costs the most it can."""
        verdict, answer = judge(
            reply.content,
            reply.finish_reason,
            refusal=reply.refusal,
            language=question.prompt.language,
            words=question.prompt.words,
        )
        prompt_tokens, completion_tokens = reply.tokens or (
            approximate_tokens(SYSTEM + text),
            approximate_tokens((reply.content or "") + reply.reasoning),
        )
        self.progress.prompt_tokens += prompt_tokens
        self.progress.completion_tokens += completion_tokens
        usd = self.budget.prices.usd(prompt_tokens, completion_tokens)
        facts = {"text": answer, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        if reply.tokens:
            return question.record(verdict, **facts, usd=usd)
        if not self._warned:
            self._warned = True
            self.on_message(
                f"note: {self.endpoint.host} does not say how many tokens an answer took; each counts at the most it can cost"
            )
        return question.record(verdict, **facts, usd=max(usd, bound), uncertain=True)
