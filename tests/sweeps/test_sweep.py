"""Whole sweeps with a fake trainer on a real local Ray, a real database and real signals."""

from __future__ import annotations

import csv
import io
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from sweep_fakes import FlakyClient, fake_evaluate, fast_trial, tiny_data

from llmemf.errors import InputError
from sweeps import sweep, tracking
from sweeps.plan import Options, plan_sweep
from sweeps.ray_session import LogWatch
from sweeps.sweep import check_reachable, code_version, locked, run_sweep
from sweeps.tracking import PARENT, mlflow_client

HERE = Path(__file__).resolve().parent


def runs_of(uri, sweep_name):
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name("sample")
    found = client.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep_name}'")
    assert len({run.data.tags["trial_id"] for run in found}) == len(found), "one run per trial"
    return client, {run.data.tags["trial_id"]: run for run in found}


def steps(client, run, name="objective"):
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def newest(folder, pattern):
    return pickle.loads(max(folder.glob(pattern)).read_bytes())


def board(folder):
    return list(csv.DictReader((folder / "leaderboard.csv").open()))


@pytest.mark.ray
def test_a_whole_sweep_with_a_failing_tracker_and_a_diverging_trial(project_folder, workers_find_fakes, monkeypatch):
    """Grid points twice at once, one trial that diverges, ASHA, and an MLflow of which every third call raises."""
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.2)
    plan = plan_sweep(
        Options(
            scenario="movie_book",
            search="grid",
            trials=5,
            epochs=6,
            name="s1",
            assignments=["lr=1e-3,1e-2", "alpha=0.4", "beta=0.3", "lambda1=0.1,0.5", "lambda2=0.1,0.3"],
        )
    )
    clients = []

    def client():
        clients.append(FlakyClient(mlflow_client(plan.record.tracking_uri), 3 if clients else 10**9))
        return clients[-1]

    opened = tracking.Tracking.open

    def open_then_flaky(self):
        opened(self)
        self._client = None

    monkeypatch.setattr(tracking.Tracking, "open", open_then_flaky)
    out = io.StringIO()
    console = Console(file=out, width=120, highlight=False)
    result = run_sweep(plan, console, data=tiny_data(), trainable=fast_trial, evaluate=fake_evaluate, client=client)
    text = out.getvalue()

    assert result.exit_code == 0
    assert clients[-1].raised > 10
    assert "writes failed, all delivered later" in text, text[-1500:]
    folder = plan.record.folder
    flaky_free, runs = runs_of(plan.record.tracking_uri, "s1")
    children = {trial: run for trial, run in runs.items() if trial != PARENT}
    assert len(children) == 5
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "FAILED"}

    rows = board(folder)
    given = [tuple(float(row[key]) for key in plan.space.varied) for row in rows]
    wanted = [tuple(point[key] for key in plan.space.varied) for point in plan.points]
    assert Counter(given) == Counter(wanted), "each grid point exactly once"

    outcomes = {row["trial"]: row["outcome"] for row in rows}
    diverging = {f"t{i:02d}" for i, point in enumerate(plan.points, start=1) if point["lr"] >= 0.009}
    assert 0 < len(diverging) < 5
    assert {trial for trial, outcome in outcomes.items() if outcome == "failed"} == diverging
    for run in children.values():
        name = run.data.tags["trial"]
        assert run.data.tags["outcome"] == outcomes[name]
        epochs = int(next(row["epochs_run"] for row in rows if row["trial"] == name))
        for metric in ("objective", "val/movie/mrr", "train/loss"):
            assert steps(flaky_free, run, metric) == list(range(1, epochs + 1))
        assert not [metric for metric in run.data.metrics if metric.startswith("test")]
        if name in diverging:
            assert run.info.status == "FAILED" and "loss is nan at epoch 2" in run.data.tags["error"]
            trace = (folder / "errors" / f"{name}.txt").read_text()
            assert "in epochs" in trace and "\x1b" not in trace
    assert text.count("failed: FloatingPointError: loss is nan at epoch 2") == len(diverging)
    assert "Traceback" not in text and "ray" not in text.lower().replace(str(project_folder).lower(), "")

    study = newest(folder / "tune", "searcher-state-*.pkl")["study"]
    assert Counter(trial.state.name for trial in study.trials)["RUNNING"] == 0
    assert sum(trial.state.name == "FAIL" for trial in study.trials) == len(diverging)

    best = rows[0]
    assert runs[PARENT].data.metrics["test/movie/mrr"] == result.test["test/movie/mrr"] == 0.5
    assert float(best["objective"]) == pytest.approx(runs[PARENT].data.metrics["objective"])
    config = yaml.safe_load((folder / "best.yaml").read_text())
    assert config["lr"] == 1e-3 and config["alpha"] == 0.4 and config["model"] == "llm_emf"
    assert plan.config_class(**config).epochs == 6
    header = (folder / "best.yaml").read_text()
    assert "fingerprint" in header and "# test/movie/mrr = 0.5000" in header
    kept = {item.path for item in flaky_free.list_artifacts(runs[PARENT].info.run_id)}
    assert kept == {"leaderboard.csv", "leaderboard.md", "best.yaml"}
    first = next(run for run in children.values() if run.data.tags["trial"] == best["trial"])
    assert len(flaky_free.list_artifacts(first.info.run_id, "best")) == 2
    assert "Numbers of a generated sample" in text and "mlflow ui --backend-store-uri sqlite:////" in text
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["status"] == "completed"


