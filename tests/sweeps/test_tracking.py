import math
import pickle
from pathlib import Path

import pytest
from sweep_fakes import FlakyClient

from llmemf.errors import InputError
from sweeps import tracking
from sweeps.records import TrialRecord
from sweeps.tracking import PARENT, Target, Tracking, allowed, mlflow_client


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """The database takes seconds to make; every test gets a copy."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def target(empty_database, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return Target(uri, "sample", "s1", (tmp_path / "artifacts").as_uri(), {"scenario": "sample"}, {"epochs": 8})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(tracking.time, "sleep", lambda seconds: None)


def record(number=1, **values):
    return TrialRecord(f"id{number}", number, {"lr": 1e-3 * number, "alpha": 0.3}, 8, **values)


def epochs(tracker, trial, first, last):
    for epoch in range(first, last + 1):
        trial.epoch = epoch
        result = {"epoch": epoch, "objective": epoch / 100, "val/movie/mrr": 0.1, "test/movie/mrr": 99.0, "pid": 7}
        tracker.log_epoch(trial, result)


def runs(target):
    client = mlflow_client(target.uri)
    experiment = client.get_experiment_by_name(target.experiment)
    found = {run.data.tags["trial_id"]: run for run in client.search_runs([experiment.experiment_id])}
    return client, found


def steps(client, run, name="objective"):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def whole_sweep(tracker, checkpoint=""):
    tracker.open()
    one, two = record(1), record(2)
    for trial in (one, two):
        tracker.start_trial(trial, {"model": "llm_emf", **trial.settings})
        epochs(tracker, trial, 1, 3)
    one.outcome, one.checkpoint = "completed", checkpoint
    two.outcome = "pruned"
    tracker.end_trial(one)
    tracker.end_trial(two)
    tracker.log_parent(metrics={"test/movie/mrr": 0.5}, tags={"best_trial": "t01"})


def test_one_parent_and_one_child_per_trial_with_outcomes(target, tmp_path):
    for name in ("best.safetensors", "config.yaml", "state.pt"):
        (tmp_path / name).write_text(name)
    tracker = Tracking(target)
    whole_sweep(tracker, checkpoint=str(tmp_path))
    assert tracker.close("completed") == ""
    client, found = runs(target)
    assert set(found) == {PARENT, "id1", "id2"}
    parent, one, two = found[PARENT], found["id1"], found["id2"]
    assert [run.info.run_name for run in (parent, one)] == ["s1", "t01 lr=1e-3 alpha=0.3"]
    assert {run.data.tags["mlflow.parentRunId"] for run in (one, two)} == {parent.info.run_id}
    assert [run.info.status for run in (parent, one, two)] == ["FINISHED"] * 3
    assert [run.data.tags["outcome"] for run in (parent, one, two)] == ["completed", "completed", "pruned"]
    assert two.data.tags["pruned_at_epoch"] == "3" and "pruned_at_epoch" not in one.data.tags
    assert all(run.data.tags["scenario"] == "sample" and run.data.tags["sweep"] == "s1" for run in found.values())
    assert one.data.params == {"epochs": "8", "model": "llm_emf", "lr": "0.001", "alpha": "0.3"}
    assert steps(client, one) == [(1, 0.01), (2, 0.02), (3, 0.03)]
    assert sorted(item.path for item in client.list_artifacts(one.info.run_id, "best")) == [
        "best/best.safetensors",
        "best/config.yaml",
    ]
    assert parent.data.metrics == {"test/movie/mrr": 0.5}


def test_trials_have_no_test_metric_and_nothing_of_tunes_own(target):
    tracker = Tracking(target)
    whole_sweep(tracker)
    tracker.close("completed")
    _, found = runs(target)
    assert set(found["id1"].data.metrics) == {"objective", "val/movie/mrr"}
    assert allowed({"train/loss": math.nan, "val/mrr": 0.1, "test/mrr": 1, "time_total_s": 3}) == {"val/mrr": 0.1}


@pytest.mark.parametrize("every", [3, 4, 5, 7])
def test_every_failed_write_is_delivered_later_and_none_twice(target, every):
    tracker = Tracking(target)
    tracker.open()
    flaky = FlakyClient(mlflow_client(target.uri), every)
    tracker._client = flaky
    one, two = record(1), record(2)
    for trial in (one, two):
        tracker.start_trial(trial, {"model": "llm_emf", **trial.settings})
        epochs(tracker, trial, 1, 8)
        trial.outcome = "completed"
        tracker.end_trial(trial)
    message = tracker.close("completed")
    assert flaky.raised >= 3
    assert message.endswith("failed, all delivered later"), message
    client, found = runs(target)
    assert set(found) == {PARENT, "id1", "id2"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for name in ("id1", "id2"):
        assert steps(client, found[name]) == [(epoch, epoch / 100) for epoch in range(1, 9)]
        assert steps(client, found[name], "val/movie/mrr") == [(epoch, 0.1) for epoch in range(1, 9)]


def test_a_server_that_stays_away_never_raises_and_the_loss_is_told(target):
    tracker = Tracking(target)
    tracker.open()
    tracker._client = FlakyClient(mlflow_client(target.uri), 1)
    trial = record(1)
    tracker.start_trial(trial, {})
    epochs(tracker, trial, 1, 2)
    message = tracker.close("completed")
    assert message.startswith("tracking: 5 writes failed, 5 lost"), message


def test_a_write_that_the_server_refuses_is_lost_alone(target):
    tracker = Tracking(target)
    tracker.open()
    trial = record(1)
    tracker.start_trial(trial, {"lr": 1})
    tracker._write("params", trial.trial_id, {"params": {"lr": 2}})  # MLflow never changes a parameter
    epochs(tracker, trial, 1, 2)
    assert not tracker.waiting
    trial.outcome = "completed"
    tracker.end_trial(trial)
    assert "1 write failed, 1 lost" in tracker.close("completed")
    client, found = runs(target)
    assert len(steps(client, found["id1"])) == 2 and found["id1"].info.status == "FINISHED"


def test_between_two_tries_the_sweep_does_not_wait(target, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 1000.0)
    tracker = Tracking(target)
    tracker.open()
    flaky = tracker._client = FlakyClient(mlflow_client(target.uri), 1)
    trial = record(1)
    tracker.start_trial(trial, {})
    epochs(tracker, trial, 1, 8)
    assert flaky.calls == 1 and len(tracker.waiting) == 10


def test_resumed_without_duplicates_even_after_repeated_epochs(target):
    first = Tracking(target)
    first.open()
    one, two = record(1), record(2)
    for trial in (one, two):
        first.start_trial(trial, {})
    epochs(first, one, 1, 8)
    one.outcome = "completed"
    first.end_trial(one)
    epochs(first, two, 1, 4)
    state = pickle.loads(pickle.dumps(first.get_state()))
    epochs(first, two, 5, 5)  # written after the snapshot, and repeated below
    two.outcome = "interrupted"
    first.end_trial(two)
    first.close("interrupted")
    _, found = runs(target)
    assert found["id2"].info.status == "KILLED" and found["id2"].data.tags["outcome"] == "interrupted"
    assert found[PARENT].info.status == "KILLED"

    second = Tracking(target)
    second.open()
    second.set_state(state)
    second.start_trial(two, {})
    assert runs(target)[1]["id2"].info.status == "RUNNING"
    epochs(second, two, 4, 8)
    two.outcome = "completed"
    second.end_trial(two)
    assert second.close("completed") == ""
    client, found = runs(target)
    assert set(found) == {PARENT, "id1", "id2"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [step for step, _ in steps(client, found["id2"])] == list(range(1, 9))


def test_runs_of_a_killed_driver_are_closed_and_found_again(target):
    killed = Tracking(target)
    killed.open()
    trial = record(1)
    killed.start_trial(trial, {})
    epochs(killed, trial, 1, 3)

    after = Tracking(target)
    after.open()
    _, found = runs(target)
    assert found["id1"].info.status == "KILLED" and found["id1"].data.tags["outcome"] == "interrupted"
    after.start_trial(trial, {})
    epochs(after, trial, 1, 5)
    client, found = runs(target)
    assert set(found) == {PARENT, "id1"}
    assert [step for step, _ in steps(client, found["id1"])] == [1, 2, 3, 4, 5]


def test_waiting_writes_survive_an_interruption(target):
    first = Tracking(target)
    first.open()
    first._client = FlakyClient(mlflow_client(target.uri), 1)
    trial = record(1)
    first.start_trial(trial, {})
    epochs(first, trial, 1, 2)
    second = Tracking(target)
    second.open()
    second.set_state(pickle.loads(pickle.dumps(first.get_state())))
    trial.outcome = "completed"
    second.end_trial(trial)
    assert "all delivered later" in second.close("completed")
    client, found = runs(target)
    assert [step for step, _ in steps(client, found["id1"])] == [1, 2]


def test_a_trial_that_never_started_has_no_run(target):
    tracker = Tracking(target)
    tracker.open()
    tracker.end_trial(record(1, outcome="interrupted"))
    assert tracker.close("interrupted") == ""
    assert set(runs(target)[1]) == {PARENT}


def test_two_sweeps_share_an_experiment(target):
    Tracking(target).open()
    other = Target(target.uri, "sample", "s2", target.artifacts)
    Tracking(other).open()
    client = mlflow_client(target.uri)
    experiment = client.get_experiment_by_name("sample")
    assert sorted(run.data.tags["sweep"] for run in client.search_runs([experiment.experiment_id])) == ["s1", "s2"]
    assert experiment.artifact_location == target.artifacts


def test_a_database_that_cannot_be_used_is_one_sentence(target, tmp_path):
    path = tmp_path / "not.db"
    path.write_text("this is no database, just text that is long enough to be read as a header " * 20)
    with pytest.raises(InputError, match="does not work"):
        Tracking(Target(f"sqlite:///{path}", "sample", "s1")).open()
    assert Path(path).read_text().startswith("this is no database")
