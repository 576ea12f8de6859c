"""A small model trained for real, and what becomes of its checkpoints."""

from __future__ import annotations

import functools
from pathlib import Path

from durable_events import read_tree
from tiny import make_scenario

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.models import model_class
from llmemf.scenarios.scenario import Scenario
from llmemf.training import Trainer

SMALL = {"model": "bprmf", "dim": 4, "batch_size": 16, "device": "cpu", "lr": 0.01}


@functools.cache
def scenario() -> Scenario:
    return make_scenario()


def new_trainer(epochs: int) -> Trainer:
    config = build_config(model_class("bprmf").config_class, {**SMALL, "epochs": epochs})
    return Trainer(config, TrialData.build(scenario()))


@functools.cache
def trained() -> list[Trainer]:
    """Trainers after one and after two epochs."""
    found = []
    for epochs in (1, 2):
        trainer = new_trainer(epochs)
        list(trainer.epochs())
        found.append(trainer)
    return found


KNOWN: dict[int, tuple[int, dict[str, float]]] = {}


def continued(folder: Path) -> tuple[int, dict[str, float]]:
    """Load a checkpoint, train to epoch 3: the epoch it was of, and the last metrics without times."""
    key = hash(tuple(sorted(read_tree(folder).items()) if folder.exists() else ()))
    if key not in KNOWN:
        KNOWN[key] = _continued(folder)
    return KNOWN[key]


def _continued(folder: Path) -> tuple[int, dict[str, float]]:
    trainer = new_trainer(3)
    trainer.load(folder)
    epoch = trainer.epoch
    *_, last = trainer.epochs()
    return epoch, {name: value for name, value in last.items() if "/" in name}
