"""What a scenario holds, how it ends, and whether its evaluation leaks.

A leak is one of four things, each checked for every validation and test case:

* the held-out interaction is in a training sequence of the same user;
* the held-out test interaction is in a validation sequence of the same user;
* the target stands in its own model input;
* a training sequence of the same user continues after the target (as in the older pi-Net split of the published data).

People do take an item twice. So the first two count only what is not earlier than the target, and not in the case's
own history, where it is a plain fact of the past; and the third counts only where no training sequence repeats an
item, so that a repeat cannot be natural.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import BaseModel

from llmemf.io import read_json_model
from llmemf.scenarios.scenario import SPLITS, Scenario
from llmemf.scenarios.sequences import Sequences

SECONDS_PER_DAY = 86400
REMEDY = "make the features again"


@dataclass(frozen=True)
class Lengths:
    """Distribution of a number of items per sequence."""

    min: int
    mean: float
    median: float
    max: int


@dataclass(frozen=True)
class DomainFacts:
    """Counts of one domain; the dictionaries are by split name."""

    items: int
    items_in_training: int
    users: int
    interactions: dict[str, int]
    targets: dict[str, int]
    cold_targets: dict[str, int]
    """Targets that no training sequence holds."""


@dataclass(frozen=True)
class SplitFacts:
    """Counts of one split; times are Unix seconds, None where the source has none."""

    sequences: int
    users: int
    interactions: int
    lengths: Lengths
    domain_lengths: tuple[Lengths, Lengths]
    first_time: int | None
    last_time: int | None
    longest_days: float | None
    """Longest time between the first and the last item of one sequence."""
    same_day_ends: float | None
    """Share of sequences whose last two items fall on the same day (UTC)."""
    cold_users: int
    """Users without a training sequence."""


@dataclass(frozen=True)
class CandidateFacts:
    """The stored negatives of one split."""

    width: int
    fewest: int
    """Negatives of the case that has the fewest."""
    duplicates: float
    """Mean number per case of negatives that repeat another one."""
    history: float
    """Mean number per case of history items that stand among the negatives."""


@dataclass(frozen=True)
class LeakFacts:
    """Cases of one split that leak, None where the check needs times and there are none."""

    cases: int
    target_in_training: int
    target_in_validation: int
    target_in_input: int
    later_training: int | None
    repeats: int
    """Targets that repeat an item of their own input; a leak only if training sequences never do."""


@dataclass(frozen=True)
class Audit:
    """All facts; `leaks` says in words what is wrong, and is empty if nothing is."""

    name: str
    domains: dict[str, DomainFacts]
    splits: dict[str, SplitFacts]
    candidates: dict[str, CandidateFacts]
    leak_facts: dict[str, LeakFacts]
    features: dict[str, int]
    """Name of each feature matrix and the number of items that have the feature."""
    leaks: list[str]
    absent: list[str]
    """Where a domain does not occur at all, in words."""


def audit(scenario: Scenario) -> Audit:
    """Count and check a scenario."""
    repeating = _repeats_inside(scenario.train, scenario.num_items)
    leak_facts = {name: _leak_facts(scenario, name, repeating) for name in ("valid", "test")}
    return Audit(
        name=scenario.name,
        domains={domain: domain_facts(scenario, index) for index, domain in enumerate(scenario.domains)},
        splits={name: _split_facts(scenario, name) for name in SPLITS},
        candidates={name: _candidate_facts(scenario, name) for name in ("valid", "test")},
        leak_facts=leak_facts,
        features=_features(scenario),
        leaks=[text for name, facts in leak_facts.items() for text in _in_words(name, facts)],
        absent=absent_domains(scenario),
    )


def absent_domains(scenario: Scenario) -> list[str]:
    """A sentence per domain and split in which it does not occur, though both domains have items."""
    notes = []
    for index, domain in enumerate(scenario.domains):
        other = scenario.domains[1 - index]
        if not (scenario.domain_of(scenario.train.items) == index).any():
            notes.append(f"no training history holds an item of {domain}: nothing can be learned about it")
        notes += [
            f"no {name} case has a target of {domain}: its numbers are missing there, and means are those of {other} alone"
            for name in ("valid", "test")
            if not (scenario.domain_of(scenario.split(name).targets) == index).any()
        ]
    return notes


def domain_facts(scenario: Scenario, index: int) -> DomainFacts:
    """Count one domain: 0 is X, 1 is Y."""
    in_domain = {name: scenario.domain_of(scenario.split(name).items) == index for name in SPLITS}
    targets = {name: scenario.split(name).targets for name in ("valid", "test")}
    targets = {name: items[scenario.domain_of(items) == index] for name, items in targets.items()}
    users = [scenario.split(name).users_by_item[in_domain[name]] for name in SPLITS]
    known = np.unique(scenario.train.items[in_domain["train"]])
    return DomainFacts(
        items=(scenario.num_x, scenario.num_y)[index],
        items_in_training=len(known),
        users=len(np.unique(np.concatenate(users))),
        interactions={name: int(mask.sum()) for name, mask in in_domain.items()},
        targets={name: len(items) for name, items in targets.items()},
        cold_targets={name: int((~np.isin(items, known)).sum()) for name, items in targets.items()},
    )


def _split_facts(scenario: Scenario, name: str) -> SplitFacts:
    sequences = scenario.split(name)
    in_y = np.concatenate([[0], np.cumsum(scenario.domain_of(sequences.items), dtype=np.int64)])
    num_y = in_y[sequences.offsets[1:]] - in_y[sequences.offsets[:-1]]
    first, last = sequences.times[sequences.offsets[:-1]], sequences.times[sequences.last_places]
    before_last = sequences.times[sequences.offsets[1:] - 2]
    timed = _has_times(sequences)
    users = np.unique(sequences.users)
    return SplitFacts(
        sequences=len(sequences),
        users=len(users),
        interactions=len(sequences.items),
        lengths=_lengths(sequences.lengths),
        domain_lengths=(_lengths(sequences.lengths - num_y), _lengths(num_y)),
        first_time=int(sequences.times.min()) if timed else None,
        last_time=int(sequences.times.max()) if timed else None,
        longest_days=float((last - first).max() / SECONDS_PER_DAY) if timed else None,
        same_day_ends=float((last // SECONDS_PER_DAY == before_last // SECONDS_PER_DAY).mean()) if timed else None,
        cold_users=int((~np.isin(users, scenario.train.users)).sum()),
    )


def _candidate_facts(scenario: Scenario, name: str) -> CandidateFacts:
    cases, table = scenario.split(name), np.sort(scenario.candidates[name], axis=1)
    real = table >= 0
    duplicates = ((table[:, 1:] == table[:, :-1]) & real[:, 1:]).sum()
    # Case and item make one number; rows are sorted, so the whole table is, and -1 stays inside its own row.
    step = scenario.num_items + 1
    stored = (np.arange(len(table))[:, None] * step + table + 1).ravel()
    row, is_target = cases.rows, _is_target(cases)
    history = np.unique((row * step + cases.items + 1)[~is_target])
    found = np.searchsorted(stored, history, "right") - np.searchsorted(stored, history, "left")
    return CandidateFacts(
        width=table.shape[1],
        fewest=int(real.sum(axis=1).min()),
        duplicates=float(duplicates / len(table)),
        history=float(found.sum() / len(table)),
    )


def _leak_facts(scenario: Scenario, name: str, repeating: bool) -> LeakFacts:
    cases = scenario.split(name)
    row = cases.rows
    repeats = np.unique(row[(cases.items == cases.targets[row]) & ~_is_target(cases)])
    in_validation = _held_out_in(cases, scenario.valid, scenario.num_items) if name == "test" else np.zeros(1, bool)
    return LeakFacts(
        cases=len(cases),
        target_in_training=int(_held_out_in(cases, scenario.train, scenario.num_items).sum()),
        target_in_validation=int(in_validation.sum()),
        target_in_input=0 if repeating else len(repeats),
        later_training=_later_training(cases, scenario.train),
        repeats=len(repeats),
    )


def _held_out_in(cases: Sequences, others: Sequences, num_items: int) -> np.ndarray:
    """(S,) bool: do the user's `others` hold the target more often than the case's own history does?

    Only occurrences that are not earlier than the target count; without times all do.
    """
    targets, row = cases.targets, cases.rows
    target_times = cases.times[cases.last_places]
    wanted = pd.DataFrame(
        {
            "key": cases.users.astype(np.int64) * num_items + targets,
            "case": np.arange(len(cases)),
            "target_time": target_times,
        }
    )
    present = pd.DataFrame(
        {"key": others.users_by_item.astype(np.int64) * num_items + others.items, "time": others.times}
    )
    found = wanted.merge(present, on="key")
    found = found[~_earlier(found["time"].to_numpy(), found["target_time"].to_numpy())]
    there = np.bincount(found["case"], minlength=len(cases))
    own = (cases.items == targets[row]) & ~_is_target(cases) & ~_earlier(cases.times, target_times[row])
    return there > np.bincount(row[own], minlength=len(cases))


def _later_training(cases: Sequences, train: Sequences) -> int | None:
    """Cases whose user has a training sequence that ends after the target."""
    if not (_has_times(cases) and _has_times(train)):
        return None
    latest = np.full(int(max(cases.users.max(), train.users.max())) + 1, -1, dtype=np.int64)
    np.maximum.at(latest, train.users, train.times[train.last_places])
    return int((latest[cases.users] > cases.times[cases.last_places]).sum())


def _in_words(name: str, facts: LeakFacts) -> list[str]:
    claims = (
        (facts.target_in_training, "their target in a training sequence of the same user"),
        (facts.target_in_validation, "their target in a validation sequence of the same user"),
        (facts.target_in_input, "their target in their own model input, though training sequences repeat no item"),
        (facts.later_training, "a training sequence of the same user that is later than their target"),
    )
    return [f"{count} of {facts.cases} {name} cases have {what}" for count, what in claims if count]


class _FeatureCount(BaseModel):
    """What the audit reads of a feature matrix's manifest; the room of the features knows all of it."""

    items_with_feature: int


def _features(scenario: Scenario) -> dict[str, int]:
    if scenario.folder is None:
        return {}
    manifests = sorted((scenario.folder / "features").glob("*/manifest.json"))
    return {path.parent.name: read_json_model(path, _FeatureCount, REMEDY).items_with_feature for path in manifests}


def _lengths(counts: np.ndarray) -> Lengths:
    return Lengths(int(counts.min()), float(counts.mean()), float(np.median(counts)), int(counts.max()))


def _is_target(sequences: Sequences) -> np.ndarray:
    """(T,) bool, the last item of every sequence."""
    mask = np.zeros(len(sequences.items), dtype=bool)
    mask[sequences.last_places] = True
    return mask


def _has_times(sequences: Sequences) -> bool:
    return bool((sequences.times >= 0).all())


def _earlier(time: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Is `time` known to be before `reference`?"""
    return (time >= 0) & (reference >= 0) & (time < reference)


def _repeats_inside(sequences: Sequences, num_items: int) -> bool:
    """Does any sequence hold an item twice?"""
    keys = np.sort(sequences.rows * np.int64(num_items) + sequences.items)
    return bool((keys[1:] == keys[:-1]).any())
