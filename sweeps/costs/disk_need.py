"""What a sweep writes at most, computed from the sizes of the tensors that its models keep."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmemf.batches import TrialData
from llmemf.config import TrialConfig
from llmemf.models import model_class
from sweeps.core.plan import Plan
from sweeps.search.block import Block
from sweeps.state import checkpoints

METRIC_BYTES = 150
"""One value of one metric in MLflow's database, and about as much in the event log."""
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
            twice (for resuming, and as the file that scores). The frozen features are in none of them.
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
        records: MLflow's database, event log, leaderboards.
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
    from torch.overrides import TorchFunctionMode

    class WithoutValues(TorchFunctionMode):
        """Leaves out the random draws: torch would import its compiler for one of a tensor without memory, for seconds."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            drawn = function in (torch.Tensor.normal_, torch.Tensor.uniform_)
            return args[0] if drawn else function(*args, **(kwargs or {}))

    with torch.device("meta"), WithoutValues():
        model = model_class(config.model)(config, data)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
    best = stored * (2 if config.selection == "per_domain" else 1)
    return ModelSize(sum(parameter.numel() for parameter in trained), best, stored + moments + 2 * best)


def largest_config(plan: Plan, data: TrialData) -> TrialConfig:
    """The configuration of the space with the largest checkpoint: setting by setting, the value that makes it largest."""
    best = plan.configs[0]
    largest = model_size(best, data).checkpoint
    values = middle_values(plan)
    for block in plan.space.blocks:
        for point in {_size_class(block, point): point for point in block.points}.values():
            tried = {**values, **dict(zip(block.keys, point))}
            if plan.check.problem(tried):
                continue
            config = plan.check.config(tried)
            if (size := model_size(config, data).checkpoint) > largest:
                best, largest, values = config, size, tried
    return best


def middle_values(plan: Plan) -> dict[str, Any]:
    """The middle grid value of each setting; of a range, the middle between its ends."""
    values: dict[str, Any] = {}
    for block in plan.space.blocks:
        middle = block.points[len(block.points) // 2] if block.points else ((block.low + block.high) / 2,)
        values.update(zip(block.keys, middle))
    return values


def _size_class(block: Block, point: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the values have in common with others that give a model of the same size.

    Numbers with a point (rates, weights) change no size, except for a 0, which leaves a part of the model out; two shares
    that leave nothing to the third one do the same.
    """
    key = tuple(value == 0 if isinstance(value, float) else value for value in point)
    return (*key, abs(sum(point) - 1) < 1e-9) if block.kind == "simplex" else key


def disk_need(plan: Plan, data: TrialData, parallel: int) -> DiskNeed:
    """Bytes that the sweep writes at most, and bytes that are free.

    Args:
        parallel: trials at once.
    """
    record = plan.record
    size = model_size(largest_config(plan, data), data)
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
