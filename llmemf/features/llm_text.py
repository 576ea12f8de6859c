"""LLM text of a scenario's items on disk, made from the cache: `llm_text.parquet` and its manifest `llm_text.yaml`."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import yaml

from llmemf.features.answers import USABLE
from llmemf.features.llm_cache import AnswerCache
from llmemf.features.llm_plan import Plan
from llmemf.features.prompts import WORDING
from llmemf.io import write_with

TABLE, MANIFEST = "llm_text.parquet", "llm_text.yaml"
NO_TEXT, NOT_ASKED = "no text", "not asked"


@dataclass(frozen=True)
class TextSummary:
    """What was written.

    Attributes:
        counts: how many items of each domain have which status, in order of frequency.
        replaced: what stood there before, if it was made otherwise and had more texts; "" if not.
    """

    counts: dict[str, dict[str, int]]
    replaced: str = ""

    @property
    def usable(self) -> int:
        return sum(counts.get(USABLE, 0) for counts in self.counts.values())

    @property
    def not_asked(self) -> int:
        return sum(counts.get(NOT_ASKED, 0) for counts in self.counts.values())

    @property
    def failed(self) -> int:
        """Items that the next run asks again."""
        return sum(n for counts in self.counts.values() for status, n in counts.items() if status.startswith("failed"))


def text_table(plan: Plan, cache: AnswerCache) -> pd.DataFrame:
    """One row per item: item (global id), text ("" where there is none), status ("ok" or why there is none)."""
    entries = [cache.entry(key) if key else None for key in plan.keys]
    return pd.DataFrame(
        {
            "item": range(len(entries)),
            "text": [entry.text if entry else "" for entry in entries],
            "status": [NO_TEXT if entry is None else entry.status or NOT_ASKED for entry in entries],
        }
    )


def write_text(plan: Plan, cache: AnswerCache, endpoint: str) -> TextSummary:
    """Write table and manifest below the scenario's folder, each whole or not at all.

    Args:
        endpoint: host that answered, for the manifest.

    Raises:
        InputError: they cannot be written.
    """
    scenario, table = plan.scenario, text_table(plan, cache)
    folder: Path = scenario.folder
    # Failures differ in their wording; the counts keep what matters.
    kinds = table.status.str.split(":").str[0]
    parts = (slice(0, scenario.num_x), slice(scenario.num_x, None))
    counts = {domain: dict(Counter(kinds[part]).most_common()) for domain, part in zip(scenario.domains, parts)}
    answers = [cache.answers.get((plan.model, prompt.version), [0, 0, 0]) for prompt in plan.prompts]
    manifest = {
        "model": plan.model,
        "endpoint": endpoint,
        "prompt_version": {domain: prompt.version for domain, prompt in zip(scenario.domains, plan.prompts)},
        "wording": WORDING,
        "language": plan.prompts[0].language,
        "words": plan.prompts[0].words,
        "items": scenario.num_items,
        "items_with_llm_text": int((table.status == USABLE).sum()),
        "counts": counts,
        "items_hash": scenario.items_hash(),
        "text_hash": hashlib.sha256("\x1f".join(table.text).encode("utf-8", "replace")).hexdigest(),
        "answers": sum(counted[0] for counted in answers),
        "prompt_tokens": sum(counted[1] for counted in answers),
        "completion_tokens": sum(counted[2] for counted in answers),
        "usd_of_the_whole_cache": round(cache.usd, 6),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    replaced = _better_one(folder, manifest)
    write_with(folder / TABLE, lambda path: table.to_parquet(path, index=False))
    write_with(
        folder / MANIFEST, lambda path: path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
    )
    return TextSummary(counts, replaced)


def _better_one(folder: Path, new: dict) -> str:
    """A phrase about the table that is there now, if it comes from another model or prompt and has more texts."""
    try:
        old = yaml.safe_load((folder / MANIFEST).read_text())
        same = all(old[part] == new[part] for part in ("model", "prompt_version"))
        if same or old["items_with_llm_text"] <= new["items_with_llm_text"]:
            return ""
        return f"{old['items_with_llm_text']:,} texts of {old['model']}, {old['language']}, {old['words']} words"
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""
