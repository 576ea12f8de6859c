import math
import time
from pathlib import Path

import pytest
from sweep_fakes import FlakyClient, epoch_result

from llmemf.errors import InputError
from sweeps.state.sweep_state import SweepState
from sweeps.tracking import mlflow_writer
from sweeps.tracking.mlflow_runs import INCOMPLETE, TrackingTarget, mlflow_client
from sweeps.tracking.owned_runs import PARENT, RunOwner
from sweeps.tracking.runs import STATUS, Tracking, finite

EPOCHS = 4
OWNER = RunOwner("id1", "s1")


@pytest.fixture
def target(empty_database, tmp_path):
    return new_database(empty_database, tmp_path / "mlflow.db")


def new_database(empty, path):
    path.write_bytes(empty.read_bytes())
    artifacts = (path.parent / "artifacts").as_uri()
    return TrackingTarget(f"sqlite:///{path}", "sample", OWNER, artifacts, {"scenario": "sample"}, {"epochs": EPOCHS})


@pytest.fixture
def state(tmp_path):
    (tmp_path / "sweep").mkdir()
    return SweepState(tmp_path / "sweep")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "RETRY_SECONDS", 0.001)


class Sweep:
    """SweepState and tracker as the callback drives them."""

    def __init__(self, state, target, client=None):
        self.state, self.tracker = state, Tracking(target, client)
        self.tracker.connect()
        self.tracker.open(state)

    def start(self, number=None):
        number = number or len(self.state.records) + 1
        if number not in self.state.records:
            choice = {"lr": 1e-3 * number, "alpha": 0.3}
            self.state.propose(choice, tuple(choice), EPOCHS, {})
        record = self.state.records[number]
        self.state.start(record)
        self.tracker.start_trial(record)
        return record

    def report(self, record, last, *, first=None, stopped=False):
        for epoch in range(first or record.epoch + 1, last + 1):
            result = {**epoch_result(epoch, epoch / 100 + record.number), "val/movie/mrr": 0.1}
            event = self.state.add(record, result, stopped=stopped and epoch == last)
            if event:
                self.tracker.log_epoch(record, event["result"], event["time"])
        if record.ended:
            self.tracker.end_trial(record)

    def drained(self):
        end = time.monotonic() + 10
        while self.tracker.writer.waiting and time.monotonic() < end:
            time.sleep(0.002)

    def close(self, outcome="completed"):
        for record in self.state.records.values():
            if not record.ended:
                record.outcome = "interrupted"
                self.tracker.end_trial(record)
        return self.tracker.close(outcome)


def some_sweep(sweep):
    """Four trials: completed, pruned, failed, and one in its second epoch."""
    one, two, three = sweep.start(), sweep.start(), sweep.start()
    sweep.report(one, 2)
    sweep.report(two, 2, stopped=True)
    sweep.report(three, 1)
    sweep.state.fail(three, "error", "NonFiniteLoss: nan")
    sweep.tracker.end_trial(three)
    sweep.report(one, EPOCHS)
    sweep.report(sweep.start(), 2)


def runs(target):
    """Every run of the sweep by its trial; each trial has one."""
    client = mlflow_client(target.uri)
    experiment = client.get_experiment_by_name(target.experiment)
    found = client.search_runs([experiment.experiment_id], target.owner.condition)
    by_trial = {run.data.tags["trial"]: run for run in found}
    assert len(by_trial) == len(found), "one run per trial"
    return client, by_trial


def points(client, run, name="objective"):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def assert_level(target, state):
    """MLflow says exactly what the event log says: no run, point or state more or less."""
    client, found = runs(target)
    started = {record.name: record for record in state.records.values() if record.epoch or record.ended}
    assert started.keys() <= set(found) - {PARENT} <= {record.name for record in state.records.values()}
    for name, record in started.items():
        run = found[name]
        outcome = record.outcome if record.ended else "interrupted"
        assert (run.info.status, run.data.tags["outcome"]) == (STATUS[outcome], outcome), name
        assert points(client, run) == list(enumerate(record.values, start=1)), name
        assert points(client, run, "val/movie/mrr") == [(step, 0.1) for step in range(1, record.epoch + 1)], name
        assert run.data.params == {"epochs": str(EPOCHS), **{k: str(v) for k, v in record.varied.items()}}
        assert run.data.tags["mlflow.parentRunId"] == found[PARENT].info.run_id
        assert run.data.tags["epochs_run"] == str(record.epoch) and run.data.tags[INCOMPLETE] == "false"
        assert run.info.end_time >= run.info.start_time > 0
    return client, found


