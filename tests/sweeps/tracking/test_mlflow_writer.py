import random
import threading
import time
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from sweeps.tracking import mlflow_runs, mlflow_writer
from sweeps.tracking.mlflow_runs import INCOMPLETE, TrackingTarget
from sweeps.tracking.mlflow_writer import MlflowWriter
from sweeps.tracking.owned_runs import PARENT, RunOwner


class Memory:
    """An MLflow that holds its runs in memory and, unlike the real one, each point as often as it is written.

    `trouble(name)` may raise before a call, `after(name)` after it.
    """

    def __init__(self):
        self.runs, self.calls = {}, []
        self.trouble = self.after = lambda name: None
        self.tags_of_experiment = None

    def __getattribute__(self, name):
        real = object.__getattribute__(self, name)
        if not callable(real) or name in ("trouble", "after"):
            return real

        def call(*args, **kwargs):
            self.calls.append(name)
            self.trouble(name)
            result = real(*args, **kwargs)
            self.after(name)
            return result

        return call

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name, artifact_location, tags):
        self.tags_of_experiment = tags
        return "7"

    def search_runs(self, experiments, condition, max_results, page_token):
        wanted = [part.split(" = ") for part in condition.split(" and ")]
        tags = {key.removeprefix("tags."): value.strip("'") for key, value in wanted}
        return [run for run in self.runs.values() if tags.items() <= run.data.tags.items()]

    def create_run(self, experiment, start_time, tags, run_name):
        run_id = f"r{len(self.runs) + 1}"
        self.runs[run_id] = SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, status="RUNNING", name=run_name),
            data=SimpleNamespace(tags=dict(tags), params={}, points=[]),
            files=[],
        )
        return self.runs[run_id]

    def update_run(self, run_id, status=None, name=None):
        info = self.runs[run_id].info
        info.status, info.name = status or info.status, name or info.name

    def set_tag(self, run_id, key, value):
        self.runs[run_id].data.tags[key] = value

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        data = self.runs[run_id].data
        data.points += [(metric.key, metric.step, metric.value) for metric in metrics]
        data.params.update((param.key, param.value) for param in params)
        data.tags.update((tag.key, tag.value) for tag in tags)

    def set_terminated(self, run_id, status, end_time):
        self.runs[run_id].info.status = status

    def log_artifact(self, run_id, path, artifact_path):
        self.runs[run_id].files.append(path)


def run_of(memory, name):
    """The one run of a trial."""
    (found,) = [run for run in memory.runs.values() if run.data.tags["trial"] == name]
    return found


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(mlflow_writer, "FINAL_SECONDS", 10.0)


def make(memory):
    return MlflowWriter(
        TrackingTarget("memory", "sample", RunOwner("id1", "s1"), tags={"scenario": "sample"}), lambda: memory
    )


def one_trial(queue, name="t01", steps=5):
    queue.write("create", name, name=f"{name} lr=1e-3", start=1)
    queue.write("params", name, params={"lr": 1e-3, "modalities": ["id", "text"]})
    for step in range(1, steps + 1):
        queue.write("metrics", name, values={"objective": step / 10}, step=step, time=step)
    queue.write("end", name, tags={"outcome": "completed"}, status="FINISHED", time=9)


def whole(memory, name, steps=5):
    run = run_of(memory, name)
    assert list(dict.fromkeys(run.data.points)) == [("objective", step, step / 10) for step in range(1, steps + 1)]
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.001", "modalities": "id+text"}
    return run


def drained(queue, seconds=5.0):
    end = time.monotonic() + seconds
    while queue.waiting and time.monotonic() < end:
        time.sleep(0.002)
    assert not queue.waiting


def parent(queue):
    queue.write("create", PARENT, name="s1", start=1)


def test_all_arrives_in_order():
    memory = Memory()
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    drained(queue)
    assert queue.close() == "" and queue.failures == 0
    tags = whole(memory, "t01").data.tags
    assert tags["mlflow.parentRunId"] == run_of(memory, PARENT).info.run_id
    assert (tags["sweep"], tags["scenario"], tags["outcome"]) == ("s1", "sample", "completed")
    assert tags[INCOMPLETE] == "false"
    assert memory.tags_of_experiment == mlflow_runs.EXPERIMENT_TAGS


def test_closing_delivers_all_that_waits():
    memory = Memory()
    queue = make(memory)
    parent(queue)
    for number in range(20):
        one_trial(queue, f"t{number:02d}")
    assert queue.close() == ""
    for number in range(20):
        whole(memory, f"t{number:02d}")


def test_closing_without_a_write_is_quiet():
    assert make(Memory()).close() == ""


