"""Sweeps whose storage, MLflow or data lie elsewhere than before, and sweeps of a group that are continued by their name."""

import io
import shutil
from pathlib import Path
from urllib.request import url2pathname

import pytest
from mlflow.tracking._tracking_service import utils
from rich.console import Console
from sweep_fakes import FakeTrainer, fake_evaluate, grow, tiny_data

from llmemf.errors import InputError
from sweeps.core import disk
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_continue, plan_extend, plan_resume
from sweeps.core.run import run_sweep
from sweeps.core.sweep import TrialBackend
from sweeps.state import checkpoints
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import FOLDER, PARENT, RunOwner
from sweeps.tracking.runs import WEIGHTS_HASH


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """All trials of these sweeps have ended."""
    monkeypatch.setattr("sweeps.core.run.start_ray", lambda *args: pytest.fail("Ray was started"))


def store(name="s1", storage="m1", tracking_uri=None):
    """Two trials that have ended, with weights; nothing is in MLflow yet."""
    options = Options(
        scenario="sample", model="bprmf", name=name, grid_points=2, epochs=2, trials=2, storage=Path(storage), tracking_uri=tracking_uri,
        assignments=["lr=1e-3,3e-3"],
    )  # fmt: skip
    plan = plan_sweep(options)
    record = plan.record
    record.folder.mkdir(parents=True)
    record.save()
    state = SweepState(record.folder)
    for point in plan.points:
        trial = state.propose(point, plan.varied_keys, 2, {})
        trainer = FakeTrainer({**plan.fixed, **point})
        trainer.epoch = 2
        checkpoints.save(trainer, checkpoints.trial_folder(record.folder, trial.number), {"epoch": 2})
        grow(state, trial, 2)
    return record


def run(plan, evaluate=fake_evaluate):
    out = io.StringIO()
    backend = TrialBackend(data=tiny_data(), evaluate=evaluate)
    assert run_sweep(plan, Console(file=out, width=400, highlight=False), backend=backend).exit_code == 0
    return out.getvalue()


def resume(storage, **options):
    return plan_resume(Options(name="s1", storage=Path(storage), **options))


