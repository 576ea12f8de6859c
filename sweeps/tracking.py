"""MLflow, written by the driver only: one parent run per sweep, one child run per trial.

Nothing here raises into the sweep. A write that fails waits in a queue, in order, is tried again now and then and at the
end, and is reported in one line. Every write can be repeated without a duplicate: metrics carry the time of their first
attempt, runs are looked up by tag before they are created again.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps import wording
from sweeps.records import TrialRecord

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
FINAL_ATTEMPTS = 3
PARENT = "sweep"
LOGGED = ("train/", "val/", "val_full/")
LOGGED_NAMES = ("objective", "seconds_train", "seconds_valid", "sequences_per_second", "gpu_mem_gb")
STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages for models instead of those for language model applications."""
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's answers to a write that will never succeed."""


@dataclass
class Write:
    """One write that waits or is being tried: plain data, so that it survives an interruption.

    Attributes:
        kind: create, reopen, metrics, params, tags, artifact, end: small enough to be tried again as a whole.
        run: trial id, or `PARENT`.
        content: what to write.
        attempts: failed ones so far.
    """

    kind: str
    run: str
    content: dict[str, Any]
    attempts: int = 0


@dataclass
class Target:
    """Where a sweep's runs go.

    Attributes:
        uri: absolute tracking URI.
        experiment: the scenario's name.
        artifacts: where artifacts of a new experiment go; None leaves it to the server.
        sweep: the sweep's name, tag of every run.
        tags: tags of every run (scenario, model, seed, hashes, ...).
        params: settings that all trials share.
    """

    uri: str
    experiment: str
    sweep: str
    artifacts: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


