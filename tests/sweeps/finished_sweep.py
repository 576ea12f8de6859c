"""A small sweep as it lies on the disk and in MLflow, with real weights, made without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiny import make_scenario

from llmemf.batches import TrialData
from llmemf.checkpoint import evaluate_checkpoint
from llmemf.config import build_config
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.scenarios.scenario import Scenario
from llmemf.training import Trainer
from sweeps.state import checkpoints
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import TrackingTarget
from sweeps.tracking.owned_runs import RunOwner
from sweeps.tracking.runs import Tracking

SETTINGS = {
    "modalities": ["id"],
    "id_dim": 6,
    "epochs": 2,
    "batch_size": 16,
    "device": "cpu",
    "max_length": 6,
    "objective": "full",
}


@dataclass
class Made:
    """Where the sweep is, and what it knows of itself."""

    storage: Path
    data_root: Path
    scenario: Scenario
    record: SweepRecord
    uri: str


def make_finished(empty_database: Path, place: Path) -> Made:
    """Three trials of two epochs, the best of them tested, the worst without weights; and one that failed."""
    storage, data_root = place / "mlruns", place / "data"
    scenario = Scenario.load(make_scenario().save(data_root))
    storage.mkdir()
    (storage / "mlflow.db").write_bytes(empty_database.read_bytes())
    record = SweepRecord(
        name="s1",
        requested="tiny",
        scenario="tiny",
        data_root=str(data_root),
        storage=str(storage),
        tracking_uri=f"sqlite:///{storage / 'mlflow.db'}",
        created="2026-01-01T00:00:00.000000",
        fingerprint=scenario.fingerprint,
        status="completed",
        varied_keys=["lr"],
        keep=2,
    )
    record.folder.mkdir(parents=True)
    record.save()
    state = SweepState(record.folder)
    artifacts = (storage / "artifacts" / "tiny").as_uri()
    owner = RunOwner.of(record)
    tracking = Tracking(TrackingTarget(record.tracking_uri, "tiny", owner, artifacts, {"scenario": "tiny"}, SETTINGS))
    tracking.connect()
    tracking.open(state)
    retention = CheckpointRetention(record.folder, state, record.keep)
    data = TrialData.build(scenario)
    for rate in (1e-3, 3e-2, 1e-2):
        trial = state.propose({"lr": rate}, ("lr",), 2, {})
        state.start(trial)
        tracking.start_trial(trial)
        trainer = Trainer(build_config(LLMEMFConfig, {**SETTINGS, "lr": rate}), data)
        for metrics in trainer.epochs():
            event = state.add(trial, metrics, stopped=False)
            tracking.log_epoch(trial, event["result"], event["time"])
            checkpoints.save(trainer, checkpoints.trial_folder(record.folder, trial.number), metrics)
        retention.end(trial)
        tracking.end_trial(trial)
    broken = state.propose({"lr": 1.0}, ("lr",), 2, {})
    state.start(broken)
    state.fail(broken, "error", "NonFiniteLoss: nan")
    best = retention.kept[0]
    weights = retention.weights()[best.name]
    state.tested(best, evaluate_checkpoint(weights, scenario, {}, "test", device="cpu"))
    assert tracking.close("completed") == ""
    state.stop("completed")
    return Made(storage, data_root, scenario, record, record.tracking_uri)