@pytest.fixture(scope="module")
def snapshot(empty_database, tmp_path_factory):
    """A storage folder `m 1` with a completed sweep and a database of its own, to be copied to where it was made."""
    home = tmp_path_factory.mktemp("takeover")
    storage = home / "home" / "m 1"
    storage.mkdir(parents=True)
    shutil.copy(empty_database, storage / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(storage.parent)
        patch.setattr("sweeps.core.run.start_ray", lambda *args: pytest.fail("Ray was started"))
        store(storage=storage)
        run(resume(storage))
    return Path(shutil.move(home / "home", home / "snapshot"))


@pytest.fixture
def project_folder(snapshot, project_folder, monkeypatch):
    """The same path for all tests of this file: MLflow then checks the database's tables once."""
    home = snapshot.with_name("home")
    home.mkdir()
    monkeypatch.chdir(home)
    yield home
    monkeypatch.chdir(snapshot)
    shutil.rmtree(home)


@pytest.fixture
def m1(snapshot, project_folder):
    return shutil.copytree(snapshot / "m 1", project_folder / "m 1")


def runs(record):
    """Trial -> its run."""
    client = mlflow_client(record.tracking_uri)
    experiment = client.get_experiment_by_name("sample").experiment_id
    return {run.data.tags["trial"]: run for run in RunOwner.of(record).find(client, experiment)}


WEIGHTS = 3
"""Files of weights in MLflow: those of both trials, and the best trial's as a logged model."""


def artifacts(record):
    """Path below the storage folder -> when it was written, of all weights in MLflow."""
    storage = Path(record.storage)
    return {path.relative_to(storage): path.stat().st_mtime_ns for path in storage.rglob("artifacts/**/*.safetensors")}


def loaded(storage):
    return SweepRecord.load(Path(storage) / "sweeps" / "s1")


@pytest.mark.slow
def test_a_completed_sweep_that_is_resumed_sends_its_weights_once(m1):
    before = artifacts(loaded(m1))
    run(resume(m1))
    assert len(before) == WEIGHTS and artifacts(loaded(m1)) == before
    tags = [found.data.tags for name, found in runs(loaded(m1)).items() if name != PARENT]
    assert len({tag[WEIGHTS_HASH] for tag in tags}) == 1, "the fake weights say their epoch only"


def test_a_storage_that_was_moved_is_taken_over_by_its_name(m1, project_folder):
    before = {name: found.info.run_id for name, found in runs(loaded(m1)).items()}
    m2 = m1.rename(project_folder / "m2")
    utils._artifact_repos_cache.clear()  # Another process would not know where artifacts were.
    with pytest.raises(InputError, match="--name s1"):
        plan_resume(Options(storage=m2))
    said = run(resume("m2"))
    assert f"moved from {m1}/sweeps/s1" in said and f"sqlite:///{m2}/mlflow.db" in said
    assert not m1.exists(), "nothing is made at the old place"
    record = loaded(m2)
    assert record.storage == record.home.removesuffix("/sweeps/s1") == str(m2)
    assert record.moved_from == [f"{m1}/sweeps/s1"]
    found = runs(record)
    assert {name: one.info.run_id for name, one in found.items()} == before
    assert found[PARENT].data.tags[FOLDER] == str(m2 / "sweeps" / "s1")
    events = [event for event in SweepState(record.folder).event_log.read() if "taken_over" in event]
    assert [event["taken_over"] for event in events] == [{"folder": f"{m1}/sweeps/s1"}]
    assert plan_resume(Options(storage=m2)).notices == []


def test_a_copy_becomes_a_sweep_of_its_own(m1, project_folder):
    before = {name: found.info.run_id for name, found in runs(loaded(m1)).items()}
    shutil.copytree(m1, project_folder / "backup")
    assert f"a copy of {m1}/sweeps/s1" in run(resume("backup"))
    copy, original = loaded(project_folder / "backup"), loaded(m1)
    assert copy.identity != original.identity and copy.tracking_uri != original.tracking_uri
    assert not {found.info.run_id for found in runs(copy).values()} & set(before.values())
    assert {name: found.info.run_id for name, found in runs(original).items()} == before
    assert all(found.info.artifact_uri.startswith(f"file://{project_folder}/backup/") for found in runs(copy).values())
    (holding,) = disk.holdings(project_folder / "backup")
    assert disk.delete(holding) == 3
    assert {name: found.info.run_id for name, found in runs(original).items()} == before
    assert len(artifacts(original)) == WEIGHTS


@pytest.mark.slow
def test_another_mlflow_and_other_data_are_taken_over_and_filled(m1, project_folder, empty_database):
    new = project_folder / "new.db"
    shutil.copy(empty_database, new)
    plan = resume(m1, tracking_uri="sqlite:///new.db", data_root=Path("data2"))
    assert loaded(m1).data_root == str(project_folder / "data"), "planning stores nothing"
    run(plan)
    record = loaded(m1)
    assert (record.tracking_uri, record.data_root) == (f"sqlite:///{new}", str(project_folder / "data2"))
    client = mlflow_client(record.tracking_uri)
    for name in ("t01", "t02"):
        steps = [metric.step for metric in client.get_metric_history(runs(record)[name].info.run_id, "objective")]
        assert steps == [1, 2]


def test_extend_and_continue_take_over_too(m1, project_folder):
    m2 = m1.rename(project_folder / "m2")
    given = {"name": "s1", "storage": m2, "tracking_uri": "sqlite:///new.db", "keep": 2, "concurrency": 3}
    for plan in (plan_extend(Options(**given), 1), plan_continue(Options(**given, scenario="sample", trials=2))):
        record = plan.record
        assert (record.home, record.storage) == (f"{m1}/sweeps/s1", str(m2))
        assert record.tracking_uri == f"sqlite:///{project_folder}/new.db"
        assert (record.keep, record.concurrency) == (2, 3)
        assert len(plan.notices) == 1


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"trials": 9}, "--trials"),
        ({"seed": 4}, "--seed"),
        ({"epochs": 7}, "--epochs"),
        ({"assignments": ["lr=1e-3"]}, "--set"),
        ({"scenario": "movie_book"}, "--scenario"),
    ],
)
def test_continue_says_which_options_have_no_effect(project_folder, given, flag):
    m1 = Path(store().storage)
    same = {"scenario": "sample", "trials": 2, "epochs": 2, "assignments": ["lr=1e-3,3e-3"]}
    options = {"name": "s1", "storage": m1}
    assert plan_continue(Options(**options, **same)).notices == []
    (notice,) = plan_continue(Options(**options, **same | given)).notices
    assert flag in notice


