"""What is written into MLflow's runs, one call or a few per write; each can be repeated without a duplicate."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.tracking.addresses import first_call
from sweeps.tracking.owned_runs import FOLDER, PARENT, RunOwner

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages for models instead of those for language model applications."""
INCOMPLETE = "points_missing"
"""Tag of a run that ended although some of its points could not be written."""
LARGEST_BATCH = 100
"""Params that MLflow takes in one call."""


class NoRun(LookupError):
    """A write to a run or model whose creation was refused; it will never succeed."""


@dataclass
class Operation:
    """One write that waits or is being tried, small enough to be tried again as a whole.

    Attributes:
        kind: create, reopen, name, inputs, metrics, params, tags, artifact, end; model, and its points, files, output, end.
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
        self._models: dict[str, Any] = {}

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
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        if write.kind == "create":
            self.runs[write.run] = self._create(write)
            return
        if write.kind.startswith("model"):
            self._deliver_model(write)
            return
        client, run, content = self.client, self._run(write.run), write.content
        tags = dict(content.get("tags", {}))
        match write.kind:
            case "reopen":
                self._reopen(run, content.get("has_error", False))
            case "name":
                client.update_run(run, name=content["name"])
            case "inputs":
                # MLflow keeps one input per run and dataset, however often it is sent.
                read = [InputTag("mlflow.data.context", "training and validation")]
                client.log_inputs(run, [DatasetInput(Dataset(**self.target.dataset), read)])
            case "metrics":
                time, step = content["time"], content["step"]
                client.log_batch(
                    run, metrics=[Metric(key, value, time, step) for key, value in content["values"].items()]
                )
            case "params":
                found = [Param(key, _text(value)) for key, value in content["params"].items()]
                for start in range(0, len(found), LARGEST_BATCH):
                    client.log_batch(run, params=found[start : start + LARGEST_BATCH])
            case "artifact":
                if Path(content["path"]).exists():
                    client.log_artifact(run, content["path"], artifact_path=content["folder"])
            case "end":
                # Whoever compares the run with the event log must not take its end for its completeness.
                tags[INCOMPLETE] = str(write.run in self.incomplete).lower()
        if tags:
            client.log_batch(run, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])
        if write.kind == "end":
            client.set_terminated(run, content["status"], end_time=content["time"])

    def _deliver_model(self, write: Operation) -> None:
        """A part of a logged model of a run, which MLflow's page of models lists with settings and metrics.

        One that the run has of the same weights is taken, and left as it is where nothing is missing.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        client, run, content = self.client, self._run(write.run), write.content
        if write.kind == "model":
            known = client.search_logged_models([self.experiment()], f"source_run_id = '{run}'")
            same = (model for model in known if content["tags"].items() <= model.tags.items())
            self._models[write.run] = next(same, None) or client.create_logged_model(
                self.experiment(),
                name=self.target.owner.name,
                source_run_id=run,
                tags={**content["tags"], **self.target.owner.tags},
                params={key: _text(value) for key, value in content["params"].items()},
                model_type="recommender",
            )
            return
        if (model := self._models.get(write.run)) is None:
            raise NoRun(f"the model of {write.run} was never created")
        if model.status == "READY":
            return
        match write.kind:
            case "model points":  # those of the run's best epoch once more, now as those of the model
                time, step, own = content["time"], content["step"], model.model_id
                points = [Metric(key, value, time, step, model_id=own) for key, value in content["values"].items()]
                client.log_batch(run, metrics=points)
            case "model files":
                client.log_model_artifacts(model.model_id, content["folder"])
            case "model output":
                client.log_outputs(run, [LoggedModelOutput(model.model_id, content["step"])])
            case "model end":
                client.finalize_logged_model(model.model_id, "READY")

    def _run(self, name: str) -> str:
        if name not in self.runs:
            raise NoRun(f"the run of {name} was never created")
        return self.runs[name]

    def _create(self, write: Operation) -> str:
        if write.attempts:
            # The server may have made the run and failed to say so.
            for run in self.target.owner.find(self.client, self.experiment(), write.run):
                self._reopen(run.info.run_id)
                return run.info.run_id
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

    def _reopen(self, run_id: str, has_error: bool = False) -> None:
        from mlflow.exceptions import MlflowException

        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, "outcome", "running")
        try:
            if has_error:
                self.client.delete_tag(run_id, "error")
        except MlflowException as error:
            # An attempt that seemed to fail has deleted it.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


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
