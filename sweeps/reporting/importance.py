"""How much each searched setting matters: PED-ANOVA, how sure that is, and what chance alone would give.

PED-ANOVA (Watanabe et al., IJCAI 2023) compares how a setting is distributed among the best trials with how it is among
all. It asks only which trials are among the best; trials that were pruned are not, and count with their last value.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmemf import text_format
from sweeps.reporting.history import TrialHistory
from sweeps.reporting.parameters import Parameter

FEWEST = 10
"""Below this many trials nothing is computed."""
ENOUGH = 30
"""Below this many trials the numbers are a hint."""
IN_TOP = 5
"""Trials that should at least be among the best, so that their distribution means something."""


@dataclass(frozen=True)
class Importance:
    """One setting's share of all that the settings explain.

    Attributes:
        share: of the sum over settings, 0 to 1.
        low, high: 5 % and 95 % of it over resampled trials.
        chance: what it stays below in 95 % of random orders of the trials' values.
    """

    key: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance would give."""
        return self.share > self.chance


@dataclass(frozen=True)
class Importances:
    """Of all settings, the most important first.

    Attributes:
        trials: how many it follows from.
        top: the share of them that counts as the best.
        note: why there is none, or how far to trust it.
    """

    items: tuple[Importance, ...] = ()
    trials: int = 0
    top: float = 0.0
    note: str = ""

    def of(self, key: str) -> Importance | None:
        return next((item for item in self.items if item.key == key), None)


def importances(trials: Sequence[TrialHistory], parameters: Sequence[Parameter], *, seed: int = 0) -> Importances:
    """PED-ANOVA over trials with a value, with its uncertainty by the bootstrap and its level under chance.

    Args:
        trials: trials with a value.
        parameters: those that are searched.
    """
    usable = [p for p in parameters if len(p.values) > 1]
    chosen = [t for t in trials if all(p.position(t.record.varied.get(p.key)) is not None for p in usable)]
    count = len(chosen)
    if not usable:
        return Importances(trials=count, note="No setting differs between trials.")
    if count < FEWEST:
        few = f"{text_format.plural(count, 'trial')} with a value: too few; {FEWEST} are the least."
        return Importances(trials=count, note=few)
    top = min(0.5, max(0.1, IN_TOP / count))
    optuna_trials = _optuna_trials(chosen, usable)
    values = np.array([trial.record.objective for trial in chosen])
    rng = np.random.default_rng(seed)
    # An estimate costs time in proportion to the trials, and with many of them it varies less.
    repeats = 100 if count <= 150 else 30
    whole = _study(optuna_trials, values)
    found = _divergences(whole, top)
    total = sum(found.values())
    if total <= 0:
        return Importances(trials=count, top=top, note="The best trials are spread like all trials in every setting.")
    resampled, shuffled = [], []
    for _ in range(repeats):
        index = rng.integers(0, count, count)
        resampled.append(_shares(_divergences(_study([optuna_trials[i] for i in index], values[index]), top)))
        shuffled.append(_divergences(whole, top, rng.permutation(values)))
    items = []
    for parameter in usable:
        low, high = np.quantile([sample[parameter.key] for sample in resampled], [0.05, 0.95])
        chance = float(np.quantile([sample[parameter.key] for sample in shuffled], 0.95)) / total
        items.append(Importance(parameter.key, found[parameter.key] / total, float(low), float(high), chance))
    items.sort(key=lambda item: -item.share)
    hint = f"From {count} trials only: a hint, not a finding ({ENOUGH} or more would tell)."
    return Importances(tuple(items), count, top, hint if count < ENOUGH else "")


def _optuna_trials(trials: Sequence[TrialHistory], parameters: Sequence[Parameter]) -> list[Any]:
    """The trials as Optuna sees them, with the settings themselves as parameters."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import create_trial

    distributions: dict[str, BaseDistribution] = {}
    for p in parameters:
        is_small_integer = p.is_numeric and all(value == int(value) for value in p.values) and len(p.values) <= 8
        if p.is_numeric and not is_small_integer:
            distributions[p.key] = FloatDistribution(p.axis.low, p.axis.high, log=p.axis.log)
        else:
            distributions[p.key] = CategoricalDistribution(list(p.values))
    found = []
    for trial in trials:
        varied = trial.record.varied
        values = {
            p.key: float(varied[p.key]) if p.is_numeric else text_format.number(varied[p.key]) for p in parameters
        }
        found.append(create_trial(params=values, distributions=distributions, value=trial.record.objective))
    return found


def _study(trials: list[Any], values: np.ndarray) -> Any:
    """A study of these trials with these values."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for trial, value in zip(trials, values):
        trial.value = float(value)
        study.add_trial(trial)
    return study


def _divergences(study: Any, top: float, values: np.ndarray | None = None) -> dict[str, float]:
    """PED-ANOVA's raw number of each setting.

    Args:
        values: of the trials by their number, instead of their own.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    # With a target the evaluator takes the lowest as the best.
    target = None if values is None else lambda trial: -float(values[trial.number])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=top)
        return get_param_importances(study, evaluator=evaluator, normalize=False, target=target)


def _shares(divergences: dict[str, float]) -> dict[str, float]:
    total = sum(divergences.values())
    return {key: value / total if total > 0 else 1 / len(divergences) for key, value in divergences.items()}
