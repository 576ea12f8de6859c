"""Ask a language model about every item of a scenario, call by call; `llm_batch` does it by the batch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmemf.errors import InputError
from llmemf.features.answers import USABLE, judge
from llmemf.features.llm_cache import NAME as CACHE
from llmemf.features.llm_cache import TRIES, AnswerCache
from llmemf.features.llm_cost import Budget
from llmemf.features.llm_endpoint import Endpoint, Filtered, Rejected, Reply, Transient, Unusable
from llmemf.features.llm_plan import Plan
from llmemf.features.pace import Pace, sleep
from llmemf.features.prompts import Prompt
from llmemf.features.stopping import Stop, listening

FAILURES = 6
"""Calls of one question that may fail before it is given up for this run."""
BILLED_FAILURES = 3
"""The same for calls that may have been billed."""
LIMITED = 30
"""Times that one question may meet "too many requests"."""
LONGEST_WAIT = 900.0
"""A server that asks to wait longer (a daily quota) ends the run in order."""
GIVEN_UP = 3
"""So many questions given up in a row: the endpoint is down, and the run ends in order."""
REJECTED = 8
"""So many questions rejected in a row: the request is at fault, not the items."""
HOPELESS = 10
"""So many questions with two bad answers each, and not one usable answer: the settings are at fault, and each costs."""
REMINDER = "\nYour last answer could not be used ({verdict}). Write the notes in {language}, at most {words} words."


@dataclass
class Progress:
    """Where a run stands; one object that changes.

    Attributes:
        total: questions of this run; done, ok, bad, failed, rejected: of these.
        calls, retried, limited: calls made, calls that failed, "too many requests" among them.
        prompt_tokens, completion_tokens, usd: of this run.
        limit: calls at once that are allowed now; under_way: made now.
        note: what everybody waits for, "" if nothing.
    """

    total: int
    done: int = 0
    ok: int = 0
    bad: int = 0
    failed: int = 0
    rejected: int = 0
    calls: int = 0
    retried: int = 0
    limited: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    limit: int = 0
    under_way: int = 0
    note: str = ""


@dataclass
class Enrichment:
    """One run over the open questions of a plan.

    Attributes:
        plan, cache, endpoint, ledger: what to ask, where answers are kept, whom to ask, what it may cost.
        items: that stand for the questions, in order.
        concurrency: calls at once, at most.
        retry_failed: give bad answers of earlier runs two new tries.
        on_progress: called with `Progress` after every change and every second.
        on_interrupt: called at the first Ctrl-C with the number of calls that are waited for.
        backoff: seconds of the first pause after a failure.
    """

    plan: Plan
    cache: AnswerCache
    endpoint: Endpoint
    ledger: Budget
    items: Sequence[int]
    concurrency: int = 16
    retry_failed: bool = False
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_interrupt: Callable[[int], None] = lambda under_way: None
    backoff: float = 0.5
    stop: Stop = field(default_factory=Stop)

    async def run(self) -> Stop:
        """Ask until all is answered or something stops the run; calls under way are waited for.

        Returns:
            why it ended; `reason` is "" if it came to its end.

        Raises:
            InputError: the endpoint is unusable, or the cache cannot be written.
        """
        self._pace = Pace(self.concurrency, self.backoff)
        self._progress = Progress(total=len(self.items))
        self._waiting = iter(self.items)
        self._given_up = 0
        self._withheld: list[dict] = []
        self._verdicts: Counter[str] = Counter()
        async with self.endpoint.client() as client:
            with listening(self.stop, lambda: self.on_interrupt(self._pace.under_way)):
                tasks = [asyncio.create_task(self._work(client)) for _ in range(min(self.concurrency, len(self.items)))]
                ticker = asyncio.create_task(self._tick())
                try:
                    await asyncio.gather(*tasks)
                except asyncio.CancelledError:
                    if self.stop.reason != "interrupted":
                        raise
                finally:
                    for task in [*tasks, ticker]:
                        task.cancel()
                    await asyncio.gather(*tasks, ticker, return_exceptions=True)
        if self.stop.error:
            raise self.stop.error
        if self._withheld and not self._takes_questions():
            raise self._rejects_everything()
        self._release_withheld()
        self._report()
        return self.stop

    async def _work(self, client) -> None:
        try:
            while not self.stop and (item := next(self._waiting, None)) is not None:
                await self._settle(client, item)
        except InputError as error:
            self.stop.request("error", error=error)

    async def _settle(self, client, item: int) -> None:
        """Ask about one item until there is a verdict, or the run stops."""
        key, prompt, question = self.plan.keys[item], self.plan.prompt(item), self.plan.question(item)
        entry = self.cache.entry(key)
        tries_left = TRIES if self.retry_failed and entry.settled else TRIES - entry.bad
        failures = billed = limited = 0
        while (began := await self._pace.enter(self.stop.event)) is not None:
            try:
                verdict = await self._call(client, key, prompt, question)
            except Transient as failure:
                failures += not failure.limited
                billed += failure.billed
                limited += failure.limited
                over = failures >= FAILURES or billed >= BILLED_FAILURES or limited >= LIMITED
                await self._after_failure(key, prompt, failure, max(failures, limited), began, over)
                if over:
                    return
                continue
            except Rejected as error:
                return self._reject(key, prompt, str(error))
            if verdict is None:
                return
            tries_left -= 1
            if verdict == USABLE or not tries_left:
                self._progress.ok += verdict == USABLE
                self._progress.bad += verdict != USABLE
                self._verdicts[verdict] += 1
                self._check_hope()
                return self._done()
            question = self.plan.question(item) + REMINDER.format(
                verdict=verdict, language=prompt.language, words=prompt.words
            )

    async def _call(self, client, key: str, prompt: Prompt, question: str) -> str | None:
        """One call at the place that was given, paid for and recorded; None if the run stopped before it.

        Raises:
            Transient, Rejected: as the endpoint; what the call may have cost is recorded.
            InputError: the endpoint is unusable, or the cache cannot be written.
        """
        bound, usd = self.ledger.bound(question, self.endpoint.max_tokens), 0.0
        try:
            if not await self.ledger.reserve(bound):
                self.stop.request("budget")
                return None
            try:
                if self.stop:
                    return None
                self._progress.calls += 1
                self._report()
                try:
                    reply = await self.endpoint.ask(client, question)
                except Filtered:
                    self._record(key, prompt, status="filtered")
                    return "filtered"
                except Transient as failure:
                    if failure.billed:
                        usd = self._record_uncertain(key, prompt, str(failure), bound)
                    raise
                except asyncio.CancelledError:
                    usd = self._record_uncertain(key, prompt, "interrupted", bound)
                    raise
                usd = self.ledger.prices.usd(reply.prompt_tokens, reply.completion_tokens)
                verdict = self._keep(key, prompt, reply, usd)
            finally:
                self._progress.usd += usd
                self.ledger.settle(bound, usd)
        finally:
            self._pace.leave()
        self._pace.succeeded()
        self._given_up = 0
        return verdict

    def _keep(self, key: str, prompt: Prompt, reply: Reply, usd: float) -> str:
        """Write an answer, then count it; returns the verdict."""
        verdict, text = judge(
            reply.content, reply.finish_reason, refusal=reply.refusal, language=prompt.language, words=prompt.words
        )
        tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        self._record(key, prompt, status=verdict, text=text, usd=usd, **tokens)
        self._progress.prompt_tokens += reply.prompt_tokens
        self._progress.completion_tokens += reply.completion_tokens
        self._release_withheld()
        return verdict

    def _check_hope(self) -> None:
        """End a run that pays for bad answers alone: a token limit too low for the reasoning, a wrong language."""
        if self._progress.ok or self._progress.bad < HOPELESS:
            return
        if not any(self.cache.entry(key).status == USABLE for key in self.plan.keys):
            reasons = ", ".join(f"{count} {verdict}" for verdict, count in self._verdicts.most_common())
            self.stop.request(
                "endpoint",
                f"not one usable answer so far ({reasons}); read them in {self.plan.scenario.folder / CACHE}, and look at "
                "--max-tokens, --language and --words before --retry-failed",
            )

    def _record(self, key: str, prompt: Prompt, **facts) -> None:
        self.cache.add([{"key": key, "model": self.plan.model, "prompt": prompt.version, **facts}])

    def _record_uncertain(self, key: str, prompt: Prompt, reason: str, bound: float) -> float:
        """A call that failed but may have been billed counts at the most it can have cost."""
        self._record(key, prompt, status=f"failed: {reason}", usd=bound, uncertain=True)
        return bound

    async def _after_failure(
        self, key: str, prompt: Prompt, failure: Transient, tries: int, began: float, over: bool
    ) -> None:
        """Slow down after a failed call; the last one of a question gives it up for this run."""
        self._progress.retried += 1
        self._progress.limited += failure.limited
        if failure.limited:
            self._pace.refused(failure.wait, tries, began)
        if failure.wait is not None and failure.wait > LONGEST_WAIT:
            hours = failure.wait / 3600
            self.stop.request("endpoint", f"{self.endpoint.host} asks to wait {hours:.1f} h before the next call")
            return
        if over:
            self._record(key, prompt, status=f"failed: {failure}")
            self._progress.failed += 1
            self._given_up += 1
            self._done()
            if self._given_up >= GIVEN_UP:
                last = f"{GIVEN_UP} questions in a row were given up, the last one with: {failure}"
                self.stop.request("endpoint", f"{self.endpoint.base_url} does not answer ({last})")
        elif not failure.limited:
            self._report()
            await sleep(max(failure.wait or 0.0, self._pace.backoff(tries)), self.stop.event)

    def _reject(self, key: str, prompt: Prompt, reason: str) -> None:
        """Note a question that the endpoint will not take; withheld until an answer shows that it still takes others."""
        record = {"key": key, "model": self.plan.model, "prompt": prompt.version, "status": f"rejected: {reason}"}
        self._withheld.append(record)
        self._progress.rejected += 1
        if len(self._withheld) >= REJECTED:
            raise self._rejects_everything()
        self._done()

    def _takes_questions(self) -> bool:
        """Whether the endpoint has answered any question put this way, now or in an earlier run."""
        return any((self.plan.model, prompt.version) in self.cache.answers for prompt in self.plan.prompts)

    def _rejects_everything(self) -> Unusable:
        reason = self._withheld[-1]["status"].removeprefix("rejected: ")
        return Unusable(
            f"endpoint {self.endpoint.host} rejects one question after another ({reason}); look at --model, --max-tokens, "
            "--token-parameter and --temperature"
        )

    def _release_withheld(self) -> None:
        records, self._withheld = self._withheld, []
        if records:
            self.cache.add(records)

    def _done(self) -> None:
        self._progress.done += 1
        self._report()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._report()

    def _report(self) -> None:
        pause = self._pace.pause
        self._progress.note = f"the endpoint asks to wait {pause:.0f} s" if pause > 1 else ""
        self._progress.limit, self._progress.under_way = self._pace.limit, self._pace.under_way
        self.on_progress(self._progress)
