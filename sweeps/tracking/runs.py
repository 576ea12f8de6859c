"""MLflow, written by the driver only: one parent run per sweep, one child run per trial.

MLflow's runs are a copy of what the sweep's event log holds. Whenever a driver takes a sweep over it compares the two and
writes what is missing: runs and points that a killed driver had not delivered, or all of them where the database was lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmemf.config import read_yaml
from llmemf.io import file_hash
from sweeps.state.confirmation import Confirmed
from sweeps.state.metrics import metrics_of
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, trial_name
from sweeps.tracking.addresses import unusable
from sweeps.tracking.mlflow_runs import INCOMPLETE, TrackingTarget
from sweeps.tracking.mlflow_writer import MlflowWriter
from sweeps.tracking.owned_runs import FOLDER, IDENTITY, PARENT

SYSTEM = ("seconds_train", "seconds_valid", "sequences_per_second", "cpu_percent", "memory_gb", "gpu_mem_gb")
"""Metrics that MLflow shows among those of the system: how fast a trial was and what it used."""
WEIGHTS = ("best.safetensors", "config.yaml")
WEIGHTS_HASH = "weights_sha256"
"""Tag of a run that has its weights: they are not sent again."""
LOSS = "train/loss"
RELATIVE_LOSS = "train/loss_relative"
"""Training loss over that of the trial's first epoch: the weights of a loss differ between trials, its fall can be compared."""
VALID, BEST = "val/", "val_best/"
STATUS = {
    **dict.fromkeys(("completed", "incomplete", "pruned"), "FINISHED"),
    "interrupted": "KILLED",
    "failed": "FAILED",
}


