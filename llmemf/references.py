"""What simple systems reach on the same validation cases: the lines that a trained model has to be above."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmemf.batches import TrialData
from llmemf.config import TrialConfig, build_config
from llmemf.models import model_class
from llmemf.training import Trainer, chosen_cases

REFERENCES: dict[str, dict[str, Any]] = {
    "popularity": {"model": "popularity"},
    "neighbours": {"model": "item_knn", "shrink": 10.0, "popularity": 0.001},
    "transitions": {"model": "transitions"},
}
"""Systems without training, with settings that are sound on any data; ties are broken by popularity."""
CHANCE = "chance"


def reference_metrics(config: TrialConfig, data: TrialData) -> dict[str, dict[str, float]]:
    """Validation metrics of chance and of `REFERENCES`, as a trial with the same cases, ties and length reports its own.

    Args:
        config: of a trial.

    Returns:
        name -> metric -> value; of chance the mean reciprocal ranks alone.
    """
    shared = {key: getattr(config, key) for key in ("max_length", "ties", "valid_cases", "eval_batch_size")}
    found = {CHANCE: _chance(config, data)}
    for name, settings in REFERENCES.items():
        kind = model_class(settings["model"])
        trainer = Trainer(build_config(kind.config_class, {**shared, **settings, "device": "cpu"}), data)
        metrics = next(iter(trainer.epochs()))
        found[name] = {key: value for key, value in metrics.items() if key.startswith("val")}
    return found


def _chance(config: TrialConfig, data: TrialData) -> dict[str, float]:
    """Expected mean reciprocal rank of a scorer that draws its scores: (1 + 1/2 + ... + 1/n) / n among n items."""
    cases = chosen_cases(config, data)
    cases = np.arange(len(data.valid)) if cases is None else cases
    in_y = data.valid.targets[cases] >= data.num_x
    sizes = {
        "val": (data.valid_candidates[cases] >= 0).sum(1) + 1,
        "val_full": np.where(in_y, data.num_items - data.num_x, data.num_x),
    }
    found: dict[str, float] = {}
    for prefix, size in sizes.items():
        expected = np.cumsum(1 / np.arange(1, size.max(initial=1) + 1))[size - 1] / size
        means = {name: expected[in_y == bool(code)] for code, name in enumerate(data.domains)}
        found |= {f"{prefix}/{name}/mrr": float(values.mean()) for name, values in means.items() if len(values)}
        found[f"{prefix}/mrr"] = float(np.mean([values.mean() for values in means.values() if len(values)]))
    return found