def test_one_parent_and_one_child_per_trial_with_outcomes(target, state, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("best.safetensors", "config.yaml", "report.json"):
        (weights / name).write_text("facts: {kg: cooc, kg_hash: ab12}")
    sweep = Sweep(state, target)
    some_sweep(sweep)
    sweep.report(state.records[4], EPOCHS)
    sweep.tracker.log_weights("t01", weights)
    sweep.tracker.log_parent(
        metrics={"test/movie/mrr": 0.5, "none": math.nan}, tags={"best_trial": "t01"}, step=4, time=9
    )
    assert sweep.close() == ""
    client, found = assert_level(target, state)
    assert set(found) == {PARENT, "t01", "t02", "t03", "t04"}
    assert [found[name].info.run_name for name in (PARENT, "t01")] == ["s1", "t01"]
    assert found["t02"].info.run_name == "t02 pruned"
    status = {name: run.info.status for name, run in found.items()}
    assert status == {PARENT: "FINISHED", "t01": "FINISHED", "t02": "FINISHED", "t03": "FAILED", "t04": "FINISHED"}
    tags = {name: run.data.tags for name, run in found.items()}
    assert tags["t02"]["pruned_at_epoch"] == "2" and "pruned_at_epoch" not in tags["t01"]
    assert tags["t03"]["error"] == "NonFiniteLoss: nan" and "error" not in tags["t01"]
    assert {key: tag for key, tag in tags["t01"].items() if key.startswith("facts.")} == {
        "facts.kg": "cooc",
        "facts.kg_hash": "ab12",
    }
    assert all(tag["scenario"] == "sample" and tag["sweep"] == "s1" for tag in tags.values())
    files = [item.path for item in client.list_artifacts(found["t01"].info.run_id, "best")]
    assert sorted(files) == ["best/best.safetensors", "best/config.yaml"]
    assert found[PARENT].data.metrics == {"test/movie/mrr": 0.5} and tags[PARENT]["best_trial"] == "t01"
    assert found[PARENT].data.params == {"epochs": str(EPOCHS)}


def test_a_run_names_its_data_and_what_it_used_stands_apart_from_how_well_it_did(target, state):
    target.dataset = {"name": "sample", "digest": "ab12", "source_type": "local", "source": "{}", "profile": "{}"}
    sweep = Sweep(state, target)
    record = sweep.start()
    for epoch, loss in ((1, 80.0), (2, 60.0)):
        result = {**epoch_result(epoch, 0.1), "train/loss": loss, "memory_gb": 1.5, "cpu_percent": 90.0}
        event = state.add(record, result, stopped=False)
        sweep.tracker.log_epoch(record, event["result"], event["time"])
    assert sweep.close("interrupted") == ""
    client, found = runs(target)
    for run in found.values():
        (data,) = run.inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("sample", "ab12")
    metrics = found["t01"].data.metrics
    assert {name for name in metrics if name.startswith("system/")} == {"system/memory_gb", "system/cpu_percent"}
    assert not {"memory_gb", "cpu_percent"} & metrics.keys()
    assert points(client, found["t01"], "train/loss_relative") == [(1, 1.0), (2, 0.75)]


def test_a_run_tells_its_best_epoch_where_mlflow_lists_the_last_one(target, state):
    sweep = Sweep(state, target)
    record = sweep.start()
    for epoch, value in ((1, 0.2), (2, 0.3), (3, 0.1)):
        result = {**epoch_result(epoch, max(0.2, value) if epoch < 3 else 0.3), "val/movie/ndcg_10": value}
        event = state.add(record, {**result, "best_epoch": min(epoch, 2)}, stopped=epoch == 3)
        sweep.tracker.log_epoch(record, event["result"], event["time"])
    sweep.tracker.end_trial(record)
    sweep.tracker.end_trial(record)
    assert sweep.close() == ""
    client, found = runs(target)
    metrics = found["t01"].data.metrics
    assert (metrics["val/movie/ndcg_10"], metrics["val_best/movie/ndcg_10"], metrics["objective"]) == (0.1, 0.3, 0.3)
    assert points(client, found["t01"], "val_best/movie/ndcg_10") == [(2, 0.3)]


def test_a_run_is_not_said_to_have_weights_before_they_are_sent(target, state, tmp_path, monkeypatch):
    for name in ("best.safetensors", "config.yaml"):
        (tmp_path / name).write_text("{}")
    sweep, sent = Sweep(state, target), []
    record = sweep.start()
    monkeypatch.setattr(sweep.tracker.writer, "write", lambda kind, run, **content: sent.append((kind, content)))
    sweep.tracker.log_weights(record.name, tmp_path)
    ((kind, content),) = [write for write in sent if "weights_sha256" in write[1].get("tags", {})]
    assert (kind, Path(content["path"]).name) == ("artifact", "best.safetensors")
    assert next(Path(content["path"]).name for kind, content in sent if kind == "artifact") == "config.yaml"


@pytest.mark.parametrize("every", [1000, 3])
def test_the_best_trial_is_one_logged_model_however_often_it_is_sent(target, state, tmp_path, every):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("best.safetensors", "config.yaml"):
        (weights / name).write_text("{}")
    sweep = Sweep(state, target)
    sweep.tracker.writer._client = FlakyClient(mlflow_client(target.uri), every)
    record = sweep.start()
    sweep.report(record, EPOCHS)
    for _ in range(2):
        sweep.tracker.log_model(record, weights)
    sweep.close()
    client, found = runs(target)
    (model,) = client.search_logged_models([found["t01"].info.experiment_id])
    assert (model.name, model.status, model.source_run_id) == ("s1", "READY", found["t01"].info.run_id)
    assert model.params == {"epochs": str(EPOCHS), "lr": "0.001", "alpha": "0.3"}
    assert {metric.key: metric.value for metric in model.metrics} == record.metrics
    assert [output.model_id for output in found["t01"].outputs.model_outputs] == [model.model_id]
    assert points(client, found["t01"], "val/movie/mrr") == [(step, 0.1) for step in range(1, EPOCHS + 1)]
    assert {path.name for path in Path(model.artifact_location.removeprefix("file://")).iterdir()} == {
        "best.safetensors", "config.yaml",
    }  # fmt: skip


def test_a_run_has_the_times_of_its_trial(target, state):
    sweep = Sweep(state, target)
    sweep.report(sweep.start(), EPOCHS)
    sweep.close()
    client, found = runs(target)
    events = list(state.event_log.read())
    times = [m.timestamp for m in client.get_metric_history(found["t01"].info.run_id, "objective")]
    assert times == [event["time"] for event in state.epochs()]
    assert found["t01"].info.start_time == next(e["time"] for e in events if e["event"] == "started")
    assert found["t01"].info.end_time == events[-1]["time"]


def test_what_a_trial_says_of_its_progress_is_no_metric(target, state):
    sweep = Sweep(state, target)
    record = sweep.start()
    sweep.tracker.log_epoch(record, epoch_result(1, 0.1), 5)
    sweep.close("interrupted")
    _, found = runs(target)
    assert set(found["t01"].data.metrics) == {"objective", "val/movie/mrr"}


def test_metrics_that_are_not_finite_are_left_out():
    assert finite({"a": 1, "b": math.inf, "c": -math.inf}) == {"a": 1.0}


@pytest.mark.parametrize("every", [3, 4, 5, 7])
def test_every_failed_write_is_delivered_later_and_none_twice(target, state, every):
    sweep = Sweep(state, target)
    flaky = sweep.tracker.writer._client = FlakyClient(mlflow_client(target.uri), every)
    some_sweep(sweep)
    sweep.report(state.records[4], EPOCHS)
    sweep.drained()
    message = sweep.close()
    assert flaky.raised >= 3
    assert message.endswith("failed, all delivered later"), message
    assert_level(target, state)


def test_a_server_that_stays_away_never_raises_and_the_loss_is_told(target, state, monkeypatch):
    monkeypatch.setattr(mlflow_writer, "FINAL_SECONDS", 0.1)
    sweep = Sweep(state, target)
    sweep.drained()
    sweep.tracker.writer._client = FlakyClient(mlflow_client(target.uri), 1)
    sweep.report(sweep.start(), 2)
    message = sweep.close("interrupted")
    # create, params, two epochs, two ends
    assert message.startswith("tracking: 6 writes failed, 6 not delivered"), message
    assert message.endswith("--resume writes them again")
    sweep = Sweep(SweepState(state.event_log.path.parent), target)
    sweep.close("interrupted")
    assert_level(target, sweep.state)


class Dies:
    """A client of which nothing arrives after some calls: the driver was killed there."""

    def __init__(self, client, calls):
        self._client, self._calls, self._left = client, calls, calls

    def __getattr__(self, name):
        real = getattr(self._client, name)

        def call(*args, **kwargs):
            self._left -= 1
            if self._left < 0:
                raise ConnectionError("killed")
            return real(*args, **kwargs)

        return call


@pytest.mark.slow
@pytest.mark.parametrize("calls", [*range(3, 15, 3), *range(15, 64, 8)])
def test_what_a_killed_driver_did_not_deliver_its_successor_does(target, state, calls, monkeypatch):
    """Killed after so many requests to a real MLflow; then a driver that finishes the sweep.

    Every place where a driver can die, with a server in memory: `tests/reliability/test_sweep_crashes.py`.
    """
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_writer, "FINAL_SECONDS", 0.0)
        patch.setattr(mlflow_writer, "RETRY_SECONDS", 1000.0)
        dying = Dies(mlflow_client(target.uri), calls)
        sweep = Sweep(state, target, lambda: dying)
        some_sweep(sweep)
        # The thread stops at the first call that fails; whatever waits then is gone with the driver.
        while sweep.tracker.writer.waiting and not sweep.tracker.writer.trouble:
            time.sleep(0.001)

    again = Sweep(SweepState(state.event_log.path.parent), target)
    assert again.close("interrupted") == ""
    _, found = assert_level(target, again.state)
    assert found[PARENT].info.status == "KILLED" and found["t04"].info.status == "KILLED"

    last = Sweep(SweepState(state.event_log.path.parent), target)
    last.report(last.start(4), EPOCHS, first=2)
    assert last.close() == ""
    _, found = assert_level(target, last.state)
    assert set(found) == {PARENT, "t01", "t02", "t03", "t04"}
    assert {run.info.status for run in found.values()} == {"FINISHED", "FAILED"}


