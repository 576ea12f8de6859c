"""For whom the best trial works: its validation ranks by domain, by popularity of the target, by length of the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.scenario import Scenario
from sweeps.core.plan import build_plan
from sweeps.core.sweep_data import SweepData, is_prepared, load_data
from sweeps.reporting.history import SweepHistory
from sweeps.state import checkpoints

POPULARITY = (1, 2, 5, 10, 20, 50, 100)
"""Lower ends of groups: how often a target occurs in training; below the first it was never seen."""
LENGTHS = (1, 3, 5, 8, 11, 16, 31)
"""Lower ends of groups: items of the history."""
Ranks = dict[str, np.ndarray]


@dataclass(frozen=True)
class Group:
    """Validation cases of one domain that have something in common.

    Attributes:
        mrr, hr_10: among the stored candidates.
        error: standard error of `mrr` over the cases.
        mrr_full: among all items of the domain.
    """

    label: str
    domain: str
    cases: int
    mrr: float
    error: float
    hr_10: float
    mrr_full: float

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; 0 where a single case tells nothing of it."""
        return 0.0 if np.isnan(self.error) else 1.96 * self.error


@dataclass(frozen=True)
class Breakdown:
    """Results of one trial by groups of cases.

    Attributes:
        by: heading -> groups, domain by domain.
        sampled: whether the search saw only a sample of these cases.
    """

    trial: str
    cases: int
    by: dict[str, list[Group]] = field(default_factory=dict)
    sampled: bool = False


@dataclass(frozen=True)
class Ranked:
    """Ranks of the leading trials whose weights are kept.

    Attributes:
        ranks: name of the trial -> arrays of `llmemf.ranking.rank_cases`, sorted by case; the best trial first.
        problem: why they are not there.
    """

    ranks: dict[str, Ranks] = field(default_factory=dict)
    scenario: Scenario | None = None
    features: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def rank_leaders(history: SweepHistory, *, leaders: int = 2, data: SweepData | None = None) -> Ranked:
    """Rank the validation cases by the kept weights of the best trials; says why where that is not possible.

    Args:
        leaders: how many trials; all but the best only tell how sure its lead is.
        data: where it is loaded already.
    """
    best = history.best
    if best is None:
        return Ranked(problem="No trial has a value.")
    folders = {trial.name: weights_of(history, trial.record.number) for trial in history.valued[:leaders]}
    if folders[best.name] is None:
        return Ranked(problem=f"The weights of {best.name} are not in {history.record.folder}.")
    try:
        if data is None:
            plan = build_plan(history.record.model_copy(deep=True), known=[item.config for item in history.records])
            if not is_prepared(plan):
                return Ranked(problem=f"The data of {history.record.scenario} is not in {history.record.data_root}.")
            data = load_data(plan, to_train=False)
        found = {name: rank_validation(path, data) for name, path in folders.items() if path}
    except (InputError, OSError, FloatingPointError) as error:
        return Ranked(problem=f"{error}.")
    encoders = {kind: matrix.encoder for kind, matrix in data.features.items()}
    return Ranked(found, data.scenario, encoders)


def weights_of(history: SweepHistory, number: int) -> Path | None:
    """Where the weights of a trial lie, if they are kept."""
    folder = history.record.folder
    best = folder / "best"
    is_best = bool(history.tests) and history.tests[-1]["trial"] == number and (best / checkpoints.WEIGHTS).exists()
    return checkpoints.weights(folder, number) or (best if is_best else None)


def rank_validation(folder: Path, data: SweepData) -> Ranks:
    """Ranks of all validation cases by the weights in a folder, sorted by case."""
    from llmemf.checkpoint import rank_checkpoint

    _, ranks = rank_checkpoint(folder, data.scenario, data.trial_data, "valid")
    order = np.argsort(ranks["case"], kind="stable")
    return {key: values[order] for key, values in ranks.items()}


def break_down(trial: str, ranks: Ranks, scenario: Scenario, *, valid_cases: int = 0) -> Breakdown:
    """Results of the validation cases by domain and by what they have in common.

    Args:
        ranks: see `Ranked`.
        valid_cases: how many of them the search saw; 0 for all.
    """
    split = scenario.valid
    targets, lengths = split.targets[ranks["case"]], split.lengths[ranks["case"]] - 1
    seen = np.bincount(scenario.train.items, minlength=scenario.num_items)[targets]
    everything = np.zeros(len(targets), dtype=np.int64)
    by = {
        "domain": _groups(ranks, scenario, everything, ["all"]),
        "target seen in training": _groups(ranks, scenario, (seen > 0).astype(int), ["never (cold)", "yes (warm)"]),
        "popularity of the target": _binned(ranks, scenario, seen, POPULARITY, "never"),
        "length of the history": _binned(ranks, scenario, lengths, LENGTHS, "0"),
    }
    return Breakdown(trial, len(targets), by, 0 < valid_cases < len(targets))


def _binned(ranks: Ranks, scenario: Scenario, values: np.ndarray, ends: Sequence[int], first: str) -> list[Group]:
    labels = [first]
    for low, high in zip(ends, [*ends[1:], None]):
        labels.append(f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}")
    return _groups(ranks, scenario, np.searchsorted(ends, values, side="right"), labels)


def _groups(ranks: Ranks, scenario: Scenario, codes: np.ndarray, labels: Sequence[str]) -> list[Group]:
    """One group per domain and code that occurs."""
    found = []
    for number, domain in enumerate(scenario.domains):
        for code, label in enumerate(labels):
            chosen = (ranks["domain"] == number) & (codes == code)
            count = int(chosen.sum())
            if not count:
                continue
            gain = 1 / ranks["sampled"][chosen]
            error = float(gain.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
            hits = float(np.mean(ranks["sampled"][chosen] <= 10))
            full = float(np.mean(1 / ranks["full"][chosen]))
            found.append(Group(label, domain, count, float(gain.mean()), error, hits, full))
    return found
