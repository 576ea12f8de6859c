"""The evaluation of a trained seed on the test split: the rank of every case, kept for paired tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from llmemf.errors import InputError
from llmemf.io import atomic_file
from sweeps.core.sweep_data import SweepData
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord

RANKS = "ranks"
ARRAYS = ("case", "domain", "sampled", "full")


@dataclass(frozen=True)
class TestEvaluation:
    """What scoring a checkpoint on the test split gave.

    Attributes:
        ranks: `case`, `domain` (0 is X, 1 is Y), `sampled` and `full` ranks, by case.
        metrics: the same as `llmemf.checkpoint.evaluate_checkpoint` gives.
        parameters: number of trainable scalars.
        status: how the system, as it was configured, relates to its source.
        facts: what it says of itself (recipes and hashes of graphs).
    """

    ranks: dict[str, np.ndarray]
    metrics: dict[str, float]
    parameters: int
    status: str
    facts: dict[str, str] = field(default_factory=dict)


def evaluate_on_test(folder: Path, data: SweepData) -> TestEvaluation:
    """Rank every test case by the weights of a trial's best epoch.

    Args:
        folder: a checkpoint folder (`best.safetensors`, `config.yaml`).
        data: what the trial was trained on; fingerprint and features are compared.

    Raises:
        InputError: the checkpoint belongs to other data, or cannot be read.
        FloatingPointError: a score is NaN.
    """
    from llmemf.checkpoint import all_metrics, rank_checkpoint
    from llmemf.models.recommender import num_parameters

    model, ranks = rank_checkpoint(folder, data.scenario, data.trial_data)
    metrics = all_metrics(ranks, data.scenario, "test")
    return TestEvaluation(
        {key: ranks[key] for key in ARRAYS}, metrics, num_parameters(model), model.status, model.facts()
    )


def ranks_path(folder: Path, row: str, seed: int) -> Path:
    """Where a group keeps the ranks of one seed."""
    return folder / RANKS / f"{row}--seed{seed}.npz"


def save_ranks(path: Path, ranks: dict[str, np.ndarray]) -> None:
    """Write ranks, sorted by case; the file appears whole or not at all."""
    order = np.argsort(ranks["case"], kind="stable")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {key: ranks[key][order] for key in ARRAYS}
        np.savez_compressed(file, **arrays)


def load_ranks(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_ranks` wrote.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in ARRAYS}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, then continue with --resume") from None


def ended_seeds(folder: Path) -> dict[int, TrialRecord]:
    """Seed -> trial of a sweep over seeds, of those that are completed."""
    completed = [record for record in SweepState(folder).records.values() if record.outcome == "completed"]
    return {record.config["seed"]: record for record in sorted(completed, key=lambda record: record.config["seed"])}


def search_facts(records: list[Any]) -> dict[str, Any]:
    """How a search went: how many trials ended how, in how many seconds of training places, and its best objective."""
    count = {name: sum(record.outcome == name for record in records) for name in ("completed", "pruned", "failed")}
    values = [record.objective for record in records if record.objective is not None and record.outcome != "failed"]
    seconds = round(sum(record.seconds for record in records), 1)
    return {"trials": len(records), **count, "seconds": seconds, "objective": max(values, default=None)}