def test_a_database_that_was_lost_is_filled_again(target, state, empty_database, tmp_path):
    sweep = Sweep(state, target)
    some_sweep(sweep)
    sweep.close("interrupted")
    before = {name: run.info for name, run in runs(target)[1].items()}

    (tmp_path / "new").mkdir()
    fresh = new_database(empty_database, tmp_path / "new" / "mlflow.db")
    again = Sweep(SweepState(state.event_log.path.parent), fresh)
    assert again.close("interrupted") == ""
    _, found = assert_level(fresh, again.state)
    assert set(found) == set(before)
    for name in ("t01", "t02", "t03"):
        assert found[name].info.end_time == before[name].end_time, "the time of the trial, not of the copy"
        assert found[name].info.run_name == before[name].run_name


def test_points_that_somebody_removed_come_back(target, state):
    """A run that ended as KILLED with fewer points than the event log has."""
    sweep = Sweep(state, target)
    sweep.report(sweep.start(), 2)
    sweep.close("interrupted")
    behind = SweepState(state.event_log.path.parent)
    for epoch in (3, 4):
        behind.add(behind.records[1], {**epoch_result(epoch, epoch / 100 + 1), "val/movie/mrr": 0.1}, stopped=False)
    again = Sweep(behind, target)
    assert again.close() == ""
    assert_level(target, behind)


