"""Whole sweeps with a fake trainer on a real local Ray, a real database and real signals."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from rich.console import Console
from sweep_fakes import FakeTrainer, FlakyClient, epoch_result, fake_evaluate, fast_trial, objective, tiny_data

from llmemf.command_line import command_line
from llmemf.errors import InputError
from sweeps.cluster.ray_session import LogWatch
from sweeps.core.interrupt import StopRequest
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.results import code_version
from sweeps.core.resume import plan_extend, plan_resume
from sweeps.core.run import run_sweep
from sweeps.core.sweep import TrialBackend
from sweeps.search.asha import ResumableASHA
from sweeps.search.search import SweepSearch
from sweeps.state import checkpoints
from sweeps.state.sweep_state import SweepState
from sweeps.tracking import mlflow_writer
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import PARENT

HERE = Path(__file__).resolve().parent.parent


def runs_of(uri, sweep_name):
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name("sample")
    found = client.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep_name}'")
    assert len({run.data.tags["trial"] for run in found}) == len(found), "one run per trial"
    return client, {run.data.tags["trial"]: run for run in found}


def steps(client, run, name="objective"):
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def study_of(name):
    """Optuna's study as the next driver would have it."""
    plan = plan_resume(Options(name=name))
    made = SweepSearch(
        plan.space, SweepState(plan.record.folder), method=plan.record.search, trials=plan.trials, epochs=plan.epochs
    )
    return made.study


def board(folder):
    return list(csv.DictReader((folder / "leaderboard.csv").open()))


class Evaluated:
    """Stands for a look at the test split, and counts."""

    def __init__(self):
        self.folders = []

    def __call__(self, folder, *args, **kwargs):
        self.folders.append(folder)
        return fake_evaluate(folder, *args, **kwargs)


def run(plan, **backend):
    """Run a plan with fakes; gives the result and what was shown."""
    out = io.StringIO()
    given = {"data": tiny_data(), "trainable": fast_trial, "evaluate": fake_evaluate, **backend}
    result = run_sweep(plan, Console(file=out, width=120, highlight=False), backend=TrialBackend(**given))
    return result, out.getvalue()


@pytest.fixture
def database(project_folder, empty_database):
    """The database of sweeps that run in `project_folder`."""
    path = project_folder / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_database, path)
    return path


@pytest.fixture
def no_ray(monkeypatch):
    """Starting Ray is an error."""

    def start(*args):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("sweeps.core.run.start_ray", start)


