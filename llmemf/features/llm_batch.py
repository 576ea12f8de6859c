"""Ask a language model by the batch: half the price, answers within a day, nothing to keep running meanwhile.

`llm_batch.json` in the scenario's folder names every batch that is not fetched yet. A batch is written down before it
is created, with a random mark that also goes into its metadata; after a kill in between it is found again by that mark,
so that no batch is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llmemf.errors import InputError
from llmemf.features.answers import judge
from llmemf.features.enrich import Progress
from llmemf.features.llm_batch_state import Part, read_parts, write_parts
from llmemf.features.llm_cache import AnswerCache
from llmemf.features.llm_cost import Budget
from llmemf.features.llm_endpoint import Endpoint, Filtered, Rejected, Transient, Unusable, parse_reply
from llmemf.features.llm_plan import Plan
from llmemf.features.pace import sleep
from llmemf.features.stopping import Stop, listening

PART_QUESTIONS = 20_000
PART_BYTES = 90_000_000
"""Limits of one batch file, well inside those of OpenAI (50,000 questions, 200 MB)."""
IDLE_ROUNDS = 2
"""So many rounds that settle no question end the run: bad answers settle in the second one."""
TRIES = 6
"""Of a call to the batch interface itself."""
MARK = "llmemf_mark"
FINAL = ("completed", "expired", "cancelled", "failed")


class NotThere(Unusable):
    """The endpoint has no batches, or not this one."""


class Unreachable(Unusable):
    """The endpoint did not answer; a batch may or may not have been created."""


@dataclass
class BatchRun:
    """Batches over the open questions of a plan, round by round.

    Attributes:
        plan, cache, endpoint: as in `Enrichment`.
        ledger: its prices are those of a batch.
        limit: questions of this run, 0 for all.
        retry_failed: ask for bad answers of earlier runs once more.
        poll: seconds between two looks at a batch.
        on_progress, on_interrupt: as in `Enrichment`.
        part_questions: questions of one batch, at most.
        backoff: seconds of the first pause after a failed call.
    """

    plan: Plan
    cache: AnswerCache
    endpoint: Endpoint
    ledger: Budget
    limit: int = 0
    retry_failed: bool = False
    poll: float = 30.0
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_interrupt: Callable[[int], None] = lambda under_way: None
    part_questions: int = PART_QUESTIONS
    backoff: float = 1.0
    stop: Stop = field(default_factory=Stop)

    async def run(self, *, cancel: bool = False) -> Stop:
        """Fetch what is pending, then send and fetch until all is answered or something stops the run.

        Args:
            cancel: only end the pending batches and fetch what they have answered.

        Raises:
            InputError: the endpoint is unusable, has no batches, or the folder cannot be written.
        """
        self._folder = self.plan.scenario.folder
        self._parts = read_parts(self._folder)
        self._progress = Progress(total=sum(part.questions for part in self._parts))
        self._check_host()
        async with self.endpoint.client() as client:
            self._client = client
            with listening(self.stop, lambda: self.on_interrupt(0)):
                try:
                    await self._rounds(cancel)
                except asyncio.CancelledError:
                    if self.stop.reason != "interrupted":
                        raise
        return self.stop

    def _check_host(self) -> None:
        for part in self._parts:
            if part.host != self.endpoint.host:
                raise InputError(
                    f"a batch of {part.questions} questions is under way at {part.host}; fetch it there first "
                    f"(--base-url), or end it with --cancel-batch"
                )

    async def _rounds(self, cancel: bool) -> None:
        await self._adopt()
        if cancel:
            await self._cancel()
        await self._fetch_all()
        if cancel:
            return
        open_items = first = self.plan.open_items(self.cache, limit=self.limit, retry_failed=self.retry_failed)
        self._progress.total += len(first)
        self._progress.done = self._progress.total - len(first)
        idle = 0
        while open_items and not self.stop:
            chosen = self._affordable(open_items)
            if not chosen:
                return self.stop.request("budget")
            for questions in self._split(chosen):
                await self._send(questions)
                if self.stop:
                    return
            await self._fetch_all()
            still_open = [item for item in first if not self.cache.entry(self.plan.keys[item]).settled]
            self._progress.done = self._progress.total - len(still_open)
            self._say("")
            idle = idle + 1 if len(still_open) == len(open_items) else 0
            if idle >= IDLE_ROUNDS:
                text = f"{len(still_open)} question(s) came back from the batches without an answer"
                return self.stop.request("endpoint", text)
            open_items = still_open

    async def _cancel(self) -> None:
        """Ask the provider to end every pending batch; one that it does not know is forgotten."""
        for part in list(self._parts):
            try:
                await self._call(lambda id=part.id: self._client.batches.cancel(id))
            except NotThere:
                self._parts.remove(part)
                write_parts(self._folder, self._parts)
            except Unreachable:
                raise
            except Unusable:
                # Too late to cancel: it has ended by itself and is fetched like any other.
                continue

    def _affordable(self, items: list[int]) -> list[int]:
        """The first items whose bounds fit the budget together."""
        chosen, bounds = [], 0.0
        for item in items:
            bounds += self.ledger.bound(self.plan.question(item), self.endpoint.max_tokens)
            if self.ledger.budget is not None and self.cache.usd + bounds > self.ledger.budget + 1e-12:
                break
            chosen.append(item)
        return chosen

    def _split(self, items: list[int]) -> Iterator[list[tuple[int, bytes]]]:
        """Lines of batch files, as many per file as it may hold."""
        part: list[tuple[int, bytes]] = []
        size = 0
        for item in items:
            request = {
                "custom_id": f"{int(item >= self.plan.scenario.num_x)}-{self.plan.keys[item]}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": self.endpoint.body(self.plan.question(item)),
            }
            line = json.dumps(request).encode() + b"\n"
            if part and (len(part) >= self.part_questions or size + len(line) > PART_BYTES):
                yield part
                part, size = [], 0
            part.append((item, line))
            size += len(line)
        if part:
            yield part

    async def _send(self, lines: list[tuple[int, bytes]]) -> None:
        """Write a batch down, create it, and write down its id."""
        bound = sum(self.ledger.bound(self.plan.question(item), self.endpoint.max_tokens) for item, _ in lines)
        first = self.plan.prompts[0]
        versions = tuple(prompt.version for prompt in self.plan.prompts)
        part = Part(
            secrets.token_hex(8),
            len(lines),
            bound,
            self.endpoint.host,
            self.plan.model,
            versions,
            first.language,
            first.words,
        )
        self._say(f"sending {len(lines)} questions")
        upload = ("questions.jsonl", b"".join(line for _, line in lines))
        file = await self._call(lambda: self._client.files.create(file=upload, purpose="batch"))
        self._parts.append(part)
        write_parts(self._folder, self._parts)
        try:
            part.id = await self._create(part, file.id)
        except Unreachable:
            raise
        except Unusable:
            # A refusal says for sure that there is no batch.
            self._parts.remove(part)
            write_parts(self._folder, self._parts)
            raise
        self._progress.calls += 1
        write_parts(self._folder, self._parts)

    async def _create(self, part: Part, file_id: str) -> str:
        for number in range(TRIES):
            try:
                batch = await self._once(
                    lambda: self._client.batches.create(
                        input_file_id=file_id,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata={MARK: part.mark},
                    )
                )
            except Transient as failure:
                await self._pause(failure, number)
                if found := await self._find(part.mark):
                    return found
            else:
                return batch.id
        raise Unreachable(f"{self.endpoint.host} created no batch in {TRIES} tries; run again later")

    async def _adopt(self) -> None:
        """Batches written down without an id: created just before a kill, or never."""
        for part in [part for part in self._parts if not part.id]:
            part.id = await self._find(part.mark)
            if not part.id:
                self._parts.remove(part)
            write_parts(self._folder, self._parts)

    async def _find(self, mark: str) -> str:
        """The id of the batch with a mark among the latest ones, "" if there is none."""
        page = await self._call(lambda: self._client.batches.list(limit=100))
        for batch in page.data:
            if (batch.metadata or {}).get(MARK) == mark:
                return batch.id
        return ""

    async def _fetch_all(self) -> None:
        """Wait for every pending batch and take its answers; a stop leaves the rest pending."""
        while self._parts:
            for part in list(self._parts):
                batch = await self._call(lambda id=part.id: self._client.batches.retrieve(id))
                if batch.status in FINAL:
                    await self._take(part, batch)
                    self._parts.remove(part)
                    write_parts(self._folder, self._parts)
                else:
                    counts = batch.request_counts
                    ready = f", {counts.completed} of {counts.total} ready" if counts else ""
                    self._say(f"batch {part.id}: {batch.status}{ready}")
            if self._parts and not self.stop:
                await sleep(self.poll, self.stop.event)
            if self._parts and self.stop:
                return

    async def _take(self, part: Part, batch) -> None:
        """Write the answers of a finished batch into the cache; those that are there already are left out."""
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                content = await self._call(lambda id=file_id: self._client.files.content(id))
                lines = content.text.splitlines()
                records = [record for line in lines if (record := self._record(part, line))]
                self.cache.add(record for record in records if (part.id, record["key"]) not in self.cache.from_batches)
        if batch.status == "failed":
            errors = "; ".join(str(error.message) for error in (batch.errors.data if batch.errors else None) or [])
            self._parts.remove(part)
            write_parts(self._folder, self._parts)
            raise Unusable(f"{part.host} refused batch {part.id}: {self.endpoint.redact(errors) or 'no reason given'}")

    def _record(self, part: Part, line: str) -> dict[str, Any] | None:
        """One line of a batch's output as a record of the cache, None if it is none."""
        try:
            answer = json.loads(line)
            domain, key = answer["custom_id"].split("-", 1)
            version = part.versions[int(domain)]
            response = answer.get("response") or {}
            status, body = response.get("status_code"), response.get("body")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None
        record = {"key": key, "model": part.model, "prompt": version, "batch": part.id}
        if status == 200:
            try:
                reply = parse_reply(json.dumps(body), "")
            except Transient as failure:
                return {**record, "status": f"failed: {failure}"}
            verdict, text = judge(
                reply.content, reply.finish_reason, refusal=reply.refusal, language=part.language, words=part.words
            )
            usd = self.ledger.prices.usd(reply.prompt_tokens, reply.completion_tokens)
            self._progress.usd += usd
            self._progress.prompt_tokens += reply.prompt_tokens
            self._progress.completion_tokens += reply.completion_tokens
            tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            return {**record, "status": verdict, "text": text, "usd": usd, **tokens}
        if status is None:
            code = (answer.get("error") or {}).get("code") or "no answer"
            return {**record, "status": f"failed: {code}"}
        error = body.get("error", body) if isinstance(body, dict) else body
        failure = self.endpoint.status_failure(int(status), error, {})
        if isinstance(failure, Filtered):
            return {**record, "status": "filtered"}
        return {**record, "status": f"{'rejected' if isinstance(failure, Rejected) else 'failed'}: {failure}"}

    async def _call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """A call that may be repeated, with backoff."""
        for number in range(TRIES):
            try:
                return await self._once(make)
            except Transient as failure:
                await self._pause(failure, number)
        raise Unreachable(f"{self.endpoint.base_url} does not answer ({TRIES} tries); run again later, nothing is lost")

    async def _once(self, make: Callable[[], Awaitable[Any]]) -> Any:
        import openai

        try:
            return await make()
        except openai.APIStatusError as error:
            if error.status_code in (404, 405, 501):
                raise NotThere(
                    f"{self.endpoint.base_url} has no batch interface, or does not know this batch any more "
                    f"(HTTP {error.status_code}): run without --batch"
                ) from None
            failure = self.endpoint.failure(error)
            if isinstance(failure, Transient | InputError):
                raise failure from None
            raise Unusable(f"{self.endpoint.host} refuses the batch: {failure}") from None
        except openai.APIError as error:
            raise self.endpoint.failure(error) from None

    async def _pause(self, failure: Transient, number: int) -> None:
        self._say(f"{self.endpoint.host}: {failure}; trying again")
        await asyncio.sleep(failure.wait if failure.wait is not None else self.backoff * 2**number)

    def _say(self, note: str) -> None:
        self._progress.note = note
        self._progress.under_way = sum(part.questions for part in self._parts)
        self.on_progress(self._progress)
