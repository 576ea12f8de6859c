import datetime
import errno
import io
import os
import socket
import sqlite3
from unittest.mock import MagicMock

import pytest
from rich.console import Console
from sweep_fakes import tiny_data

from llmemf.errors import InputError, StorageError
from sweeps.core import storage
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.run import run_sweep
from sweeps.core.storage import check_database, check_reachable, held, locked, stopped_by_storage
from sweeps.core.sweep import TrialBackend
from sweeps.groups.new_group import GroupOptions
from sweeps.groups.plan import NEW
from sweeps.groups.run import run_group


def test_servers_that_are_down_are_told_before_anything_starts(project_folder):
    def record(**values):
        return plan_sweep(Options(scenario="sample", **values)).record

    with pytest.raises(InputError, match=r"no tracking server answers at http://127.0.0.1:9 .*--tracking-uri"):
        check_reachable(record(tracking_uri="http://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127.0.0.1:9 .*--ray-address"):
        check_reachable(record(ray_address="127.0.0.1:9"))
    with pytest.raises(InputError, match="ray job submit"):
        check_reachable(record(ray_address="ray://127.0.0.1:9"))
    check_reachable(record(ray_address="auto"))


def test_a_database_that_cannot_be_written_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.05)
    path = tmp_path / "mlflow.db"
    check_database(path)
    assert not path.exists(), "MLflow makes it"
    path.write_text("these are my notes, and not a database of any kind\n" * 9)
    with pytest.raises(InputError, match=r"mlflow.db is no database"):
        check_database(path)
    path.write_text("")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("create table t (x)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"mlflow.db is held by another process"):
            check_database(path)
        other.execute("ROLLBACK")
    other.close()
    before = path.read_bytes()
    check_database(path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_a_second_driver_is_told_who_the_first_is(tmp_path):
    with (
        locked(tmp_path, "s1"),
        pytest.raises(InputError, match=f"'s1' is running in process {os.getpid()} on {socket.gethostname()}"),
        locked(tmp_path, "s1"),
    ):
        pass
    assert (tmp_path / ".lock").read_text() == ""
    with locked(tmp_path, "s1"):
        pass


@pytest.mark.parametrize("is_new", [True, False])
def test_a_refused_start_leaves_no_folder_of_its_own(tmp_path, is_new):
    folder = tmp_path / "mlruns" / "sweeps" / "s1"
    if not is_new:
        folder.mkdir(parents=True)

    def refused(name):
        with held(folder, "s1", folder / "sweep.yaml"):
            (folder / name).write_text("said before it was refused")
            raise InputError(name)

    with pytest.raises(InputError, match=r"ray\.log"):
        refused("ray.log")
    assert [*tmp_path.iterdir()] == ([] if is_new else [tmp_path / "mlruns"])
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        refused("sweep.yaml")
    assert (folder / "sweep.yaml").exists(), "it has begun"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "mlruns").write_text("a file, not a folder")
    folder = tmp_path / "mlruns" / "s1"
    with pytest.raises(InputError, match="s1 cannot be written.*--storage"), held(folder, "s1", folder / "sweep.yaml"):
        pass
    assert (tmp_path / "mlruns").read_text() == "a file, not a folder"


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "work"),
        (errno.EACCES, ""),
    ],
)
def test_a_storage_that_fails_is_one_sentence_with_the_way_on(project_folder, monkeypatch, number, meaning):
    def fails(*args, **kwargs):
        raise StorageError.of(project_folder / "x", OSError(number, os.strerror(number)))

    monkeypatch.setattr("sweeps.core.run.start_ray", fails)
    plan = plan_sweep(Options(scenario="sample", name="s1"))
    with pytest.raises(StorageError, match=f"{meaning}.* --resume --name s1") as refused:
        run_sweep(plan, Console(file=io.StringIO()), backend=TrialBackend(data=tiny_data(), client=pytest.fail))
    assert refused.value.errno == number and os.strerror(number) in str(refused.value)
    assert "--resume" in str(stopped_by_storage(OSError(number, "x"), "do --resume"))


def test_who_stops_before_anything_was_saved_is_not_sent_to_a_resume(project_folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    out = io.StringIO()
    monkeypatch.setattr("sweeps.core.run.load_data", stop)
    plan = plan_sweep(Options(scenario="sample", name="s1"))
    assert run_sweep(plan, Console(file=out), backend=TrialBackend(client=MagicMock)).exit_code == 130
    monkeypatch.setattr("sweeps.groups.run.load_scenario", stop)
    group = NEW["comparison"](
        GroupOptions(scenario="sample", models=["popularity"], name="c1"), datetime.datetime.now()
    )
    assert run_group(group, Console(file=out)) == 130
    assert out.getvalue().count("before anything was saved") == 2 and "--resume" not in out.getvalue()