@pytest.mark.slow
def test_a_whole_sweep_with_a_failing_tracker_and_a_diverging_trial(
    project_folder, database, workers_find_fakes, monkeypatch
):
    """Grid points twice at once, one trial that diverges, ASHA, and an MLflow of which every third call raises."""
    monkeypatch.setattr(mlflow_writer, "RETRY_SECONDS", 0.2)
    plan = plan_sweep(
        Options(
            scenario="movie_book",
            search="grid",
            trials=5,
            epochs=6,
            grace_period=2,
            name="s1",
            keep=2,
            assignments=["lr=1e-3,1e-2", "alpha=0.4", "beta=0.2", "lambda1=0.1,0.5", "lambda2=0.1,0.3"],
        )
    )
    flaky, evaluated = FlakyClient(mlflow_client(plan.record.tracking_uri), 10**9), Evaluated()

    def saved(event):
        if event["event"] == "proposed":
            flaky._every = 3

    result, text = run(plan, evaluate=evaluated, client=lambda: flaky, saved=saved)

    assert result.exit_code == 4, "a point has no value"
    assert flaky.raised > 10
    assert "writes failed, all delivered later" in text, text[-1500:]
    folder = plan.record.folder
    client, runs = runs_of(plan.record.tracking_uri, "s1")
    children = {trial: run for trial, run in runs.items() if trial != PARENT}
    assert len(children) == 5
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "FAILED"}

    rows = board(folder)
    given = [tuple(float(row[key]) for key in plan.space.varied_keys) for row in rows]
    wanted = [tuple(point[key] for key in plan.space.varied_keys) for point in plan.points]
    assert Counter(given) == Counter(wanted), "each grid point exactly once"

    outcomes = {row["trial"]: row["outcome"] for row in rows}
    diverging = {f"t{i:02d}" for i, point in enumerate(plan.points, start=1) if point["lr"] >= 0.009}
    assert 0 < len(diverging) < 5
    assert {trial for trial, outcome in outcomes.items() if outcome == "failed"} == diverging
    for name, found in children.items():
        assert found.data.tags["outcome"] == outcomes[name]
        epochs = int(next(row["epochs_run"] for row in rows if row["trial"] == name))
        for metric in ("objective", "val/movie/mrr", "train/loss"):
            assert steps(client, found, metric) == list(range(1, epochs + 1))
        assert not [metric for metric in found.data.metrics if metric.startswith("test")]
        if name in diverging:
            assert found.info.status == "FAILED" and "loss is nan at epoch 2" in found.data.tags["error"]
            trace = (folder / "errors" / f"{name}.txt").read_text()
            assert "in epochs" in trace and "\x1b" not in trace
    assert text.count("failed: FloatingPointError: loss is nan at epoch 2") == len(diverging)
    assert "Traceback" not in text and "ray" not in text.lower().replace(str(project_folder).lower(), "")

    states = Counter(trial.state.name for trial in study_of("s1").trials)
    assert states["RUNNING"] == 0 and states["FAIL"] == len(diverging) and states.total() == 5

    best = rows[0]
    assert runs[PARENT].data.metrics["test/movie/mrr"] == result.test["test/movie/mrr"] == 0.5
    assert float(best["objective"]) == pytest.approx(runs[PARENT].data.metrics["objective"])
    config = yaml.safe_load((folder / "best.yaml").read_text())
    assert config["lr"] == 1e-3 and config["alpha"] == 0.4 and config["model"] == "llm_emf"
    assert config["beta"] == 0.2, "a setting of one value is no default"
    assert {found.data.params["beta"] for found in children.values()} == {"0.2"}
    assert plan.config_class(**config).epochs == 6
    header = (folder / "best.yaml").read_text()
    assert "fingerprint" in header and "# test/movie/mrr = 0.5000" in header
    kept = {item.path for item in client.list_artifacts(runs[PARENT].info.run_id)}
    assert kept == {"leaderboard.csv", "best.yaml"}
    assert len(client.list_artifacts(children[best["trial"]].info.run_id, "best")) == 2
    assert (
        "Numbers of a generated sample" in text
        and command_line("ui") in text
        and command_line("report", plan.record.name) in text
    )
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["status"] == "incomplete"
    left = {path.name: [file.name for file in path.rglob("*") if file.is_file()] for path in folder.glob("trials/*")}
    assert set(left) == {row["trial"] for row in rows[:2]}, "the best two keep their weights, and nothing else"
    assert all(sorted(files) == ["best.safetensors", "config.yaml", "report.json"] for files in left.values())
    assert not (folder / "tune").exists() and evaluated.folders == [folder / "best"]


