"""What a sweep writes at most, from the sizes of the tensors that its models keep."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from llmemf.batches import TrialData
from llmemf.config import TrialConfig
from llmemf.models import model_class
from sweeps.core.plan import Plan
from sweeps.costs.classes import build, cost_classes, typical_values
from sweeps.state import checkpoints

METRIC_BYTES = 150
"""One value of one metric in MLflow's database, and about as much in the journal."""
METRICS_PER_EPOCH = 40
TRIAL_BYTES = 40_000
"""One run's settings, tags and small files."""
DATABASE_BYTES = 1_000_000
"""MLflow's database without a run."""


@dataclass(frozen=True)
class ModelSize:
    """What a model keeps.

    Attributes:
        weights: trainable numbers.
        best: bytes of the weights that score: of the best epoch, or of each domain's best epoch.
        checkpoint: bytes of a whole checkpoint: weights, two moments of Adam per trained number, and the best weights
            twice (to go on with, and as the file that scores). The frozen features are in none of them.
    """

    weights: int
    best: int
    checkpoint: int


@dataclass(frozen=True)
class DiskNeed:
    """Bytes below the storage folder, each at its highest.

    Attributes:
        model: the largest model of the sweep.
        running: checkpoints of the trials that run, one of each being written.
        kept: weights of the best trials.
        artifacts: the same as artifacts of MLflow, 0 where a server keeps them.
        records: MLflow's database, journal, leaderboards.
        free: what the storage has left.
        where: the existing folder that `free` was asked of.
    """

    model: ModelSize
    running: int
    kept: int
    artifacts: int
    records: int
    free: int
    where: Path

    @property
    def total(self) -> int:
        return self.running + self.kept + self.artifacts + self.records

    @property
    def fits(self) -> bool:
        return self.total <= self.free


def model_size(config: TrialConfig, data: TrialData) -> ModelSize:
    """Build the model on torch's meta device, where tensors have shapes and no memory, and count."""
    import torch

    with torch.device("meta"):
        model = model_class(config.model)(config, data)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
    best = stored * (2 if config.selection == "per_domain" else 1)
    return ModelSize(sum(parameter.numel() for parameter in trained), best, stored + moments + 2 * best)


def largest_model(plan: Plan, data: TrialData) -> ModelSize:
    """The size of the largest model in the space: of every setting the value that makes it largest."""
    typical = typical_values(plan)
    largest, sizes = dict(typical), [model_size(plan.configs[0], data)]
    for block in plan.space.blocks:
        found = {}
        for index, kind in enumerate(classes := cost_classes(block)):
            config = build(plan, {**typical, **kind.values})
            if config is not None:
                found[index] = model_size(config, data)
        if found:
            sizes += found.values()
            largest.update(classes[max(found, key=lambda index: found[index].checkpoint)].values)
    config = build(plan, largest)
    if config is not None:
        sizes.append(model_size(config, data))
    return max(sizes, key=lambda size: size.checkpoint)


def disk_need(plan: Plan, data: TrialData, parallel: int) -> DiskNeed:
    """What the sweep needs at most, against what is free."""
    record = plan.record
    size = largest_model(plan, data)
    where = Path(record.storage)
    while not where.is_dir():
        where = where.parent
    keep = min(record.keep, plan.trials)
    server = record.tracking_uri.startswith(("http", "databricks"))
    return DiskNeed(
        model=size,
        # The newest ones stay until the next has been written.
        running=min(parallel, plan.trials) * (checkpoints.NUM_KEPT + 1) * size.checkpoint,
        # And once more as the chosen trial in its own folder.
        kept=(keep + 1) * size.best,
        artifacts=0 if server else keep * size.best,
        records=(0 if server else DATABASE_BYTES)
        + plan.trials * (TRIAL_BYTES + (1 if server else 2) * plan.epochs * METRICS_PER_EPOCH * METRIC_BYTES),
        free=shutil.disk_usage(where).free,
        where=where,
    )