def test_clean_deletes_what_is_of_its_sweep_alone(project_folder, empty_database):
    """Two storage folders, one database, one name."""
    shutil.copy(empty_database, project_folder / "shared.db")
    places = ("b c", "m1")
    for place in places:
        store(storage=place, tracking_uri="sqlite:///shared.db")
        run(resume(place))
    records = [loaded(project_folder / place) for place in places]
    folders = [
        [Path(url2pathname(found.info.artifact_uri.removeprefix("file://"))) for found in runs(record).values()]
        for record in records
    ]
    (holding,) = disk.holdings(project_folder / "b c")
    assert disk.delete(holding) == 3
    assert [len(runs(record)) for record in records] == [0, 3]
    assert [[folder.exists() for folder in found] for found in folders] == [[False] * 3, [True] * 3]
    assert [record.folder.exists() for record in records] == [False, True]


def test_clean_deletes_of_a_copy_its_folder_alone(m1, project_folder):
    backup = shutil.copytree(m1, project_folder / "backup")
    (holding,) = disk.holdings(backup)
    assert holding.elsewhere == f"{m1}/sweeps/s1" and disk.delete(holding) == 0
    assert not holding.record.folder.exists()
    assert len(runs(loaded(m1))) == 3 and len(artifacts(loaded(m1))) == WEIGHTS


def test_clean_follows_no_link_out_of_its_storage(m1, project_folder):
    (project_folder / "m2" / "sweeps").mkdir(parents=True)
    (project_folder / "m2" / "sweeps" / "s1").symlink_to(m1 / "sweeps" / "s1")
    assert disk.holdings(project_folder / "m2") == []


def test_clean_deletes_a_sweep_that_was_linked_to_another_disk(m1, project_folder):
    folder = m1 / "sweeps" / "s1"
    folder.rename(project_folder / "large disk")
    folder.symlink_to(project_folder / "large disk")
    (holding,) = disk.holdings(m1)
    assert disk.delete(holding) == 3
    assert not folder.is_symlink() and not (project_folder / "large disk").exists()


def test_a_damaged_sweep_is_left_alone_by_clean(m1, caplog):
    (m1 / "sweeps" / "s2").mkdir()
    (m1 / "sweeps" / "s2" / "sweep.yaml").write_text("{")
    shutil.copytree(m1 / "sweeps" / "s1", m1 / "sweeps" / "s3")
    (m1 / "sweeps" / "s3" / "journal.jsonl").write_text("{}\n{}\n")
    assert [holding.name for holding in disk.holdings(m1)] == ["s1"]
    assert "s2/sweep.yaml" in caplog.text and "s3/journal.jsonl, line 1" in caplog.text


def test_a_sweep_of_a_group_is_not_tested_when_it_is_continued_by_its_name(project_folder, empty_database):
    (project_folder / "m1" / "comparisons" / "c1").mkdir(parents=True)
    shutil.copy(empty_database, project_folder / "m1" / "mlflow.db")
    record = store(name="c1--sasrec--seeds")
    plan = plan_resume(Options(name=record.name, storage=Path("m1")))
    assert "comparison c1" in "".join(plan.notices)
    run(plan, evaluate=lambda *args, **kwargs: pytest.fail("a look at the test split"))
    assert SweepState(record.folder).tests == [] and SweepRecord.load(record.folder).status == "completed"