def drive(folder, *arguments, stop_at=None, number=signal.SIGINT):
    """Run `fake_sweep.py` as a user would; send a signal when a line of its output holds `stop_at`."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
    environment.pop("RAY_AUTH_MODE")
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


@pytest.mark.slow
def test_an_interrupted_sweep_resumes_whole(project_folder, database):
    code, text = drive(project_folder, "s1", stop_at=" completed after epoch 6")
    assert code == 130, text
    assert " sweep --resume --name s1" in text and "Traceback" not in text
    folder = project_folder / "mlruns" / "sweeps" / "s1"
    uri = f"sqlite:///{project_folder}/mlruns/mlflow.db"
    client, runs = runs_of(uri, "s1")
    assert not [run for run in runs.values() if run.info.status == "RUNNING"]
    assert runs[PARENT].data.tags["outcome"] == "interrupted"
    before = {trial: run for trial, run in runs.items() if run.data.tags["outcome"] in ("completed", "pruned")}
    assert 1 <= len(before) < 6
    records = SweepState(folder).records
    epochs_before = {record.name: record.epoch for record in records.values()}
    assert {name for name, epoch in epochs_before.items() if epoch} <= set(runs)
    assert all(steps(client, runs[name]) == list(range(1, epochs_before[name] + 1)) for name in set(runs) - {PARENT})
    rungs_before = ResumableASHA(records.values(), max_t=6, grace_period=2, reduction_factor=3).rungs
    assert any(recorded for _, recorded in rungs_before)
    assert not (folder / "leaderboard.csv").read_text().count("test/")

    code, text = drive(project_folder, "s1", "--resume")
    assert code == 0, text
    assert f"{len(before)} of 6 trials done" in text
    client, runs = runs_of(uri, "s1")
    children = {trial: run for trial, run in runs.items() if trial != PARENT}
    assert len(children) == 6
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    rows = board(folder)
    assert [row["trial"] for row in sorted(rows, key=lambda row: row["trial"])] == [f"t{i:02d}" for i in range(1, 7)]
    settings = Counter(tuple(row[key] for key in ("lr", "l2", "alpha", "beta", "lambda1", "lambda2")) for row in rows)
    assert max(settings.values()) == 1, "no point ran twice"
    for name, found in children.items():
        row = next(row for row in rows if row["trial"] == name)
        assert steps(client, found) == list(range(1, int(row["epochs_run"]) + 1))
        assert int(row["epochs_run"]) >= epochs_before.get(name, 0)
    for trial, found in before.items():
        assert runs[trial].info.end_time == found.info.end_time, "a finished trial was not touched again"

    rungs_after = ResumableASHA(SweepState(folder).records.values(), max_t=6, grace_period=2, reduction_factor=3).rungs
    for (milestone, old), (same, new) in zip(rungs_before, rungs_after, strict=True):
        assert milestone == same and old.items() <= new.items()
    study = study_of("s1")
    assert len(study.trials) == 6
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert sum(trial.state.name == "PRUNED" for trial in study.trials) == sum(
        row["outcome"] == "pruned" for row in rows
    )


class Budget(StopRequest):
    """A request to stop whose time budget a test spends."""

    made: ClassVar[list[Budget]] = []

    def __init__(self, time_budget=None):
        super().__init__(time_budget)
        self.made.append(self)


@pytest.mark.slow
def test_a_spent_time_budget_leaves_a_sweep_that_can_be_extended(database, workers_find_fakes, monkeypatch):
    """Its time is spent after the third trial has started; then two more trials in a wider space, and all are finished."""
    monkeypatch.setattr("sweeps.core.run.StopRequest", Budget)
    plan = plan_sweep(
        Options(scenario="sample", name="s1", trials=4, epochs=4, concurrency=1, assignments=["lr=1e-3,3e-3"])
    )
    started = []

    def saved(event):
        started.extend([event["trial"]] if event["event"] == "started" else [])
        stop = Budget.made[-1]
        if len(started) == 3 and event["event"] == "epoch" and not stop.reason:
            stop._budget_spent()

    evaluated = Evaluated()
    result, text = run(plan, saved=saved, evaluate=evaluated)
    assert result.exit_code == 3, text
    assert "interrupted: the time budget is spent" in text and "--resume --name s1" in text
    assert not evaluated.folders and not result.test, "the test split waits for the end"
    records = SweepState(plan.record.folder).records
    assert len(records) == 3 and not records[3].ended and records[3].epoch >= 1
    _, runs = runs_of(plan.record.tracking_uri, "s1")
    assert runs[PARENT].info.status == runs["t03"].info.status == "KILLED"

    Budget.made.clear()
    plan = plan_extend(Options(name="s1", assignments=["lr=1e-4,1e-3,3e-3", "heads=1,2"]), 2)
    result, text = run(plan, evaluate=evaluated)
    assert result.exit_code == 0, text
    assert "s1 (extended)" in text and "2 of 6 trials done, t03 (after epoch" in text
    records = SweepState(plan.record.folder).records
    assert sorted(records) == [1, 2, 3, 4, 5, 6] and all(record.ended for record in records.values())
    assert [record.varied["heads"] for record in records.values()][:3] == [plan.before["heads"]] * 3
    study = study_of("s1")
    assert len(study.trials) == 6 and study.trials[0].distributions["lr"].low == 1e-4
    client, runs = runs_of(plan.record.tracking_uri, "s1")
    assert set(runs) == {PARENT, *(f"t{number:02d}" for number in range(1, 7))}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in set(runs) - {PARENT}:
        assert steps(client, runs[name]) == list(range(1, records[int(name[1:])].epoch + 1))
        assert "heads" in runs[name].data.params
    assert steps(client, runs[PARENT]) == [6] and len(evaluated.folders) == 1


def finished(options, *values):
    """A stored sweep that has run all its trials, each with its checkpoint, as a killed driver leaves it: never closed."""
    plan = plan_sweep(options)
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    state = SweepState(plan.record.folder)
    state.open(host="here")
    for point, value in zip(plan.points, values, strict=True):
        record = state.propose(point, plan.varied_keys, plan.epochs, {})
        state.start(record)
        trainer = FakeTrainer({**plan.fixed, **record.config})
        for epoch in range(1, plan.epochs + 1):
            trainer.epoch = epoch
            result = epoch_result(epoch, value * epoch / plan.epochs)
            checkpoints.save(trainer, checkpoints.trial_folder(plan.record.folder, record.number), result)
            state.add(record, result, stopped=False)
    return plan_resume(Options(name=plan.record.name))


GRID = Options(
    scenario="sample", name="s1", search="grid", trials=3, epochs=2, assignments=["lr=1e-4,1e-3,3e-3", "l2=1e-5"]
)


def test_a_completed_sweep_that_is_resumed_starts_no_ray_and_looks_at_the_test_split_once(
    database, empty_database, no_ray
):
    plan, evaluated = finished(GRID, 0.1, 0.3, 0.2), Evaluated()
    folder, uri = plan.record.folder, plan.record.tracking_uri
    texts = []
    for _ in range(3):
        result, text = run(plan_resume(Options(name="s1")), evaluate=evaluated)
        assert result.exit_code == 0 and result.test["test/movie/mrr"] == 0.5
        assert "3 of 3 trials done" in text and "none: no trial is left to run" in text
        texts.append((folder / "best.yaml").read_text())
    assert evaluated.folders == [folder / "best"], "the event log knows what the one evaluation gave"
    assert SweepState(folder).tests == [{"trial": 2, "metrics": result.test}]
    assert texts[0] == texts[1] == texts[2] and "was tested" not in texts[0]
    client, runs = runs_of(uri, "s1")
    assert set(runs) == {PARENT, "t01", "t02", "t03"} and {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("t01", "t02", "t03"):
        assert steps(client, runs[name]) == [1, 2]
    for metric in ("objective", "test/movie/mrr", "val/movie/mrr"):
        assert steps(client, runs[PARENT], metric) == [3], "the summary is one point"
    assert runs[PARENT].data.tags["best_trial"] == "t02" and runs[PARENT].data.tags["test_looks"] == "1"

    # The database is lost: all of it comes back, without another look.
    shutil.copyfile(empty_database, database)
    result, _ = run(plan_resume(Options(name="s1")), evaluate=evaluated)
    client, runs = runs_of(uri, "s1")
    assert result.exit_code == 0 and len(evaluated.folders) == 1
    assert steps(client, runs["t03"]) == [1, 2] and runs[PARENT].data.metrics["test/movie/mrr"] == 0.5


@pytest.mark.slow
def test_another_best_trial_is_another_look_and_it_is_told(database, no_ray):
    plan, evaluated = finished(GRID, 0.1, 0.3, 0.2), Evaluated()
    run(plan, evaluate=evaluated)
    state = SweepState(plan.record.folder)
    plan.record.status = "running"
    plan.record.save()
    state.extend(4, {})
    record = state.propose({**state.records[1].config, "lr": 2e-3}, plan.varied_keys, plan.epochs, {})
    trainer = FakeTrainer({})
    trainer.epoch = 2
    checkpoints.save(trainer, checkpoints.trial_folder(plan.record.folder, 4), {"epoch": 2})
    for epoch in (1, 2):
        state.add(record, epoch_result(epoch, 0.9), stopped=False)
    result, text = run(plan_resume(Options(name="s1")), evaluate=evaluated)
    assert result.exit_code == 0 and len(evaluated.folders) == 2
    assert "The sweep was tested 2 times" in text
    assert "The sweep was tested 2 times" in (plan.record.folder / "best.yaml").read_text()
    client, runs = runs_of(plan.record.tracking_uri, "s1")
    assert steps(client, runs[PARENT]) == [3, 4] and runs[PARENT].data.tags["test_looks"] == "2"


def test_weights_that_are_gone_are_told(database, no_ray):
    plan = finished(GRID, 0.1, 0.3, 0.2)
    shutil.rmtree(plan.record.folder / "trials" / "t02")
    with pytest.raises(InputError, match="the weights of t02 are not in .*trials: bring them back"):
        run(plan)
    assert yaml.safe_load((plan.record.folder / "sweep.yaml").read_text())["status"] == "interrupted"
    assert not SweepState(plan.record.folder).tests


def test_a_refused_extension_changes_nothing(project_folder, monkeypatch):
    """Data or resources do not fit: the same command can be given again once they do."""
    plan = finished(GRID, 0.1, 0.3, 0.2)
    before = {path: path.read_bytes() for path in plan.record.folder.glob("*") if path.is_file()}

    def refused(*args):
        raise InputError("one trial asks for 99 CPUs")

    monkeypatch.setattr("sweeps.core.run.start_ray", refused)
    for _ in range(2):
        extended = plan_extend(Options(name="s1", assignments=["lr=1e-5,1e-4,1e-3,3e-3", "heads=1,2"]), 4)
        assert extended.trials == 7
        with pytest.raises(InputError, match="99 CPUs"):
            run(extended, client=pytest.fail)
    assert {path: path.read_bytes() for path in before} == before


def test_time_that_is_spent_before_the_trials_start(project_folder, monkeypatch):
    monkeypatch.setattr("sweeps.core.run.start_ray", lambda *args: time.sleep(0.3) or (1, []))
    plan = plan_sweep(Options(scenario="sample", name="s1"))
    out = io.StringIO()
    backend = TrialBackend(data=tiny_data(), client=pytest.fail)
    result = run_sweep(plan, Console(file=out, width=200), time_budget=0.05, backend=backend)
    assert result.exit_code == 3 and "before anything was saved" in out.getvalue()


def test_mlflow_is_opened_while_ray_starts(project_folder, monkeypatch):
    """Each takes seconds; what goes wrong with it is said where it is needed."""
    opening, waits = threading.Event(), []

    def client(uri):
        opening.set()
        raise OSError(f"no database in {uri}")

    monkeypatch.setattr("sweeps.core.run.mlflow_client", client)
    monkeypatch.setattr("sweeps.core.run.start_ray", lambda *args: waits.append(opening.wait(60)) or (1, []))
    plan = plan_sweep(Options(scenario="sample", name="s1"))
    with pytest.raises(InputError, match="no database in sqlite:///"):
        run_sweep(plan, Console(file=io.StringIO()), backend=TrialBackend(data=tiny_data()))
    assert waits == [True]


def test_a_log_line_about_a_full_disk_asks_to_stop(tmp_path):
    watch = LogWatch(tmp_path / "ray.log")
    asked = []
    watch.stop = asked.append
    watch.emit(logging.LogRecord("ray", logging.ERROR, "x", 1, "[Errno 28] No space left on device", None, None))
    watch.emit(logging.LogRecord("ray", logging.ERROR, "x", 1, "[Errno 5] Input/output error", None, None))
    assert asked == ["the disk is full"], "one that may pass does not stop a sweep"
    assert (tmp_path / "ray.log").read_text().count("\n") == 2


def test_the_code_version_is_a_commit_or_the_packages_version():
    import llmemf

    version = code_version().removesuffix("-dirty")
    assert version == llmemf.__version__ or (len(version) == 40 and int(version, 16) >= 0)


def test_the_fake_objective_is_best_where_it_says():
    values = {lr: objective({"lr": lr, "alpha": 0.4, "lambda1": 0.0}, 6) for lr in (1e-4, 1e-3, 1e-2)}
    assert max(values, key=values.get) == 1e-3
