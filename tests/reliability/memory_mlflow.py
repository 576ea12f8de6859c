"""An MLflow server in memory: the calls of a client that the writer of the runs uses, and nothing else.

It outlives the drivers that die, as a server does. `test_memory_mlflow.py` holds it against the real one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class MemoryMlflow:
    """The state of a server; `client` gives a client whose calls, or their answers, may be lost.

    Attributes:
        experiments: name -> id.
        runs: id -> run as plain values: `experiment`, `status`, `tags`, `params`, `metrics`, `artifacts`, `start`, `end`,
            `inputs` (name and digest of each data set), `outputs` (ids of its models).
        models: id -> logged model.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.models: dict[str, Any] = {}

    def client(
        self, before: Callable[[str], None] = lambda name: None, after: Callable[[str], None] = lambda name: None
    ) -> Any:
        server = self

        class Client:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                real = getattr(server, name)

                def call(*args: Any, **kwargs: Any) -> Any:
                    before(name)
                    answer = real(*args, **kwargs)
                    after(name)
                    return answer

                return call

        return Client()

    def get_experiment_by_name(self, name: str) -> Any:
        if name not in self.experiments:
            return None
        return SimpleNamespace(experiment_id=self.experiments[name], lifecycle_stage="active")

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        if name in self.experiments:
            raise RuntimeError(f"RESOURCE_ALREADY_EXISTS: {name}")
        self.experiments[name] = str(len(self.experiments) + 1)
        return self.experiments[name]

    def search_runs(
        self, experiments: list[str], condition: str, max_results: int = 1000, page_token: Any = None
    ) -> Any:
        wanted = dict(re.findall(r"tags\.`?([\w.]+)`? = '([^']*)'", condition))
        assert len(wanted) == condition.count("="), condition
        return [
            self._as_mlflow(run_id, run)
            for run_id, run in reversed(self.runs.items())
            if run["experiment"] in experiments and wanted.items() <= run["tags"].items()
        ]

    def get_run(self, run_id: str) -> Any:
        return self._as_mlflow(run_id, self.runs[run_id])

    def _as_mlflow(self, run_id: str, run: dict[str, Any]) -> Any:
        newest = {key: points[-1][1] for key, points in run["metrics"].items()}
        info = SimpleNamespace(run_id=run_id, status=run["status"], start_time=run["start"], end_time=run["end"])
        data = SimpleNamespace(tags=dict(run["tags"]), params=dict(run["params"]), metrics=newest)
        return SimpleNamespace(info=info, data=data)

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        run_id = f"run{next(number for number in itertools.count(1) if f'run{number}' not in self.runs)}"
        self.runs[run_id] = {
            "experiment": experiment,
            "status": "RUNNING",
            "tags": {**tags, "mlflow.runName": run_name},
            "params": {},
            "metrics": {},
            "artifacts": {},
            "inputs": set(),
            "outputs": set(),
            "start": start_time,
            "end": None,
        }
        return self.get_run(run_id)

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        self.runs[run_id]["status"] = status or self.runs[run_id]["status"]
        self.runs[run_id]["tags"] |= {"mlflow.runName": name} if name else {}
        if status == "RUNNING":
            self.runs[run_id]["end"] = None

    def set_tag(self, run_id: str, key: str, value: Any) -> None:
        self.runs[run_id]["tags"][key] = str(value)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.runs[run_id] |= {"status": status, "end": end_time}

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        run = self.runs[run_id]
        for param in params:
            if run["params"].setdefault(param.key, param.value) != param.value:
                raise RuntimeError(f"INVALID_PARAMETER_VALUE: {param.key} is {run['params'][param.key]}")
        for metric in metrics:
            points = run["metrics"].setdefault(metric.key, [])
            # A server keeps a point once, however often it is written.
            if (metric.step, metric.value, metric.timestamp) not in points:
                points.append((metric.step, metric.value, metric.timestamp))
                points.sort(key=lambda point: (point[0], point[2]))
        run["tags"] |= {tag.key: tag.value for tag in tags}

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        points = self.runs[run_id]["metrics"].get(key, [])
        return [SimpleNamespace(key=key, step=step, value=value, timestamp=time) for step, value, time in points]

    def log_artifact(self, run_id: str, path: str, artifact_path: str | None = None) -> None:
        from pathlib import Path

        name = "/".join(part for part in (artifact_path, Path(path).name) if part)
        self.runs[run_id]["artifacts"][name] = Path(path).read_bytes()

    def log_inputs(self, run_id: str, datasets: Any) -> None:
        self.runs[run_id]["inputs"] |= {(found.dataset.name, found.dataset.digest) for found in datasets}

    def log_outputs(self, run_id: str, models: Any) -> None:
        self.runs[run_id]["outputs"] |= {found.model_id for found in models}

    def search_logged_models(self, experiments: list[str], condition: str) -> list[Any]:
        run_id = re.fullmatch(r"source_run_id = '([^']*)'", condition)[1]
        return [model for model in self.models.values() if model.source_run_id == run_id]

    def create_logged_model(self, experiment: str, **facts: Any) -> Any:
        model_id = f"m-{len(self.models) + 1}"
        self.models[model_id] = SimpleNamespace(model_id=model_id, status="PENDING", **facts)
        return self.models[model_id]

    def log_model_artifacts(self, model_id: str, folder: str) -> None:
        assert model_id in self.models

    def finalize_logged_model(self, model_id: str, status: str) -> None:
        self.models[model_id].status = status
