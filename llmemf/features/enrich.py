"""Ask a language model about every item or user of a scenario: within the budget, each answer recorded as it comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from llmemf.errors import InputError
from llmemf.features.answers import USABLE, judge
from llmemf.features.llm_cache import NAME as CACHE
from llmemf.features.llm_cache import TRIES, AnswerCache
from llmemf.features.llm_cost import Budget, approximate_tokens
from llmemf.features.llm_endpoint import Endpoint, Filtered, Rejected, Reply, Transient, Unusable
from llmemf.features.llm_plan import Plan, Question
from llmemf.features.prompts import SYSTEM
from llmemf.features.retries import RequestFailed, Retries
from llmemf.features.stopping import Stop, workers
from llmemf.text_format import plural

LIMITS = {"failed": 6, "billed": 3, "limited": 30}
"""A question is given up for this run after so many calls that failed, that failed but may have been billed, or that
met "too many requests"."""
LONGEST_WAIT = 900.0
"""If the endpoint asks to wait longer (a daily quota), the run ends."""
GIVEN_UP = 3
"""So many questions given up in a row mean that the endpoint is down; the run ends."""
REJECTED = 8
"""So many questions rejected in a row mean that the request is at fault, not the items; the run ends."""
HOPELESS = 10
"""So many questions with bad answers alone, and not one usable answer, mean that the settings are at fault; the run ends."""
REMINDER = "\nYour last answer could not be used ({verdict}). Write the notes in {language}, at most {words} words."


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
class Enrichment:
    """One run over the open questions of a plan.

    Attributes:
        plan, cache, endpoint, budget: what to ask, where answers are kept, whom to ask, what it may cost.
        items: items (or users) to ask about, in order.
        concurrency: calls at once, at most.
        retry_failed: give bad answers of earlier runs two new tries.
        on_progress: called with `Progress` after every question and every second.
        on_message: called with a line for the user.
        backoff: the first pause after a failure takes up to so many seconds.
    """

    plan: Plan
    cache: AnswerCache
    endpoint: Endpoint
    budget: Budget
    items: Sequence[int]
    concurrency: int = 16
    retry_failed: bool = False
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_message: Callable[[str], None] = lambda text: None
    backoff: float = 0.5
    stop: Stop = field(default_factory=Stop)

    async def run(self) -> Stop:
        """Ask until all is answered or something stops the run, which then waits for the calls under way.

        Returns:
            why it ended; `reason` is "" if it came to its end.

        Raises:
            InputError: the endpoint is unusable, or the cache cannot be written.
        """
        self._progress = Progress(total=len(self.items))
        self._retries = Retries(self.stop.event, self.backoff)
        self._waiting = iter(self.items)
        self._answered = self._warned = False
        self._given_up = 0
        self._rejections: list[dict] = []
        self._verdicts: Counter[str] = Counter()
        # The first worker is alone until an answer comes, so that a wrong key or model costs one call.
        async with (
            self.endpoint.client() as self._client,
            workers(self.stop, self._report, self._tell_interrupt) as self._workers,
        ):
            self._workers.create_task(self._work())
        if self._rejections and not self._takes_questions():
            raise self._rejects_everything()
        self._keep_rejections()
        self._report()
        return self.stop

    async def _work(self) -> None:
        try:
            while not self.stop and (item := next(self._waiting, None)) is not None:
                await self._settle(self.plan.question(item))
        except Stopped:
            pass
        except InputError as error:
            self.stop.request("error", error=error)

    async def _settle(self, question: Question) -> None:
        """Ask one question until its answer is usable, its tries are over, or it is given up for this run."""
        entry = self.cache.entry(question.key)
        tries = TRIES if self.retry_failed and entry.settled else TRIES - entry.bad
        text, progress = question.text, self._progress
        try:
            while (verdict := await self._answer(question, text)) != USABLE and tries > 1:
                self._answer_came()
                tries -= 1
                language, words = question.prompt.language, question.prompt.words
                text = question.text + REMINDER.format(verdict=verdict, language=language, words=words)
        except Rejected as error:
            # Kept for good only when an answer shows that the endpoint takes other questions.
            self._rejections.append(question.record(f"rejected: {error}"))
            progress.rejected += 1
            if len(self._rejections) >= REJECTED:
                raise self._rejects_everything() from None
        except Transient as failure:
            if self.stop:
                return
            self._give_up(question, failure)
        else:
            self._answer_came()
            progress.ok += verdict == USABLE
            progress.bad += verdict != USABLE
            self._verdicts[verdict] += 1
            self._check_hope()
        progress.done += 1
        self._report()

    async def _answer(self, question: Question, text: str) -> str:
        """Ask with a text until there is an answer; returns the verdict on it.

        Raises:
            Stopped, Transient, Rejected, InputError: as `_call`, after as many failures as `LIMITS` allows.
        """
        failures: Counter[str] = Counter()

        def is_last(failure: RequestFailed) -> bool:
            kind = "limited" if failure.limited else "billed" if failure.billed else "failed"
            failures[kind] += 1
            self._progress.retried += 1
            if failure.wait and failure.wait > LONGEST_WAIT:
                hours = f"{failure.wait / 3600:.1f} h"
                self.stop.request("endpoint", f"{self.endpoint.host} asks to wait {hours} before the next call")
            return failures[kind] >= LIMITS[kind]

        return await self._retries.run(partial(self._call, question, text), is_last)

    async def _call(self, question: Question, text: str) -> str:
        """One call, when there is money for it; returns the verdict on its answer.

        Raises:
            Stopped: the run stopped before the call.
            Transient: it failed.
            Rejected: the endpoint does not take the question.
            InputError: the endpoint is unusable, or the cache cannot be written.
        """
        bound, usd = self.budget.bound(text, self.endpoint.max_tokens), 0.0
        if not await self.budget.reserve(bound):
            self.stop.request("budget")
            raise Stopped
        try:
            if self.stop:
                raise Stopped
            self._progress.calls += 1
            record = self._record(question, text, await self.endpoint.ask(self._client, text), bound)
            usd = record["usd"]
            self.cache.add([record])
            return record["status"]
        except Filtered:
            self.cache.add([question.record("filtered")])
            return "filtered"
        except (Transient, asyncio.CancelledError) as failure:
            if not isinstance(failure, Transient) or failure.billed:
                usd, why = bound, str(failure) or "interrupted"
                self.cache.add([question.record(f"failed: {why}", usd=bound, uncertain=True)])
            raise
        finally:
            self._progress.usd += usd
            self.budget.settle(bound, usd)

    def _record(self, question: Question, text: str, reply: Reply, bound: float) -> dict:
        """A reply as the cache keeps it; where the endpoint did not count its tokens, it costs the most it can."""
        prompt, progress = question.prompt, self._progress
        verdict, answer = judge(
            reply.content,
            reply.finish_reason,
            refusal=reply.refusal,
            language=prompt.language,
            words=prompt.words,
        )
        prompt_tokens, completion_tokens = reply.tokens or (
            approximate_tokens(SYSTEM + text),
            approximate_tokens((reply.content or "") + reply.reasoning),
        )
        progress.prompt_tokens += prompt_tokens
        progress.completion_tokens += completion_tokens
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

    def _answer_came(self) -> None:
        """The endpoint answers questions put this way; at the first answer all other workers begin."""
        self._given_up = 0
        self._keep_rejections()
        if not self._answered:
            self._answered = True
            for _ in range(min(self.concurrency, len(self.items)) - 1):
                self._workers.create_task(self._work())

    def _give_up(self, question: Question, failure: Transient) -> None:
        """Leave a question to the next run."""
        self.cache.add([question.record(f"failed: {failure}")])
        self._progress.failed += 1
        self._given_up += 1
        if self._given_up >= GIVEN_UP:
            last = f"{GIVEN_UP} questions in a row were given up, the last one with: {failure}"
            self.stop.request("endpoint", f"{self.endpoint.base_url} does not answer ({last})")

    def _check_hope(self) -> None:
        """End a run that pays for bad answers alone: a token limit too low for the reasoning, a wrong language."""
        if self._progress.ok or self._progress.bad < HOPELESS:
            return
        if not any(self.cache.entry(key).status == USABLE for key in self.plan.keys):
            reasons = ", ".join(f"{count} {verdict}" for verdict, count in self._verdicts.most_common())
            self.stop.request(
                "endpoint",
                f"not one usable answer so far ({reasons}); read them in {self.plan.scenario.location / CACHE}, and look at "
                "--max-tokens, --language and --words before --retry-failed",
            )

    def _keep_rejections(self) -> None:
        records, self._rejections = self._rejections, []
        if records:
            self.cache.add(records)

    def _takes_questions(self) -> bool:
        """Whether the endpoint has answered any question put this way, now or in an earlier run."""
        return any((self.plan.model, prompt.version) in self.cache.answers for prompt in self.plan.prompts)

    def _rejects_everything(self) -> Unusable:
        reason = self._rejections[-1]["status"].removeprefix("rejected: ")
        return Unusable(
            f"endpoint {self.endpoint.host} rejects one question after another ({reason}); look at --model, --max-tokens, "
            "--token-parameter and --temperature"
        )

    def _tell_interrupt(self) -> None:
        self.on_message(
            f"stopping after {plural(self.budget.calls, 'answer')} under way, since they are paid; Ctrl-C again drops them"
        )

    def _report(self) -> None:
        self._progress.under_way, self._progress.pause = self.budget.calls, self._retries.pause
        self.on_progress(self._progress)
