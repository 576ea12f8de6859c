"""One Tune trial is one Trainer: epochs go to Tune, weights go into Tune's checkpoints."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

CHECKPOINT_SECONDS = 10.0
"""A checkpoint at most this often; an interrupted trial repeats at most this much."""
REPORTED = ("train/", "val/", "val_full/")
"""Metrics by name's beginning that leave a trial. There is no test metric among them, and none can pass."""
REPORTED_NAMES = (
    "epoch",
    "objective",
    "best_epoch",
    "stopped_early",
    "seconds_train",
    "seconds_valid",
    "sequences_per_second",
    "gpu_mem_gb",
)


def train_trial(config: dict[str, Any], data: Any, checkpoint_epochs: Collection[int] = ()) -> None:
    """Train one model and report every epoch; continues from the trial's last checkpoint.

    Args:
        config: settings of the trial, checked before the sweep started.
        data: the `TrialData` that all trials share.
        checkpoint_epochs: epochs after which a scheduler may stop the trial; each gets a checkpoint, so that the best
            weights of a stopped trial exist.

    Raises:
        NonFiniteLoss: training diverged; Tune marks the trial as failed.
    """
    import torch
    from ray import tune

    from llmemf.config import build_config
    from llmemf.models import model_class
    from llmemf.training import Trainer

    torch.set_num_threads(max(1, int(tune.get_context().get_trial_resources().required_resources.get("CPU", 1))))
    trainer = Trainer(build_config(model_class(config["model"]).config_class, config), data)
    run_epochs(trainer, config["epochs"], checkpoint_epochs)


def run_epochs(trainer: Any, epochs: int, checkpoint_epochs: Collection[int]) -> None:
    """Drive a Trainer inside a Tune trial: load, iterate, save now and then, report."""
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            trainer.load(Path(folder))
    saved = time.monotonic()
    for metrics in trainer.epochs():
        report = reported(metrics, epochs)
        last = metrics["epoch"] >= epochs or metrics["stopped_early"]
        if last or metrics["epoch"] in checkpoint_epochs or time.monotonic() - saved >= CHECKPOINT_SECONDS:
            with tempfile.TemporaryDirectory() as folder:
                trainer.save(Path(folder))
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
            saved = time.monotonic()
        else:
            tune.report(report)


def reported(metrics: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The metrics of an epoch that leave the trial: allowed names, finite values, plain types.

    Raises:
        ValueError: the objective is not finite; a search cannot learn from it and a scheduler would never stop it.
    """
    if not math.isfinite(metrics["objective"]):
        raise ValueError(f"the objective of epoch {metrics['epoch']} is {metrics['objective']}")
    kept: dict[str, Any] = {"epochs": epochs}
    for name, value in metrics.items():
        if name == "stopped_early":
            kept[name] = bool(value)
        elif (name in REPORTED_NAMES or name.startswith(REPORTED)) and math.isfinite(value):
            kept[name] = int(value) if name in ("epoch", "best_epoch") else float(value)
    return kept


def rungs(epochs: int, grace_period: int, reduction_factor: float) -> list[int]:
    """Epochs at which successive halving decides: grace, grace * factor, ... below the last epoch."""
    milestones, milestone = [], float(grace_period)
    while milestone < epochs:
        milestones.append(math.ceil(milestone))
        milestone *= reduction_factor
    return milestones
