"""User profiles by a language model: what is asked about every user, the texts on disk, and their rows.

A profile is written from the user's training history alone: titles with categories of both domains, numbered in the
order of time; an item that occurs several times stands where it occurred last. Questions, answers and money go through
the same cache and runs as those of items. On disk, in the scenario's folder: `llm_profiles.parquet` (user, text, status) and its manifest
`llm_profiles.yaml`; encoded rows as `profiles/profile.<encoder>/` (see `matrix`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.features.answers import USABLE
from llmemf.features.imported import check_encoder, load_npy
from llmemf.features.llm_cache import AnswerCache, answer_key
from llmemf.features.llm_plan import Plan, Question, first_of_each
from llmemf.features.llm_text import TextSummary, count_statuses, save_table, text_table
from llmemf.features.matrix import PROFILE, FeatureMatrix, profiles_hash
from llmemf.features.offline import ENCODER, text_rows
from llmemf.features.prompts import categories_of, profile_prompt
from llmemf.io import text_hash
from llmemf.scenarios.scenario import Scenario

NAME = "llm_profiles"
NEWEST = 200
"""At most so many lines of a history are sent, the newest ones."""


@dataclass(frozen=True)
class ProfilePlan(Plan):
    """The questions about a scenario's users; `keys` and `order` hold users where those of a `Plan` hold items.

    Attributes:
        texts: the lines of every user's history, oldest first.
    """

    texts: Sequence[list[str]]
    subject = "user"

    def question(self, item: int) -> Question:
        """What is asked about a user."""
        prompt = self.prompts[0]
        return Question(self.keys[item], self.model, prompt, prompt.fill_history(self.texts[item]))


def make_profile_plan(scenario: Scenario, model: str, *, language: str = "English", words: int = 120) -> ProfilePlan:
    """Key every user with a titled item in training; the longest histories come first."""
    prompt = profile_prompt(scenario.domains, language=language, words=words)
    texts = training_lines(scenario)
    keys = np.full(scenario.num_users, "", dtype=object)
    for user, lines in enumerate(texts):
        if lines:
            keys[user] = answer_key(prompt.version, model, prompt.fill_history(lines))
    by_length = np.argsort([-len(lines) for lines in texts], kind="stable")
    return ProfilePlan(scenario, model, (prompt, prompt), texts, keys, first_of_each(keys, by_length))


def training_lines(scenario: Scenario, newest: int = NEWEST) -> list[list[str]]:
    """For every user the titles with categories of the training items, oldest first, each item once."""
    train = scenario.train
    titles = [
        f"{title} ({categories})" if title and categories else title
        for title, categories in zip(scenario.items.title.astype(str).str.strip(), categories_of(scenario.items))
    ]
    users = train.users_by_item
    # Where a source has no times, all are equal, and the order of the file remains.
    order = np.lexsort((train.times, users))
    bounds = np.searchsorted(users[order], np.arange(scenario.num_users + 1))
    items = train.items[order].tolist()
    found = []
    for start, stop in pairwise(bounds):
        latest = reversed(dict.fromkeys(reversed(items[start:stop])))
        found.append([titles[item] for item in latest if titles[item]][-newest:])
    return found


def write_profiles(plan: ProfilePlan, cache: AnswerCache, endpoint: str) -> TextSummary:
    """Write the profiles of the users.

    Raises:
        StorageError: they cannot be written.
    """
    scenario, table = plan.scenario, text_table(plan, cache)
    counts = count_statuses(table)
    facts = {
        "prompt_version": plan.prompts[0].version,
        "users": len(table),
        "users_with_profile": counts.get(USABLE, 0),
        "counts": counts,
        "profiles_hash": profiles_hash(scenario),
    }
    path = scenario.location / f"{NAME}.parquet"
    save_table(path, table, plan, cache, endpoint, facts)
    return TextSummary(path, {"users": counts})


def read_profiles(scenario: Scenario) -> tuple[list[str], dict[str, Any]]:
    """The profile of every user ("" where there is none), and the manifest.

    Raises:
        InputError: there are none, they cannot be read, or they were written from other histories.
    """
    command = f"`{command_line('features', 'enrich', scenario.name, '--profiles')}`"
    path = scenario.location / f"{NAME}.parquet"
    manifest_path = path.with_suffix(".yaml")
    if not path.exists():
        raise InputError(f"scenario {scenario.name!r} has no user profiles: write them with {command}")
    try:
        texts = pd.read_parquet(path, columns=["user", "text"]).text.tolist()
        manifest = yaml.safe_load(manifest_path.read_text(encoding="utf-8"))
        made_from, hash_then = manifest["profiles_hash"], manifest["text_hash"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}): run {command} again") from None
    if made_from != profiles_hash(scenario) or len(texts) != scenario.num_users:
        raise InputError(f"{path} was written from other users, items or training histories: run {command} again")
    if hash_then != text_hash(*texts):
        raise InputError(f"{path} and {manifest_path.name} do not belong together: run {command} again")
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
    return FeatureMatrix(PROFILE, encoder, rows, np.asarray(rows.any(1)), profiles_hash(scenario), details)


def _origin(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"profiles": {key: manifest.get(key) for key in ("model", "prompt_version", "text_hash")}}