def test_missing_points_of_an_ended_run_are_known_by_its_tag(target, state, monkeypatch):
    """The server refuses one batch and takes the end of the run: only the tag tells that a point is missing."""
    sweep = Sweep(state, target)
    record = sweep.start()
    sweep.drained()
    real = mlflow_writer.MlflowWriter.deliver

    def refuse_second(self, write):
        from mlflow.exceptions import MlflowException

        if write.content.get("step") == 2:
            raise MlflowException("refused", error_code=1000)
        real(self, write)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_writer.MlflowWriter, "deliver", refuse_second)
        sweep.report(record, EPOCHS)
        assert "1 not delivered" in sweep.close()
    client, found = runs(target)
    assert found["t01"].info.status == "FINISHED" and found["t01"].data.tags[INCOMPLETE] == "true"
    assert [step for step, _ in points(client, found["t01"])] == [1, 3, 4]

    again = Sweep(SweepState(state.event_log.path.parent), target)
    assert again.close() == ""
    assert_level(target, again.state)


def test_what_is_level_is_not_touched(target, state):
    sweep = Sweep(state, target)
    some_sweep(sweep)
    sweep.close("interrupted")
    before = {name: run.info.end_time for name, run in runs(target)[1].items()}
    flaky = FlakyClient(mlflow_client(target.uri), 10**9)
    again = Sweep(SweepState(state.event_log.path.parent), target, lambda: flaky)
    again.drained()
    assert list(again.tracker.writer.waiting) == []
    # The parent is opened again; the history of the unfinished and the failed run is read; nothing else.
    assert flaky.calls <= 6
    again.close("interrupted")
    after = {name: run.info.end_time for name, run in runs(target)[1].items()}
    assert {name: after[name] for name in ("t01", "t02", "t03")} == {n: before[n] for n in ("t01", "t02", "t03")}


