"""What tests use instead of the trial floor and for MLflow: small, deterministic, importable by Ray's workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmemf.batches import TrialData
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences
from sweeps.core.sweep_data import SweepData
from sweeps.core.trial import run_epochs
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord

DIVERGES = 0.009
"""The fake trainer diverges at this learning rate and above."""


def tiny_scenario(name: str = "sample") -> Scenario:
    """Three movies, three books, two users."""
    rows = [[0, 3, 1, 4], [2, 5, 0, 3]]
    items = pd.DataFrame({c: [f"{c}{i}" for i in range(6)] for c in ("external_id", "title", "description", "image")})
    held = Sequences.from_rows([0, 1], [[0, 3, 1], [2, 5, 4]])
    candidates = np.array([[0, 2], [3, 5]], dtype=np.int32)
    return Scenario(
        name=name,
        domains=("movie", "book"),
        num_x=3,
        items=items,
        user_ids=np.array(["u0", "u1"]),
        train=Sequences.from_rows([0, 1], rows),
        valid=held,
        test=held,
        candidates={"valid": candidates, "test": candidates},
    )


def tiny_data(name: str = "sample") -> SweepData:
    scenario = tiny_scenario(name)
    return SweepData(scenario, {}, TrialData.build(scenario))


class FakeTrainer:
    """Yields what a Trainer yields, from a formula: the best value is at lr = 1e-3, alpha = 0.4.

    It also emits what a leaking trainer would: test metrics, better than all others.
    """

    def __init__(self, config: dict[str, Any], seconds: float = 0.0) -> None:
        self.config, self.seconds, self.start = config, seconds, 0

    def load(self, folder: Path) -> None:
        self.start = json.loads((Path(folder) / "state.pt").read_text())["epoch"]

    def save(self, folder: Path) -> None:
        folder = Path(folder)
        (folder / "state.pt").write_text(json.dumps({"epoch": self.epoch}))
        (folder / "best.safetensors").write_text(json.dumps({"epoch": self.epoch}))
        (folder / "config.yaml").write_text(json.dumps(self.config))

    def epochs(self) -> Iterator[dict[str, Any]]:
        for epoch in range(self.start + 1, self.config["epochs"] + 1):
            time.sleep(self.seconds)
            self.epoch = epoch
            if self.config["lr"] >= DIVERGES and epoch == 2:
                raise FloatingPointError(f"loss is nan at epoch 2, lr = {self.config['lr']}")
            value = objective(self.config, epoch)
            yield {
                "epoch": epoch,
                "objective": value,
                "best_epoch": epoch,
                "stopped_early": False,
                "train/loss": 1 - value,
                "val/mrr": value,
                "val/movie/mrr": value,
                "val/book/mrr": value / 2,
                "val/movie/ndcg_10": value,
                "val/book/ndcg_10": value / 2,
                "val_full/movie/mrr": value / 10,
                "seconds_train": 0.1,
                "test/movie/mrr": 99.0,
                "test_full/movie/mrr": 99.0,
            }


def objective(config: dict[str, Any], epoch: int) -> float:
    distance = abs(np.log10(config["lr"]) + 3) + abs(config["alpha"] - 0.4) + 0.1 * config["lambda1"]
    return float(0.1 / (1 + distance) * (1 - 0.5**epoch))


def fast_trial(config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()) -> Iterator[dict]:
    return run_epochs(lambda: FakeTrainer(config), config, folder, checkpoint_epochs)


def slow_trial(config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()) -> Iterator[dict]:
    return run_epochs(lambda: FakeTrainer(config, seconds=0.4), config, folder, checkpoint_epochs)


def fake_evaluate(folder: Path, scenario: Scenario, features: dict, split: str = "test") -> dict[str, float]:
    """Test metrics, as `evaluate_checkpoint` gives them."""
    assert (Path(folder) / "best.safetensors").exists()
    names = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")
    return {f"{kind}/{d}/{n}": 0.5 for kind in (split, f"{split}_full") for d in scenario.domains for n in names}


def epoch_result(epoch: int, value: float, **more: Any) -> dict[str, Any]:
    """What the state stores of an epoch; the newest epoch is the best one unless told otherwise."""
    return {
        "epoch": epoch,
        "objective": value,
        "best_epoch": epoch,
        "stopped_early": False,
        "val/movie/mrr": value,
        **more,
    }


def grow(state: SweepState, record: TrialRecord, last: int, *, first: int = 1, value: float | None = None) -> None:
    """Start a trial and report epochs `first` to `last`: their values rise to `value`, by default to last / 100."""
    state.start(record)
    for epoch in range(first, last + 1):
        top = last / 100 if value is None else value
        state.add(record, epoch_result(epoch, top * epoch / last), stopped=False)


def propose(state: SweepState, epochs: int = 4, **choice: Any) -> TrialRecord:
    choice = choice or {"lr": 1e-3 * (len(state.records) + 1), "alpha": 0.3}
    return state.propose(choice, tuple(choice), epochs, {})


class FlakyClient:
    """An MLflow client of which every n-th call raises, as if the server were away."""

    def __init__(self, client: Any, every: int) -> None:
        self._client, self._every, self.calls, self.raised = client, every, 0, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls % self._every == 0:
                self.raised += 1
                raise ConnectionError(f"no server answers ({name})")
            return real(*args, **kwargs)

        return call
