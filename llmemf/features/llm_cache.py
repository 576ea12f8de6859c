"""The answers of language models, kept for good: what was paid for once is never asked again.

`llm_cache.jsonl` in the scenario's folder holds one line per answer or failed call:

    key                prompt version, model and item text, hashed
    status             "ok", a verdict on a bad answer (llmemf.features.answers.BAD), "rejected: ..." or "failed: ..."
    text               the answer without reasoning; of bad answers the beginning
    model, prompt      what was asked with
    prompt_tokens, completion_tokens, usd     as the endpoint counted, or estimated where it did not
    uncertain          true where a call failed such that it may have been billed; `usd` is then the most it can be
    batch              id of the batch that brought the answer
    time               when it was written, UTC
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from llmemf.features.answers import BAD, USABLE
from llmemf.io import AppendOnlyLog, read_records

NAME = "llm_cache.jsonl"
KEPT_OF_BAD = 500
"""Characters of a bad answer that are kept to look at."""
TRIES = 2
"""A bad answer is asked for once more."""


def answer_key(version: str, model: str, question: str) -> str:
    """Key of an answer: the prompt's version, the model, and the question with the item's text in it."""
    return hashlib.sha256(json.dumps([version, model, question]).encode()).hexdigest()[:32]


@dataclass
class Entry:
    """What is known about one question.

    Attributes:
        status: of the usable answer, else of the latest record.
        text: the usable answer, "" if there is none.
        bad: how many answers were bad.
    """

    status: str = ""
    text: str = ""
    bad: int = 0

    def add(self, record: dict) -> None:
        if self.status == USABLE:
            return
        self.status = record["status"]
        self.bad += self.status in BAD
        if self.status == USABLE:
            self.text = record["text"]

    @property
    def settled(self) -> bool:
        """Whether nothing is to be asked any more: answered, rejected for good, or bad in both tries."""
        return self.status == USABLE or self.bad >= TRIES or self.status.startswith("rejected")


class AnswerCache:
    """Entries by key, and the money and tokens of all records.

    Attributes:
        entries: by key.
        usd: of all records, uncertain ones at the most they can have cost.
        answers: records that the endpoint answered, per (model, prompt): number, prompt tokens, completion tokens.
    """

    def __init__(self, records: Iterable[dict], journal: AppendOnlyLog | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.usd = 0.0
        self.answers: dict[tuple[str, str], list[int]] = {}
        self.from_batches: set[tuple[str, str]] = set()
        self._journal = journal
        for record in records:
            self._count(record)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the cache of a scenario to write; see `AppendOnlyLog` for what is refused."""
        log = AppendOnlyLog(folder / NAME, lock=True)
        cache = cls(log.read(), log)
        return cache

    @classmethod
    def peek(cls, folder: Path) -> Self:
        """Read the cache of a scenario, also while another process writes it."""
        return cls(read_records(folder / NAME))

    def entry(self, key: str) -> Entry:
        return self.entries.get(key, Entry())

    def add(self, records: Iterable[dict]) -> None:
        """Write records, then count them."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        records = [{**record, "time": now} for record in records]
        for record in records:
            if record["status"] != USABLE:
                record["text"] = record.get("text", "")[:KEPT_OF_BAD]
        self._journal.append(records)
        for record in records:
            self._count(record)

    def _count(self, record: dict) -> None:
        self.entries.setdefault(record["key"], Entry()).add(record)
        self.usd += record.get("usd", 0.0)
        if batch := record.get("batch"):
            self.from_batches.add((batch, record["key"]))
        if "completion_tokens" in record:
            counts = self.answers.setdefault((record["model"], record["prompt"]), [0, 0, 0])
            counts[0] += 1
            counts[1] += record["prompt_tokens"]
            counts[2] += record["completion_tokens"]

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
