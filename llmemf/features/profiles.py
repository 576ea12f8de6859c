"""User profiles by a language model: what is asked about every user, the texts on disk, and their rows.

A profile is written from the user's training history alone: titles with categories of both domains, numbered in the
order of time, an item that returns only where it occurred last. Questions, answers and money go through the same cache and
runs as those of items. On disk, in the scenario's folder: `llm_profiles.parquet` (user, text, status) and its manifest
`llm_profiles.yaml`; encoded rows as `profiles/profile.<encoder>/` (see `matrix`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from llmemf.errors import InputError
from llmemf.features.answers import USABLE
from llmemf.features.llm_cache import AnswerCache, answer_key
from llmemf.features.llm_plan import Plan
from llmemf.features.llm_text import NO_TEXT, NOT_ASKED
from llmemf.features.matrix import PROFILE, FeatureMatrix, profiles_hash
from llmemf.features.offline import ENCODER, text_rows
from llmemf.features.prompts import Prompt, item_text, profile_prompt
from llmemf.io import write_with
from llmemf.scenarios.scenario import Scenario

TABLE, MANIFEST = "llm_profiles.parquet", "llm_profiles.yaml"
NEWEST = 200
"""Lines of a history that are sent, at most: the newest ones."""


@dataclass(frozen=True)
class ProfilePlan(Plan):
    """The questions about a scenario's users; `keys` and `order` hold users where those of a `Plan` hold items.

    Attributes:
        texts: the lines of every user's history, oldest first.
    """

    texts: list[list[str]]
    subject = "users"

    def prompt(self, item: int) -> Prompt:
        return self.prompts[0]

    def question(self, item: int) -> str:
        """The text that is sent about a user."""
        return self.prompts[0].fill_history(self.texts[item])


def make_profile_plan(
    scenario: Scenario, model: str, *, language: str = "English", words: int = 120, newest: int = NEWEST
) -> ProfilePlan:
    """Key every user with a titled item in training; the longest histories come first."""
    prompt = profile_prompt(scenario.domains, language=language, words=words)
    texts = training_lines(scenario, newest)
    keys = np.full(scenario.num_users, "", dtype=object)
    for user, lines in enumerate(texts):
        if lines:
            keys[user] = answer_key(prompt.version, model, prompt.fill_history(lines))
    by_length = np.argsort([-len(lines) for lines in texts], kind="stable")
    order, seen = [], {""}
    for user in by_length:
        if keys[user] not in seen:
            seen.add(keys[user])
            order.append(user)
    return ProfilePlan(scenario, model, (prompt, prompt), texts, keys, np.array(order, dtype=np.int64))


def training_lines(scenario: Scenario, newest: int = NEWEST) -> list[list[str]]:
    """For every user the titles with categories of the training items, oldest first, each item once."""
    table, train = scenario.items, scenario.train
    categories = table["categories"].map(item_text) if "categories" in table.columns else [""] * len(table)
    titles = [
        f"{title} ({kind})" if title and kind else title
        for title, kind in zip((str(title).strip() for title in table.title), categories)
    ]
    users = np.repeat(train.users, train.lengths)
    # Where a source has no times, all are equal, and the order of the file remains.
    order = np.lexsort((train.times, users))
    bounds = np.searchsorted(users[order], np.arange(scenario.num_users + 1))
    items = train.items[order].tolist()
    found = []
    for start, stop in pairwise(bounds):
        latest = reversed(dict.fromkeys(reversed(items[start:stop])))
        found.append([titles[item] for item in latest if titles[item]][-newest:])
    return found


def write_profiles(plan: ProfilePlan, cache: AnswerCache, endpoint: str) -> Counter[str]:
    """Write table and manifest below the scenario's folder; returns how many users have which status.

    Raises:
        InputError: they cannot be written.
    """
    scenario, prompt = plan.scenario, plan.prompts[0]
    folder: Path = scenario.folder
    entries = [cache.entry(key) if key else None for key in plan.keys]
    table = pd.DataFrame(
        {
            "user": range(len(entries)),
            "text": [entry.text if entry else "" for entry in entries],
            "status": [NO_TEXT if entry is None else entry.status or NOT_ASKED for entry in entries],
        }
    )
    counts = Counter(table.status.str.split(":").str[0])
    manifest = {
        "model": plan.model,
        "endpoint": endpoint,
        "prompt_version": prompt.version,
        "language": prompt.language,
        "words": prompt.words,
        "users": len(table),
        "users_with_profile": counts[USABLE],
        "counts": dict(counts.most_common()),
        "profiles_hash": profiles_hash(scenario),
        "text_hash": _text_hash(table.text),
        "usd_of_the_whole_cache": round(cache.usd, 6),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_with(folder / TABLE, lambda path: table.to_parquet(path, index=False))
    write_with(
        folder / MANIFEST, lambda path: path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
    )
    return counts


def read_profiles(scenario: Scenario) -> tuple[list[str], dict]:
    """The profile of every user ("" where there is none), and the manifest.

    Raises:
        InputError: there are none, they cannot be read, or they were written from other histories.
    """
    command = f"`llmemf features enrich {scenario.name} --profiles`"
    path = (scenario.folder or Path()) / TABLE
    if not path.exists():
        raise InputError(f"scenario {scenario.name!r} has no user profiles: write them with {command}")
    try:
        table = pd.read_parquet(path, columns=["user", "text"])
        manifest = yaml.safe_load(path.with_name(MANIFEST).read_text())
        texts, made_from, text_hash = table.text.tolist(), manifest["profiles_hash"], manifest["text_hash"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}): run {command} again") from None
    if made_from != profiles_hash(scenario) or len(texts) != scenario.num_users:
        raise InputError(f"{path} was written from other users, items or training histories: run {command} again")
    if text_hash != _text_hash(table.text):
        raise InputError(f"{path} and {MANIFEST} do not belong together: run {command} again")
    if not any(texts):
        raise InputError(f"{path} holds no profile: run {command} again")
    return texts, manifest


def encode_profiles(scenario: Scenario, width: int = 512) -> FeatureMatrix:
    """Encode the profiles by TF-IDF and truncated SVD, as the offline encoder does with items.

    Raises:
        InputError: as `read_profiles`; or no profile holds a usable word.
    """
    texts, manifest = read_profiles(scenario)
    rows, has, facts = text_rows(texts, width, scenario.name)
    facts = {key.replace("items_", "users_", 1): value for key, value in facts.items()}
    details = {"method": "TF-IDF of LLM profiles, truncated SVD, L2-normalised", **facts, **_origin(manifest)}
    return FeatureMatrix(PROFILE, ENCODER, rows, has, profiles_hash(scenario), details)


def import_profiles(scenario: Scenario, path: Path, encoder: str) -> FeatureMatrix:
    """Profiles that another text encoder has read: one row per line of `llm_profiles.parquet`, zero for those without.

    Raises:
        InputError: as `read_profiles`; or not a matrix of one finite row per user; or an unusable name.
    """
    from llmemf.features.imported import check_encoder, load_npy

    check_encoder(encoder)
    texts, manifest = read_profiles(scenario)
    source = load_npy(path)
    if source.ndim != 2 or len(source) != len(texts) or not np.issubdtype(source.dtype, np.floating):
        raise InputError(
            f"{path}: {source.dtype} of shape {source.shape}; floating point numbers, one row for each of the "
            f"{len(texts)} users of scenario {scenario.name!r} are needed"
        )
    rows = np.array(source, np.float32)
    rows[[not text for text in texts]] = 0
    details = {"method": "imported matrix", "file": path.name, **_origin(manifest)}
    return FeatureMatrix(PROFILE, encoder, rows, rows.any(1), profiles_hash(scenario), details)


def _origin(manifest: dict) -> dict:
    return {"profiles": {key: manifest.get(key) for key in ("model", "prompt_version", "text_hash")}}


def _text_hash(texts: pd.Series) -> str:
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "replace")).hexdigest()
