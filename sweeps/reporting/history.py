"""What is known of a sweep and of its trials, as plain data: the input of all statistics of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.reporting.parameters import Parameter
from sweeps.search.rungs import rungs_of
from sweeps.state.references import References
from sweeps.state.sweep_record import SweepRecord, group_of
from sweeps.state.trial_records import TrialRecord, best_of, ranked


@dataclass
class TrialHistory:
    """One trial, epoch by epoch.

    Attributes:
        losses: training loss after epoch 1, 2, ..., over that of the first.
        curve: what is monitored (higher is better) after epoch 1, 2, ...; not the best so far.
        epoch_seconds: mean time of training and validation per epoch; None before the first.
        cpus, gpus: what it held last.
        cpu_seconds, gpu_seconds: what it held of each, in units of one CPU or GPU.
    """

    record: TrialRecord
    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    epoch_seconds: float | None = None
    cpus: float = 0.0
    gpus: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def objective(self) -> float:
        """The value of a trial that has one."""
        assert self.record.objective is not None
        return self.record.objective

    @property
    def is_valued(self) -> bool:
        """Whether it has a value that can be ranked."""
        return self.record.objective is not None and self.record.outcome != "failed"


@dataclass
class SweepHistory:
    """What the folder of a sweep holds.

    Attributes:
        trials: number -> history of each trial of the search.
        tests: the event log's `tested` events.
        state: running, interrupted, completed, incomplete (trials failed), failed (all did), planned.
        state_note: how that is known, "" where nothing is to be added.
        openings: the event log's `opened` events: hosts, code versions, resources.
        parameters: settings that differ between trials, seeds left out.
        fixed: settings that all trials share, defaults included.
        seconds: wall time, interruptions left out.
        repeats: histories of the trials that train one of the search again with another seed.
    """

    record: SweepRecord
    trials: dict[int, TrialHistory]
    tests: list[dict[str, Any]]
    state: str
    state_note: str
    openings: list[dict[str, Any]]
    parameters: list[Parameter]
    fixed: dict[str, Any]
    seconds: float
    repeats: list[TrialHistory] = field(default_factory=list)

    @property
    def records(self) -> list[TrialRecord]:
        return [trial.record for trial in self.trials.values()]

    @property
    def references(self) -> dict[str, float]:
        """Chance and simple systems with their objectives; empty where none is stored or another objective is monitored."""
        is_theirs = self.fixed.get("monitor", "val_mrr") == "val_mrr"
        return References.load(self.record.folder).objectives if is_theirs else {}

    @property
    def ranked(self) -> list[TrialHistory]:
        """Best first; failed ones and those without a value last."""
        return [self.trials[record.number] for record in ranked(self.records)]

    @property
    def valued(self) -> list[TrialHistory]:
        """Trials with a value, best first."""
        return [trial for trial in self.ranked if trial.is_valued]

    @property
    def best(self) -> TrialHistory | None:
        found = best_of(self.records)
        return self.trials[found.number] if found else None

    @property
    def test(self) -> dict[str, float]:
        """Test metrics of the best trial; empty where the sweep has not evaluated it on the test split."""
        best = self.best
        known = [test["metrics"] for test in self.tests if best and test["trial"] == best.record.number]
        return known[-1] if known else {}

    @property
    def domains(self) -> list[str]:
        """As metrics name them, in their order."""
        parts = [name.split("/") for record in self.records for name in record.metrics]
        return list(dict.fromkeys(part[1] for part in parts if len(part) == 3 and part[0] == "val"))

    @property
    def epochs(self) -> int:
        """Epochs of a trial at most."""
        return max((record.epochs for record in self.records), default=self.fixed.get("epochs", 0))

    @property
    def rungs(self) -> list[int]:
        """Epochs after which ASHA may cut a trial."""
        return rungs_of(self.record, self.epochs)

    @property
    def planned(self) -> int:
        return max(self.record.trials, len(self.trials))

    @property
    def monitors_loss(self) -> bool:
        return self.fixed.get("monitor") == "val_loss"

    @property
    def monitored(self) -> str:
        """The objective's name on an axis."""
        return "negative validation loss" if self.monitors_loss else "validation MRR"

    @property
    def group(self) -> str:
        """What this sweep is a part of: `comparison NAME`, `ablation NAME`, `rerun NAME`, or ""."""
        return group_of(Path(self.record.storage), self.record.name)
