"""Texts of a language model on disk, made from the cache: a table with one row per item or user, and its manifest.

Items: `llm_text.parquet` and `llm_text.yaml` in the scenario's folder. Users: see `profiles`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from llmemf.features.answers import USABLE
from llmemf.features.llm_cache import AnswerCache
from llmemf.features.llm_plan import Plan
from llmemf.features.prompts import WORDING
from llmemf.io import atomic_file, text_hash
from llmemf.io import write_text as write_file

NAME = "llm_text"
NO_TEXT, NOT_ASKED = "no text", "not asked"


@dataclass(frozen=True)
class TextSummary:
    """What was written.

    Attributes:
        path: of the table.
        counts: how many items of each domain, or how many users, have which status, in order of frequency.
    """

    path: Path
    counts: Mapping[str, Mapping[str, int]]

    @property
    def failed(self) -> int:
        """Items or users that the next run asks about again."""
        return sum(counts.get("failed", 0) for counts in self.counts.values())


def text_table(plan: Plan, cache: AnswerCache) -> pd.DataFrame:
    """One row per item (or user): its index, text ("" where there is none), status ("ok" or why there is none)."""
    entries = [cache.entry(key) if key else None for key in plan.keys]
    return pd.DataFrame(
        {
            plan.subject: range(len(entries)),
            "text": [entry.text if entry else "" for entry in entries],
            "status": [NO_TEXT if entry is None else entry.status or NOT_ASKED for entry in entries],
        }
    )


def count_statuses(table: pd.DataFrame) -> dict[str, int]:
    """How many rows have which status, in order of frequency; failures and rejections without their reasons."""
    return dict(Counter(table.status.str.split(":").str[0]).most_common())


def write_text(plan: Plan, cache: AnswerCache, endpoint: str) -> TextSummary:
    """Write the texts of the items.

    Args:
        endpoint: host that answered, for the manifest.

    Raises:
        StorageError: they cannot be written.
    """
    scenario, table = plan.scenario, text_table(plan, cache)
    parts = (table[: scenario.num_x], table[scenario.num_x :])
    counts = {domain: count_statuses(part) for domain, part in zip(scenario.domains, parts)}
    answers = [cache.answers.get((plan.model, prompt.version), [0, 0, 0]) for prompt in plan.prompts]
    facts = {
        "prompt_version": {domain: prompt.version for domain, prompt in zip(scenario.domains, plan.prompts)},
        "wording": WORDING,
        "items": scenario.num_items,
        "items_with_llm_text": int((table.status == USABLE).sum()),
        "counts": counts,
        "items_hash": scenario.items_hash(),
        "answers": sum(counted[0] for counted in answers),
        "prompt_tokens": sum(counted[1] for counted in answers),
        "completion_tokens": sum(counted[2] for counted in answers),
    }
    path = scenario.location / f"{NAME}.parquet"
    save_table(path, table, plan, cache, endpoint, facts)
    return TextSummary(path, counts)


def save_table(
    path: Path, table: pd.DataFrame, plan: Plan, cache: AnswerCache, endpoint: str, facts: Mapping[str, Any]
) -> None:
    """Write a table and beside it its manifest, each whole or not at all.

    Args:
        facts: what the manifest says beside model, endpoint, language, words, hash and cost.

    Raises:
        StorageError: they cannot be written.
    """
    manifest = {
        "model": plan.model,
        "endpoint": endpoint,
        "language": plan.prompts[0].language,
        "words": plan.prompts[0].words,
        **facts,
        "text_hash": text_hash(*table.text),
        "usd_of_the_whole_cache": round(cache.usd, 6),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with atomic_file(path) as temporary:
        table.to_parquet(temporary, index=False)
    write_file(path.with_suffix(".yaml"), yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