class Tracking:
    """The sweep's runs.

    Args:
        target: where they go.
        client: makes the MLflow client; tests give their own.
    """

    def __init__(self, target: Target, client: Callable[[], Any] | None = None) -> None:
        self.target = target
        self._make_client = client or (lambda: mlflow_client(target.uri))
        self._client: Any = None
        self._experiment: str | None = None
        self.runs: dict[str, str] = {}
        self.logged: dict[str, int] = {}
        self.waiting: deque[Write] = deque()
        self.failures = 0
        self.lost: list[str] = []
        self._retry_at = 0.0

    def get_state(self) -> dict[str, Any]:
        """Plain data for Tune's snapshot; the client is never part of it."""
        return {
            "runs": self.runs,
            "logged": self.logged,
            "waiting": [write.__dict__ for write in self.waiting],
            "failures": self.failures,
            "lost": self.lost,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        # What `open` found in MLflow is newer than a snapshot.
        self.runs = {**state["runs"], **self.runs}
        self.logged = {**state["logged"], **self.logged}
        self.waiting = deque(Write(**write) for write in state["waiting"])
        self.failures, self.lost = state["failures"], list(state["lost"])

    def open(self) -> None:
        """Create the experiment and the parent run, or find those of an interrupted sweep and close what it left open.

        Raises:
            InputError: the tracking server or database cannot be reached.
        """
        try:
            self._experiment_id()
            found = self._find(PARENT)
            self._adopt_children()
            if found:
                self.runs[PARENT] = found
                self.client.update_run(found, status="RUNNING")
                self.client.set_tag(found, "outcome", "running")
            else:
                self._deliver(Write("create", PARENT, {"name": self.target.sweep, "start": _now()}))
                self._deliver(Write("params", PARENT, {"params": self.target.params}))
        except Exception as error:
            raise InputError(
                f"tracking at {self.target.uri} does not work ({_line(error)}); start the server, or give another "
                "--tracking-uri"
            ) from error

    def _adopt_children(self) -> None:
        """Know the runs that a killed driver left behind, what was written to them, and close those still running."""
        for run in self._search(f"tags.sweep = '{self.target.sweep}' and attributes.status != 'FINISHED'"):
            trial = run.data.tags.get("trial_id", PARENT)
            if trial == PARENT:
                continue
            self.runs[trial] = run.info.run_id
            history = self.client.get_metric_history(run.info.run_id, "objective")
            self.logged[trial] = max((metric.step for metric in history), default=0)
            if run.info.status == "RUNNING":
                self.client.set_tag(run.info.run_id, "outcome", "interrupted")
                self.client.set_terminated(run.info.run_id, "KILLED")

    def start_trial(self, record: TrialRecord, config: Mapping[str, Any]) -> None:
        """Open the run of a trial, or open it again after an interruption."""
        if self._is_known(record.trial_id):
            self._write("reopen", record.trial_id, {})
            return
        name = f"{record.name} {wording.settings(record.settings)}"
        self._write("create", record.trial_id, {"name": name, "start": _now(), "tags": {"trial": record.name}})
        self._write("params", record.trial_id, {"params": {**self.target.params, **dict(config)}})

    def _is_known(self, run: str) -> bool:
        return run in self.runs or any(write.kind == "create" and write.run == run for write in self.waiting)

    def log_epoch(self, record: TrialRecord, result: Mapping[str, Any]) -> None:
        """Metrics of one epoch; an epoch that a resumed trial repeats is not written twice."""
        if record.epoch <= self.logged.get(record.trial_id, 0):
            return
        self.logged[record.trial_id] = record.epoch
        self._write("metrics", record.trial_id, {"values": allowed(result), "step": record.epoch, "time": _now()})

    def end_trial(self, record: TrialRecord) -> None:
        """Close the run with its outcome; the weights of a completed trial become artifacts.

        A trial that never started has no run.
        """
        if not self._is_known(record.trial_id):
            return
        tags = {"outcome": record.outcome, "epochs_run": str(record.epoch)}
        if record.outcome == "pruned":
            tags["pruned_at_epoch"] = str(record.epoch)
        if record.error:
            tags["error"] = record.error
        if record.outcome == "completed" and record.checkpoint:
            for name in ("best.safetensors", "config.yaml"):
                path = str(Path(record.checkpoint) / name)
                self._write("artifact", record.trial_id, {"path": path, "folder": "best"})
        self._write("end", record.trial_id, {"tags": tags, "status": STATUS[record.outcome], "time": _now()})

    def log_parent(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        paths: list[Path] = (),
    ) -> None:
        """Summary metrics, tags and files of the whole sweep."""
        if metrics:
            self._write("metrics", PARENT, {"values": finite(metrics), "step": 0, "time": _now()})
        if tags:
            self._write("tags", PARENT, {"tags": dict(tags)})
        for path in paths:
            self._write("artifact", PARENT, {"path": str(path), "folder": None})

    def close(self, outcome: str) -> str:
        """Close the parent run, try everything that waits once more, and say in one line what was lost ("" if nothing)."""
        self._write("end", PARENT, {"tags": {"outcome": outcome}, "status": STATUS[outcome], "time": _now()})
        self._deliver_last()
        if not self.failures:
            return ""
        count = wording.plural(self.failures, "write")
        if not self.lost:
            return f"tracking: {count} failed, all delivered later"
        return f"tracking: {count} failed, {len(self.lost)} lost ({self.lost[-1]})"

    def page(self) -> str:
        """Where MLflow's pages show the sweep's experiment, below the address of the server."""
        return f"/#/experiments/{self._experiment}/runs?workflowType=machine_learning"

    def retry(self) -> None:
        """Deliver what waits, if its time has come."""
        if self.waiting and time.monotonic() >= self._retry_at:
            self._flush()

    def _write(self, kind: str, run: str, content: dict[str, Any]) -> None:
        self.waiting.append(Write(kind, run, content))
        self.retry()

    def _flush(self) -> None:
        """Deliver in order until one fails; the order within a run must stay (create, metrics, end)."""
        while self.waiting:
            write = self.waiting[0]
            try:
                self._deliver(write)
            except Exception as error:  # noqa: BLE001
                self._failed(write, error)
                if not _is_refused(error):
                    self._retry_at = time.monotonic() + RETRY_SECONDS
                    return
                self._lose(write, error)
            self.waiting.popleft()

    def _deliver_last(self) -> None:
        """Try each waiting write a few times; one that never works does not hold up the others."""
        while self.waiting:
            write = self.waiting.popleft()
            for attempt in range(FINAL_ATTEMPTS):
                try:
                    self._deliver(write)
                    break
                except Exception as error:  # noqa: BLE001
                    self._failed(write, error)
                    if attempt == FINAL_ATTEMPTS - 1 or _is_refused(error):
                        self._lose(write, error)
                        break
                    time.sleep(0.2 * (attempt + 1))

    def _failed(self, write: Write, error: Exception) -> None:
        # A write counts once, however often it is tried.
        self.failures += write.attempts == 0
        write.attempts += 1
        log.warning("tracking: %s of %s failed (attempt %d): %s", write.kind, write.run, write.attempts, _line(error))

    def _lose(self, write: Write, error: Exception) -> None:
        self.lost.append(f"{write.kind}: {_line(error)}")

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _experiment_id(self) -> str:
        if self._experiment is None:
            found = self.client.get_experiment_by_name(self.target.experiment)
            if found is None:
                self._experiment = self.client.create_experiment(
                    self.target.experiment, artifact_location=self.target.artifacts, tags=EXPERIMENT_TAGS
                )
            else:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiment = found.experiment_id
        return self._experiment

    def _search(self, condition: str) -> list[Any]:
        runs, token = [], None
        while True:
            page = self.client.search_runs([self._experiment_id()], condition, max_results=500, page_token=token)
            runs += page
            token = getattr(page, "token", None)
            if not token:
                return runs

    def _find(self, run: str) -> str | None:
        found = self._search(f"tags.sweep = '{self.target.sweep}' and tags.trial_id = '{run}'")
        return found[0].info.run_id if found else None

    def _deliver(self, write: Write) -> None:
        if write.kind == "create":
            self.runs[write.run] = self._create(write)
            return
        if write.run not in self.runs:
            raise LookupError(f"the run of {write.run} was never created")
        getattr(self, f"_deliver_{write.kind}")(self.runs[write.run], **write.content)

    def _create(self, write: Write) -> str:
        # After a failed attempt, or a driver that died before it stored the id, the run may exist already.
        found = self._find(write.run)
        if found:
            self.client.update_run(found, status="RUNNING")
            return found
        tags = {**self.target.tags, "sweep": self.target.sweep, "trial_id": write.run, "outcome": "running"}
        tags |= write.content.get("tags", {})
        if write.run != PARENT:
            tags["mlflow.parentRunId"] = self.runs[PARENT]
        run = self.client.create_run(
            self._experiment_id(), start_time=write.content["start"], tags=tags, run_name=write.content["name"]
        )
        return run.info.run_id

    def _deliver_reopen(self, run_id: str) -> None:
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, "outcome", "running")

    def _deliver_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(key, _text(value)) for key, value in params.items()])

    def _deliver_metrics(self, run_id: str, values: dict[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(run_id, metrics=[Metric(key, value, time, step) for key, value in values.items()])

    def _deliver_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])

    def _deliver_end(self, run_id: str, tags: dict[str, str], status: str, time: int) -> None:
        self._deliver_tags(run_id, tags)
        self.client.set_terminated(run_id, status, end_time=time)

    def _deliver_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        if Path(path).exists():
            self.client.log_artifact(run_id, path, artifact_path=folder)


def mlflow_client(uri: str) -> Any:
    """A client that gives up on a dead server within seconds instead of holding up the sweep for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def allowed(result: Mapping[str, Any]) -> dict[str, float]:
    """What of a trial's result becomes metrics: training and validation, nothing of Tune's own, never test."""
    wanted = {name: value for name, value in result.items() if name.startswith(LOGGED) or name in LOGGED_NAMES}
    return finite(wanted)


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """MLflow stores infinity as a huge number and NaN as a gap: neither is written."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _now() -> int:
    return int(time.time() * 1000)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_refused(error: Exception) -> bool:
    return getattr(error, "error_code", None) in REFUSED