def test_resumed_without_duplicates_even_after_repeated_epochs(target, state):
    first = Sweep(state, target)
    one, two = first.start(), first.start()
    first.report(one, EPOCHS)
    first.report(two, 2)
    first.close("interrupted")
    _, found = runs(target)
    assert found["t02"].info.status == "KILLED" and found["t02"].data.tags["outcome"] == "interrupted"
    assert found[PARENT].info.status == "KILLED"

    second = Sweep(SweepState(state.event_log.path.parent), target)
    record = second.start(2)
    second.drained()
    _, found = runs(target)
    assert found["t02"].info.status == "RUNNING" and found["t02"].data.tags["outcome"] == "running"
    assert found[PARENT].info.status == "RUNNING"
    second.report(record, EPOCHS, first=1)
    assert second.close() == ""
    _, found = assert_level(target, second.state)
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_a_lost_trial_goes_on_in_its_own_run(target, state):
    sweep = Sweep(state, target)
    record = sweep.start()
    sweep.report(record, 2)
    state.lose(record, "lost", "gone")
    sweep.start(1)
    sweep.report(record, EPOCHS)
    assert sweep.close() == ""
    _, found = assert_level(target, state)
    assert set(found) == {PARENT, "t01"}


def test_settings_that_an_extension_names_are_written_to_earlier_trials(target, state):
    sweep = Sweep(state, target)
    sweep.report(sweep.start(), EPOCHS)
    sweep.report(sweep.start(), 2)
    sweep.close("interrupted")
    extended = SweepState(state.event_log.path.parent)
    extended.extend(5, {"heads": 1})
    again = Sweep(extended, target)
    again.report(again.start(2), EPOCHS)
    assert again.close() == ""
    _, found = assert_level(target, extended)
    assert [found[name].data.params["heads"] for name in ("t01", "t02")] == ["1", "1"]


def test_a_summary_that_is_written_again_is_one_point(target, state):
    for _ in range(3):
        sweep = Sweep(SweepState(state.event_log.path.parent), target)
        sweep.tracker.log_parent(metrics={"objective": 0.5}, step=6, time=1234)
        sweep.close()
    client, found = runs(target)
    assert points(client, found[PARENT]) == [(6, 0.5)]


def test_a_repeat_is_called_by_what_it_repeats(target, state):
    sweep = Sweep(state, target)
    sweep.report(sweep.start(), EPOCHS)
    again = state.repeat(state.records[1], 1001)
    state.start(again)
    sweep.tracker.start_trial(again)
    sweep.report(again, EPOCHS)
    assert sweep.close() == ""
    run = runs(target)[1]["t02"]
    assert run.info.run_name == "t02 repeats t01"
    assert run.data.tags["repeats"] == "t01" and run.data.params["seed"] == "1001"


def test_a_trial_that_never_started_has_no_run(target, state):
    sweep = Sweep(state, target)
    state.propose({"lr": 1e-3}, ("lr",), EPOCHS, {})
    assert sweep.close("interrupted") == ""
    assert set(runs(target)[1]) == {PARENT}
    again = Sweep(SweepState(state.event_log.path.parent), target)
    again.close("interrupted")
    assert set(runs(target)[1]) == {PARENT}


def test_two_sweeps_share_an_experiment(target, state, tmp_path):
    Sweep(state, target).close()
    (tmp_path / "other").mkdir()
    other = TrackingTarget(target.uri, "sample", RunOwner("id2", "s1"), target.artifacts)
    sweep = Sweep(SweepState(tmp_path / "other"), other)
    sweep.report(sweep.start(), EPOCHS)
    sweep.close()
    client, found = runs(target)
    assert set(found) == {PARENT} and set(runs(other)[1]) == {PARENT, "t01"}
    experiment = client.get_experiment_by_name("sample")
    assert experiment.artifact_location == target.artifacts
    assert (
        sweep.tracker.writer.page() == f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    )


def test_an_experiment_that_was_deleted_is_restored(target, state):
    Sweep(state, target).close()
    client = mlflow_client(target.uri)
    client.delete_experiment(client.get_experiment_by_name("sample").experiment_id)
    assert Sweep(SweepState(state.event_log.path.parent), target).close() == ""
    assert client.get_experiment_by_name("sample").lifecycle_stage == "active"


def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path):
    path = tmp_path / "not.db"
    path.write_text("this is no database, just text that is long enough to be read as a header " * 20)
    with pytest.raises(InputError, match="not.db is no database"):
        Tracking(TrackingTarget(f"sqlite:///{path}", "sample", OWNER)).connect()
    assert Path(path).read_text().startswith("this is no database")