def drive(folder, *arguments, stop_at=None, number=signal.SIGINT):
    """Run `fake_sweep.py`; send a signal when a line of its output holds `stop_at`."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_sweep.py"), *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if stop_at and stop_at in line:
            process.send_signal(number)
            stop_at = None
    return process.wait(timeout=120), "".join(lines)


@pytest.mark.ray
def test_an_interrupted_sweep_resumes_whole(project_folder):
    code, text = drive(project_folder, "s1", stop_at=" completed after epoch 6")
    assert code == 130, text
    assert "sweeps/grid.py --resume --name s1" in text and "Traceback" not in text
    folder = project_folder / "mlruns" / "sweeps" / "s1"
    uri = f"sqlite:///{project_folder}/mlruns/mlflow.db"
    client, runs = runs_of(uri, "s1")
    assert not [run for run in runs.values() if run.info.status == "RUNNING"]
    assert runs[PARENT].data.tags["outcome"] == "interrupted"
    before = {trial: run for trial, run in runs.items() if run.data.tags["outcome"] in ("completed", "pruned")}
    assert 1 <= len(before) < 6
    rungs_before = newest(folder / "tune", "callback-states-*.pkl")
    rungs_before = next(state for state in rungs_before.values() if state and "rungs" in state)["rungs"]
    assert any(recorded for _, recorded in rungs_before[0])
    assert not (folder / "leaderboard.csv").read_text().count("test/")

    code, text = drive(project_folder, "s1", "--resume")
    assert code == 0, text
    client, runs = runs_of(uri, "s1")
    children = {trial: run for trial, run in runs.items() if trial != PARENT}
    assert len(children) == 6
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    rows = board(folder)
    assert [row["trial"] for row in sorted(rows, key=lambda row: row["trial"])] == [f"t{i:02d}" for i in range(1, 7)]
    settings = Counter(tuple(row[key] for key in ("lr", "l2", "alpha", "beta", "lambda1", "lambda2")) for row in rows)
    assert max(settings.values()) == 1, "no point ran twice"
    for run in children.values():
        row = next(row for row in rows if row["trial"] == run.data.tags["trial"])
        assert steps(client, run) == list(range(1, int(row["epochs_run"]) + 1))
    for trial, run in before.items():
        assert runs[trial].info.end_time == run.info.end_time, "a finished trial was not touched again"

    states = newest(folder / "tune", "callback-states-*.pkl")
    after = next(state for state in states.values() if state and "rungs" in state)["rungs"]
    for (milestone, old), (same, new) in zip(rungs_before[0], after[0], strict=True):
        assert milestone == same and old.items() <= new.items()
    study = newest(folder / "tune", "searcher-state-*.pkl")["study"]
    assert len(study.trials) == 6
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert sum(trial.state.name == "PRUNED" for trial in study.trials) == sum(
        row["outcome"] == "pruned" for row in rows
    )


def test_servers_that_are_down_are_told_before_anything_starts(project_folder):
    def record(**values):
        return plan_sweep(Options(scenario="sample", **values)).record

    with pytest.raises(InputError, match="no tracking server answers at http://127.0.0.1:9 .*--tracking-uri"):
        check_reachable(record(tracking_uri="http://127.0.0.1:9"))
    with pytest.raises(InputError, match="no Ray cluster answers at 127.0.0.1:9 .*--ray-address"):
        check_reachable(record(ray_address="127.0.0.1:9"))
    check_reachable(record(ray_address="auto"))


def test_two_drivers_of_one_sweep_are_refused(tmp_path):
    with locked(tmp_path, "s1"), pytest.raises(InputError, match="running in another process"), locked(tmp_path, "s1"):
        pass
    with locked(tmp_path, "s1"):
        pass


def test_a_full_disk_is_one_sentence_with_the_way_on(project_folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep, "start_ray", full)
    plan = plan_sweep(Options(scenario="sample", name="s1"))
    with pytest.raises(InputError, match="no space left .* --resume --name s1"):
        run_sweep(plan, Console(file=io.StringIO()), data=tiny_data())


def test_a_log_line_about_a_full_disk_asks_to_stop(tmp_path):
    watch = LogWatch(tmp_path / "ray.log")
    asked = []
    watch.stop = asked.append
    import logging

    watch.emit(logging.LogRecord("ray", logging.ERROR, "x", 1, "[Errno 28] No space left on device", None, None))
    watch.emit(logging.LogRecord("ray", logging.ERROR, "x", 1, "another", None, None))
    assert asked == ["the disk is full"]
    assert (tmp_path / "ray.log").read_text().count("\n") == 2


def test_the_code_version_is_a_commit_or_the_packages_version():
    import llmemf

    version = code_version().removesuffix("-dirty")
    assert version == llmemf.__version__ or (len(version) == 40 and int(version, 16) >= 0)
