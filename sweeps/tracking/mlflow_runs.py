"""What is written into MLflow's runs, one call or a few per write; each can be repeated without a duplicate."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf.io import file_hash
from sweeps.tracking.addresses import first_call
from sweeps.tracking.owned_runs import FOLDER, PARENT, RunOwner, search

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages for models instead of those for language model applications."""
INCOMPLETE = "points_missing"
"""Tag of a run that ended although some of its points could not be written."""
WEIGHTS = ("best.safetensors", "config.yaml")
WEIGHTS_HASH = "weights_sha256"
"""Tag of a run that has its weights: they are not sent again."""
LARGEST_BATCH = 100
"""Params that MLflow takes in one call."""


class NoRun(LookupError):
    """A write to a run whose creation was refused; it will never succeed."""


@dataclass
class Operation:
    """One write that waits or is being tried, small enough to be tried again as a whole.

    Attributes:
        kind: create, reopen, name, inputs, metrics, params, tags, artifact, weights, end.
        run: name of the trial, or `PARENT`.
        content: what to write.
        attempts: failed ones so far.
    """

    kind: str
    run: str
    content: dict[str, Any]
    attempts: int = 0


@dataclass
class TrackingTarget:
    """Where a sweep's runs go.

    Attributes:
        uri: absolute tracking URI.
        experiment: the scenario's name.
        owner: whose runs they are.
        artifacts: where artifacts of a new experiment go; None leaves it to the server.
        tags: tags of every run (scenario, model, seed, hashes, ...).
        params: settings that all trials share.
        dataset: name, digest, source, source_type, schema and profile of the data that every run reads; empty for none.
    """

    uri: str
    experiment: str
    owner: RunOwner
    artifacts: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)


class MlflowRuns:
    """The runs of a sweep or group in MLflow.

    Args:
        target: where the runs go.
        client: makes the MLflow client; tests give their own.

    Attributes:
        runs: name of a trial, or `PARENT` -> id of its run.
        incomplete: names of runs some of whose points were given up.
    """

    def __init__(self, target: TrackingTarget, client: Callable[[], Any] | None = None) -> None:
        self.target = target
        self._make_client = client or (lambda: mlflow_client(target.uri))
        self._client: Any = None
        self._experiment: str | None = None
        self.runs: dict[str, str] = {}
        self.incomplete: set[str] = set()
        self._sent: set[tuple[str, str, str]] = set()

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def experiment(self) -> str:
        """Id of the experiment, which is made where it does not exist."""
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

    def page(self) -> str:
        """Where MLflow's pages show the experiment, below the address of the server; "" if it is unknown."""
        try:
            return runs_page(self.experiment())
        except Exception:  # noqa: BLE001  the server went away; the address of its first page is enough
            return ""

    def deliver(self, write: Operation) -> None:
        """Carry out one write.

        Raises:
            Exception: whatever MLflow raises.
        """
        if write.kind == "create":
            self.runs[write.run] = self._create(write)
            return
        run = self._run(write.run)
        if write.kind == "end":
            # Whoever compares the run with the event log must not take its end for its completeness.
            write.content["tags"][INCOMPLETE] = str(write.run in self.incomplete).lower()
        getattr(self, f"_deliver_{write.kind}")(run, **write.content)

    def _run(self, name: str) -> str:
        if name not in self.runs:
            raise NoRun(f"the run of {name} was never created")
        return self.runs[name]

    def _create(self, write: Operation) -> str:
        if write.attempts:
            # The server may have made the run and failed to say so.
            found = search(
                self.client, self.experiment(), f"{self.target.owner.condition} and tags.trial = '{write.run}'"
            )
            if found:
                self._deliver_reopen(found[0].info.run_id)
                return found[0].info.run_id
        owner = self.target.owner
        tags = {**self.target.tags, **owner.tags, "trial": write.run, "outcome": "running"}
        if write.run == PARENT:
            tags[FOLDER] = owner.folder
        else:
            tags["mlflow.parentRunId"] = self._run(PARENT)
        run = self.client.create_run(
            self.experiment(), start_time=write.content["start"], tags=tags, run_name=write.content["name"]
        )
        return run.info.run_id

    def _deliver_reopen(self, run_id: str, has_error: bool = False) -> None:
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, "outcome", "running")
        if has_error:
            self._delete_error(run_id)

    def _delete_error(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_tag(run_id, "error")
        except MlflowException as error:
            # An attempt that seemed to fail has deleted it.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    def _deliver_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        found = [Param(key, _text(value)) for key, value in params.items()]
        for start in range(0, len(found), LARGEST_BATCH):
            self.client.log_batch(run_id, params=found[start : start + LARGEST_BATCH])

    def _deliver_inputs(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow keeps one input per run and dataset, however often it is sent.
        read = [InputTag("mlflow.data.context", "training and validation")]
        self.client.log_inputs(run_id, [DatasetInput(Dataset(**self.target.dataset), read)])

    def _deliver_metrics(self, run_id: str, values: dict[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(run_id, metrics=[Metric(key, value, time, step) for key, value in values.items()])

    def _deliver_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])

    def _deliver_name(self, run_id: str, name: str) -> None:
        self.client.update_run(run_id, name=name)

    def _deliver_end(self, run_id: str, tags: dict[str, str], status: str, time: int) -> None:
        self._deliver_tags(run_id, tags)
        self.client.set_terminated(run_id, status, end_time=time)

    def _deliver_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        if Path(path).exists():
            self.client.log_artifact(run_id, path, artifact_path=folder)

    def _deliver_weights(self, run_id: str, folder: str) -> None:
        paths = [Path(folder) / name for name in WEIGHTS]
        if not all(path.exists() for path in paths):
            return
        sha256 = file_hash(paths[0])
        # What was found out and sent before a later call failed is not repeated.
        if (run_id, sha256, "") not in self._sent:
            if self.client.get_run(run_id).data.tags.get(WEIGHTS_HASH) == sha256:
                return
            self._sent.add((run_id, sha256, ""))
        for path in paths:
            if (run_id, sha256, path.name) not in self._sent:
                self.client.log_artifact(run_id, str(path), artifact_path="best")
                self._sent.add((run_id, sha256, path.name))
        self.client.set_tag(run_id, WEIGHTS_HASH, sha256)


def runs_page(experiment: str, run: str = "") -> str:
    """The runs of an experiment, or one of them, below a server's address; MLflow shows other pages without the type."""
    return f"/#/experiments/{experiment}/runs{'/' * bool(run)}{run}?workflowType=machine_learning"


def mlflow_client(uri: str) -> Any:
    """A client that gives up on a dead server within seconds; a new or former database gets its tables first."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with first_call(uri):
        return MlflowClient(tracking_uri=uri)


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
