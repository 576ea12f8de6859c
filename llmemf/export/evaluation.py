"""An exported model scored again on its scenario, and compared with the numbers that were logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from llmemf.batches import device_sequences
from llmemf.checkpoint import all_metrics, rank_split
from llmemf.errors import InputError
from llmemf.export.folder import ExportedModel
from llmemf.ranking_names import PREFIXES, RANKINGS
from llmemf.scenarios.scenario import Scenario


def evaluate_export(model: ExportedModel, scenario: Scenario, split: str = "test") -> dict[str, float]:
    """Score a held-out split ("test" or "valid") with the exported weights; users keep the ids of the scenario.

    Returns:
        as `llmemf.checkpoint.evaluate_checkpoint`.

    Raises:
        InputError: it is another scenario.
    """
    if scenario.fingerprint != model.manifest["fingerprint"]:
        raise InputError(
            f"{model.folder} was trained on data {model.manifest['fingerprint'][:12]}, scenario {scenario.name!r} is "
            f"{scenario.fingerprint[:12]}: use the data it was trained on"
        )
    sequences = device_sequences(model.config, scenario, split, model.device)
    in_y = scenario.split(split).targets >= scenario.num_x
    parts = ((model.models[domain], np.flatnonzero(in_y == bool(domain))) for domain in (0, 1))
    return all_metrics(rank_split(parts, model.config, sequences, scenario, split), scenario, split)


class Comparison(NamedTuple):
    """Numbers that were computed again: how many of those logged are the same float, and the greatest difference."""

    equal: int
    total: int
    largest: float

    def __str__(self) -> str:
        if self.equal == self.total:
            return f"all {self.total} logged numbers come out the same"
        return (
            f"{self.equal} of {self.total} logged numbers come out the same, the others differ by {self.largest:.1g} at "
            "most (another device or number of threads rounds differently)"
        )


def compare_with_logged(model: ExportedModel, found: Mapping[str, float], split: str) -> Comparison | None:
    """Compare the numbers of `evaluate_export` with the logged ones of the split; None where nothing can be compared.

    Validation numbers that were logged on a sample of cases, or at an epoch that is not the best of each domain, cannot be.
    """
    config = model.config
    if split == "valid" and (config.valid_cases or config.selection == "per_domain"):
        return None
    logged = {
        name.replace(PREFIXES[split], split, 1): value
        for name, value in model.metrics.get(split, {}).items()
        if name.startswith(tuple(f"{PREFIXES[split]}{ending}/" for ending, _ in RANKINGS.values()))
    }
    both = sorted(logged.keys() & found.keys())
    if not both:
        return None
    apart = [abs(logged[name] - found[name]) for name in both]
    return Comparison(sum(gap == 0 for gap in apart), len(both), max(apart))
