"""The server in memory answers as the real one does."""

from __future__ import annotations

from typing import Any

import pytest
from memory_mlflow import MemoryMlflow

from sweeps.tracking.mlflow_runs import mlflow_client


def story(client: Any, artifact: Any) -> list[Any]:
    """Calls as a sweep makes them, and what can be seen of them afterwards."""
    from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

    found: list[Any] = [client.get_experiment_by_name("e")]
    experiment = client.create_experiment("e", artifact_location=artifact.parent.as_uri(), tags={"a": "b"})
    found.append(client.get_experiment_by_name("e").lifecycle_stage)
    run = client.create_run(experiment, start_time=5, tags={"trial": "t01", "sweep_id": "x"}, run_name="t01 lr 1")
    other = client.create_run(experiment, start_time=6, tags={"trial": "t02", "sweep_id": "y"}, run_name="t02")
    run_id = run.info.run_id
    found += [run.info.status, run_id != other.info.run_id]
    client.log_batch(run_id, params=[Param("lr", "1")])
    client.log_batch(run_id, params=[Param("lr", "1")])
    for value, time, step in ((0.5, 7, 1), (0.5, 7, 1), (0.7, 8, 2)):
        client.log_batch(run_id, metrics=[Metric("m", value, time, step)])
    client.log_batch(run_id, tags=[RunTag("outcome", "completed")])
    client.set_tag(run_id, "outcome", "pruned")
    client.set_terminated(run_id, "FINISHED", end_time=9)
    found.append(client.get_run(run_id).info.status)
    client.update_run(run_id, status="RUNNING")
    found.append(client.get_run(run_id).info.status)
    client.set_terminated(run_id, "KILLED", end_time=11)
    client.update_run(run_id, name="t01 pruned")
    client.log_artifact(run_id, str(artifact), artifact_path="best")
    model = client.create_logged_model(
        experiment, name="s", source_run_id=run_id, tags={"a": "b"}, params={}, model_type="r"
    )
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 2)])
    client.finalize_logged_model(model.model_id, "READY")
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    found += [(item.model_id == model.model_id, item.status == "READY", item.tags["a"]) for item in models]
    found += [
        [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, "m")],
        client.get_metric_history(run_id, "none"),
    ]
    (only,) = client.search_runs([experiment], "tags.sweep_id = 'x' and tags.trial = 't01'")
    tags = {
        key: value for key, value in only.data.tags.items() if key in ("trial", "sweep_id", "outcome", "mlflow.runName")
    }
    found += [
        only.info.run_id == run_id,
        only.info.status,
        only.info.start_time,
        only.info.end_time,
        tags,
        only.data.params,
        only.data.metrics,
    ]
    found.append(len(client.search_runs([experiment], "tags.trial = 't09'")))
    return found


@pytest.mark.slow
def test_it_answers_as_the_real_one(tmp_path):
    artifact = tmp_path / "weights"
    artifact.write_text("1")
    real = mlflow_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert story(MemoryMlflow(), artifact) == story(real, artifact)


def test_it_refuses_another_value_of_a_parameter():
    from mlflow.entities import Param

    server = MemoryMlflow()
    run_id = server.create_run(server.create_experiment("e"), 1, {}, "r").info.run_id
    server.log_batch(run_id, params=[Param("lr", "1")])
    with pytest.raises(RuntimeError, match="INVALID_PARAMETER_VALUE"):
        server.log_batch(run_id, params=[Param("lr", "2")])