@pytest.mark.parametrize("seed", range(5))
def test_failing_calls_are_tried_again_in_order(quick, seed):
    memory, rng = Memory(), random.Random(seed)

    def trouble(name):
        if rng.random() < 0.3:
            raise ConnectionError("no server answers")

    # A call fails before the server has done anything, or after it has.
    memory.trouble = memory.after = trouble
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    one_trial(queue, "t02")
    drained(queue)
    assert queue.close().endswith("failed, all delivered later") and not queue.lost
    assert len(memory.runs) == 3
    whole(memory, "t01")
    whole(memory, "t02")


@pytest.mark.parametrize("lost", ["t01", PARENT])
def test_a_run_whose_creation_was_not_confirmed_is_found_again(quick, lost):
    """The server makes the run, and its answer does not arrive."""
    memory, cut = Memory(), []

    def after(name):
        if name == "create_run" and len(cut) < 2 and list(memory.runs.values())[-1].data.tags["trial"] == lost:
            cut.append(name)
            raise ConnectionError("the answer was lost")

    memory.after = after
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    assert queue.close() == "tracking: 1 write failed, all delivered later"
    assert len(memory.runs) == 2 and cut == ["create_run"]
    whole(memory, "t01")


def test_a_write_is_told_of_once_however_often_it_is_tried(quick):
    memory, failures = Memory(), iter(range(7))

    def trouble(name):
        if name == "create_run" and next(failures, None) is not None:
            raise ConnectionError("x")

    memory.trouble = trouble
    queue = make(memory)
    parent(queue)
    drained(queue)
    assert queue.close() == "tracking: 1 write failed, all delivered later"


def refuse(memory, kind, run_id=None):
    """The server refuses some writes for good."""
    real = memory.log_batch

    def log_batch(run, metrics=(), params=(), tags=()):
        given = {"metrics": metrics, "params": params, "tags": tags}[kind]
        if given and run_id in (None, run):
            raise MlflowException("changing a parameter is not allowed", error_code=1000)
        return real(run, metrics=metrics, params=params, tags=tags)

    assert MlflowException("x", error_code=1000).error_code == "INVALID_PARAMETER_VALUE"
    object.__setattr__(memory, "log_batch", log_batch)


def test_a_refused_write_is_lost_alone_and_at_once():
    memory = Memory()
    refuse(memory, "params")
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    drained(queue)
    assert queue.trouble == "", "the server does answer"
    message = queue.close()
    assert message.startswith("tracking: 1 write failed, 1 not delivered (params: changing a parameter is not allowed)")
    assert message.endswith("--resume writes them again")
    run = run_of(memory, "t01")
    assert len(run.data.points) == 5 and run.info.status == "FINISHED" and run.data.tags[INCOMPLETE] == "false"


def test_a_run_that_lacks_points_says_so():
    memory = Memory()
    refuse(memory, "metrics", "r2")
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    one_trial(queue, "t02")
    assert "5 not delivered" in queue.close()
    assert run_of(memory, "t01").data.tags[INCOMPLETE] == "true" and run_of(memory, "t01").info.status == "FINISHED"
    assert whole(memory, "t02").data.tags[INCOMPLETE] == "false"


def test_a_run_is_marked_before_it_ends():
    """A driver that dies between the two must not leave an ended run that seems complete."""
    memory = Memory()
    refuse(memory, "metrics", "r2")
    marks = []
    memory.trouble = lambda name: marks.append(memory.runs["r2"].data.tags.get(INCOMPLETE)) if name == "set_terminated" else None  # fmt: skip
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    queue.close()
    assert marks == ["true"]


@pytest.mark.parametrize("refused", ["t01", PARENT])
def test_a_run_that_the_server_refuses_does_not_hold_up_the_others(refused):
    memory = Memory()
    real = memory.create_run

    def create_run(experiment, start_time, tags, run_name):
        if tags["trial"] == refused:
            raise MlflowException("the name is too long", error_code=1000)
        return real(experiment, start_time, tags, run_name)

    object.__setattr__(memory, "create_run", create_run)
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    one_trial(queue, "t02")
    drained(queue, 1.0)
    assert queue.close().startswith(f"tracking: {8 if refused == 't01' else 17} writes failed")
    if refused == "t01":
        whole(memory, "t02")


def test_between_two_tries_the_sweep_goes_on(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "RETRY_SECONDS", 1000.0)
    memory, tried = Memory(), threading.Event()

    def trouble(name):
        tried.set()
        raise ConnectionError("no server answers")

    memory.trouble = trouble
    queue = make(memory)
    parent(queue)
    assert tried.wait(5)
    one_trial(queue)
    while not queue.trouble:
        time.sleep(0.001)
    assert queue.trouble == "tracking does not answer (no server answers); 9 writes wait"
    assert memory.calls == ["get_experiment_by_name"], "it is not asked again and again"
    memory.trouble = lambda name: None
    assert queue.close() == "tracking: 1 write failed, all delivered later"
    whole(memory, "t01")


