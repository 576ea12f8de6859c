"""One trial trains one model: it yields a report of every epoch and writes its checkpoints into the sweep's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

CHECKPOINT_SECONDS = 10.0
"""A checkpoint at most this often; an interrupted trial repeats at most this much."""
CHECKPOINT_SHARE = 0.05
"""Share of a trial's time that checkpoints may take where writing one is slow."""


class NodeUnfit(RuntimeError):
    """This node cannot run trials; another one may."""


def train_trial(
    config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Collection[int] = ()
) -> Iterator[dict[str, Any]]:
    """Train one model, continuing from the trial's last checkpoint.

    Args:
        config: settings of the trial, checked before the sweep started, and its number as `trial`.
        data: the `TrialData` that all trials share.
        folder: the sweep's folder, seen by every node under this path.
        checkpoint_epochs: epochs after which a scheduler may stop the trial; each gets a checkpoint, so that the best
            weights outlive it.

    Yields:
        the report of each epoch: the trainer's metrics and `epochs`. The next epoch begins when it is asked for.

    Raises:
        NonFiniteLoss: training diverged; the trial has failed.
        NodeUnfit: the sweep's folder cannot be seen from here.
    """
    from llmemf.config import build_config
    from llmemf.models import model_class
    from llmemf.training import Trainer

    settings = {key: value for key, value in config.items() if key != "trial"}
    trial_config = build_config(model_class(settings["model"]).config_class, settings)
    return run_epochs(lambda: Trainer(trial_config, data), config, folder, checkpoint_epochs)


def run_epochs(
    make_trainer: Callable[[], Any], config: dict[str, Any], folder: str, checkpoint_epochs: Collection[int]
) -> Iterator[dict[str, Any]]:
    """Drive a Trainer: load, iterate, save now and then, yield reports.

    Raises:
        ValueError: the objective of an epoch is not finite.
    """
    from sweeps.cluster.check import node_problem
    from sweeps.state import checkpoints

    if problem := node_problem(folder):
        raise NodeUnfit(problem)
    own = checkpoints.trial_folder(Path(folder), config["trial"])
    checkpoints.clear_leftovers(own)
    trainer, report = checkpoints.load(make_trainer, own)
    if report:
        yield {**report, "epochs": config["epochs"]}
    epochs, saved, pause = config["epochs"], time.monotonic(), CHECKPOINT_SECONDS
    for metrics in trainer.epochs():
        if not math.isfinite(metrics["objective"]):
            # A search cannot learn from it, and a scheduler would never stop it.
            raise ValueError(f"the objective of epoch {metrics['epoch']} is {metrics['objective']}")
        report = {"epochs": epochs, **metrics}
        began = time.monotonic()
        if is_last(report) or metrics["epoch"] in checkpoint_epochs or began - saved >= pause:
            checkpoints.save(trainer, own, report)
            saved = time.monotonic()
            pause = max(CHECKPOINT_SECONDS, (saved - began) / CHECKPOINT_SHARE)
        yield report


def is_last(report: dict[str, Any]) -> bool:
    """Whether no epoch comes after this one."""
    return report["epoch"] >= report["epochs"] or report["stopped_early"]
