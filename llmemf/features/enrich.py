"""Ask a language model about every item or user of a scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmemf.errors import InputError
from llmemf.features.answers import USABLE
from llmemf.features.llm_cache import NAME as CACHE
from llmemf.features.llm_cache import TRIES, AnswerCache
from llmemf.features.llm_calls import Caller, Progress, Stopped
from llmemf.features.llm_cost import Budget
from llmemf.features.llm_endpoint import Endpoint, Rejected, Transient, Unusable
from llmemf.features.llm_plan import Plan, Question
from llmemf.features.stopping import Stop, workers

GIVEN_UP = 3
"""So many questions given up in a row mean that the endpoint is down; the run ends."""
REJECTED = 8
"""So many questions rejected in a row mean that the request is at fault, not the items; the run ends."""
HOPELESS = 10
"""So many questions with bad answers alone, and not one usable answer, mean that the settings are at fault; the run ends."""
REMINDER = "\nYour last answer could not be used ({verdict}). Write the notes in {language}, at most {words} words."


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
        self._waiting = iter(self.items)
        self._answered = False
        self._given_up = 0
        self._rejections: list[dict] = []
        self._verdicts: Counter[str] = Counter()
        async with self.endpoint.client() as client:
            self._caller = Caller(
                client,
                self.endpoint,
                self.cache,
                self.budget,
                self.concurrency,
                stop=self.stop,
                progress=self._progress,
                on_message=self.on_message,
                backoff=self.backoff,
            )
            # The first worker is alone until an answer comes, so that a wrong key or model costs one call.
            async with workers(self.stop, self._report, self._tell_interrupt) as self._workers:
                self._workers.create_task(self._work())
        if self.stop.error:
            raise self.stop.error
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
        text = question.text
        try:
            while (verdict := await self._caller.answer(question, text)) != USABLE and tries > 1:
                self._answer_came()
                tries -= 1
                text = question.text + REMINDER.format(
                    verdict=verdict, language=question.prompt.language, words=question.prompt.words
                )
        except Rejected as error:
            self._reject(question, str(error))
        except Transient as failure:
            if self.stop:
                return
            self._give_up(question, failure)
        else:
            self._answer_came()
            self._progress.ok += verdict == USABLE
            self._progress.bad += verdict != USABLE
            self._verdicts[verdict] += 1
            self._check_hope()
        self._progress.done += 1
        self._report()

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

    def _reject(self, question: Question, reason: str) -> None:
        """Remember a question that the endpoint rejects; kept for good when an answer shows that it takes others."""
        self._rejections.append(question.record(f"rejected: {reason}"))
        self._progress.rejected += 1
        if len(self._rejections) >= REJECTED:
            raise self._rejects_everything()

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
            f"stopping: {self.budget.calls} answers under way are waited for, they are paid; Ctrl-C again drops them"
        )

    def _report(self) -> None:
        self._progress.under_way, self._progress.pause = self.budget.calls, self._caller.limit.pause
        self.on_progress(self._progress)