def test_trouble_is_over_when_the_server_is_back(quick):
    memory = Memory()
    memory.trouble = lambda name: (_ for _ in ()).throw(ConnectionError("away"))
    queue = make(memory)
    parent(queue)
    while not queue.trouble:
        time.sleep(0.001)
    memory.trouble = lambda name: None
    drained(queue)
    one_trial(queue)
    drained(queue)
    assert queue.trouble == ""
    queue.close()


def test_a_hanging_server_never_blocks_a_write_and_is_given_up(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(mlflow_writer, "FINAL_SECONDS", 0.3)
    memory, asked, released = Memory(), threading.Event(), threading.Event()

    def trouble(name):
        asked.set()
        released.wait(60)
        time.sleep(0.05)
        raise TimeoutError("the server did not answer")

    memory.trouble = trouble
    queue = make(memory)
    parent(queue)
    assert asked.wait(5)
    for number in range(200):
        queue.write("metrics", "t01", values={"objective": 0.1}, step=number, time=number)
    assert memory.calls == ["get_experiment_by_name"] and len(queue.waiting) == 201, "no write waited for the server"
    released.set()
    began = time.monotonic()
    message = queue.close()
    assert time.monotonic() - began < 5, "201 writes, three tries each, would take 30 s"
    assert message.startswith("tracking: 201 writes failed, 201 not delivered (create, metrics: "), message
    assert not queue.waiting


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("back_after", [mlflow_writer.FINAL_SECONDS - 5, 1e9])
def test_at_the_end_an_absent_server_is_waited_for_with_growing_pauses(monkeypatch, back_after):
    clock, memory = Clock(), Memory()
    monkeypatch.setattr(mlflow_writer, "time", clock)
    queue = make(memory)
    monkeypatch.setattr(queue, "_work", lambda: None)
    memory.trouble = lambda name: None if clock.now > back_after else (_ for _ in ()).throw(ConnectionError("away"))
    parent(queue)
    one_trial(queue)
    message = queue.close()
    assert len(clock.pauses) > mlflow_writer.FINAL_ATTEMPTS and clock.pauses == sorted(set(clock.pauses))
    if back_after < mlflow_writer.FINAL_SECONDS:
        assert message == "tracking: 1 write failed, all delivered later"
        whole(memory, "t01")
    else:
        assert mlflow_writer.FINAL_SECONDS < clock.now < 1.2 * mlflow_writer.FINAL_SECONDS
        assert "9 not delivered (create, params, metrics, end: away)" in message and "--resume" in message


def test_at_the_end_a_write_that_fails_alone_does_not_hold_up_the_others(monkeypatch):
    clock, memory = Clock(), Memory()
    monkeypatch.setattr(mlflow_writer, "time", clock)
    queue = make(memory)
    monkeypatch.setattr(queue, "_work", lambda: None)

    def log_artifact(run_id, path, artifact_path):
        raise OSError("the store is full")

    object.__setattr__(memory, "log_artifact", log_artifact)
    parent(queue)
    queue.write("artifact", PARENT, path=__file__, folder=None)
    one_trial(queue)
    assert "1 not delivered (artifact: the store is full)" in queue.close()
    assert clock.now < mlflow_writer.FINAL_SECONDS / 4
    whole(memory, "t01")


def test_as_long_as_something_arrives_the_end_waits(monkeypatch):
    """A slow server is not an absent one: the time limit starts anew with each write that succeeds."""
    monkeypatch.setattr(mlflow_writer, "FINAL_SECONDS", 0.05)
    memory = Memory()
    memory.trouble = lambda name: time.sleep(0.02)
    queue = make(memory)
    parent(queue)
    one_trial(queue)
    assert queue.close() == ""
    whole(memory, "t01")


def test_long_tags_are_cut(tmp_path):
    memory = Memory()
    queue = make(memory)
    parent(queue)
    queue.write("tags", PARENT, tags={"mlflow.note.content": "x" * 9000})
    queue.close()
    assert len(run_of(memory, PARENT).data.tags["mlflow.note.content"]) == 5000


def test_files_that_are_gone_are_left_out(tmp_path):
    memory = Memory()
    queue = make(memory)
    (tmp_path / "there").write_text("x")
    parent(queue)
    for name in ("gone", "there"):
        queue.write("artifact", PARENT, path=str(tmp_path / name), folder=None)
    assert queue.close() == "" and run_of(memory, PARENT).files == [str(tmp_path / "there")]
