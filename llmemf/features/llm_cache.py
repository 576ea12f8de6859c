"""The answers of language models, kept for good: what was paid for once is never asked again.

`llm_cache.jsonl` in the scenario's folder holds one line per answer or failed call:

    key                prompt version, model and item text, hashed
    status             "ok", a verdict on a bad answer (llmemf.features.answers.BAD), "rejected: ..." or "failed: ..."
    text               the answer without reasoning; of bad answers the beginning
    model, prompt      what was asked with
    prompt_tokens, completion_tokens     as the endpoint counted, or approximated where it did not
    usd                what the call cost
    uncertain          true where nobody knows that: the call failed but may have been billed, or the endpoint did not
                       count its tokens; `usd` is then the most that the call can have cost
    time               when it was written, UTC
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from llmemf.append_only_log import AppendOnlyLog, read_records
from llmemf.features.answers import BAD, USABLE
from llmemf.io import json_hash

NAME = "llm_cache.jsonl"
KEPT_OF_BAD = 500
"""Characters of a bad answer that are kept to look at."""
TRIES = 2
"""A bad answer is asked for once more."""


def answer_key(version: str, model: str, question: str) -> str:
    """Key of an answer: the prompt's version, the model, and the question with the item's text in it."""
    return json_hash([version, model, question])[:32]


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

    def add(self, record: dict[str, Any]) -> None:
        if self.status == USABLE:
            return
        self.status = record["status"]
        self.bad += self.status in BAD
        if self.status == USABLE:
            # Earlier versions kept lone surrogates, which no table can hold.
            self.text = record["text"].encode("utf-8", "replace").decode()

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

    def __init__(self, records: Iterable[dict[str, Any]], log: AppendOnlyLog | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.usd = 0.0
        self.answers: dict[tuple[str, str], list[int]] = {}
        self._log = log
        for record in records:
            self._count(record)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the cache of a scenario to write.

        Raises:
            InputError: another process writes it, or a line is damaged.
        """
        log = AppendOnlyLog(folder / NAME, lock=True)
        return cls(log.read(), log)

    @classmethod
    def peek(cls, folder: Path) -> Self:
        """Read the cache of a scenario, also while another process writes it."""
        return cls(read_records(folder / NAME))

    def entry(self, key: str) -> Entry:
        return self.entries.get(key, Entry())

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Write records, then count them as they will be read.

        Raises:
            StorageError: they could not be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        records = [{**record, "time": now} for record in records]
        for record in records:
            if record["status"] != USABLE:
                record["text"] = record.get("text", "")[:KEPT_OF_BAD]
        assert self._log is not None, "the cache is open to read only"
        for record in self._log.append(records):
            self._count(record)

    def _count(self, record: dict[str, Any]) -> None:
        self.entries.setdefault(record["key"], Entry()).add(record)
        self.usd += max(0.0, record.get("usd", 0.0))
        if "completion_tokens" in record:
            counts = self.answers.setdefault((record["model"], record["prompt"]), [0, 0, 0])
            counts[0] += 1
            counts[1] += record["prompt_tokens"]
            counts[2] += record["completion_tokens"]

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