class Tracking:
    """The sweep's runs.

    Args:
        target: where they go.
        client: makes the MLflow client; tests give their own.
    """

    def __init__(self, target: TrackingTarget, client: Callable[[], Any] | None = None) -> None:
        self.target = target
        self.writer = MlflowWriter(target, client)
        self._started: set[str] = set()
        self._found: dict[str, Any] = {}
        self._last: dict[str, int] = {}

    def connect(self) -> None:
        """Find the experiment, which is made where there is none, and the runs of earlier drivers; writes nothing else.

        Raises:
            InputError: the tracking server or database cannot be reached, or the runs are those of another folder.
        """
        writer, owner = self.writer, self.target.owner
        try:
            runs = {run.data.tags["trial"]: run for run in owner.find(writer.client, writer.experiment())}
            writer.runs = {name: run.info.run_id for name, run in runs.items()}
            self._last = {name: self._last_step(run) for name, run in runs.items() if name != PARENT}
        except Exception as error:
            raise unusable(self.target.uri, error) from error
        owner.check(runs.values())
        self._found = runs

    def open(self, state: SweepState) -> None:
        """Create the parent run, or open that of an earlier driver again, and write what its runs lack; after `connect`."""
        runs, writer, owner = self._found, self.writer, self.target.owner
        if PARENT in runs:
            writer.write("reopen", PARENT)
            if runs[PARENT].data.tags.get(FOLDER) != owner.folder:
                writer.write("tags", PARENT, tags={FOLDER: owner.folder})
        else:
            self._create_run(PARENT, owner.title, now())
        if PARENT not in runs or not runs[PARENT].data.params:  # a killed driver may have made the run alone
            writer.write("params", PARENT, params=self.target.params)
        for name, run in runs.items():
            if IDENTITY not in run.data.tags:
                writer.write("tags", name, tags=owner.tags)
        self._catch_up(state)

    def _last_step(self, run: Any) -> int:
        """The newest epoch up to which MLflow has all of a trial; the tags of an ended run spare a request."""
        if run.data.tags.get(INCOMPLETE) == "true":
            return 0
        if run.info.status == "FINISHED":
            return int(run.data.tags.get("epochs_run", 0))
        history = self.writer.client.get_metric_history(run.info.run_id, "objective")
        return max((metric.step for metric in history), default=0)

    def _catch_up(self, state: SweepState) -> None:
        """Write what the event log holds and MLflow does not."""
        behind, runs, last = {}, self._found, self._last
        for record in state.records.values():
            if record.name in runs and self._agrees(record, runs[record.name], last[record.name]):
                self._started.add(record.name)
            elif record.name in runs or record.epoch or record.ended:
                behind[record.number] = record
        for record in behind.values():
            if record.name in runs:
                self._started.add(record.name)
                self._describe(record)
            else:
                self._create(record, record.created)
        if any(record.epoch > last.get(record.name, 0) for record in behind.values()):
            for event in state.epochs():
                trial = behind.get(event["trial"])
                # The last known epoch is written again: its points may have been cut off in the middle.
                if trial and event["result"]["epoch"] >= last.get(trial.name, 0):
                    self.log_epoch(trial, event["result"], event["time"])
        for record in behind.values():
            self.end_trial(record)

    def _agrees(self, record: TrialRecord, run: Any, last: int) -> bool:
        status = STATUS.get(record.outcome, "KILLED")
        same = run.info.status == status and last == record.epoch and run.data.tags["outcome"] == _outcome(record)
        # An extended sweep names settings that its earlier trials did not.
        return same and self._params(record).keys() <= run.data.params.keys()

    def start_trial(self, record: TrialRecord) -> None:
        """Open the run of a trial, or open it again after an interruption."""
        if record.name in self._started:
            found = self._found.get(record.name)
            self.writer.write("reopen", record.name, has_error=found is not None and "error" in found.data.tags)
        else:
            self._create(record, record.updated)

    def _create(self, record: TrialRecord, start: int) -> None:
        self._started.add(record.name)
        name = f"{record.name} repeats {trial_name(record.repeats)}" if record.repeats else record.name
        self._create_run(record.name, name, start)
        self._describe(record)

    def _describe(self, record: TrialRecord) -> None:
        """Write the settings of a trial and, of a repeat, what it repeats."""
        self.writer.write("params", record.name, params=self._params(record))
        if record.repeats:
            self.writer.write("tags", record.name, tags={"repeats": trial_name(record.repeats)})

    def log_confirmed(self, found: Sequence[Confirmed]) -> None:
        """Seeds, mean and deviation of each confirmed trial, as tags of its run."""
        for item in found:
            tags = {"seeds": str(len(item.values)), "mean": f"{item.mean:.6f}", "sd": f"{item.deviation:.6f}"}
            self.writer.write("tags", item.name, tags=tags)

    def _create_run(self, run: str, name: str, start: int) -> None:
        self.writer.write("create", run, name=name, start=start)
        if self.target.dataset:
            self.writer.write("inputs", run)

    def _params(self, record: TrialRecord) -> dict[str, Any]:
        return {**self.target.params, **record.varied}

    def log_epoch(self, record: TrialRecord, result: Mapping[str, Any], time: int) -> None:
        """Metrics of one epoch, with the time of its event."""
        values = {f"system/{name}" if name in SYSTEM else name: value for name, value in metrics_of(result).items()}
        if record.first_loss and LOSS in values:
            values[RELATIVE_LOSS] = values[LOSS] / record.first_loss
        self.writer.write("metrics", record.name, values=values, step=result["epoch"], time=time)

    def end_trial(self, record: TrialRecord) -> None:
        """Close the run with its outcome; a trial that never started has none."""
        if record.name not in self._started:
            return
        outcome = _outcome(record)
        tags = {"outcome": outcome, "epochs_run": str(record.epoch)}
        if outcome == "pruned":
            tags["pruned_at_epoch"] = str(record.epoch)
        if record.error:
            tags["error"] = record.error
        ended = record.updated if record.ended else now()
        if outcome == "pruned":
            # MLflow shows the same sign for it as for a completed run.
            self.writer.write("name", record.name, name=f"{record.name} pruned")
        if outcome in ("completed", "pruned"):
            best = of_best_epoch(record)
            self.writer.write("metrics", record.name, values=best, step=record.best_epoch, time=record.best_time)
        self.writer.write("end", record.name, tags=tags, status=STATUS[outcome], time=ended)

    def log_weights(self, name: str, folder: Path) -> None:
        """The weights of a trial become artifacts of its run, what its model says of itself tags (`facts.NAME`)."""
        weights, config = (folder / file for file in WEIGHTS)
        if not (weights.exists() and config.exists()):
            return
        facts, sha256 = read_yaml(config).get("facts") or {}, file_hash(weights)
        if name not in self._found or self._found[name].data.tags.get(WEIGHTS_HASH) != sha256:
            self.writer.write("artifact", name, path=str(config), folder="best")
            # The tag comes with the weights: where they are given up, they are sent again when the sweep is continued.
            self.writer.write("artifact", name, path=str(weights), folder="best", tags={WEIGHTS_HASH: sha256})
        tags = {f"facts.{key}": str(value) for key, value in facts.items()}
        self.writer.write("tags", name, tags=tags)

    def log_model(self, record: TrialRecord, folder: Path) -> None:
        """The weights of the best trial as a logged model of its run, with its settings and validation metrics."""
        weights, config = (folder / file for file in WEIGHTS)
        if not (weights.exists() and config.exists()):
            return
        tags, values = {WEIGHTS_HASH: file_hash(weights)}, finite(record.metrics)
        self.writer.write("model", record.name, tags=tags, params=self._params(record))
        self.writer.write("model points", record.name, values=values, step=record.best_epoch, time=record.best_time)
        self.writer.write("model files", record.name, folder=str(folder))
        self.writer.write("model output", record.name, step=record.best_epoch)
        self.writer.write("model end", record.name)

    def log_parent(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        paths: Sequence[Path] = (),
        step: int,
        time: int,
    ) -> None:
        """Summary metrics, tags and files of the whole sweep.

        Args:
            step: of the metrics: number of trials, which grows when the sweep is extended.
            time: of the metrics: the same for the same result, so that they are written once.
        """
        if metrics:
            self.writer.write("metrics", PARENT, values=finite(metrics), step=step, time=time)
        if tags:
            self.writer.write("tags", PARENT, tags=dict(tags))
        for path in paths:
            self.writer.write("artifact", PARENT, path=str(path), folder=None)

    def close(self, outcome: str) -> str:
        """Close the parent run and deliver all that waits; says in one line what failed ("" if nothing)."""
        self.writer.write("end", PARENT, tags={"outcome": outcome}, status=STATUS[outcome], time=now())
        return self.writer.close()


def of_best_epoch(record: TrialRecord) -> dict[str, float]:
    """Validation metrics of the best epoch, whose objective counts, as `val_best/...`: MLflow lists `val/...` of the last one."""
    found = finite(record.metrics)
    return {BEST + name.removeprefix(VALID): value for name, value in found.items() if name.startswith(VALID)}


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """MLflow stores infinity as a huge number and NaN as a gap: neither is written."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _outcome(record: TrialRecord) -> str:
    return record.outcome if record.ended else "interrupted"


def now() -> int:
    """Milliseconds, as MLflow counts time."""
    return int(time.time() * 1000)
