"""Whose runs are whose, where names are the same."""

import dataclasses

import pytest

from llmemf.errors import InputError
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import TrackingTarget, mlflow_client
from sweeps.tracking.owned_runs import FOLDER, IDENTITY, PARENT, RunOwner
from sweeps.tracking.runs import Tracking


@pytest.fixture
def uri(empty_database, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_database.read_bytes())
    return f"sqlite:///{path}"


class Person:
    """A storage folder with a sweep of the name that everybody takes."""

    def __init__(self, uri, folder, **owner):
        folder.mkdir(parents=True)
        self.uri, self.folder = uri, folder
        self.owner = RunOwner(folder.name, "s1", folder=str(folder), **owner)

    def open(self):
        self.state = SweepState(self.folder)
        self.tracking = Tracking(TrackingTarget(self.uri, "sample", self.owner, (self.folder / "artifacts").as_uri()))
        self.tracking.connect()
        self.tracking.open(self.state)

    def run(self, *values):
        """Report further epochs of its only trial."""
        self.open()
        records = self.state.records
        record = records[1] if records else self.state.propose({"lr": 0.1}, ("lr",), 9, {})
        self.state.start(record)
        self.tracking.start_trial(record)
        for value in values:
            epoch = record.epoch + 1
            event = self.state.add(record, {"epoch": epoch, "objective": value, "best_epoch": epoch}, stopped=False)
            self.tracking.log_epoch(record, event["result"], event["time"])
        assert self.tracking.close("interrupted") == ""

    def runs(self):
        client = mlflow_client(self.uri)
        experiment = client.get_experiment_by_name("sample").experiment_id
        return {run.data.tags["trial"]: run for run in self.owner.find(client, experiment)}

    def points(self):
        history = mlflow_client(self.uri).get_metric_history(self.runs()["t01"].info.run_id, "objective")
        return [(metric.step, metric.value) for metric in history]


def forget_identity(person):
    """Make its runs those of a version that knew a sweep by its name."""
    for run in person.runs().values():
        for tag in (IDENTITY, FOLDER):
            if tag in run.data.tags:
                mlflow_client(person.uri).delete_tag(run.info.run_id, tag)


def test_two_people_and_one_name_never_mix(uri, tmp_path):
    alice, bob = Person(uri, tmp_path / "alice"), Person(uri, tmp_path / "bob")
    alice.run(0.1, 0.2)
    bob.run(0.5, 0.6)
    bob.run(0.7)
    assert alice.points() == [(1, 0.1), (2, 0.2)] and bob.points() == [(1, 0.5), (2, 0.6), (3, 0.7)]
    assert set(bob.runs()) == set(alice.runs()) == {PARENT, "t01"}
    assert not {run.info.run_id for run in bob.runs().values()} & {run.info.run_id for run in alice.runs().values()}
    assert all(run.data.tags[IDENTITY] == "bob" and run.data.tags["sweep"] == "s1" for run in bob.runs().values())


def test_runs_without_identity_are_known_by_the_events_of_their_log(uri, tmp_path):
    alice, bob = Person(uri, tmp_path / "alice", former=True), Person(uri, tmp_path / "bob", former=True)
    alice.run(0.1)
    bob.run(0.5)
    before = {name: run.info.run_id for name, run in bob.runs().items()}
    forget_identity(alice)
    forget_identity(bob)
    bob.run(0.6)
    assert {name: run.info.run_id for name, run in bob.runs().items()} == before
    assert bob.points() == [(1, 0.5), (2, 0.6)] and alice.points() == [(1, 0.1)]
    assert {run.data.tags.get(IDENTITY) for run in bob.runs().values()} == {"bob"}
    assert {run.data.tags.get(IDENTITY) for run in alice.runs().values()} == {None}


def test_a_sweep_that_always_had_an_identity_takes_no_run_by_its_name(uri, tmp_path):
    alice = Person(uri, tmp_path / "alice")
    alice.run(0.1)
    forget_identity(alice)
    assert alice.runs() == {}


def test_a_folder_whose_runs_another_one_took_over_may_not_write_into_them(uri, tmp_path):
    old = Person(uri, tmp_path / "old")
    old.run(0.1)
    new = Person(uri, tmp_path / "new")
    new.owner = dataclasses.replace(old.owner, folder=str(new.folder), moved_from=(str(old.folder),))
    (new.folder / "journal.jsonl").write_bytes((old.folder / "journal.jsonl").read_bytes())
    new.run(0.2)
    new.run(0.3)
    assert new.runs()[PARENT].data.tags[FOLDER] == str(new.folder)
    with pytest.raises(InputError, match=f"those of {new.folder}"):
        old.open()
    assert new.points() == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_group_finds_its_run_and_not_a_sweep_of_the_same_name(uri, tmp_path):
    sweep = Person(uri, tmp_path / "a")
    sweep.run(0.1)
    group = RunOwner("g", "s1", "comparison", str(tmp_path / "g"), former=True)
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name("sample").experiment_id
    assert group.find(client, experiment) == []
    old = client.create_run(experiment, tags={"sweep": "comparison s1", "trial": PARENT})
    assert [run.info.run_id for run in group.find(client, experiment)] == [old.info.run_id]
    client.create_run(experiment, tags={"sweep": "comparison s1", "trial": PARENT})
    assert group.find(client, experiment) == [], "which of two is not known"
